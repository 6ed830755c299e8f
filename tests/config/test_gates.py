"""``gates:`` of config.yaml: what is read of it, and what passes."""

from __future__ import annotations

import math

import pytest

from adroit_publish.config.gates import Gate, judge_gates, read_acceptances
from adroit_publish.config.project import parse_project
from adroit_publish.errors import ConfigError

FILE = "projects/m/config.yaml"
LEAST = "model_name: m\nserve: {handler: {class_path: a.b:C}}\n"


def gates_of(text: str) -> tuple[Gate, ...]:
    return parse_project(f"{LEAST}gates:{text}".encode(), FILE, "m").gates


def problem(bounds: dict[str, float], value: float | None, live: float | None = None) -> str | None:
    values = {} if value is None else {"auc": value}
    before = None if live is None else {"auc": live}
    return judge_gates([Gate("auc", bounds)], values, before, {})[0].problem


def test_the_gates_of_the_design_are_read():
    gates = gates_of("\n  test_auc: {min: 0.8, max_drop: 0.01}\n  latency_ms_per_row: {max: 5}\n")
    assert gates == (
        Gate("test_auc", {"min": 0.8, "max_drop": 0.01}),
        Gate("latency_ms_per_row", {"max": 5.0}),
    )
    assert gates_of("\n") == gates_of(" {}\n") == ()


@pytest.mark.parametrize(
    ("text", "line", "got"),
    [
        ("\n  auc: {mim: 0.8}\n", 4, "'min' meant"),
        ("\n  auc: {least: 0.8}\n", 4, "unknown key 'least'"),
        ("\n  auc: 0.8\n", 4, "must be a mapping"),
        ("\n  auc:\n", 4, "needs one of"),
        ("\n  auc:\n    min: high\n", 5, "must be a number"),
        ("\n  auc:\n    min: true\n", 5, "must be a number"),
        ("\n  auc:\n    max: .nan\n", 5, "must be a number"),
        ("\n  auc:\n    max_drop: -0.1\n", 5, "from 0"),
        ("\n  auc: {min: 2, max: 1}\n", 4, "nothing passes"),
        (" [auc]\n", 3, "must be a mapping"),
    ],
)
def test_a_gate_that_is_wrong_is_told_with_its_line(text: str, line: int, got: str):
    with pytest.raises(ConfigError) as caught:
        gates_of(text)
    assert f"{FILE}:{line}: " in str(caught.value)
    assert got in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "value", "live", "wanted"),
    [
        ({"min": 0.8}, 0.8, None, None),
        ({"min": 0.8}, 0.79, None, "less than 0.8"),
        ({"max": 5}, 5, None, None),
        ({"max": 5}, 5.1, None, "more than 5"),
        ({"min": 0}, None, None, "there is no such value"),
        ({"min": 0}, math.nan, None, "not a number"),
        ({"max": 1}, -math.inf, None, "not a number"),
        ({"max_drop": 0.01}, 0.1, None, None),
        ({"max_drop": 0.01}, 0.89, 0.9, None),
        ({"max_drop": 0.01}, 0.95, 0.9, None),
        ({"max_drop": 0.01}, 0.88, 0.9, "0.02 less than the live version's"),
        ({"max_drop": 0}, 0.9, 0.9, None),
        ({"max_drop": 0}, 0.8999, 0.9, "0.0001 less than the live version's"),
        ({"max_rise": 0.02}, 0.42, 0.4, None),
        ({"max_rise": 0.02}, 0.43, 0.4, "0.03 more than the live version's"),
        ({"max_rise": 0.02}, 0.43, math.nan, "the live version has no value to compare with"),
        ({"min": 0.8, "max_drop": 0.01}, 0.85, 0.9, "0.05 less than the live version's"),
    ],
)
def test_a_value_passes_within_its_bounds(
    bounds: dict[str, float], value: float | None, live: float | None, wanted: str | None
):
    assert problem(bounds, value, live) == wanted


def test_a_live_version_without_the_value_is_nothing_to_compare_with():
    gate = Gate("auc", {"max_drop": 0.1})
    (result,) = judge_gates([gate], {"auc": 1.0}, {"other": 1.0}, {})
    assert result.problem == "the live version has no value to compare with"


def test_a_gate_that_is_accepted_says_why_and_one_that_passes_does_not():
    gates = [Gate("auc", {"min": 0.8}), Gate("loss", {"max": 1})]
    reasons = read_acceptances(["auc=a smaller test set = less sure", " loss = x "])
    auc, loss = judge_gates(gates, {"auc": 0.7, "loss": 0.5}, None, reasons)
    assert (auc.passed, auc.accepted) == (True, "a smaller test set = less sure")
    assert (loss.passed, loss.accepted) == (True, None)
    assert str(auc) == (
        "auc (min 0.8): 0.7: less than 0.8; accepted: a smaller test set = less sure"
    )
    assert not judge_gates(gates, {"loss": 0.5}, None, {})[0].passed


@pytest.mark.parametrize("text", ["auc", "auc=", "=why", "auc= ", "auc=two\nlines", ""])
def test_an_acceptance_needs_a_name_and_a_reason(text: str):
    with pytest.raises(ConfigError, match="NAME=REASON"):
        read_acceptances([text])
