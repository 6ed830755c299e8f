"""What is signed: in-toto statements, made from a record and read back. Nothing is opened here.

Their subject is a version's manifest, by its whole digest, under the name ``MODEL/VERSION``. The
first two name the record of their publish by its digest: a record that no signed statement names
says nothing where signatures are demanded.

    provenance      SLSA 1: who published which run, as which flavor, from which commit and env
    verification    in-toto's test result: what was asked of the bundle, and what it answered
    bill            CycloneDX 1.6: what the model is made of; decides nothing, and is not read back

Source: in-toto attestation framework 1.0, "Statement", "Predicate"; SLSA 1.0, "Provenance";
in-toto attestation framework, "Test Result" 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import BundleRecord, canonical_json, parse_json_object
from adroit_publish.bundle.kept import Fields, listed, optional, table, text
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.bundle.record import Verification
from adroit_publish.errors import VerificationError

STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VERIFICATION = "https://in-toto.io/attestation/test-result/v0.1"
BILL = "https://cyclonedx.org/bom"
BUILDER = "urn:adroit-publish"
EXAMPLES = ("input_example.json", "serving_input_example.json")


@dataclass(frozen=True)
class Statement:
    """What is read of a statement.

    Attributes:
        kind: ``PROVENANCE`` or ``VERIFICATION``.
        manifest: Digest of the manifest that it is about.
        record: Digest of the record that it vouches for.
        flavor: Of a provenance, what was published; None of a verification.
        who: Of a provenance, who published.
        created_utc: When it was made, by its signer's clock.
    """

    kind: str
    model_name: str
    version: str
    manifest: Digest
    record: Digest
    flavor: str | None
    who: str | None
    created_utc: datetime


def provenance(record: bytes) -> bytes:
    """Returns the statement of how a version came to be, from the record of its publish."""
    document = parse_json_object(record, "the record")
    how = "republish" if document.get("republished_from") else "publish"
    asked = ("flavor", "model_name", "run_id", "target", "republished_from", "copied_from")
    predicate = {
        "buildDefinition": {
            "buildType": f"{BUILDER}:{how}:v1",
            "externalParameters": {
                name: document[name] for name in asked if document.get(name) is not None
            },
            "internalParameters": {name: document.get(name) for name in ("who", "host")},
            "resolvedDependencies": list(_materials(document)),
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": {
                "invocationId": str((document.get("origin") or {}).get("metaflow", "")),
                "finishedOn": document["created_utc"],
            },
            "byproducts": [_record_descriptor(record)],
        },
    }
    return _statement(document, PROVENANCE, predicate)


def verification(record: bytes, seen: Verification, bundle: BundleRecord) -> bytes:
    """Returns the statement of what was asked of a bundle, and what it answered."""
    document = parse_json_object(record, "the record")
    tests = {"loads": seen.looked, "predicts": seen.predicted, "serves": seen.served}
    answers = seen.outputs_sha256
    examples = (entry for entry in bundle.files["model"] if entry.path in EXAMPLES)
    predicate = {
        "result": "PASSED" if seen.predicted else "WARNED",
        "configuration": [
            {"name": f"how: {seen.how}"},
            *(_descriptor(f"model/{example.path}", str(example.digest)) for example in examples),
        ],
        "passedTests": [name for name, passed in tests.items() if passed],
        "warnedTests": [name for name, passed in tests.items() if not passed],
        "failedTests": [],
        "answered": [_descriptor("outputs", f"sha256:{answers}")] if answers else [],
        "verifiedOn": document["created_utc"],
        "byproducts": [_record_descriptor(record)],
    }
    return _statement(document, VERIFICATION, predicate)


def bill_statement(record: bytes, made_of: Mapping[str, Any]) -> bytes:
    """Returns the statement of what a version is made of."""
    return _statement(parse_json_object(record, "the record"), BILL, made_of)


def parse_statement(data: bytes, where: str) -> Statement:
    """Returns what a statement says.

    Raises:
        VerificationError: It is damaged, or of another kind than ours.
    """
    document = parse_json_object(data, where)
    try:
        return _parsed(document)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise VerificationError(
            "Not a valid statement.",
            where=where,
            got=repr(error),
            wanted=f"{STATEMENT}: {PROVENANCE} or {VERIFICATION}",
        ) from error


def _parsed(document: Mapping[str, Any]) -> Statement:
    kind, predicate = document["predicateType"], table(document["predicate"])
    if document["_type"] != STATEMENT or kind not in (PROVENANCE, VERIFICATION):
        raise ValueError(f"{document['_type']}: {kind}")
    asked, inner = {}, {}
    if kind == PROVENANCE:
        details, definition = predicate["runDetails"], predicate["buildDefinition"]
        asked, inner = definition["externalParameters"], definition["internalParameters"]
        created, byproducts = details["metadata"]["finishedOn"], details["byproducts"]
    else:
        created, byproducts = predicate["verifiedOn"], predicate["byproducts"]
    (subject,), (record,) = listed(table)(document["subject"]), listed(table)(byproducts)
    model_name, _, version = text(subject["name"]).rpartition("/")
    return Statement(
        kind,
        model_name,
        version,
        _digest(subject),
        _digest(record),
        Fields(asked).take("flavor", optional(text), None),
        Fields(inner).take("who", optional(text), None),
        datetime.fromisoformat(created).astimezone(UTC),
    )


def _statement(record: Mapping[str, Any], kind: str, predicate: Mapping[str, Any]) -> bytes:
    name = f"{record['model_name']}/{record['version']}"
    return canonical_json(
        {
            "_type": STATEMENT,
            "subject": [_descriptor(name, record["manifest_digest"])],
            "predicateType": kind,
            "predicate": predicate,
        }
    )


def _materials(record: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    source: dict[str, Any] = {"name": "source", "digest": {"gitCommit": record["commit"]}}
    if record.get("commit_url"):
        source["uri"] = record["commit_url"]
    if record.get("dirty"):
        source["annotations"] = {"dirty": record["dirty"]}
    yield source
    if record.get("run_id"):
        yield {"name": "run", "uri": f"mlflow:runs/{record['run_id']}"}
    if record.get("conda_env_digest"):
        yield _descriptor(f"conda env {record.get('conda_env')}", record["conda_env_digest"])
    for layer in record.get("layers", ()):
        yield _descriptor(f"{layer['kind']} layer", layer["digest"])


def _record_descriptor(record: bytes) -> dict[str, Any]:
    named = _descriptor("record", str(Digest.of(record)))
    return named | {"mediaType": RECORD_MEDIA_TYPE}


def _descriptor(name: str, digest: str) -> dict[str, Any]:
    algorithm, _, value = digest.partition(":")
    return {"name": name, "digest": {algorithm: value}}


def _digest(descriptor: Mapping[str, Any]) -> Digest:
    return Digest(f"sha256:{descriptor['digest']['sha256']}")
