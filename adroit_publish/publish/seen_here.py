"""Verifications that this machine made itself: a record alone, which anyone may write, proves none.

``.adroit/verified/<manifest's hex>.<hex>`` stands for one: the second digest is that of what was
seen, as the record of the publish tells it. ``.adroit/recorded/<hex>`` stands for a whole record,
by its digest. The files are empty; deleting one costs a verification, or that a waiver is asked for
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import Record, Verification
from adroit_publish.config.targets import Target


def note_seen(root: Path, manifest: Digest, verification: Verification) -> None:
    """Notes that this machine made a verification, as the record keeps it; not of one waived."""
    if not verification.looked:
        return
    _touch(_mark(root, manifest, verification))


def note_recorded(root: Path, record: bytes) -> None:
    """Notes that this machine wrote a record, in its canonical form."""
    _touch(_record_mark(root, record))


def is_ours(record: Record, root: Path) -> bool:
    """Whether this machine wrote a record."""
    return _record_mark(root, canonical_json(record.document)).is_file()


def proven(
    records: Sequence[Record], root: Path, manifest: Digest, wanted: str, target: Target
) -> Verification | None:
    """Returns the last verification on record that this machine made and that is enough, or None.

    Args:
        records: Of the version, oldest first.
        wanted: The kind, ``image``, ``process`` or ``none``; a stronger one will do.
        target: For which target: a process without a sandbox will do for this machine's alone.
    """
    for record in reversed(records):
        seen = record.verification
        if seen and _is_enough(seen, wanted, target) and _mark(root, manifest, seen).is_file():
            return seen
    return None


def _is_enough(seen: Verification, wanted: str, target: Target) -> bool:
    if wanted == "none" or seen.how == "image":
        return True
    sandboxed = seen.looked and (seen.how != "plain" or target.on_this_machine)
    return wanted == "process" and sandboxed


def _mark(root: Path, manifest: Digest, verification: Verification) -> Path:
    seen = Digest.of(canonical_json(verification.as_dict()))
    return root / ".adroit" / "verified" / f"{manifest.hex}.{seen.hex}"


def _record_mark(root: Path, record: bytes) -> Path:
    return root / ".adroit" / "recorded" / Digest.of(record).hex


def _touch(mark: Path) -> None:
    with suppress(OSError):  # what it stands for is asked again then
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
