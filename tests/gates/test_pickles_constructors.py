"""Allowed classes are made as pickle makes them; what their constructors would run is refused."""

from __future__ import annotations

import pickle

import pytest

from adroit_publish.gates.pickles.allowed import is_plain_formula
from tests.gates.test_pickles_hostile import by_global, refused
from tests.gates.test_pickles_of_models import imports

EXPRESSION = "tokenize.sys.modules.get('os').system('id')"
CONSTRUCTORS = (
    "pandas.core.computation.expr Expr", "pandas.core.computation.scope Scope",
    "lightgbm.basic Booster", "lightgbm.basic Dataset", "xgboost.core Booster",
    "cmdstanpy.model CmdStanModel", "mlflow.pyfunc.backend PyFuncBackend",
    "mlflow.pyfunc.model ModelFromDeploymentEndpoint", "pydantic.main BaseModel",
    "pydantic._internal._model_construction ModelMetaclass", "torch.nn.parallel DataParallel",
    "sklearn.utils.parallel Parallel", "sklearn.pipeline Memory", "scipy.stats norm_gen",
    "scipy.stats._continuous_distns norm_gen", "statsmodels.base.data PandasData",
    "patsy.eval EvalEnvironment", "pandas eval", "pandas DataFrame.eval",
    "pandas.core.frame DataFrame.query", "skorch.net NeuralNet", "pmdarima.arima.arima ARIMA",
    "sklearn.svm SVC",
)  # fmt: skip


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_constructor_that_no_models_pickle_calls_is_refused(name):
    assert name.replace(" ", ".") in refused(by_global(name, EXPRESSION))


def test_the_constructor_that_a_reconstructor_calls_is_one():
    base = b"ccopyreg\n_reconstructor\n(clightgbm.basic\nBooster\nclightgbm.basic\nBooster\n}tR."
    assert "lightgbm.basic.Booster" in refused(base)
    assert imports(base.replace(b"clightgbm.basic\nBooster\n}", b"cbuiltins\nobject\nN"))


def formula(text: str) -> bytes:
    state = pickle.dumps({"restore_design_info": True, "formula": text, "frame": None}, 2)[2:-1]
    return b"\x80\x02cstatsmodels.base.data\nPandasData\n)\x81" + state + b"b."


@pytest.mark.parametrize("text", [
    "y ~ __import__('os').system('id')", "y ~ exec(x)", "y ~ np.load(x)", "y ~ x.__class__",
    "y ~ np . f2py . x", "y ~ C(x)(y)", "y ~ [x][0]", 'y ~ Q("x")', "y ~ open (x)",
])  # fmt: skip
def test_a_formula_that_would_be_evaluated_is_refused(text):
    assert "evaluates a formula" in refused(formula(text))


@pytest.mark.parametrize("text", ["label ~ x + y", "y ~ C(a) * np.log(b) - 1", "y ~ I(a ** 2.5)"])
def test_a_formula_of_columns_passes(text):
    assert imports(formula(text))


def test_a_state_that_is_not_known_may_hold_any_formula():
    assert not is_plain_formula(object())
    state = b"ccollections\nOrderedDict\n)R"
    data = b"\x80\x02cstatsmodels.base.data\nPandasData\n)\x81" + state + b"b."
    assert "evaluates a formula" in refused(data)


@pytest.mark.parametrize("module", ["antigravity", "subprocess", "os", "no_such_module"])
def test_a_module_that_is_imported_as_such_is_held_to_the_list(module):
    data = f"ccloudpickle.cloudpickle\nsubimport\n(S'{module}'\ntR.".encode()
    assert f"imports {module}" in refused(data)
    assert imports(data, allowed=(module,))
    assert imports(data.replace(module.encode(), b"numpy"))


def test_code_by_value_imports_any_module_but_a_shell():
    import subprocess
    import tarfile

    import cloudpickle

    names = {"__name__": "__main__", "tarfile": tarfile, "subprocess": subprocess}
    exec("def mild(): return tarfile\ndef bad(): return subprocess", names)
    assert "module tarfile" in imports(cloudpickle.dumps(names["mild"]))[0]
    assert "imports subprocess" in refused(cloudpickle.dumps(names["bad"]))


def test_a_module_of_no_name_is_refused_and_shown_without_what_a_terminal_acts_on():
    text = refused(b"ccloudpickle.cloudpickle\nsubimport\n(S'a\\x1b]0;x\\x07'\ntR.")
    assert "not a name" in text
    assert text.isprintable()
