"""What is wanted against what is published: what differs, and so what has to be done.

Pure rules over two ``bundle.json``-shaped values; nothing is opened here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.document import file_digest


@dataclass(frozen=True)
class Changes:
    """How one set of files, with its serve section, differs from another.

    Attributes:
        added: Paths only the wanted one has.
        changed: Paths whose bytes or executable bit differ.
        removed: Paths only the published one has.
        serve: Whether the serve section of config.yaml differs.
        env: The published conda env's name, where the flavor names another; None where it does not.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    serve: bool
    env: str | None

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.serve or self.env)

    def lines(self) -> list[str]:
        """Returns one line for each difference."""
        marks = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        lines = [f"{mark} {path}" for mark, paths in marks for path in paths]
        if self.serve:
            lines.append("changed the serve section of config.yaml")
        return [*lines, f"changed the conda env, which was {self.env}"] if self.env else lines


def source_changes(
    wanted: Mapping[str, tuple[str, bool]],
    serve: Mapping[str, Any],
    conda_env: str,
    published: Mapping[str, Any],
) -> Changes:
    """Returns how the project's source differs from what a version holds.

    Args:
        wanted: sha256 digest and executable bit of every source file, by path.
        serve: The parsed serve section.
        conda_env: The name of the flavor's env.
        published: The version's parsed ``bundle.json``.
    """
    there = {
        entry["path"]: (str(file_digest(entry)), bool(entry.get("executable")))
        for entry in published["files"]["source"]
    }
    both = wanted.keys() & there.keys()
    return Changes(
        added=tuple(sorted(wanted.keys() - there.keys())),
        changed=tuple(sorted(path for path in both if wanted[path] != there[path])),
        removed=tuple(sorted(there.keys() - wanted.keys())),
        serve=dict(serve) != published["serve"],
        env=None if published["conda_env"]["name"] == conda_env else published["conda_env"]["name"],
    )
