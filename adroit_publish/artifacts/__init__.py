"""A model's files brought within reach, from wherever a tracking server keeps them.

Listings, addresses and file names were written by others and are checked before they are used.
Floor 3: imports the floors below."""

__all__: list[str] = []
