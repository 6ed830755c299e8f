"""The edge of this machine and of the network: how long to try, which addresses are safe, who asks,
how a file is replaced as a whole, and what of others' text may be shown.

Floor 1: imports ``errors`` only.
"""

__all__: list[str] = []
