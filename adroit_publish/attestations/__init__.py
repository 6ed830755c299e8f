"""Attestations: signed statements of what a version was made from, and how it was verified.

Floor 3: imports ``aws`` and the floors below. Nothing here knows a place; who reads the envelopes
brings them."""

__all__: list[str] = []
