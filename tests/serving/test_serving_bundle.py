"""adroit.serving.bundle and outputs: reading, checking, importing the handler, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from adroit.serving import Bundle, BundleError, outputs
from adroit.serving.loading import load_handler
from tests.support.serving_bundles import bundle, loader_model, predicting

MODEL = loader_model(predicting("return [1, 2]"))
HANDLER = """
class MyHandler:
    def __init__(self, threshold=0.5):
        self.threshold = threshold
    def load(self, bundle):
        self.loaded = bundle.model_name
    def predict(self, inputs, params=None):
        return [self.threshold]
class NoPredict:
    def load(self, bundle):
        pass
"""


@pytest.fixture(autouse=True)
def _imports_are_undone() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.split(".")[0] == "shop":
            del sys.modules[name]


def read(root: Path) -> Bundle:
    return Bundle.read(root)


def test_a_bundle_knows_its_model_and_its_own_id(tmp_path: Path) -> None:
    found = read(bundle(tmp_path / "b", MODEL))
    assert found.model_name == "tiny"
    assert found.model_dir == tmp_path / "b/model"
    assert found.bundle_id.startswith("sha256:")
    assert {file.path for file in found.files} >= {"model/MLmodel", "runtime/adroit/__init__.py"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ("", "cannot be read"),
        ("[]", "schema None"),
        ('{"schema": 2}', "this runtime reads 1"),
        ('{"schema": 1}', "no bundle record"),
        ('{"schema": 1, "serve": {"handler": []}}', "no bundle record"),
    ],
)
def test_a_record_that_is_no_record_is_refused(tmp_path: Path, record: str, said: str) -> None:
    (tmp_path / "bundle.json").write_text(record)
    with pytest.raises(BundleError, match=said):
        read(tmp_path)


def test_every_difference_from_the_record_is_named_at_once(tmp_path: Path) -> None:
    found = read(bundle(tmp_path / "b", MODEL, source={"shop/rules.py": "A = 1\n"}))
    found.check(deep=True)
    (tmp_path / "b/model/input_example.json").unlink()
    (tmp_path / "b/source/extra.py").write_text("")
    (tmp_path / "b/source/shop/rules.py").write_text("A = 10\n")
    with pytest.raises(BundleError) as caught:
        found.check()
    assert "model/input_example.json: missing" in str(caught.value)
    assert "source/extra.py: not in bundle.json" in str(caught.value)
    assert "source/shop/rules.py: 7 bytes, bundle.json says 6" in str(caught.value)


def test_only_a_deep_check_sees_a_changed_byte(tmp_path: Path) -> None:
    found = read(bundle(tmp_path / "b", MODEL, source={"shop/rules.py": "A = 1\n"}))
    (tmp_path / "b/source/shop/rules.py").write_text("A = 2\n")
    found.check()
    with pytest.raises(BundleError, match=r"shop/rules\.py: sha256"):
        found.check(deep=True)


def test_a_file_named_by_its_layer_is_checked_by_size_alone(tmp_path: Path) -> None:
    root = bundle(tmp_path / "b", MODEL)
    record = json.loads((root / "bundle.json").read_text())
    entry = next(item for item in record["files"]["model"] if item["path"] == "MLmodel")
    del entry["sha256"]
    entry["layer"] = "sha256:" + "0" * 64
    (root / "bundle.json").write_text(json.dumps(record))
    read(root).check(deep=True)
    with (root / "model/MLmodel").open("a") as stream:
        stream.write("#")
    with pytest.raises(BundleError, match="model/MLmodel: "):
        read(root).check()


def test_a_link_in_place_of_a_file_is_refused_and_bytecode_is_not(tmp_path: Path) -> None:
    root = bundle(tmp_path / "b", MODEL, source={"shop/rules.py": "A = 1\n"})
    (root / "source/shop/__pycache__").mkdir()
    (root / "source/shop/__pycache__/rules.pyc").write_text("")
    read(root).check()
    (root / "source/shop/rules.py").rename(tmp_path / "rules.py")
    (root / "source/shop/rules.py").symlink_to(tmp_path / "rules.py")
    with pytest.raises(BundleError, match="not a regular file"):
        read(root).check()


def test_a_handler_of_ones_own_is_imported_from_the_source(tmp_path: Path) -> None:
    root = bundle(
        tmp_path / "b",
        MODEL,
        source={"shop/handler.py": HANDLER},
        class_path="shop.handler:MyHandler",
        kwargs={"threshold": 0.9},
    )
    handler = load_handler(read(root))
    assert handler.predict(None) == [0.9]


@pytest.mark.parametrize(
    ("class_path", "kwargs", "said"),
    [
        ("shop.handler", {}, "has the form module:Class"),
        ("shop.handler:Missing", {}, "module shop.handler has no class Missing"),
        ("shop.missing:MyHandler", {}, "no shop.missing under"),
        ("elsewhere.handler:MyHandler", {}, r"no elsewhere under .* \(it holds shop\)"),
        ("shop.needy:MyHandler", {}, "shop.needy imports not_installed_anywhere, which is neither"),
        ("shop.handler:MyHandler", {"treshold": 1}, "does not take the kwargs"),
        ("shop.handler:NoPredict", None, "has no method predict"),
    ],
)
def test_what_is_wrong_with_a_class_path_is_said_plainly(
    tmp_path: Path, class_path: str, kwargs: dict[str, object] | None, said: str
) -> None:
    source = {"shop/handler.py": HANDLER, "shop/needy.py": "import not_installed_anywhere\n"}
    root = bundle(tmp_path / "b", MODEL, source=source, class_path=class_path)
    record = json.loads((root / "bundle.json").read_text())
    record["serve"]["handler"]["kwargs"] = kwargs
    (root / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(BundleError, match=said):
        load_handler(read(root))


@pytest.mark.parametrize(
    ("returned", "wanted"),
    [
        (np.array([[1, 2]]), [[1, 2]]),
        (pd.DataFrame({"a": [1], "b": ["x"]}), [{"a": 1, "b": "x"}]),
        (pd.Series([1.5], name="p"), [{"p": 1.5}]),
        ({"a": np.float32(0.5)}, {"a": 0.5}),
    ],
)
def test_outputs_become_what_a_server_would_send(returned: object, wanted: object) -> None:
    assert outputs.as_json(returned) == wanted


def test_outputs_that_are_no_json_are_refused() -> None:
    with pytest.raises(outputs.OutputError, match="predict returned set"):
        outputs.as_json({1, 2})
