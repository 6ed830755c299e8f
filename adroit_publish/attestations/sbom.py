"""The bill of materials of a version, from the record of its publish: CycloneDX 1.6.

The model is its subject, with the metrics and datasets of its run in a model card; its components
are the packages that the verification saw, the datasets, and the conda env.

Source: CycloneDX 1.6, "metadata.component", "components", "modelCard". cyclonedx-python-lib has no
model cards yet: that part is added to what it writes.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import Record, Verification

if TYPE_CHECKING:
    from cyclonedx.model.component import Component


def bill_of_materials(record: Record, seen: Verification) -> dict[str, Any]:
    """Returns the bill of materials as JSON values: the same for the same record.

    Args:
        record: Of a publish.
        seen: The verification whose packages are listed.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    facts = record.document
    model = Component(
        name=str(facts.get("model_name")),
        version=str(facts.get("version")),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="model",
        hashes=_hashes(str(facts.get("manifest_digest"))),
    )
    made_of = list(_components(record, seen))
    bom = Bom(
        serial_number=uuid.UUID(Digest.of(canonical_json(facts)).hex[:32], version=4),
        metadata=BomMetaData(
            component=model,
            timestamp=datetime.fromisoformat(record.created_utc) if record.created_utc else None,
        ),
        components=made_of,
    )
    bom.register_dependency(model, made_of)
    document: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    document["metadata"]["component"]["modelCard"] = _model_card(record)
    return document


def _components(record: Record, seen: Verification) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for name, version in sorted(seen.packages.items()):
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"package {name}",
            purl=PackageURL("pypi", name=name, version=version),
        )
    for number, dataset in enumerate(record.datasets):
        yield Component(
            name=dataset.name or "dataset",
            version=dataset.digest or None,
            type=ComponentType.DATA,
            bom_ref=f"dataset {number}",
            description=str(dataset),
        )
    if env := record.document.get("conda_env"):
        yield Component(
            name=str(env),
            type=ComponentType.CONTAINER,
            bom_ref="conda env",
            hashes=_hashes(str(record.document.get("conda_env_digest"))),
        )


def _model_card(record: Record) -> dict[str, Any]:
    datasets = [{"ref": f"dataset {number}"} for number in range(len(record.datasets))]
    metrics = [{"type": name, "value": str(value)} for name, value in record.metrics.items()]
    return {
        "modelParameters": {"datasets": datasets},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }


def _hashes(digest: str) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    algorithm, _, value = digest.partition(":")
    return [HashType(alg=HashAlgorithm.SHA_256, content=value)] if algorithm == "sha256" else []
