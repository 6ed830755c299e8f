"""Outputs of everyday models next to the signatures that `infer_signature` made for them."""

from __future__ import annotations

import itertools
import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from mlflow.types.type_hints import _infer_schema_from_list_type_hint

from adroit.serving.outputs import as_json
from adroit_publish.gates.replay import unexpected

LABELS = {
    "list": [0, 1, 0],
    "int64": np.array([0, 1, 0]),
    "int32": np.array([0, 1, 0], dtype="int32"),
    "float64": np.array([0.0, 1.0, 0.0]),
    "float32": np.array([0.0, 1.0, 0.0], dtype="float32"),
    "bool": np.array([False, True, False]),
    "column": np.array([[0], [1], [0]]),
    "series": pd.Series([0, 1, 0]),
    "named series": pd.Series([0, 1, 0], name="label"),
    "frame": pd.DataFrame({"label": [0, 1, 0]}),
}


def columns(y):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return json.loads(infer_signature(model_output=y).to_dict()["outputs"])


@pytest.mark.parametrize(("signed", "predicted"), [*itertools.product(LABELS, LABELS)])
def test_everyday_pairs_of_signature_and_prediction_are_as_expected(signed, predicted):
    assert unexpected(as_json(LABELS[predicted]), columns(LABELS[signed])) == ()


@pytest.mark.parametrize(
    ("outputs", "signed", "words"),
    [
        (["yes", "no"], LABELS["named series"], "column label holds str, and not long"),
        ([{"score": 1}], LABELS["frame"], "no column label; a column score more"),
        ([[1, 2]], LABELS["frame"], "2 values in a row, and not 1"),
        ([1, 0], np.array(["a", "b"]).tolist(), "holds int, and not string"),
    ],
)
def test_outputs_of_another_kind_are_a_finding(outputs, signed, words):
    (finding,) = unexpected(outputs, columns(signed))
    assert finding.name == "outputs:signature"
    assert words in finding.what


@pytest.mark.parametrize(
    ("hint", "outputs"),
    [
        (list[dict[str, Any]], [{"doubled": 2}, {"other": "x"}]),
        (list[dict[str, float]], [{"doubled": 2.0}]),
        (list[list[float]], [[1.0, 2.0], [3.0]]),
        (list[str], ["A", "B"]),
        (list[Any], [1, "x", [2]]),
    ],
    ids=str,
)
def test_what_a_type_hint_signs_is_answered_as_expected(hint, outputs):
    signed = json.loads(json.dumps(_infer_schema_from_list_type_hint(hint).to_dict()))
    assert unexpected(outputs, signed) == ()


@pytest.mark.parametrize("signature", [None, "x", [5]])
def test_no_signature_or_an_odd_one_expects_nothing(signature):
    assert unexpected([1], signature) == ()
