"""How a person gets to the commands: the flows as sub-commands, completion, GitHub's summary.

Imports what the fronts import."""

__all__: list[str] = []
