"""The records of a version, as they are kept: read, and never changed.

Records hang on a version as referrers; more can be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.document import parse_json_object
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.stores.bundle_store import BundleStore, Published

SCHEMA = 1


def records(store: BundleStore, published: Published) -> list[dict[str, Any]]:
    """Returns the records of a version, oldest first; raises as ``BundleStore.attached`` does."""
    found = [
        parse_json_object(data, f"record of {published.version}")
        for data in store.attached(published, RECORD_MEDIA_TYPE)
    ]
    return sorted(found, key=lambda record: str(record.get("created_utc")))


@dataclass(frozen=True)
class Golden:
    """What a version predicted on its model's input example when it was first verified.

    Attributes:
        version: The version.
        outputs: JSON, its first rows where it was too large; None where not one row could be kept.
        sha256: Hex digest of the whole, as ``adroit.serving.outputs.sha256``.
        truncated: Whether ``outputs`` is less than the whole.
    """

    version: str
    outputs: Any
    sha256: str
    truncated: bool


def golden_outputs(store: BundleStore, published: Published) -> Golden | None:
    """Returns the outputs that a version made from ``published`` has to give again.

    They are those of the first publish, not of the last one, so that many small steps do not add
    up to a large one; where a change of outputs was accepted, they are those it was changed to.
    None where nobody ever verified it or what it was made from. Raises as ``records``.
    """
    golden, seen = None, set[str]()
    here: Published | None = published
    while here is not None and here.version not in seen:
        seen.add(here.version)
        facts = [record for record in records(store, here) if _verification(record)]
        verified = next((r for r in facts if _verification(r).get("outputs_sha256")), None)
        if verified is not None:
            verification = _verification(verified)
            golden = Golden(
                here.version,
                verification.get("outputs"),
                str(verification["outputs_sha256"]),
                bool(verification.get("outputs_truncated")),
            )
            replay = verification.get("replay") or {}
            before = None if replay.get("accepted") else replay.get("against")
        else:
            before = next((r.get("republished_from") for r in facts), None)
        here = store.find(here.model_name, str(before)) if before else None
    return golden


def _verification(record: Mapping[str, Any]) -> Mapping[str, Any]:
    return record.get("verification") or {}
