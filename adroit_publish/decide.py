"""What has to be done about a flavor: one decision for plan, publish, republish and status.

Pure: what the checkout, the version and the env are is brought along; nothing is opened here.

    a flavor                                                              its state
    held                                                                  held
    without a version                                                     no version
    its version is a run id                                               publish
    its version is in no store, or in another target's                    in another target
    its files, serve section or env's name differ from its version's      republish
    ... but only in Python files that the version does not import         not imported
    its env's name now stands for another digest                          env moved
    none of it                                                            up to date
    publish or republish, of one of the two flavors of a live rollover    rolling over
    what cannot be found out, or is refused                               cannot

Another runtime (``adroit/``) alone makes no flavor stale: it would be all of them at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import FileEntry
from adroit_publish.bundle.version_names import RunId
from adroit_publish.config.flavors import Flavor
from adroit_publish.errors import PublishError, RefusedError

Files = Mapping[str, tuple[str, bool]]
"""sha256 digest and executable bit of files, by path."""


class State(StrEnum):
    """How a flavor stands; the table above."""

    UP_TO_DATE = "up to date"
    NO_VERSION = "no version"
    PUBLISH = "publish"
    HELD = "held"
    ROLLING_OVER = "rolling over"
    OTHER_TARGET = "in another target"
    REPUBLISH = "republish"
    NOT_IMPORTED = "not imported"
    ENV_MOVED = "env moved"
    CANNOT = "cannot"


TO_DO = frozenset({State.PUBLISH, State.REPUBLISH})
"""What ``--pending`` and ``--stale`` would do something about."""


@dataclass(frozen=True)
class FileChanges:
    """How one set of files differs from another: by path, their bytes or executable bit."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.paths)

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that differs."""
        return (*self.added, *self.changed, *self.removed)

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
        return f"the runtime (adroit/) differs in {len(self.runtime.paths)} files"


@dataclass(frozen=True)
class Facts:
    """A published flavor as the checkout, its version and its env are now.

    Attributes:
        env_now: What the env's name stands for now; None where nothing pins it, or it is not known.
        imported: The checkout's files that the version imports, and those that config.yaml says
            are read all the same; None where that is not known.
    """

    source: Files
    runtime: Files
    serve: Mapping[str, Any]
    conda_env: str
    env_now: str | None
    published: BundleRecord
    imported: Collection[str] | None = None


class RollingOver(RefusedError):
    """The flavor is one of the two of a live rollover, which another version of it would hold."""


class OfAnotherTarget(RefusedError):
    """The flavor's version is not in this target's store."""


@dataclass(frozen=True)
class NoVersion:
    """The flavor has no version."""

    state: ClassVar = State.NO_VERSION


@dataclass(frozen=True)
class OnHold:
    """The flavor is to be left alone; ``why`` is the reason."""

    state: ClassVar = State.HELD
    why: str


@dataclass(frozen=True)
class InRollover:
    """It would get another version, and is one of the two flavors of a live rollover."""

    state: ClassVar = State.ROLLING_OVER
    error: RollingOver


@dataclass(frozen=True)
class Publish:
    """The model of a run is to be published."""

    state: ClassVar = State.PUBLISH
    run_id: RunId


@dataclass(frozen=True)
class InOtherTarget:
    """The version is not in this target's store; ``error`` says where it is known."""

    state: ClassVar = State.OTHER_TARGET
    error: OfAnotherTarget


@dataclass(frozen=True)
class Cannot:
    """It cannot be found out, or is refused; ``error`` says why."""

    state: ClassVar = State.CANNOT
    error: PublishError


@dataclass(frozen=True)
class UpToDate:
    """The version holds what the checkout says; ``changes`` are of the runtime alone."""

    state: ClassVar = State.UP_TO_DATE
    env_now: ClassVar[None] = None
    changes: Changes


@dataclass(frozen=True)
class EnvMoved:
    """Nothing but the env differs: its name stands for ``env_now`` by now."""

    state: ClassVar = State.ENV_MOVED
    changes: Changes
    env_now: str


@dataclass(frozen=True)
class Republish:
    """The checkout says something else than the version holds, and maybe its env moved too."""

    state: ClassVar = State.REPUBLISH
    changes: Changes
    env_now: str | None


@dataclass(frozen=True)
class NotImported:
    """What differs is imported by nothing: a republish would change no answer."""

    state: ClassVar = State.NOT_IMPORTED
    changes: Changes
    env_now: str | None


Judged = UpToDate | EnvMoved | Republish | NotImported
"""Of a published flavor whose version is in its target."""
Decision = NoVersion | OnHold | InRollover | Publish | InOtherTarget | Cannot | Judged


def decide(
    flavor: Flavor, facts: Facts | PublishError | None, rolling: RollingOver | None = None
) -> Decision:
    """Returns what has to be done about a flavor.

    Args:
        facts: Of a published flavor that is not held; the error where they cannot be had.
        rolling: The live rollover that the flavor is in; None where it is in none.
    """
    decision = _decide(flavor, facts)
    if rolling is not None and decision.state in TO_DO:
        return InRollover(rolling)
    return decision


def _decide(flavor: Flavor, facts: Facts | PublishError | None) -> Decision:
    if flavor.hold is not None:
        return OnHold(flavor.hold)
    if flavor.version is None:
        return NoVersion()
    if isinstance(flavor.version, RunId):
        return Publish(flavor.version)
    if isinstance(facts, OfAnotherTarget):
        return InOtherTarget(facts)
    if isinstance(facts, PublishError):
        return Cannot(facts)
    assert facts is not None, "a published flavor is decided by its facts"
    changes = _changes(facts)
    pinned = None if changes.env else facts.published.conda_env_digest
    env_now = moved_to(pinned, facts.env_now)
    if changes.stale:
        may_change_answers = _may_change_answers(changes, facts.imported)
        return (Republish if may_change_answers else NotImported)(changes, env_now)
    return EnvMoved(changes, env_now) if env_now else UpToDate(changes)


def moved_to(pinned: str | None, now: str | None) -> str | None:
    """Returns what an env's name stands for now, where that is not what a version pins."""
    return now if pinned is not None and now != pinned else None


def _may_change_answers(changes: Changes, imported: Collection[str] | None) -> bool:
    """Whether a republish could change an answer; any code may read a file of data."""
    if changes.serve or changes.env or imported is None:
        return True
    return any(not path.endswith(".py") or path in imported for path in changes.source.paths)


def _changes(facts: Facts) -> Changes:
    published = facts.published
    same_env = published.conda_env_name == facts.conda_env
    return Changes(
        source=_file_changes(facts.source, published.files["source"]),
        runtime=_file_changes(facts.runtime, published.files["runtime"]),
        serve=dict(facts.serve) != published.serve,
        env=None if same_env else published.conda_env_name,
    )


def _file_changes(wanted: Files, published: Sequence[FileEntry]) -> FileChanges:
    packed = {entry.path: (str(entry.digest), entry.executable) for entry in published}
    both = wanted.keys() & packed.keys()
    return FileChanges(
        added=tuple(sorted(wanted.keys() - packed.keys())),
        changed=tuple(sorted(path for path in both if wanted[path] != packed[path])),
        removed=tuple(sorted(packed.keys() - wanted.keys())),
    )
