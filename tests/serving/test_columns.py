"""The short way from JSON to a DataFrame ends where MLflow's way ends, or is not taken."""

from __future__ import annotations

import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.models import Model, ModelSignature
from mlflow.pyfunc.scoring_server import _parse_json_data
from mlflow.types import ColSpec, DataType, Schema

from adroit.serving.workers.columns import plain_frame, plain_types

KINDS = ["double", "float", "long", "integer", "boolean", "string"]
CELLS = st.one_of(
    st.integers(-(2**65), 2**65),
    st.integers(-5, 5),
    st.floats(),
    st.floats(-2, 2),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)


def metadata(kinds: dict[str, str], **options: Any) -> Model:
    columns = [ColSpec(DataType[kind], name, **options) for name, kind in kinds.items()]
    return Model(signature=ModelSignature(Schema(columns)))


def frames(model: Model, body: bytes) -> tuple[pd.DataFrame | None, pd.DataFrame]:
    types = plain_types(model)
    ours = None if types is None else plain_frame(body, types)
    return ours, _parse_json_data(body, model, model.get_input_schema()).data


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert ours.to_numpy().flags.f_contiguous == theirs.to_numpy().flags.f_contiguous


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_frame_that_comes_of_it_is_mlflows(data: st.DataObject) -> None:
    kinds = data.draw(st.dictionaries(st.sampled_from("abcd"), st.sampled_from(KINDS), min_size=1))
    of_kind = {
        "double": st.floats() | st.integers(-9, 9),
        "float": st.floats(width=32),
        "long": st.integers(-(2**63), 2**63 - 1),
        "integer": st.integers(-(2**31), 2**31 - 1),
        "boolean": st.booleans(),
        "string": st.text(max_size=3),
    }
    row = st.tuples(*(of_kind[kind] | CELLS for kind in kinds.values()))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    names = list(kinds)
    split = {"dataframe_split": {"columns": names, "data": rows}}
    records = {"dataframe_records": [dict(zip(names, row, strict=True)) for row in rows]}
    for body in (split, records):
        text = json.dumps(body).encode()
        types = plain_types(metadata(kinds))
        ours = None if types is None else plain_frame(text, types)
        if ours is not None:
            same(ours, frames(metadata(kinds), text)[1])


@pytest.mark.parametrize("kind", ["double", "float", "long", "integer", "boolean"])
def test_plain_tables_do_take_it(kind: str) -> None:
    cells = [True, False] if kind == "boolean" else [1, 2]
    for body in (
        {"dataframe_split": {"columns": ["b", "a"], "data": [cells, cells]}},
        {"dataframe_records": [{"a": cells[0], "b": cells[1]}]},
    ):
        ours, theirs = frames(metadata({"a": kind, "b": kind}), json.dumps(body).encode())
        assert ours is not None
        same(ours, theirs)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]], "index": [7]}},
        {"dataframe_split": {"columns": ["a"], "data": [[1]]}},
        {"dataframe_split": {"columns": ["a", "b", "c"], "data": [[1, 2, 3]]}},
        {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3]]}},
        {"dataframe_split": {"columns": ["a", "b"], "data": []}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, None]]}},
        {"dataframe_records": [{"a": 1, "b": 2}, {"b": 3, "a": 4}]},
        {"dataframe_records": []},
        {"dataframe_records": {"a": 1, "b": 2}},
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2]]}, "params": {}},
        {"inputs": {"a": [1], "b": [2]}},
        {"instances": [{"a": 1, "b": 2}]},
        [],
        3,
    ],
)
def test_what_is_not_plain_is_left_to_mlflow(body: Any) -> None:
    assert plain_frame(json.dumps(body).encode(), {"a": "float64", "b": "float64"}) is None


def test_a_signature_that_is_not_plain_is_left_to_mlflow() -> None:
    assert plain_types(metadata({"a": "double"})) == {"a": "float64"}
    assert plain_types(metadata({"a": "string"})) is None
    assert plain_types(metadata({"a": "double"}, required=False)) is None
    assert plain_types(Model()) is None
