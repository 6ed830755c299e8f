"""What differs between two published versions: rules over their documents; nothing is opened here.

A version is its ``bundle.json``, its layers' sizes and its records; the texts of source files are
brought by who has read them. A file alone in its layer is named by the layer's digest, any other
by its own: where the two versions pack a file differently, nothing is said of its bytes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from adroit_publish.bundle.document import FILE_KINDS, BundleRecord
from adroit_publish.bundle.layer import FileEntry
from adroit_publish.bundle.record import Record, Verification
from adroit_publish.config.gates import kept_result
from adroit_publish.gates.replay import Replay, compare_outputs
from adroit_publish.stores.records import last_publish, last_verification, output_change

SHOWN_LINES = 2000
EXAMPLES = ("input_example.json", "serving_input_example.json")


@dataclass(frozen=True)
class Compared:
    """One of two versions.

    Attributes:
        layer_sizes: Bytes by layer kind; ``env`` for the conda env image's.
    """

    asked: str
    model_name: str
    version: str
    manifest_digest: str
    bundle: BundleRecord
    layer_sizes: Mapping[str, int]
    records: tuple[Record, ...]

    @property
    def record(self) -> Record | None:
        """The last record of a publish, or None."""
        return last_publish(self.records)

    @property
    def verification(self) -> Verification:
        """The last verification that looked; an empty one where none did."""
        return last_verification(self.records) or Verification()

    def files(self, kind: str) -> dict[str, FileEntry]:
        """Returns the entries of ``bundle.json`` for one kind of file, by path."""
        return {entry.path: entry for entry in self.bundle.files[kind]}


@dataclass(frozen=True)
class FileChange:
    """One file of one or both versions.

    Attributes:
        kind: ``model``, ``runtime`` or ``source``.
        path: Below the kind's directory.
        change: ``added``, ``removed``, ``changed``, ``same``, or ``packed differently``.
        before: Its digest in A, or the digest of the layer that it is alone in.
    """

    kind: str
    path: str
    change: str
    before_bytes: int | None
    after_bytes: int | None
    before: str | None
    after: str | None


@dataclass(frozen=True)
class ValueChange:
    """One value that is not the same; None where a version has none."""

    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class TextDiff:
    """How the text of a source file changed.

    Attributes:
        lines: A unified diff, a line each without its end; empty where ``note`` says why.
    """

    path: str
    lines: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Outputs:
    """How the golden outputs compare, or why they could not be compared."""

    note: str
    replay: Replay | None = None


@dataclass(frozen=True)
class Diff:
    """Everything that differs between A and B.

    Attributes:
        before: Facts of A: what was asked, version, run, commit, who and when.
        accepted: A line for each change of outputs that was accepted by hand, A's and B's.
        serve: The serve section of config.yaml, by dotted path.
        env: The conda env: name, digest, Python, the model's Python.
        packages: Installed packages, as the verifications saw them.
        requirements: The model's pip requirements: added and removed lines.
        layer_sizes: Bytes by layer kind, changed or not.
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    accepted: tuple[str, ...]
    files: tuple[FileChange, ...]
    texts: tuple[TextDiff, ...]
    serve: tuple[ValueChange, ...]
    env: tuple[ValueChange, ...]
    packages: tuple[ValueChange, ...]
    packages_note: str
    requirements: tuple[ValueChange, ...]
    signature: tuple[ValueChange, ...]
    outputs: Outputs
    metrics: tuple[ValueChange, ...]
    layer_sizes: tuple[ValueChange, ...]

    @property
    def same(self) -> bool:
        """Whether the two are one version: one digest."""
        return bool(self.before["manifest"] == self.after["manifest"])

    def as_dict(self) -> dict[str, Any]:
        """Returns it as strict JSON values."""
        facts = asdict(self) | {"same": self.same}
        replay = self.outputs.replay
        facts["outputs"]["replay"] = replay.as_dict() if replay else None
        return facts


def compare(a: Compared, b: Compared, texts: Iterable[TextDiff]) -> Diff:
    """Returns what differs between two versions; ``texts`` are those of changed source files."""
    seen_a, seen_b = a.verification, b.verification
    return Diff(
        before=_facts(a),
        after=_facts(b),
        accepted=tuple(
            f"{name}: {change}"
            for name, side in (("A", a), ("B", b))
            if (change := output_change(side.records))
        ),
        files=tuple(change for kind in FILE_KINDS for change in file_changes(a, b, kind)),
        texts=tuple(texts),
        serve=_changes(_flat(a.bundle.serve), _flat(b.bundle.serve)),
        env=_changes(_env(a), _env(b)),
        packages=_packages(seen_a, seen_b),
        packages_note=_packages_note(seen_a, seen_b),
        requirements=_lines(a.bundle.requirements, b.bundle.requirements),
        signature=_changes(a.bundle.signature or {}, b.bundle.signature or {}),
        outputs=_outputs(a, b),
        metrics=_changes(*(side.record.metrics if side.record else {} for side in (a, b))),
        layer_sizes=tuple(
            ValueChange(kind, a.layer_sizes.get(kind), b.layer_sizes.get(kind))
            for kind in dict.fromkeys((*a.layer_sizes, *b.layer_sizes))
        ),
    )


def file_changes(a: Compared, b: Compared, kind: str) -> list[FileChange]:
    """Returns every file of a kind in either version, sorted by path."""
    before, after = a.files(kind), b.files(kind)
    return [
        _file_change(kind, path, before.get(path), after.get(path))
        for path in sorted(before.keys() | after.keys())
    ]


def text_diff(path: str, before: bytes | None, after: bytes | None) -> TextDiff:
    """Returns the unified diff of a file's two texts; None where a version has no such file."""
    try:
        old, new = (_text_lines(data) for data in (before, after))
    except ValueError:
        return TextDiff(path, (), "not a text")
    was, now = ("/dev/null" if data is None else path for data in (before, after))
    lines = list(difflib.unified_diff(old, new, was, now, lineterm=""))
    if not lines:
        return TextDiff(path, (), "the same lines: line ends, or the executable bit, differ")
    cut = f"{len(lines) - SHOWN_LINES} more lines" if len(lines) > SHOWN_LINES else ""
    return TextDiff(path, tuple(lines[:SHOWN_LINES]), cut)


def _text_lines(data: bytes | None) -> list[str]:
    if data is None:
        return []
    if b"\0" in data:
        raise ValueError("a NUL")
    return data.decode().splitlines()


def _file_change(
    kind: str, path: str, before: FileEntry | None, after: FileEntry | None
) -> FileChange:
    if before is None or after is None:
        change = "added" if before is None else "removed"
    elif before == after:
        change = "same"
    elif before.alone != after.alone and before.size_bytes == after.size_bytes:
        change = "packed differently"
    else:
        change = "changed"
    return FileChange(
        kind,
        path,
        change,
        before.size_bytes if before else None,
        after.size_bytes if after else None,
        str(before.digest) if before else None,
        str(after.digest) if after else None,
    )


def _facts(side: Compared) -> dict[str, Any]:
    record = side.record
    return {
        "asked": side.asked,
        "model": side.model_name,
        "version": side.version,
        "manifest": side.manifest_digest,
        "run": side.bundle.run_id,
        "model id": side.bundle.model_id,
        "commit": record.commit if record else None,
        "uncommitted": list(record.dirty) if record else [],
        "published": record.created_utc if record else None,
        "by": record.who if record else None,
        "verified": side.verification.how,
        "experiment": record.lineage.experiment if record and record.lineage else None,
        "accepted": list(record.accepted_lineage) if record else [],
        "gates": [f"{gate.get('gate')} {kept_result(gate)}" for gate in record.gates]
        if record
        else [],
    }


def _env(side: Compared) -> dict[str, Any]:
    return {
        "name": side.bundle.conda_env_name,
        "digest": side.bundle.conda_env_digest,
        "Python of the model": side.bundle.python_version,
        "Python of the verification": side.verification.python_version,
    }


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[ValueChange, ...]:
    names = dict.fromkeys((*before, *after))
    pairs = ((name, before.get(name), after.get(name)) for name in names)
    return tuple(ValueChange(*pair) for pair in pairs if pair[1] != pair[2])


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Returns the leaves of a mapping by dotted path; a list is a leaf."""
    if not isinstance(value, Mapping) or not value:
        return {path: value} if path else {}
    leaves: dict[str, Any] = {}
    for key, inner in value.items():
        leaves |= _flat(inner, f"{path}.{key}" if path else str(key))
    return leaves


def _lines(before: Iterable[str], after: Iterable[str]) -> tuple[ValueChange, ...]:
    old, new = dict.fromkeys(before), dict.fromkeys(after)
    gone = [ValueChange(line, line, None) for line in old if line not in new]
    return (*gone, *(ValueChange(line, None, line) for line in new if line not in old))


def _packages(before: Verification, after: Verification) -> tuple[ValueChange, ...]:
    if not before.packages or not after.packages:
        return ()
    changes = _changes(before.packages, after.packages)
    return tuple(sorted(changes, key=lambda change: change.name))


def _packages_note(before: Verification, after: Verification) -> str:
    if not (before.packages and after.packages):
        return "not compared: a version was published without a verification"
    same = "no difference, " if before.packages == after.packages else ""
    if before.how == after.how == "image":
        return same + "as the images hold them"
    return f"{same}as the verifications saw them ({before.how}, {after.how})"


def _outputs(a: Compared, b: Compared) -> Outputs:
    before, after = a.verification, b.verification
    if not (before.predicted and after.predicted):
        return Outputs("not compared: a version has no recorded outputs")
    if _examples(a) != _examples(b):
        return Outputs("not compared: the input examples differ")
    if before.outputs_sha256 == after.outputs_sha256:
        return Outputs("the same, to the last digit")
    old, new = before.outputs, after.outputs
    if old is None or new is None:
        return Outputs("they differ, and are too large to be kept in the records")
    truncated = before.outputs_truncated or after.outputs_truncated
    replay = compare_outputs(old, new, 0.0, truncated=truncated)
    rows = "" if replay.rows is None else f" in {replay.rows} rows"
    note = f"{replay.differing} of {replay.leaves} values differ{rows}"
    return Outputs(note + ("; only the recorded rows are compared" if truncated else ""), replay)


def _examples(side: Compared) -> list[FileEntry | None]:
    files = side.files("model")
    return [files.get(name) for name in EXAMPLES]
