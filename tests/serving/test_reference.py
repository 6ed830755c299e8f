"""The features of X_test, and how far those of requests are from them."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from adroit.serving.features.drift_window import LEAST_ROWS, Sampler, Window
from adroit.serving.features.reference import (
    FILE,
    read_reference,
    reference_from,
    reference_of,
    write_reference,
)

DRAW = np.random.default_rng(1)
ROWS = 4000
X_TEST = pd.DataFrame(
    {
        "age": DRAW.normal(40, 10, ROWS),
        "visits": DRAW.poisson(2, ROWS),
        "city": DRAW.choice(["Oslo", "Rome", "Bern"], ROWS, p=[0.6, 0.3, 0.1]),
        "member": DRAW.random(ROWS) < 0.3,
        "note": [f"call {number}" for number in range(ROWS)],
    }
)


def other(rows, **columns):
    """Returns rows of the same kind, some columns of another."""
    draw = np.random.default_rng(2)
    frame = X_TEST.sample(rows, random_state=7, replace=True).reset_index(drop=True)
    return frame.assign(**{name: make(draw, rows) for name, make in columns.items()})


def stability(frame):
    reference = reference_of(X_TEST)
    window = Window(reference, 3600)
    for start in range(0, len(frame), 100):
        window.add(reference.count(frame[start : start + 100], 1))
    return {name: index for name, _, index in window.stability()}


def test_a_reference_counts_every_row_of_x_test_once_for_each_feature():
    reference = reference_of(X_TEST)
    assert list(reference.features) == list(X_TEST)
    assert all(sum(feature.counts) == ROWS for feature in reference.features.values())
    assert reference.features["age"].counts[:-1] == (400,) * 10
    assert reference.features["city"].values == ("Oslo", "Rome", "Bern")
    assert reference.features["member"].values == ("false", "true")


def test_a_value_that_few_rows_have_is_not_kept():
    note = reference_of(X_TEST).features["note"]
    assert note.values == ()
    assert note.counts == (ROWS, 0)
    assert "call" not in json.dumps(reference_of(X_TEST).as_dict())


def test_rows_of_the_same_kind_are_stable_and_others_have_moved():
    same = stability(other(2000))
    assert all(index < 0.05 for index in same.values()), same
    moved = stability(
        other(
            2000,
            age=lambda draw, rows: draw.normal(55, 10, rows),
            city=lambda draw, rows: draw.choice(["Rome", "Lima"], rows),
            member=lambda draw, rows: [None] * rows,
        )
    )
    assert {name for name, index in moved.items() if index > 0.25} == {"age", "city", "member"}


def test_the_index_is_the_sum_that_its_definition_says():
    reference = reference_of(pd.DataFrame({"x": ["a"] * 60 + ["b"] * 40}))
    (feature,) = reference.features.values()
    expected, actual = [60, 40, 0, 0], [30, 50, 10, 10]
    shares = [[(c + 0.5) / (100 + 0.5 * 4) for c in counts] for counts in (actual, expected)]
    index = sum((a - e) * math.log(a / e) for a, e in zip(*shares, strict=True))
    assert feature.stability(actual) == pytest.approx(index)
    assert feature.stability(expected) == 0


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (X_TEST[["age"]], ["age"]),
        (X_TEST["age"], ["age"]),
        (X_TEST[["age", "visits"]].to_numpy(), ["0", "1"]),
        ({"a": np.arange(9.0), "b": np.array(["x"] * 9)}, ["a", "b"]),
        (pd.DataFrame({"n": pd.array([1, 2, None], dtype="Int64")}), ["n"]),
        (pd.DataFrame({"n": [np.nan, np.inf, 1.0]}), ["n"]),
        (pd.DataFrame({"t": pd.to_datetime(["2026-01-01"] * 3), "n": [1, 2, 3]}), ["n"]),
        (pd.DataFrame({"k": pd.Categorical(["x", "y", "x"])}), ["k"]),
        (pd.DataFrame({"n": [1.7e308, -1.7e308, 1.0, 2.0]}), ["n"]),
    ],
    ids=[
        "frame",
        "series",
        "array",
        "dict",
        "Int64",
        "infinite",
        "datetime",
        "categorical",
        "largest",
    ],
)
def test_tables_of_all_kinds_have_features_and_keep_them(rows, names, tmp_path):
    reference = reference_of(rows)
    assert list(reference.features) == names
    write_reference(rows, tmp_path)
    assert read_reference(tmp_path) == reference
    inputs = rows.to_frame() if isinstance(rows, pd.Series) else rows
    counts = reference.count(inputs, 1)
    assert list(counts) == names
    if reference.rows <= 1000:
        assert {name: tuple(bins) for name, bins in counts.items()} == {
            name: feature.counts for name, feature in reference.features.items()
        }


@pytest.mark.parametrize(
    "rows",
    [None, [], ["text"], {"messages": [1]}, np.zeros((2, 2, 2)), csr_matrix([[1.0, 0.0]])],
)
def test_what_is_no_table_has_no_reference(rows, tmp_path):
    write_reference(rows, tmp_path)
    assert read_reference(tmp_path) is None
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {"schema": 2},
        {"schema": 1, "rows": 1},
        {"schema": 1, "rows": 1, "features": {"x": {"edges": [1.0], "counts": [1, 2]}}},
        {"schema": 1, "rows": 1, "features": {"x": {"edges": [1.0], "counts": [1, 2, -1]}}},
        {"schema": 1, "rows": 1, "features": {"x": {"counts": [1, 2, 1]}}},
        {"schema": 1, "rows": float("inf"), "features": {}},
        {"schema": 1, "rows": 1, "features": {"x": {"values": [], "counts": [1e999, 1]}}},
        {"schema": 1, "rows": 1, "features": {"x": {"edges": [1e999], "counts": [1, 2, 1]}}},
    ],
)
def test_a_file_that_is_something_else_is_no_reference(document, tmp_path):
    with pytest.raises(ValueError, match=r"reference|schema|bins|edges"):
        reference_from(document)
    (tmp_path / FILE).write_text(json.dumps(document))
    assert read_reference(tmp_path) is None


def test_categories_that_are_numbers_are_the_numbers_that_requests_bring():
    kept = reference_of(pd.DataFrame({"zip": pd.Categorical([1, 2, 2] * 200)}))
    asked = pd.DataFrame({"zip": [1, 2, 2] * 200})
    window = Window(kept, 3600)
    window.add(kept.count(asked, 1))
    assert [index for _, _, index in window.stability()] == [0.0]


def test_a_window_forgets_and_says_nothing_of_few_rows():
    now = 0.0
    reference = reference_of(X_TEST[["age"]])
    window = Window(reference, 3600, lambda: now)
    window.add(reference.count(X_TEST[: LEAST_ROWS - 1], 1))
    assert list(window.stability()) == [("age", LEAST_ROWS - 1, None)]
    now = 1800.0
    window.add(reference.count(X_TEST[:300], 1))
    ((_, rows, index),) = window.stability()
    assert (rows, index is not None) == (LEAST_ROWS + 299, True)
    now = 3601.0
    assert [rows for _, rows, _ in window.stability()] == [300]
    now = 9000.0
    assert [rows for _, rows, _ in window.stability()] == [0]


@pytest.mark.parametrize("counts", [{"age": [1] * 3}, {"none": [1]}])
def test_counts_of_another_shape_are_passed_over(counts):
    window = Window(reference_of(X_TEST[["age"]]), 3600)
    window.add(counts)
    assert [rows for _, rows, _ in window.stability()] == [0]


@pytest.mark.parametrize("bins", [["1"] * 11, [-1] * 11, [0.5] * 11])
def test_what_a_model_wrote_in_the_place_of_counts_is_refused(bins):
    window = Window(reference_of(X_TEST[["age"]]), 3600)
    with pytest.raises(ValueError, match="not counts"):
        window.add({"age": bins})


def test_a_sampler_counts_a_copy_and_takes_a_fiftieth_of_the_time_at_most():
    now = 0.0

    def clock():
        nonlocal now
        now += 0.05  # what counting takes, and every look at the clock
        return now

    sampler, frame = Sampler(reference_of(X_TEST[["age"]]), clock), X_TEST[["age"]][:10].copy()
    sampler.offer(frame)
    frame["age"] = -1.0
    assert sampler.counts() == reference_of(X_TEST[["age"]]).count(X_TEST[:10], 1)
    counted_at = now
    sampler.offer(frame)
    assert sampler.counts() is None
    while sampler.counts() is None:
        sampler.offer(frame)
    assert now - counted_at >= 50 * 0.05
