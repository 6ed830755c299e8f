"""What an MLmodel file says: its scalars are texts, and it has limits."""

from __future__ import annotations

import json
import time

import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import SourceError
from adroit_publish.mlflow.mlmodel import read_mlmodel


def read(text, requirements=""):
    return read_mlmodel(
        {
            "MLmodel": InlineFile(text.encode()),
            "requirements.txt": InlineFile(requirements.encode()),
        }
    )


@pytest.mark.parametrize(
    "uuid",
    [
        "12345678901234567890123456789e12",
        "1e5",
        "12345678901234567890123456789012",
        "0x1f",
        "0o17",
        "1_000",
        "2026-11-27",
        "1:30",
        "yes",
        "true",
        ".inf",
        "1.10",
    ],
)
def test_a_text_that_looks_like_something_else_stays_a_text(uuid):
    facts = read(f"flavors:\n  python_function:\n    python_version: 3.10\nmodel_uuid: {uuid}\n")
    assert (facts.model_uuid, facts.python_version) == (uuid, "3.10")


def test_what_mlflow_writes_is_read():
    import yaml

    signature = {"inputs": json.dumps([{"type": "double", "name": "x"}]), "outputs": None}
    mlmodel = {
        "flavors": {"python_function": {"python_version": "3.11.7", "env": {"conda": "c"}}},
        "model_uuid": "8c5e",
        "signature": {**signature, "params": None},
    }
    facts = read(yaml.safe_dump(mlmodel), "# made by hand\n\nmlflow==3.17.2\n")
    assert facts.model_uuid == "8c5e"
    assert facts.signature == {"inputs": [{"type": "double", "name": "x"}]}
    assert facts.requirements == ("mlflow==3.17.2",)
    assert facts.python_version == "3.11.7"


@pytest.mark.parametrize("absent", ["", "model_uuid:", "model_uuid: null", "model_uuid: ~"])
def test_what_is_absent_is_none(absent):
    facts = read(f"flavors: {{}}\nsignature: null\n{absent}\n")
    assert (facts.model_uuid, facts.signature, facts.python_version) == (None, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"key{number}: 1\n" for number in range(40_000)),
        "a: " + "[" * 100_000 + "]" * 100_000,
        "a: " + "{b: " * 70 + "c" + "}" * 70,
        "a: &a [x, x]\n" + "".join(f"k{n}: &k{n} [*a, *a]\n" for n in range(30_000)),
        "x: " + "y" * (5 << 20),
        "- a list",
        "a: b: c",
        "a: !!python/object/apply:os.system [true]\nb: [",
        "flavors: text",
        "flavors: {python_function: [1]}",
        "signature: {inputs: nothing}",
        "",
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_mlmodel_is_refused_within_a_second(text):
    started = time.process_time()
    with pytest.raises(SourceError, match="MLmodel"):
        read(text)
    assert time.process_time() - started < 1


def test_a_wide_signature_is_read():
    columns = [{"type": "double", "name": f"column {n}", "required": True} for n in range(20_000)]
    facts = read(f"flavors: {{}}\nsignature:\n  inputs: '{json.dumps(columns)}'\n")
    assert facts.signature == {"inputs": columns}
