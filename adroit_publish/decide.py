"""What is wanted against what is published: what differs, and so what has to be done.

Pure rules over two ``bundle.json``-shaped values; nothing is opened here.

    a flavor                                                              its state
    held                                                                  held
    without a version                                                     no version
    its version is a run id                                               publish
    its version is in no store, or in another target's                    in another target
    its files, serve section or env's name differ from its version's      republish
    its env's name now stands for another digest                          env moved
    none of it                                                            up to date
    what cannot be found out, or is refused                               cannot

Another runtime (``adroit/``) alone makes no flavor stale: it would be all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import FileEntry

Files = Mapping[str, tuple[str, bool]]
"""sha256 digest and executable bit of files, by path."""


class State(StrEnum):
    """How a flavor stands; the table above."""

    UP_TO_DATE = "up to date"
    NO_VERSION = "no version"
    PUBLISH = "publish"
    HELD = "held"
    OTHER_TARGET = "in another target"
    REPUBLISH = "republish"
    ENV_MOVED = "env moved"
    CANNOT = "cannot"


TO_DO = frozenset({State.PUBLISH, State.REPUBLISH})
"""What ``--pending`` and ``--stale`` would do something about."""


@dataclass(frozen=True)
class FileChanges:
    """How one set of files differs from another.

    Attributes:
        added: Paths only the wanted one has.
        changed: Paths whose bytes or executable bit differ.
        removed: Paths only the published one has.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)

    def lines(self) -> list[str]:
        """Returns one line for each difference."""
        marks = (("added", self.added), ("changed", self.changed), ("removed", self.removed))
        return [f"{mark} {path}" for mark, paths in marks for path in paths]


@dataclass(frozen=True)
class Changes:
    """How a flavor differs from what its version holds.

    Attributes:
        source: Of the project's files and its includes.
        runtime: Of the files of ``adroit/`` that serve.
        serve: Whether the serve section of config.yaml differs.
        env: The published conda env's name, where the flavor names another; None where it does not.
    """

    source: FileChanges = FileChanges()
    runtime: FileChanges = FileChanges()
    serve: bool = False
    env: str | None = None

    @property
    def stale(self) -> bool:
        """Whether the flavor asks for a republish by itself."""
        return bool(self.source or self.serve or self.env)

    def lines(self) -> list[str]:
        """Returns one line for each difference that makes the flavor stale."""
        lines = self.source.lines()
        if self.serve:
            lines.append("changed the serve section of config.yaml")
        return [*lines, f"changed the conda env, which was {self.env}"] if self.env else lines

    def runtime_line(self) -> str | None:
        """Returns how the runtime differs, in a line; None where it does not."""
        if not self.runtime:
            return None
        parts = self.runtime
        count = len(parts.added) + len(parts.changed) + len(parts.removed)
        return f"the runtime (adroit/) differs in {count} files"


def changes_since(
    source: Files,
    runtime: Files,
    serve: Mapping[str, Any],
    conda_env: str,
    published: BundleRecord,
) -> Changes:
    """Returns how a flavor differs from what its version holds.

    Args:
        source: Every source file that would be packed.
        runtime: Every file of the runtime.
        serve: The parsed serve section.
        conda_env: The name of the flavor's env.
        published: The version's ``bundle.json``.
    """
    name = published.conda_env_name
    return Changes(
        source=_file_changes(source, published.files["source"]),
        runtime=_file_changes(runtime, published.files["runtime"]),
        serve=dict(serve) != published.serve,
        env=None if name == conda_env else name,
    )


def state_of_published(changes: Changes, env_moved: bool) -> State:
    """Returns the state of a flavor whose version is in its target.

    Args:
        changes: Since its version.
        env_moved: Whether the env's name stands for another digest than the version pins.
    """
    if changes.stale:
        return State.REPUBLISH
    return State.ENV_MOVED if env_moved else State.UP_TO_DATE


def _file_changes(wanted: Files, published: Sequence[FileEntry]) -> FileChanges:
    there = {entry.path: (str(entry.digest), entry.executable) for entry in published}
    both = wanted.keys() & there.keys()
    return FileChanges(
        added=tuple(sorted(wanted.keys() - there.keys())),
        changed=tuple(sorted(path for path in both if wanted[path] != there[path])),
        removed=tuple(sorted(there.keys() - wanted.keys())),
    )
