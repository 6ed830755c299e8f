"""The DSSE envelope around a statement: how one is signed, and whose signature it bears.

Source: DSSE 1.0, "Protocol" and "Envelope"; in-toto attestation framework 1.0, "Envelope".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adroit_publish.attestations.keys import signer_at
from adroit_publish.attestations.sbom import bill_of_materials
from adroit_publish.attestations.statement import (
    Statement,
    bill_statement,
    parse_statement,
    provenance,
    verification,
)
from adroit_publish.aws.errors import translated
from adroit_publish.bundle.document import BundleRecord, canonical_json, parse_json_object
from adroit_publish.bundle.record import Verification, parse_record
from adroit_publish.errors import VerificationError

if TYPE_CHECKING:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import Key, Signer

ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True)
class Attestation:
    """A statement that somebody signed.

    Attributes:
        key_ids: The keys that it says it was signed with; proves nothing.
        key: The address of the known key whose signature is right; None where none is.
    """

    statement: Statement
    key_ids: tuple[str, ...]
    key: str | None


def sign(payload: bytes, signer: Signer, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Returns a payload in its envelope; raises as ``translated`` where AWS does not sign."""
    from securesystemslib.dsse import Envelope

    envelope = Envelope(payload, payload_type, {})
    with translated("awskms", to="the signing key", needs="kms:Sign"):
        envelope.sign(signer)
    return canonical_json(envelope.to_dict())


def attest(
    record: bytes, seen: Verification, bundle: BundleRecord, signing_key: str
) -> tuple[bytes, ...]:
    """Returns the signed statements that go with a record: of a promotion, its verification alone.

    Args:
        record: Of a publish or a promotion, as it is kept.
        signing_key: The key's address.

    Raises:
        PublishError: As ``signer_at`` and ``sign``.
    """
    signer = signer_at(signing_key)
    statements = [verification(record, seen, bundle)]
    kept = parse_record(record, "the record")
    if not kept.promoted:
        made_of = bill_of_materials(kept, seen)
        statements += [provenance(record), bill_statement(record, made_of)]
    return tuple(sign(statement, signer) for statement in statements)


def read_envelope(data: bytes, keys: Mapping[str, Key], where: str) -> Attestation:
    """Returns what an envelope holds, and which of the keys (by address) signed it.

    Raises:
        VerificationError: It is malformed, or its statement is not one of ours.
    """
    envelope = _parsed(data, where)
    signed_by = (address for address, key in keys.items() if _signed(envelope, key))
    return Attestation(
        parse_statement(envelope.payload, where), tuple(envelope.signatures), next(signed_by, None)
    )


def signer_of(
    data: bytes, keys: Mapping[str, Key], where: str, payload: bytes, payload_type: str
) -> str | None:
    """Returns which of the keys (by address) signed a payload that is kept apart; None: none did.

    Raises:
        VerificationError: The envelope is malformed.
    """
    envelope = _parsed(data, where, payload_type)
    envelope.payload = payload
    return next((address for address, key in keys.items() if _signed(envelope, key)), None)


def _parsed(data: bytes, where: str, payload_type: str = PAYLOAD_TYPE) -> Envelope:
    from securesystemslib.dsse import Envelope
    from securesystemslib.exceptions import Error

    try:
        envelope = Envelope.from_dict(parse_json_object(data, where))
        known = envelope.payload_type == payload_type
    except (Error, KeyError, TypeError, ValueError, AttributeError):
        known = False
    if not known:
        raise VerificationError("Not a valid envelope.", where=where, wanted=payload_type)
    return envelope


def _signed(envelope: Envelope, key: Key) -> bool:
    from securesystemslib.exceptions import VerificationError as NotSigned

    try:
        return bool(envelope.verify([key], 1))
    except (NotSigned, ValueError):
        return False
