"""What a bundle imports, and what was found about it that stops nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class BundleFinding:
    """Something that should be known of a bundle and does not stop its publish.

    ``name`` is what config.yaml calls it to accept it, such as ``shadow:calendar``; ``what`` a
    sentence.
    """

    name: str
    what: str


@dataclass(frozen=True)
class Imports:
    """Every file that the handler and the model of a bundle import, by where it is found.

    Only what these lists hold can change an answer; a module that is imported under a computed
    name is not among them.

    Attributes:
        source: The checkout's files, relative to the repository's root.
        model: Files that were logged with the model, below the model's directory; those of them
            that the checkout has as well are in ``source`` instead.
        env: Top-level modules of the conda env and its Python.
        homes: The checkout's directory of each top-level module that the model imports by another
            name than its path: ``{"data_prep": "projects/my_model"}``.
        unreadable: Imported files, below the bundle's root, that are not Python as far as this
            program can tell, and pickles too large or damaged; what they import is not known.
        pickled: What each of the model's pickles imports when it is loaded, ``module.name``, by its
            path below the model's directory.
    """

    source: tuple[str, ...]
    model: tuple[str, ...]
    env: tuple[str, ...]
    homes: Mapping[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    pickled: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def depend_on(self, path: str) -> bool:
        """Whether a file of the checkout is imported, or would be in the place of a logged one."""
        logged = [name for file in self.model if (name := file.partition("/")[2])]
        return path in self.source or any(f"/{path}".endswith(f"/{name}") for name in logged)
