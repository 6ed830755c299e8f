"""The bundle's own record, ``opt/adroit/bundle.json``, and the one JSON spelling we hash.

``bundle.json`` lists every file with its size and digest, so that a diff of two versions is a
matter of two small files, and so that a server can tell whether it holds what was published. Its
sha256 is the *bundle id*: what a running server can know of itself. It holds content only: no
time, no user, no commit, no flavor name, no host, no absolute path.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.layer import ROOT, FileEntry, Layer
from adroit_publish.errors import UPGRADE, VerificationError

SCHEMA = 1
BUNDLE_PATH = f"{ROOT}/bundle.json"
FILE_KINDS = ("model", "runtime", "source")


@dataclass(frozen=True)
class BundleFacts:
    """What a bundle says of itself beside its list of files.

    Attributes:
        model_id: MLflow 3 logged model id, or None for an MLflow 2 run.
        model_uuid: ``model_uuid`` of the MLmodel file, or None.
        signature: The MLmodel's signature, or None.
        requirements: The model's pip requirements, a line each.
        python_version: The Python the model was logged under, or None.
        conda_env_digest: Digest of the env's image, or of its environment.yml where there is none.
    """

    model_name: str
    run_id: str
    model_id: str | None
    model_uuid: str | None
    serve: Mapping[str, Any]
    signature: Mapping[str, Any] | None
    requirements: tuple[str, ...]
    python_version: str | None
    conda_env_name: str
    conda_env_digest: str | None


@dataclass(frozen=True)
class BundleRecord(BundleFacts):
    """A parsed ``bundle.json``; ``bundle_id`` is the digest of its bytes.

    ``files`` has the entries by kind (``FILE_KINDS``), each sorted by path bytes.
    """

    files: Mapping[str, tuple[FileEntry, ...]]
    bundle_id: Digest

    def as_dict(self) -> dict[str, Any]:
        """Returns it as the JSON values of ``bundle.json``."""
        return _document(self, self.files)


def canonical_json(value: Any) -> bytes:
    """Returns the one spelling of ``value``: UTF-8, sorted keys, no blanks; ValueError for NaN."""
    text = json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode()


def bundle_document(facts: BundleFacts, layers: Iterable[Layer]) -> bytes:
    """Returns the bytes of ``bundle.json`` for ``facts`` and the files of ``layers``."""
    files: dict[str, list[FileEntry]] = {kind: [] for kind in FILE_KINDS}
    for layer in layers:
        files[layer.kind] += layer.entries
    for entries in files.values():
        entries.sort(key=lambda entry: entry.path.encode())
    return canonical_json(_document(facts, files))


def parse_bundle_record(data: bytes) -> BundleRecord:
    """Returns the parsed ``bundle.json``.

    Raises:
        VerificationError: It is damaged, or says something that this program does not know.
    """
    document = parse_json_object(data, "bundle.json")
    if document.get("schema") != SCHEMA:
        raise _of_another_version(f"schema {document.get('schema')!r}")
    try:
        record = _record(document, Digest.of(data))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(
            "A bundle.json is damaged.", where="bundle.json", got=repr(error)
        ) from error
    if record.as_dict() != document:
        unknown = sorted(document.keys() - record.as_dict().keys())
        raise _of_another_version(", ".join(unknown) or "a value in another form")
    return record


def _record(document: Mapping[str, Any], bundle_id: Digest) -> BundleRecord:
    return BundleRecord(
        model_name=document["model_name"],
        run_id=document["run_id"],
        model_id=document["model_id"],
        model_uuid=document["model_uuid"],
        serve=document["serve"],
        signature=document["signature"],
        requirements=tuple(document["requirements"]),
        python_version=document["python_version"],
        conda_env_name=document["conda_env"]["name"],
        conda_env_digest=document["conda_env"]["digest"],
        files={
            kind: tuple(map(FileEntry.from_dict, document["files"][kind])) for kind in FILE_KINDS
        },
        bundle_id=bundle_id,
    )


def _document(facts: BundleFacts, files: Mapping[str, Iterable[FileEntry]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model_name": facts.model_name,
        "run_id": facts.run_id,
        "model_id": facts.model_id,
        "model_uuid": facts.model_uuid,
        "files": {kind: [entry.as_dict() for entry in entries] for kind, entries in files.items()},
        "serve": facts.serve,
        "signature": facts.signature,
        "requirements": list(facts.requirements),
        "python_version": facts.python_version,
        "conda_env": {"name": facts.conda_env_name, "digest": facts.conda_env_digest},
    }


def _of_another_version(got: str) -> VerificationError:
    return VerificationError(
        "The bundle was made by another version of this program.",
        where="bundle.json",
        got=got,
        wanted=f"schema {SCHEMA}",
        next_step=UPGRADE,
    )


def parse_json_object(data: bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object in ``data``; raises VerificationError where it is none."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerificationError(
            "A document is not a JSON object.", where=where, got=repr(data[:80])
        )
    return value
