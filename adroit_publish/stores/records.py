"""The records of a version, as they are kept: read, and never changed.

Records hang on a version as referrers; more can be added. Their format: ``bundle.record``. Where
signatures are demanded, a record is read only if a signed statement names it by its digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from adroit_publish.attestations.demand import Demand, Subject
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE, Attestation
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.bundle.record import Record, Verification, parse_record
from adroit_publish.stores.bundle_store import BundleStore, Published, saying_how_to_heal


def records(store: BundleStore, published: Published) -> list[Record]:
    """Returns the records of a version, oldest first; the signed ones where that is demanded.

    Raises:
        StoreError: The store failed.
        VerificationError: A record is damaged, or was written by a newer version of this program.
    """
    where = f"record of {published.version}"
    attached: Iterable[bytes] = store.attached(published, RECORD_MEDIA_TYPE)
    if store.demand:
        signed = {one.statement.record for one in accepted(store, store.demand, published)}
        attached = (data for data in attached if Digest.of(data) in signed)
    with saying_how_to_heal(published):
        return sorted(
            (parse_record(data, where) for data in attached),
            key=lambda record: record.created_utc or "",
        )


def accepted(
    store: BundleStore, demand: Demand, published: Published, flavor: str | None = None
) -> list[Attestation]:
    """Returns the attestations of a version that meet a demand, oldest first."""
    subject = subject_of(published, flavor)
    read = demand.read(store.attached(published, ENVELOPE_MEDIA_TYPE), str(published.version))
    now = datetime.now(UTC)
    good = (one for one in read if demand.problem(one, subject, now) is None)
    return sorted(good, key=lambda one: one.statement.created_utc)


def subject_of(published: Published, flavor: str | None = None) -> Subject:
    """Returns what an attestation of a version has to be about."""
    return Subject(published.model_name, published.version, published.manifest.digest, flavor)


def last_publish(of_version: Sequence[Record]) -> Record | None:
    """Returns the last record of a publish, or None."""
    publishes = (record for record in of_version if record.verification and not record.promoted)
    return next(reversed(tuple(publishes)), None)


def last_verification(of_version: Sequence[Record]) -> Verification | None:
    """Returns the last verification that looked, or None where none did."""
    verifications = (record.verification for record in reversed(of_version))
    return next((seen for seen in verifications if seen and seen.looked), None)


def output_change(of_version: Sequence[Record]) -> str | None:
    """Returns a line on the change of outputs that was accepted for a version, or None."""
    seen = (record.verification for record in of_version)
    lines = (verification.accepted_change for verification in seen if verification)
    return next(filter(None, lines), None)
