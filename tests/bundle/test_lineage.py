"""Where a run comes from, against where its model's versions come from."""

from __future__ import annotations

from adroit_publish.bundle.lineage import Lineage, columns_of, differences, flow_of


def column(name, kind, required=True):
    return {"name": name, "type": kind, "required": required}


def signature(*inputs, outputs=()):
    return {"inputs": list(inputs), "outputs": list(outputs)}


OWN = Lineage("fraud", "3", "FraudFlow", columns_of(signature(column("age", "long"))))


def told(run, *versions):
    found = differences(run, {f"v{i}": version for i, version in enumerate(versions)})
    return {difference.what: (difference.got, difference.wanted) for difference in found}


def test_a_run_of_the_models_own_experiment_flow_and_signature_differs_in_nothing():
    assert told(OWN, OWN) == {}
    assert told(OWN, Lineage("ads", "4", "AdsFlow", ("inputs x: long",)), OWN) == {}


def test_a_run_of_another_experiment_and_flow_is_told_with_both_sides():
    assert told(Lineage("ads", "4", "AdsFlow", ("inputs age: long", "inputs x: long")), OWN) == {
        "experiment": ("ads (id 4)", "fraud (id 3)"),
        "flow": ("AdsFlow", "FraudFlow"),
        "signature": ("inputs x: long", "no other column"),
    }


def test_what_is_not_known_differs_in_nothing():
    assert told(OWN) == told(OWN, Lineage()) == told(Lineage(), OWN) == {}
    assert told(OWN, Lineage(flow="FraudFlow")) == {}
    assert set(told(OWN, Lineage(flow="AdsFlow"), Lineage())) == {"flow"}


def test_an_experiment_is_told_by_its_id_or_its_name():
    assert told(Lineage("fraud-2", "3"), Lineage("fraud", "3")) == {}
    assert told(Lineage("fraud", "71"), Lineage("fraud", "3")) == {}
    assert told(Lineage(None, "4"), Lineage(None, "3")) == {
        "experiment": ("without a name (id 4)", "without a name (id 3)")
    }


def test_columns_are_compared_by_name_and_type_and_not_by_what_the_rows_decide():
    lines = columns_of(
        signature(column("age", "long", required=False), outputs=[{"type": "double"}])
    )
    assert lines == ("inputs age: long", "outputs : double")
    tensor = {"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}
    (line,) = columns_of(signature(tensor))
    assert "float32" in line
    nested = {"type": "object", "name": "o", "properties": {"a": {"type": "long"}}}
    other = {
        "type": "object",
        "name": "o",
        "properties": {"a": {"type": "long", "required": False}},
    }
    assert columns_of(signature(nested)) == columns_of(signature(other))
    required = {"type": "object", "name": "o", "properties": {"required": {"type": "long"}}}
    assert "required" in columns_of(signature(required))[0]


def test_a_signature_in_another_order_or_of_another_type_differs():
    two = [column("a", "long"), column("b", "double")]
    here, there = (
        Lineage(columns=columns_of(signature(*two))),
        Lineage(columns=columns_of(signature(*reversed(two)))),
    )
    assert told(here, there)["signature"] == ("the same columns in another order",) * 2
    floats = Lineage(columns=columns_of(signature(column("a", "float"), two[1])))
    assert told(floats, here)["signature"] == ("inputs a: float", "inputs a: long")
    wide = Lineage(columns=columns_of(signature(*(column(f"c{i}", "long") for i in range(30)))))
    assert told(wide, here)["signature"][0].endswith("and 20 more")


def test_a_signature_that_cannot_be_read_is_compared_as_it_stands():
    for inputs in (5, "text", [5], [{"name": "a"}], {"a": 1}):
        assert columns_of({"inputs": inputs})
    assert columns_of(None) == columns_of({}) == ()


def test_the_flow_is_that_of_the_metaflow_run():
    assert flow_of({"metaflow_run": "FraudFlow/12"}) == "FraudFlow"
    assert flow_of({}) is None
