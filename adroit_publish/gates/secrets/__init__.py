"""The gate that no secret is packed: a version is for ever, and every reader of the store reads it.

``check`` looks at a bundle's files; ``kinds`` says which texts are secrets. From here import the
floors below.
"""

__all__ = ["check", "kinds"]
