"""The gate over what a model's pickles import: an allow list, and nothing is ever unpickled.

``check`` judges; ``machine`` reads one pickle's opcodes, ``archives`` finds the pickles of a file
in whatever they are nested in, ``allowed`` is the list.
``bytes_in`` and ``inventory`` are what they work with. From here import the floors below.
"""

__all__ = ["allowed", "archives", "bytes_in", "check", "inventory", "machine"]
