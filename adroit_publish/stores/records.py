"""The records of a version, as they are kept: read, and never changed.

Records hang on a version as referrers; more can be added. Their format: ``bundle.record``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.bundle.record import Record, Verification, parse_record
from adroit_publish.stores.bundle_store import BundleStore, Published


def records(store: BundleStore, published: Published) -> list[Record]:
    """Returns the records of a version, oldest first.

    Raises:
        StoreError: The store failed.
        VerificationError: A record is damaged, or was written by a newer version of this program.
    """
    where = f"record of {published.version}"
    attached = store.attached(published, RECORD_MEDIA_TYPE)
    return sorted(
        (parse_record(data, where) for data in attached),
        key=lambda record: record.created_utc or "",
    )


def last_publish(of_version: Sequence[Record]) -> Record | None:
    """Returns the last record of a publish, or None where there is none."""
    return next((record for record in reversed(of_version) if record.verification), None)


def last_verification(of_version: Sequence[Record]) -> Verification | None:
    """Returns the last verification that looked, or None where none did."""
    seen = (record.verification for record in reversed(of_version))
    return next(
        (verification for verification in seen if verification and verification.looked), None
    )


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
    """Returns the outputs that ``published``, and a version made from it, has to give again.

    They are those of the first publish, not of the last one, so that many small steps do not add
    up to a large one; where a change of outputs was accepted, they are those it was changed to.
    None where nobody ever verified it or what it was made from. Raises as ``records``.
    """
    golden, seen = None, set[str]()
    here: Published | None = published
    while here is not None and here.version not in seen:
        seen.add(here.version)
        publishes = [record for record in records(store, here) if record.verification]
        outputs = (record.verification for record in publishes)
        first = next((one for one in outputs if one and one.outputs_sha256), None)
        if first is not None:
            assert first.outputs_sha256
            golden = Golden(
                here.version, first.outputs, first.outputs_sha256, first.outputs_truncated
            )
            before = None if first.accepted_change else (first.replay or {}).get("against")
        else:
            before = next((record.republished_from for record in publishes), None)
        here = store.find(here.model_name, str(before)) if before else None
    return golden
