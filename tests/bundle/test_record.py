"""Records: those of yesterday's code are read, and so is what tomorrow's adds to them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.bundle.record import Promoted, Verification, parse_record
from adroit_publish.errors import VerificationError

SAMPLES = Path(__file__).parents[1] / "stores" / "samples"


def sample(name):
    return json.loads((SAMPLES / f"record_{name}.json").read_bytes())


def read(value):
    return parse_record(canonical_json(value), "record of v")


@pytest.mark.parametrize("name", ["publish", "unverified", "republish", "promote"])
def test_a_record_of_the_first_release_is_read_and_kept_whole(name):
    data = (SAMPLES / f"record_{name}.json").read_bytes()
    record = parse_record(data, "record of v")
    assert canonical_json(record.document) == data
    assert record.who == "ada"
    assert record.created_utc.startswith("2026-11-27T")


def test_what_is_read_of_a_publish():
    value = sample("publish")
    record = read(value)
    assert record.run_id == value["run_id"]
    assert record.metrics == {"accuracy": 0.5}
    assert (record.commit, record.dirty) == (value["commit"], ())
    assert record.verification.looked
    assert record.verification.predicted
    assert record.verification.outputs == [{"x": 2.0, "y": 6.0}, {"x": 4.0, "y": 8.0}]
    assert record.verification.as_dict() == value["verification"]
    assert record.promoted is None


def test_what_is_read_of_a_republish_a_waived_verification_and_a_promotion():
    again, waived, promotion = map(read, map(sample, ("republish", "unverified", "promote")))
    assert again.republished_from == again.verification.replay["against"]
    assert not again.verification.accepted_change
    assert waived.verification == Verification()
    assert not waived.verification.looked
    assert promotion.verification is None
    assert promotion.promoted == Promoted("local", "prod", ("file:/home/ada/repo/.adroit/bundles",))


def test_a_missing_field_has_its_default():
    record = read({})
    assert (record.created_utc, record.who, record.verification, record.dirty) == (None,) * 3 + (
        (),
    )
    assert read({"verification": {}}).verification == Verification()


def test_a_field_that_is_not_known_is_kept_and_changes_nothing():
    value = sample("publish")
    known = read(value)
    value["forecast"] = {"auc": 0.9}
    value["verification"]["golden_rows"] = 500
    record = read(value)
    assert record.document["forecast"] == {"auc": 0.9}
    assert record.verification == known.verification


def test_a_record_of_a_newer_number_is_refused_and_says_what_to_do():
    with pytest.raises(
        VerificationError, match=r"(?s)newer version.*schema 2.*update this checkout"
    ):
        read(sample("publish") | {"schema": 2})


@pytest.mark.parametrize(
    "change",
    [
        {"verification": 7},
        {"verification": {"how": None}},
        {"verification": {"packages": []}},
        {"promoted": "x"},
        {"metrics": 3},
        {"dirty": 3},
    ],
)
def test_a_damaged_record_is_an_error_and_not_a_crash(change):
    with pytest.raises(VerificationError, match="damaged"):
        read(sample("publish") | change)


def test_what_a_verification_found_comes_back_from_its_record():
    seen = Verification(
        how="image",
        repeats=False,
        imports=Imports(("projects/a/x.py",), ("code/y.py",), ("numpy",), {"x": "projects/a"}),
        findings=(BundleFinding("import:optuna", "optuna is not there"),),
        model_env=("MY_SVC_API_KEY",),
    )
    record = parse_record(canonical_json({"schema": 1, "verification": seen.as_dict()}), "here")
    assert record.verification == seen
    assert "findings" not in Verification().as_dict()
