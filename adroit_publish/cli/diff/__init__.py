"""How a diff of two versions is shown: as tables on a terminal, and as one page of HTML."""

__all__: list[str] = []
