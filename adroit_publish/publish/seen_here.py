"""Verifications that this machine made itself: a record alone, which anyone may write, proves none.

``.adroit/verified/<manifest's hex>.<hex>`` stands for one: the second digest is that of what was
seen, as the record of the publish tells it. The file is empty; deleting it costs a verification.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import Verification


def note_seen(root: Path, manifest: Digest, verification: Verification) -> None:
    """Notes that this machine made a verification; one that was waived leaves no note.

    Args:
        root: The checkout.
        manifest: Digest of the manifest that was verified.
        verification: What was seen of it, exactly as the record keeps it.
    """
    if not verification.looked:
        return
    mark = _mark(root, manifest, verification)
    with suppress(OSError):  # it is made again then
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()


def was_seen(root: Path, manifest: Digest, verification: Verification) -> bool:
    """Tells whether this machine made exactly this verification of that manifest."""
    return _mark(root, manifest, verification).is_file()


def _mark(root: Path, manifest: Digest, verification: Verification) -> Path:
    seen = Digest.of(canonical_json(verification.as_dict()))
    return root / ".adroit" / "verified" / f"{manifest.hex}.{seen.hex}"
