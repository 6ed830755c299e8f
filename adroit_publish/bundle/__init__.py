"""Bytes and values of a bundle: digests, layers, the manifest, ``bundle.json``.

Nothing here opens a file, a socket, a clock or the environment; the same values in give the same
bytes out, anywhere. May import ``errors`` only.
"""

__all__ = ["content", "digest", "document", "layer", "manifest"]
