"""What a rollover asks of the world, and the one value in it that it changes.

``sitevars`` (with its edges ``sitevar_file`` and ``sitevar_ssm``) reads and sets the pointer of a
model; ``endpoints`` tells what is deployed, ``traffic`` what is asked of it: ``sources`` chooses
where it is counted by a scheme. Edges with no policy: what a reading means is ``rollover``'s to
say. May import the floors below, never another room of its own: what it needs of a store is handed
in.
"""

__all__: list[str] = []
