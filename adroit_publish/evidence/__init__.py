"""What a rollover asks of the world, and the one value in it that it changes.

``sitevars`` (with its edges ``sitevar_file`` and ``sitevar_ssm``) reads and sets the pointer of a
model; ``endpoints`` and ``traffic`` (with its edges ``prometheus`` and ``server_metrics``) tell
what is deployed and what is asked of it. Edges with no policy: what a reading means is
``rollover``'s to say. May import ``bundle``, ``config`` and ``errors``, never another room of its
floor: what it needs of a store is handed in.
"""

__all__: list[str] = []
