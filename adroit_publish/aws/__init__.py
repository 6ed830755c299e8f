"""Sessions with AWS, and its errors in the user's words.

Floor 3: imports the floors below."""

__all__: list[str] = []
