"""The gate over what a bundle imports: left-out files, missing packages, shadows."""

from __future__ import annotations

import pickle
import sys
import sysconfig
import types
import venv
from pathlib import Path

import pytest

from adroit.serving import predict_once
from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import VerificationError
from adroit_publish.gates.closure import check_closure
from adroit_publish.gates.env_contract import ObservedEnv, check_env
from adroit_publish.gates.prediction import predict_in_sandbox
from tests.support.serving_bundles import bundle, loader_model, predicting

HANDLER = "projects.shop.handler:Mine"
ENV = frozenset({*sys.stdlib_module_names, "mlflow", "numpy", "pandas"})
MLMODEL = "flavors:\n  python_function:\n    code: code\n    loader_module: mlflow.pyfunc.model\n"


def check(files, *, class_path=HANDLER, names=ENV):
    handler = {"source/projects/shop/handler.py": "class Mine: ..."}
    runtime = {
        "runtime/adroit/__init__.py": "",
        "runtime/adroit/serving/__init__.py": "",
        "runtime/adroit/serving/mlflow_handler.py": "class MlflowHandler: ...",
    }
    everything = {"model/MLmodel": MLMODEL, **runtime, **handler, **files}
    readable = {
        path: InlineFile(text if isinstance(text, bytes) else text.encode())
        for path, text in everything.items()
    }
    return check_closure(readable, class_path, names)


def refused(files, **options):
    with pytest.raises(VerificationError) as error:
        check(files, **options)
    return error.value


def test_a_bundle_that_holds_all_it_imports_passes():
    found = check(
        {
            "source/projects/shop/handler.py": "import numpy\nfrom projects.shop import features\n",
            "source/projects/shop/features.py": "from adroit.serving import mlflow_handler\n",
            "source/projects/shop/evaluate.py": "import matplotlib  # nobody serves this\n",
            "model/code/projects/shop/features.py": "import torch  # the source is newer\n",
        }
    )
    assert "source/projects/shop/features.py" in found.files
    assert "source/projects/shop/evaluate.py" not in found.files
    assert found.external == ("mlflow", "numpy")


def test_a_file_left_out_of_the_bundle_is_named_with_the_line_that_imports_it():
    handler = "class Mine:\n    def predict(self, x):\n        from projects.shop import features\n"
    for names in (ENV, None):  # it takes no knowledge of the env
        error = refused({"source/projects/shop/handler.py": handler}, names=names)
        assert error.got == ("projects.shop.features, imported at projects/shop/handler.py:3")
        assert error.where == f"handler {HANDLER}"
        assert "source.include" in error.next_step
        assert "conda env" not in error.next_step
        assert error.exit_code == 6


def test_a_package_that_the_env_lacks_is_named():
    handler = {"source/projects/shop/handler.py": "import shap\nclass Mine: ..."}
    error = refused(handler)
    assert error.got == "shap, imported at projects/shop/handler.py:1"
    assert "conda env" in error.next_step
    check(handler, names=ENV | {"shap"})
    check(handler, names=None)


def test_a_handler_that_is_not_there_is_named():
    error = refused({}, class_path="projects.shop.handlers:Mine")
    assert error.got == "projects.shop.handlers, named by config.yaml or MLmodel"


@pytest.mark.parametrize(
    ("mlmodel", "files"),
    [
        ("loader_module: my_loader\n", {"model/code/my_loader.py": "import shap"}),
        ("model_code_path: /home/me/served.py\n", {"model/served.py": "import shap"}),
        ("{code: lib, loader_module: my_loader}\n", {"model/lib/my_loader.py": "import shap"}),
    ],
)
def test_the_code_that_loads_the_model_is_followed(mlmodel, files):
    text = "flavors:\n  python_function:\n    " + mlmodel
    assert "shap" in str(refused({"model/MLmodel": text, **files}).got)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_modules_that_a_pickle_names_are_followed(protocol, monkeypatch):
    module = types.ModuleType("lib.scaler")
    monkeypatch.setitem(sys.modules, "lib", types.ModuleType("lib"))
    monkeypatch.setitem(sys.modules, "lib.scaler", module)
    module.Scaler = type("Scaler", (), {"__module__": "lib.scaler"})
    files = {
        "model/code/lib/scaler.py": "def f():\n    import shap\n",
        "model/code/lib/train.py": "import matplotlib",
        "model/python_model.pkl": pickle.dumps(module.Scaler(), protocol),
    }
    assert refused(files).got == "shap, imported at model/code/lib/scaler.py:2"


def test_a_module_that_would_shadow_an_installed_one_is_refused_by_name():
    error = refused(
        {
            "source/pandas.py": "",
            "source/calendar/__init__.py": "",
            "source/numpy/own.py": "",
            "model/code/mlflow/__init__.py": "",
            "model/code/adroit/__init__.py": "",
            "source/projects/shop/json.py": "# below a package it shadows nothing",
        }
    )
    assert str(error.got).splitlines() == [
        "calendar/__init__.py would shadow the module calendar",
        "numpy/ would be hidden by the module numpy",
        "pandas.py would shadow the module pandas",
        "model/code/adroit/__init__.py would shadow the module adroit",
        "model/code/mlflow/__init__.py would shadow the module mlflow",
    ]
    assert "rename" in error.next_step


def test_data_with_the_name_of_an_installed_module_shadows_nothing():
    check({"source/numpy/table.csv": "1", "model/code/json/x.txt": ""})


def test_without_knowledge_of_the_env_pythons_own_modules_are_still_not_shadowed():
    assert "calendar" in str(refused({"source/calendar.py": ""}, names=None).got)


def test_what_is_no_python_or_no_yaml_stops_nothing_here():
    found = check({"source/projects/shop/handler.py": "class Mine(:", "model/MLmodel": "a: ["})
    assert found.unreadable == ("source/projects/shop/handler.py",)


# What the env holds is told from inside of it.


def test_the_sandbox_tells_what_can_be_imported_there(tmp_path):
    seen = []
    layout = bundle(tmp_path / "b", loader_model(predicting("return [1]")))
    predict_in_sandbox(layout, allow_plain=True, timeout_s=60.0, check_env=seen.append)
    (env,) = seen
    assert isinstance(env, ObservedEnv)
    assert env.python == ".".join(map(str, sys.version_info[:3]))
    assert {"json", "sys", "numpy", "sklearn", "mlflow"} <= env.import_names
    assert not {"adroit", "projects", "tests", "test_loader"} & (env.import_names - {"adroit"})
    assert "scikit-learn" in env.packages


def test_the_env_is_told_of_a_model_that_does_not_load_and_its_mismatch_goes_first(tmp_path):
    layout = bundle(tmp_path / "b", loader_model("raise TypeError('code() argument 13')"))
    cause = VerificationError("another Python")

    def refuse(env):
        assert env.packages
        raise cause

    with pytest.raises(VerificationError) as error:
        predict_in_sandbox(layout, allow_plain=True, timeout_s=60.0, check_env=refuse)
    assert error.value is cause


def test_packages_without_a_list_of_their_files_are_importable_too(tmp_path, monkeypatch):
    site = tmp_path / "dist-packages"
    (site / "bare").mkdir(parents=True)
    (site / "bare-1.0.dist-info").mkdir()
    (site / "single.py").touch()
    (site / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    (site / "bare.libs").mkdir()
    (site / "notes.txt").touch()
    before = set(predict_once._import_names())
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    assert set(predict_once._import_names()) - before == {"bare", "single", "fast"}


def test_an_env_without_starlette_is_the_cause_that_is_told(tmp_path):
    """A real environment: this one's packages but for starlette."""
    venv.create(tmp_path / "env", symlinks=True)
    (theirs,) = (tmp_path / "env").glob("lib/python*/site-packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("starlette"):
            (theirs / path.name).symlink_to(path)
    layout = bundle(tmp_path / "b", loader_model(predicting("return [1]")))
    with pytest.raises(VerificationError) as error:
        predict_in_sandbox(
            layout,
            python=str(tmp_path / "env/bin/python"),
            allow_plain=True,
            check_env=lambda env: check_env((), env, env_name="bare"),
            _kind="plain",  # the links lead out of what a sandbox shows
        )
    assert error.value.got == "starlette: nothing, runtime wants any: not installed"
