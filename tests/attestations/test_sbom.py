"""The bill of materials of a version, held to CycloneDX's own schema."""

from __future__ import annotations

import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from adroit_publish.attestations.sbom import bill_of_materials
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import Verification, parse_record

ENV, MANIFEST = Digest.of(b"env"), Digest.of(b"manifest")
FACTS = {
    "schema": 1,
    "created_utc": "2026-11-28T04:00:00+00:00",
    "model_name": "doubler",
    "version": "v01234567-0123456789ab",
    "manifest_digest": str(MANIFEST),
    "conda_env": "plain",
    "conda_env_digest": str(ENV),
    "metrics": {"auc": 0.9, "acc@5": 1},
    "datasets": [
        {"name": "clicks", "digest": "1a2b", "source": "s3://b/k", "context": "training"},
        {"name": "", "digest": "", "source": "code", "context": ""},
    ],
}
SEEN = Verification(packages={"numpy": "2.0", "my_pkg": "1.0+local", "mlflow": "3.17"})


def bill(facts=FACTS, seen=SEEN):
    return bill_of_materials(parse_record(canonical_json(facts), "here"), seen)


def check(document):
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))
    assert problem is None, str(problem)[:300]


def test_it_is_what_cyclonedx_says_a_bill_is():
    for facts in (FACTS, {"schema": 1}):
        for seen in (SEEN, Verification()):
            check(bill(facts, seen))
    wrong = bill()
    wrong["metadata"]["component"]["type"] = "model"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(wrong)) is not None


def test_the_model_is_its_subject_with_its_metrics_and_datasets():
    document = bill()
    model = document["metadata"]["component"]
    assert (model["type"], model["name"], model["version"]) == (
        "machine-learning-model",
        "doubler",
        "v01234567-0123456789ab",
    )
    assert model["hashes"] == [{"alg": "SHA-256", "content": MANIFEST.hex}]
    card = model["modelCard"]
    measured = {
        one["type"]: one["value"] for one in card["quantitativeAnalysis"]["performanceMetrics"]
    }
    assert measured == {"auc": "0.9", "acc@5": "1"}
    refs = [one["ref"] for one in card["modelParameters"]["datasets"]]
    components = {one["bom-ref"]: one for one in document["components"]}
    assert [components[ref]["name"] for ref in refs] == ["clicks", "dataset"]
    assert components[refs[0]]["version"] == "1a2b"


def test_its_components_are_the_packages_that_were_seen_and_the_env():
    components = {one["bom-ref"]: one for one in bill()["components"]}
    packages = {one["name"]: one["purl"] for one in components.values() if one["type"] == "library"}
    assert packages == {
        "numpy": "pkg:pypi/numpy@2.0",
        "my_pkg": "pkg:pypi/my-pkg@1.0%2Blocal",
        "mlflow": "pkg:pypi/mlflow@3.17",
    }
    assert components["conda env"]["hashes"] == [{"alg": "SHA-256", "content": ENV.hex}]
    (uses,) = (one for one in bill()["dependencies"] if one["ref"] == "model")
    assert set(uses["dependsOn"]) == components.keys()


def test_the_same_record_gives_the_same_bill():
    assert bill() == bill()
    assert bill()["serialNumber"] != bill(FACTS | {"version": "v1"})["serialNumber"]
