"""The gate over what a bundle imports: left-out files, missing packages, shadows."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import sysconfig
import types
import venv
import zipfile
from pathlib import Path

import pytest
import skops.io

from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import VerificationError
from adroit_publish.gates import closure, reporter
from adroit_publish.gates.closure import Served, check_closure
from adroit_publish.gates.env_contract import ObservedEnv, check_env
from adroit_publish.gates.left_out import check_left_out
from adroit_publish.gates.prediction import predict_in_sandbox
from tests.support.serving_bundles import bundle, loader_model, predicting

HANDLER = "projects.shop.handler:Mine"
ENV = frozenset({*sys.stdlib_module_names, "mlflow", "numpy", "pandas"})
MLMODEL = "flavors:\n  python_function:\n    code: code\n    loader_module: mlflow.pyfunc.model\n"


def check(files, *, class_path=HANDLER, names=ENV, accept=()):
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
    served = Served(readable, "shop", class_path, accept)
    return check_closure(served, names)


def refused(files, **options):
    with pytest.raises(VerificationError) as error:
        check(files, **options)
    return error.value


def test_a_bundle_that_holds_all_it_imports_passes():
    imports, findings = check(
        {
            "source/projects/shop/handler.py": "import numpy\nfrom projects.shop import features\n",
            "source/projects/shop/features.py": "from adroit.serving import mlflow_handler\n",
            "source/projects/shop/evaluate.py": "import matplotlib  # nobody serves this\n",
            "model/code/projects/shop/features.py": "import torch  # the source is newer\n",
        }
    )
    assert imports.source == ("projects/shop/features.py", "projects/shop/handler.py")
    assert imports.env == ("mlflow", "numpy")
    assert findings == ()


def test_a_file_left_out_of_the_bundle_is_named_with_the_line_that_imports_it():
    handler = "class Mine:\n    def predict(self, x):\n        from projects.shop import features\n"
    for names in (ENV, None):  # it takes no knowledge of the env
        error = refused({"source/projects/shop/handler.py": handler}, names=names)
        assert error.got == ("projects.shop.features, imported at projects/shop/handler.py:3")
        assert error.where == f"handler {HANDLER}"
        assert "source.include" in error.next_step
        assert "conda env" not in error.next_step
        assert error.exit_code == 6


@pytest.mark.parametrize(
    "code",
    [
        "class Mine:\n    def fit(self):\n        import shap\n",
        "async def tune():\n    from shap import plots\n",
        "explain = lambda: __import__('shap')\n",
        "def later():\n    import projects.shop.train\n",
        "if DEBUG:\n    import shap\n",
    ],
)
def test_a_package_that_only_a_later_call_imports_is_a_finding(code):
    files = {
        "source/projects/shop/handler.py": code,
        "source/projects/shop/train.py": "import shap",
    }
    _, (finding,) = check(files)
    assert finding.name.startswith("import:shap")
    assert "imported at projects/shop/" in finding.what
    assert "is in neither the bundle nor the env" in finding.what


def test_a_flag_that_a_tolerant_try_set_guards_its_imports():
    """As the issue has it: of everyday training code, nothing is missing when it is loaded."""
    code = (
        "try:\n    import shap\n    HAS = True\nexcept ImportError:\n    HAS = False\n"
        "if HAS:\n    from shap import plots\n"
        "def fit(x):\n    import optuna\n"
    )
    loader = "flavors:\n  python_function:\n    loader_module: train\n"
    _, findings = check({"model/MLmodel": loader, "model/code/train.py": code})
    assert [finding.name for finding in findings] == ["import:optuna"]
    flags = (
        "HAS = find_spec('shap') is not None",
        "try:\n    import shap\nexcept ImportError: pass",
    )
    for flag, test in zip(flags, ("HAS", "shap"), strict=True):
        handler = f"from importlib.util import find_spec\n{flag}\nif {test}:\n    import shap.plots"
        assert check({"source/projects/shop/handler.py": handler})[1] == ()


def test_a_flag_of_another_name_guards_nothing_that_is_sure_to_run():
    code = "try:\n    import json\nexcept ImportError:\n    json = None\nimport shap\n"
    assert "shap" in str(refused({"source/projects/shop/handler.py": code}).got)


def test_a_refusal_names_its_waiver_and_the_waiver_makes_it_a_finding():
    handler = {"source/projects/shop/handler.py": "import shap\nclass Mine: ..."}
    assert '"verify: {accept: [import:shap]}" in config.yaml' in refused(handler).next_step
    assert [one.name for one in check(handler, accept=["import:shap"])[1]] == ["import:shap"]
    shadow = {"source/pandas.py": ""}
    assert '"verify: {accept: [shadow:pandas]}"' in refused(shadow).next_step
    assert [one.name for one in check(shadow, accept=["shadow:pandas"])[1]] == ["shadow:pandas"]
    refused(shadow, accept=["shadow:numpy", "import:pandas"])


FLAT = {
    "model/MLmodel": "flavors:\n  python_function:\n    loader_module: my_loader\n",
    "model/code/my_loader.py": "import data_prep\n",
    "model/code/data_prep.py": "import torch  # as it was logged\n",
}


def test_a_module_logged_by_its_bare_name_is_followed_where_the_checkout_has_it():
    source = {"source/projects/shop/data_prep.py": "import numpy\n"}
    imports, _ = check(FLAT | source)
    assert imports.source == ("projects/shop/data_prep.py", "projects/shop/handler.py")
    assert imports.model == ("code/my_loader.py",)
    assert imports.homes == {"data_prep": "projects/shop"}
    assert "torch" not in imports.env


def test_a_package_logged_by_its_last_part_is_followed_where_the_checkout_has_it():
    files = {
        "model/MLmodel": FLAT["model/MLmodel"],
        "model/code/my_loader.py": "from prep.clean import clean\n",
        "model/code/prep/clean.py": "import torch",
        "model/code/prep/rest.py": "",
        "source/projects/shop/prep/clean.py": "from prep import rest, added",
        "source/projects/shop/prep/added.py": "",
        "source/projects/common/prep/other.py": "import torch",
    }
    imports, _ = check(files)
    assert imports.homes == {"prep": "projects/shop"}
    assert imports.model == ("code/my_loader.py", "code/prep/rest.py")
    assert set(imports.source) > {"projects/shop/prep/added.py", "projects/shop/prep/clean.py"}


def test_of_several_files_the_projects_own_is_the_one_and_else_they_are_named():
    both = {
        "source/projects/shop/data_prep.py": "",
        "source/projects/shop/old/data_prep.py": "import torch",
        "source/projects/common/data_prep.py": "import torch",
    }
    assert check(FLAT | both)[0].homes == {"data_prep": "projects/shop"}
    neither = {
        "source/projects/a/data_prep.py": "",
        "source/projects/b/data_prep.py": "",
        "model/code/data_prep.py": "",
    }
    error = refused(FLAT | neither)
    assert "the checkout has it in projects/a and projects/b" in str(error.got)
    imports, (finding,) = check(FLAT | neither, accept=["module:data_prep"])
    assert imports.model == ("code/data_prep.py", "code/my_loader.py")
    assert finding.name == "module:data_prep"


def left_out(files, committed, accept=()):
    everything = {path: InlineFile(text.encode()) for path, text in (FLAT | files).items()}
    imports, _ = check_closure(Served(everything, "shop", "my_loader:Mine", ()), None)
    return check_left_out(imports, everything, committed, "shop", accept)


def blob(text):
    return hashlib.sha1(b"blob %d\0%s" % (len(text), text.encode())).hexdigest()


def test_a_file_of_the_checkout_that_is_served_as_a_logged_copy_is_refused_with_the_line_to_add():
    files = {
        "model/code/data_prep.py": "import projects.common.money, rates\n",
        "model/code/projects/common/money.py": "CENTS = 100\n",
        "model/code/rates.py": "EUR = 1.1\n",
    }
    committed = {
        "projects/common/money.py": blob("CENTS = 1\n"),  # edited since: its path tells
        "projects/shared/rates.py": blob("EUR = 1.1\n"),
        "projects/shop/config.yaml": blob("model_name: shop"),
        "projects/other/config.yaml": blob("model_name: other"),
        "projects/other/data_prep.py": blob("another file of that name"),
    }
    with pytest.raises(VerificationError) as error:
        left_out(files, committed)
    assert str(error.value.got).splitlines() == [
        "projects/common/money.py is not packed; model/code/projects/common/money.py is served "
        "instead",
        "projects/shared/rates.py is not packed; model/code/rates.py is served instead",
    ]
    assert '"source: {include: [projects/common, projects/shared]}"' in error.value.next_step
    names = ["module:projects.common.money", "module:rates"]
    assert [one.name for one in left_out(files, committed, names)] == names


def test_a_model_whose_code_the_checkout_does_not_have_passes():
    configs = dict.fromkeys(("projects/shop/config.yaml", "projects/other/config.yaml"), blob(""))
    others = {"projects/other/data_prep.py": blob("x"), "setup.py": blob("")}
    assert left_out({}, configs | others) == ()


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
        "model/code/lib/scaler.py": "\nimport shap\n",
        "model/code/lib/train.py": "import matplotlib",
        "model/python_model.pkl": pickle.dumps(module.Scaler(), protocol),
    }
    assert refused(files).got == "shap, imported at model/code/lib/scaler.py:2"


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_modules_that_skops_names_are_followed(compression, monkeypatch):
    module = types.ModuleType("lib.scaler")
    monkeypatch.setitem(sys.modules, "lib", types.ModuleType("lib"))
    monkeypatch.setitem(sys.modules, "lib.scaler", module)
    module.Scaler = type("Scaler", (), {"__module__": "lib.scaler"})
    written = io.BytesIO()
    skops.io.dump(module.Scaler(), written, compression=compression)
    files = {
        "model/code/lib/scaler.py": "\nimport shap\n",
        "model/code/lib/train.py": "import matplotlib",
        "model/model.skops": written.getvalue(),
    }
    assert refused(files).got == "shap, imported at model/code/lib/scaler.py:2"


def test_the_modules_that_the_pickle_in_a_file_of_torch_names_are_followed():
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02clib.scaler\nScaler\n)\x81.")
    files = {
        "model/code/lib/scaler.py": "\nimport shap\n",
        "model/code/lib/train.py": "import matplotlib",
        "model/data/model.pth": written.getvalue(),
    }
    assert refused(files).got == "shap, imported at model/code/lib/scaler.py:2"


def zipped(member: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", member)
    return written.getvalue()


@pytest.mark.parametrize(
    "data", [bytes(1001), zipped(bytes(1001)), zipped(b"{}").replace(b"schema", b"scheme", 1)]
)
def test_what_a_pickle_imports_that_cannot_be_searched_is_not_known(data, monkeypatch):
    monkeypatch.setattr(closure, "_PICKLE_BYTES", 1000)
    imports, _ = check({"model/model.skops": data, "model/code/lib.py": "import shap"})
    assert imports.unreadable == ("model/model.skops",)
    imports, _ = check({"model/model.skops": zipped(b"{}"), "model/weights.bin": bytes(1001)})
    assert imports.unreadable == ()


def test_a_pickle_that_ends_with_a_zip_is_searched_before_it():
    data = b"\x80\x02clib.scaler\nScaler\n" + zipped(b"{}")
    files = {"model/code/lib/scaler.py": "\nimport shap\n", "model/python_model.pkl": data}
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
    imports, _ = check({"source/projects/shop/handler.py": "class Mine(:", "model/MLmodel": "a: ["})
    assert imports.unreadable == ("source/projects/shop/handler.py",)


# What the env holds is told from inside of it.


def test_the_sandbox_tells_what_can_be_imported_there(tmp_path):
    seen = []
    layout = bundle(tmp_path / "b", loader_model(predicting("return [1]")))
    predict_in_sandbox(layout, allow_plain=True, check_env=seen.append)
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
        predict_in_sandbox(layout, allow_plain=True, check_env=refuse)
    assert error.value is cause


def test_packages_without_a_list_of_their_files_are_importable_too(tmp_path, monkeypatch):
    site = tmp_path / "dist-packages"
    (site / "bare").mkdir(parents=True)
    (site / "bare-1.0.dist-info").mkdir()
    (site / "single.py").touch()
    (site / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    (site / "bare.libs").mkdir()
    (site / "notes.txt").touch()
    before = set(reporter.import_names())
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    assert set(reporter.import_names()) - before == {"bare", "single", "fast"}


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
