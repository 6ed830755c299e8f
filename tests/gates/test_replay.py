"""Golden replay: what counts as the same prediction, and how a difference is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.gates.replay import compare_outputs

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(JSON)
def test_any_output_equals_itself_even_where_nothing_may_differ(outputs):
    replay = compare_outputs(outputs, json.loads(json.dumps(outputs)), 0.0)
    assert replay.same
    assert replay.worst == 0.0


@given(JSON, JSON)
def test_comparing_never_fails_and_its_report_is_json(before, after):
    replay = compare_outputs(before, after, 1e-6)
    json.dumps(replay.as_dict(), allow_nan=False)
    assert replay.same == (not replay.lines())


def test_a_number_may_move_by_rtol_and_no_further():
    assert compare_outputs([1.0, 2.0], [1.0, 2.0 + 1e-6], 1e-6).same
    moved = compare_outputs([1.0, 2.0], [1.0, 2.0 + 1e-5], 1e-6)
    assert not moved.same
    assert moved.lines() == ["row 1: 2.0 -> 2.00001 (relative 5e-06)"]


def test_what_is_nearly_nothing_may_become_nothing():
    assert compare_outputs([1e-17], [0.0], 1e-6).same
    assert not compare_outputs([1e-3], [0.0], 1e-6).same


def test_the_largest_differences_come_first_by_row_and_column():
    before = [{"price": 10.0, "label": "a"}, {"price": 20.0, "label": "b"}]
    after = [{"price": 10.1, "label": "a"}, {"price": 25.0, "label": "c"}]
    replay = compare_outputs(before, after, 1e-6)
    assert replay.differing == 3
    assert replay.lines() == [
        "row 1, label: 'b' -> 'c'",
        "row 1, price: 20.0 -> 25.0 (relative 0.2)",
        "row 0, price: 10.0 -> 10.1 (relative 0.0099)",
    ]


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ([1, 2], [1], "row 1: 2 -> '(absent)'"),
        ([1], [1, 2], "row 1: '(absent)' -> 2"),
        ([{"a": 1}], [{"b": 1}], "row 0, a: 1 -> '(absent)'"),
        ([[1, 2]], [[1, 3]], "row 0, [1]: 2 -> 3 (relative 0.333)"),
        ({"scores": [1]}, {"scores": [2]}, "scores[0]: 1 -> 2 (relative 0.5)"),
        (1, [1], "the output: 1 -> [1]"),
        ([True], [1], "row 0: True -> 1"),
        (["NaN"], [1.0], "row 0: 'NaN' -> 1.0"),
        ([None], [0], "row 0: None -> 0"),
    ],
)
def test_another_shape_or_type_is_a_difference(before, after, told):
    assert told in compare_outputs(before, after, 1e-6).lines()


def test_of_a_cut_output_only_the_rows_that_both_have_are_compared():
    assert compare_outputs([1, 2, 3], [1, 2], 0.0, truncated=True).same
    assert not compare_outputs([1, 2, 3], [1, 5], 0.0, truncated=True).same


def test_many_differences_are_counted_and_a_few_are_shown():
    replay = compare_outputs(list(range(1, 101)), list(range(2, 102)), 1e-6)
    assert replay.differing == 100
    assert len(replay.lines()) == 11
    assert replay.lines()[-1] == "and 90 more"


def test_a_long_value_is_shown_by_its_beginning():
    (line,) = compare_outputs(["a" * 10_000], ["b" * 10_000], 0.0).lines()
    assert len(line) < 500
