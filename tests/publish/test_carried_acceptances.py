"""What was accepted when a version was published is not asked again when it is republished."""

from __future__ import annotations

import shutil

import pytest

from adroit_publish import publish, republish
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.checkout import open_checkout
from adroit_publish.config.gates import GateResult, accepted_before
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.gates.env_contract import ObservedEnv, compare, findings_of
from adroit_publish.gates.model_requirements import Wanted
from adroit_publish.places import open_store
from adroit_publish.stores.records import last_publish, records
from tests.support.checkouts import commit, make_checkout

OTHER_PYTHON = """
dependencies:
  - python=3.10
  - pip
  - pip: [mlflow-skinny==3.17.2, numpy, pandas]
"""


@pytest.fixture
def checkout(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    (root / "environment.yml").write_text(OTHER_PYTHON)
    commit(root, "an env that is not quite the model's")
    return root


def edited(root, scale):
    (root / "projects/doubler/features.py").write_text(f"SCALE = {scale}\n")
    commit(root, f"scale {scale}")
    return root


def last_record(root, version):
    store = open_store(open_checkout(root, {}).target(None))
    return last_publish(records(store, store.get(version)))


def test_a_mismatch_of_the_env_is_carried_on_while_env_and_finding_are_the_same(checkout):
    with pytest.raises(VerificationError, match="does not hold what the model") as refused:
        publish("a", root=checkout)
    assert "--accept-env-mismatch=python" in refused.value.next_step
    first = publish("a", root=checkout, accept_env_mismatch=["python"])
    assert [line for line in first.warnings if line.endswith("(accepted)")]
    again = republish("a", root=edited(checkout, 3))
    assert [line for line in again.warnings if line.endswith("(accepted before)")]
    assert last_record(checkout, again.version).verification.env["accepted"] == ["python"]
    third = republish("a", root=edited(checkout, 4))
    assert [line for line in third.warnings if line.endswith("(accepted before)")]

    (checkout / "environment.yml").write_text(OTHER_PYTHON + "# another env\n")
    commit(checkout, "the env moves")
    with pytest.raises(VerificationError, match="does not hold what the model"):
        republish("a", root=edited(checkout, 5), take_env=True)


def test_a_gate_is_carried_on_while_the_value_is_no_worse(checkout):
    (checkout / "environment.yml").write_text("dependencies: [python=3.11]\n")
    with (checkout / "projects/doubler/config.yaml").open("a") as file:
        file.write("gates: {size_mib: {max: 0.001}}\n")
    commit(checkout, "a gate")
    with pytest.raises(RefusedError, match="gates"):
        publish("a", root=checkout)
    publish("a", root=checkout, accept_gates=["size_mib=it has to be"])
    again = republish("a", root=edited(checkout, 3))
    assert [gate.accepted for gate in again.gates] == ["it has to be"]
    assert any("gate accepted before: size_mib" in line for line in again.warnings)
    with pytest.raises(RefusedError, match="gates"):
        republish("a", root=edited(checkout, "'" + "0" * 9000 + "'"))


def claim(root, version, **forged):
    """Hangs a record on a version, as whoever can write to the store can."""
    store = open_store(open_checkout(root, {}).target(None))
    published = store.get(version)
    document = records(store, published)[-1].document | {"created_utc": "2099-01-01T00:00:00+00:00"}
    data = canonical_json(document | forged)
    store.attach("doubler", version, published.manifest, RECORD_MEDIA_TYPE, data)


def test_a_mismatch_that_only_a_record_accepts_is_asked_for_again(checkout):
    first = publish("a", root=checkout, accept_env_mismatch=["python"])
    shutil.rmtree(checkout / ".adroit" / "recorded")  # now it could be anybody's
    with pytest.raises(VerificationError, match="does not hold what the model") as refused:
        republish("a", root=edited(checkout, 3))
    assert "accepted before, in a record that nothing here can prove" in str(refused.value.got)
    assert "--accept-env-mismatch=python" in refused.value.next_step
    claim(checkout, first.version)
    with pytest.raises(VerificationError, match="nothing here can prove"):
        republish("a", root=checkout)
    again = republish("a", root=checkout, accept_env_mismatch=["python"])
    assert [line for line in again.warnings if line.endswith("(accepted)")]
    third = republish("a", root=edited(checkout, 4))
    assert [line for line in third.warnings if line.endswith("(accepted before)")]


def test_a_gate_that_only_a_record_accepts_is_asked_for_again(checkout):
    (checkout / "environment.yml").write_text("dependencies: [python=3.11]\n")
    commit(checkout, "the model's env")
    first = publish("a", root=checkout)
    with (checkout / "projects/doubler/config.yaml").open("a") as file:
        file.write("gates: {size_mib: {max: 0.001}}\n")
    commit(checkout, "a gate")
    with pytest.raises(RefusedError) as refused:
        republish("a", root=edited(checkout, 3))
    assert "prove" not in str(refused.value.got)
    gate = {
        "gate": "size_mib",
        "bounds": {"max": 0.001},
        "value": 9.0,
        "problem": "more than 0.001",
    }
    claim(checkout, first.version, gates=[gate | {"accepted": "trust me"}])
    with pytest.raises(RefusedError) as refused:
        republish("a", root=checkout)
    assert "accepted before, in a record that nothing here can prove" in str(refused.value.got)
    again = republish("a", root=checkout, accept_gates=["size_mib=it has to be"])
    assert [gate.accepted for gate in again.gates] == ["it has to be"]


def wants(version="==1.4.2", by="requirements.txt"):
    return Wanted("scikit-learn", version, by)


def env(version):
    serving = {"mlflow-skinny": "3.17.2", "numpy": "2", "pandas": "3", "starlette": "1"}
    packages = {**serving, "uvicorn": "1", "scikit-learn": version}
    return ObservedEnv("3.11.7", packages)


@pytest.mark.parametrize(
    ("want", "there", "verdict"),
    [
        (wants(), "1.9.1", "accepted"),
        (wants(), "1.9.2", "refused"),  # another finding than the one that was accepted
        (wants("==1.4.3"), "1.9.1", "refused"),
        (wants(by="conda.yaml"), "1.9.1", "refused"),
        (wants(), "1.4.2", "ok"),
    ],
)
def test_a_finding_is_carried_on_only_as_it_was(want, there, verdict):
    kept = compare([wants()], env("1.9.1"), ["scikit-learn"]).as_dict()
    report = compare([want], env(there), accepted_before=findings_of(kept))
    assert [row.verdict for row in report.rows if row.name == "scikit-learn"] == [verdict]


@pytest.mark.parametrize("lost", ["name", "wanted", "by", "got"])
def test_an_incomplete_row_of_a_record_accepts_nothing(lost):
    kept = compare([wants()], env("1.9.1"), ["scikit-learn"]).as_dict()
    (row,) = (row for row in kept["rows"] if row["verdict"] == "accepted")
    del row[lost]
    assert findings_of(kept) == frozenset()


MAX, MIN = {"max": 5.0}, {"min": 0.8}


@pytest.mark.parametrize(
    ("bounds", "problem", "before", "now", "carried"),
    [
        (MAX, "more than 5", 7.0, 7.0, True),
        (MAX, "more than 5", 7.0, 6.0, True),
        (MAX, "more than 5", 7.0, 7.1, False),
        (MIN, "less than 0.8", 0.7, 0.75, True),
        (MIN, "less than 0.8", 0.7, 0.65, False),
        (MIN, "there is no such value", None, None, True),
        (MIN, "0.02 less than the live version's", 0.7, 0.7, True),
        (MIN, "0.02 less than the live version's", 0.7, 0.71, False),
    ],
)
def test_a_result_is_carried_on_where_it_is_no_worse(bounds, problem, before, now, carried):
    kept = {
        "gate": "g", "bounds": bounds, "value": before, "problem": problem, "accepted": "why"
    }  # fmt: skip
    result = GateResult("g", bounds, now, None, problem)
    assert accepted_before(result, kept) == ("why" if carried else None)
    assert accepted_before(result, {**kept, "accepted": None}) is None
    assert accepted_before(result, {**kept, "bounds": {"max": 6.0}}) is None
