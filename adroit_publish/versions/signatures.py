"""Who signed what about a version, and what it is made of: to be shown.

``custody.signature`` is where a signature is demanded.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adroit_publish.attestations.demand import MAX_SHOWN_CHARS
from adroit_publish.attestations.sbom import bill_of_materials
from adroit_publish.attestations.statement import PROVENANCE
from adroit_publish.bundle.record import Verification
from adroit_publish.edge.text import printable
from adroit_publish.errors import VerificationError
from adroit_publish.stores.records import last_publish, subject_of
from adroit_publish.version import Version


@dataclass(frozen=True)
class Signature:
    """One signed statement about a version.

    Attributes:
        kind: ``provenance`` or ``verification``.
        key: The address of the key that signed it; None where the target lists no such key.
        key_ids: The keys that it names itself.
        problem: Why it does not count; None where it does.
    """

    kind: str
    key: str | None
    key_ids: tuple[str, ...]
    flavor: str | None
    who: str | None
    created_utc: str
    problem: str | None


def signatures(version: Version) -> list[Signature]:
    """Returns who signed what about a version, and whether that counts; raises as ``Version``."""
    demand, subject = version.store.demand, subject_of(version.published)
    return [
        Signature(
            "provenance" if one.statement.kind == PROVENANCE else "verification",
            one.key,
            tuple(printable(key_id, MAX_SHOWN_CHARS) for key_id in one.key_ids),
            _shown(one.statement.flavor),
            _shown(one.statement.who),
            one.statement.created_utc.isoformat(),
            demand.problem(one, subject, datetime.now(UTC)) if demand else "nothing is demanded",
        )
        for one in version.attestations
    ]


def _shown(text: str | None) -> str | None:
    """Returns what somebody signed, or says to have signed, without what a terminal acts on."""
    return text and printable(text, MAX_SHOWN_CHARS)


def bill_of(version: Version) -> dict[str, Any]:
    """Returns a version's bill of materials, as it was signed where it was.

    Raises:
        VerificationError: No record of its publish can be read.
        PublishError: As ``Version``.
    """
    record = last_publish(version.records)
    if record is None:
        raise VerificationError(
            "There is no record that says what the version is made of.",
            where=f"{version.name} in {version.store.location}",
            next_step=f"python -m adroit_publish verify {version.name}",
        )
    return bill_of_materials(record, record.verification or Verification())
