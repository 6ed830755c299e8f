"""What is really logged passes the gate over pickles: at most one in fifty is refused."""

from __future__ import annotations

import datetime
import functools
import io
import logging
import os
import pathlib
import pickle
import random
import re
import subprocess
import sys
import textwrap
import tracemalloc
import uuid
from importlib.util import find_spec

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import RefusedError
from adroit_publish.gates.pickles.check import check_pickles, modules_of
from tests.support.requirements import missing

FRAME = pd.DataFrame({"x": [1.0, 2, 3, 4] * 10, "y": [0.5, 0.25, 4, 3] * 10})
LABEL = pd.Series([0, 1, 0, 1] * 10, name="label")


def imports(data: bytes, path: str = "model.pkl", own=(), allowed=()):
    imported, findings = check_pickles({f"model/{path}": InlineFile(data)}, own, allowed)
    return imported[path], findings


def estimators():
    from sklearn import (
        calibration,
        cluster,
        compose,
        decomposition,
        ensemble,
        feature_selection,
        impute,
        linear_model,
        model_selection,
        naive_bayes,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    columns = compose.ColumnTransformer([("n", preprocessing.StandardScaler(), ["x", "y"])])
    log = preprocessing.FunctionTransformer(np.log1p)
    best = feature_selection.SelectKBest(feature_selection.f_classif, k=1)
    forest = ensemble.RandomForestClassifier(5)
    return (
        linear_model.LogisticRegression(), linear_model.Ridge(), linear_model.Lasso(),
        linear_model.SGDClassifier(), linear_model.RidgeCV(), linear_model.HuberRegressor(),
        forest, ensemble.GradientBoostingClassifier(n_estimators=3),
        ensemble.IsolationForest(n_estimators=5),
        ensemble.HistGradientBoostingClassifier(max_iter=3), ensemble.AdaBoostClassifier(),
        ensemble.StackingClassifier([("a", forest)]), ensemble.VotingClassifier([("a", forest)]),
        tree.DecisionTreeRegressor(), svm.SVC(), svm.LinearSVC(), svm.OneClassSVM(),
        neighbors.KNeighborsClassifier(), neighbors.NearestNeighbors(), naive_bayes.GaussianNB(),
        neural_network.MLPClassifier(max_iter=3), cluster.KMeans(2, n_init=1), cluster.DBSCAN(),
        decomposition.PCA(), decomposition.TruncatedSVD(1), impute.KNNImputer(),
        impute.SimpleImputer(), preprocessing.OneHotEncoder(), preprocessing.QuantileTransformer(),
        preprocessing.PolynomialFeatures(), preprocessing.KBinsDiscretizer(2), best,
        calibration.CalibratedClassifierCV(tree.DecisionTreeClassifier(), cv=2),
        model_selection.GridSearchCV(linear_model.Ridge(), {"alpha": [1, 2]}, cv=2),
        pipeline.make_pipeline(columns, log, preprocessing.MinMaxScaler(), forest),
    )  # fmt: skip


def dumps_joblib(value: object, **options) -> bytes:
    place = io.BytesIO()
    joblib.dump(value, place, **options)
    return place.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_of_sklearn_at_most_one_in_fifty_is_refused():
    compressions = (0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))
    pickled = {}
    for number, model in enumerate(estimators()):
        model.fit(FRAME.abs(), LABEL)
        name = f"{number} {type(model).__name__}"
        pickled[f"{name} pickle"] = pickle.dumps(model, 2 + number % 4)
        pickled[f"{name} cloudpickle"] = cloudpickle.dumps(model)
        pickled[f"{name} joblib"] = dumps_joblib(model, compress=compressions[number % 6])
    refused = []
    for name, data in pickled.items():
        try:
            assert imports(data)[0]
        except RefusedError as error:
            refused.append(f"{name}: {error.got}")
    assert len(pickled) > 100
    assert len(refused) <= len(pickled) / 50, refused


@pytest.mark.filterwarnings("ignore")
def test_skops_is_known_by_its_schema():
    import skops.io

    model = estimators()[8].fit(FRAME)
    names, _ = imports(skops.io.dumps(model), "model.skops")
    assert "sklearn.ensemble._iforest.IsolationForest" in names


VALUES = {
    "frame": FRAME.assign(
        t=pd.Timestamp("2024-01-01"), tz=pd.Timestamp("2024-01-01", tz="UTC"), s="a",
        c=LABEL.astype("category"), i=LABEL.astype("Int64"), d=pd.Timedelta("1D"),
        p=pd.Period("2024-01"), b=LABEL.astype("boolean"),
    ),
    "series": LABEL, "index": FRAME.set_index(["x", "y"]).index, "cut": pd.cut(FRAME.x, 3),
    "dates": pd.date_range("2024-01-01", periods=3), "na": [pd.NA, pd.NaT],
    "array": np.arange(3), "objects": np.array([{"a": 1}, None], dtype=object),
    "strings": np.array(["a", "bb"]), "masked": np.ma.array([1, 2], mask=[0, 1]),
    "record": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "random": [np.random.default_rng(1), np.random.RandomState(1)],
    "scalars": [np.float32(1), np.bool_(True), np.datetime64("2024-01-01")],
    "python": [datetime.datetime.now(datetime.UTC), datetime.date.today(), uuid.uuid4(), {1, 2},
               re.compile("a"), pathlib.Path("a"), frozenset([3]), b"x", 1j, 2**80, -(2**70)],
    "functions": [functools.partial(np.log, 1), np.exp, logging.getLogger("x"), len],
}  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", VALUES)
def test_values_that_models_hold_pass_in_every_protocol(kind, protocol):
    assert imports(pickle.dumps(VALUES[kind], protocol))


@pytest.mark.parametrize("kind", VALUES)
def test_values_pass_as_joblib_writes_them(kind):
    assert imports(dumps_joblib(VALUES[kind]))
    assert imports(dumps_joblib(VALUES[kind], compress=3))


def test_arrays_of_objects_pass_and_plain_ones_are_no_pickles():
    place = io.BytesIO()
    np.savez(place, a=np.arange(3), b=np.array([{1: 2}, "x"], dtype=object))
    assert imports(place.getvalue(), "data.npz") is not None
    place = io.BytesIO()
    np.save(place, np.arange(3))
    assert check_pickles({"model/a.npy": InlineFile(place.getvalue())}, (), ()) == ({}, ())


PYTHON_MODEL = """
import collections, dataclasses, datetime, enum, functools, json, logging, os, re, sys
from os import getenv
from os.path import join
from pathlib import Path
from typing import Any, Dict, List, Optional

import cloudpickle, mlflow, numpy as np, pandas as pd, pydantic
from joblib import load
from sklearn.preprocessing import StandardScaler

logger, PATTERN = logging.getLogger(__name__), re.compile("a")
Pair = collections.namedtuple("Pair", "a b")

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Settings:
    a: int = 1
    b: List[str] = dataclasses.field(default_factory=list)
    c: Optional[Dict[str, Any]] = None
    d: dict[str, int] | None = None

class Row(pydantic.BaseModel):
    x: float
    y: Optional[List[str]] = None

class Base:
    @property
    def where(self): return Path(getenv("X"))
    @staticmethod
    def fixed(): return load(join("a", "b"))
    @classmethod
    def make(cls): return cls()
    @functools.lru_cache
    def once(self): return 1

def helper(a: pd.DataFrame, b: np.ndarray = None) -> Dict[str, float]:
    return json.loads("{}")

class Everyday(mlflow.pyfunc.PythonModel, Base):
    def __init__(self):
        self.settings, self.color, self.pair = Settings(), Color.RED, Pair(1, 2)
        self.scaler, self.log = StandardScaler().fit([[1.0], [2.0]]), np.log
        self.partial, self.bound = functools.partial(helper, 1), self.predict
        self.text = lambda z: os.path.join("a", z)
        self.when, self.kinds = datetime.datetime.now(), collections.defaultdict(list)
    def predict(self, context, model_input, params=None):
        logger.info("x")
        return helper(model_input) if PATTERN.match("a") else [i for i in range(3)]

class Hinted(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[Row]) -> list[float]:
        return [row.x for row in model_input]

class Closed(mlflow.pyfunc.PythonModel):
    def __init__(self):
        self.times = 3
        self.scale = lambda: self.times
    def predict(self, context, model_input: pd.DataFrame, params: Optional[dict] = None):
        return model_input.sum(axis=1) * self.scale()

for model in (Everyday(), Hinted(), Closed(), lambda model_input: model_input):
    sys.stdout.buffer.write(cloudpickle.dumps(model))
"""


def test_models_of_ones_own_pass_and_the_inventory_shows_that_they_are_code():
    done = subprocess.run([sys.executable, "-c", PYTHON_MODEL], check=True, stdout=subprocess.PIPE)
    names, _ = imports(done.stdout, "python_model.pkl")
    assert "cloudpickle.cloudpickle._make_function" in names
    assert "module os" in names
    assert "mlflow.pyfunc.model.PythonModel" in names


def test_code_by_value_may_mention_any_name_but_a_shell():
    from subprocess import run
    from tarfile import TarFile as unpack

    code = "def mild(): return unpack\ndef bad(): return run\ndef leak(): return environ['HOME']"
    names = {"__name__": "__main__", "unpack": unpack, "run": run, "environ": os.environ}
    exec(code, names)
    assert "tarfile.TarFile" in imports(cloudpickle.dumps(names["mild"]))[0]
    with pytest.raises(RefusedError, match=r"subprocess\.run"):
        imports(cloudpickle.dumps(names["bad"]))
    with pytest.raises(RefusedError, match=r"os\._Environ"):  # with all that is in it
        imports(cloudpickle.dumps(names["leak"]))


def test_the_bundles_own_modules_pass_and_nothing_that_hangs_on_them():
    data = b"cprojects.m.features\nScaler\n(tR."
    own = modules_of(["projects/m/features.py", "data_prep/__init__.py", "README.md"])
    assert own == {"projects.m.features", "data_prep"}
    assert imports(data, own=own)[0] == ("projects.m.features.Scaler",)
    for other in (b"cprojects.m.features\nos.system\n(tR.", b"cprojects.m.other\nScaler\n(tR."):
        with pytest.raises(RefusedError):
            imports(other, own=own)


def test_a_waiver_is_by_name_and_is_found():
    data = b"csome_package\nThing\n(tR."
    with pytest.raises(RefusedError, match=r"some_package\.Thing"):
        imports(data, allowed=("some_package.Other",))
    names, (finding,) = imports(data, allowed=("some_package.Thing",))
    assert names == ("some_package.Thing",)
    assert finding.name == "pickle:some_package.Thing"
    assert "model/model.pkl imports some_package.Thing" in finding.what


@pytest.mark.parametrize(
    "text", ["channels:\n- x\n", "import os\nimport sys\n", "N.\n", "{}", "I1\n."]
)
def test_texts_are_no_pickles(text):
    files = {"model/conda.yaml": InlineFile(text.encode()), "model/a.pkl": InlineFile(b"")}
    assert check_pickles(files, (), ()) == ({}, ())


def test_other_bytes_are_no_pickles_however_they_begin():
    chance = random.Random(3)
    files = {
        f"model/{number}.bin": InlineFile(b"c"[: number % 2] + chance.randbytes(2048))
        for number in range(2000)
    }
    assert check_pickles(files, (), ()) == ({}, ())


def test_large_arrays_are_passed_over_without_a_copy(tmp_path):
    array = np.zeros(40 << 20, np.uint8)
    for name, write in (("a.pkl", pickle.dump), ("b.joblib", joblib.dump)):
        with (tmp_path / name).open("wb") as place:
            write({"w": array, "n": 1}, place)
    files = {
        f"model/{path.name}": LocalFile(str(path), path.stat().st_size)
        for path in tmp_path.iterdir()
    }
    tracemalloc.start()
    imported, _ = check_pickles(files, (), ())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(imported) == {"a.pkl", "b.joblib"}
    assert peak_bytes < 8 << 20


def test_of_plain_weights_the_beginning_and_the_end_are_read(tmp_path):
    place = tmp_path / "weights.bin"
    with place.open("wb") as sparse:
        sparse.truncate(2 << 30)
    read_bytes = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            read_bytes.append(count)
            return count

    class Weights:
        size_bytes = 2 << 30

        def open(self):
            return io.BufferedReader(Counted(place))

    assert check_pickles({"model/weights.bin": Weights()}, (), ()) == ({}, ())
    assert sum(read_bytes) < 1 << 20


FRAMEWORKS = {
    "lightgbm": """
        from lightgbm import LGBMClassifier as Model
        model = Model(n_estimators=3, verbose=-1).fit(X, y)
        mlflow.sklearn.save_model(model, path, serialization_format="cloudpickle")""",
    "xgboost": """
        from xgboost import XGBClassifier as Model
        model = Model(n_estimators=3).fit(X, y)
        mlflow.sklearn.save_model(model, path, serialization_format="cloudpickle")""",
    "catboost": """
        from catboost import CatBoostClassifier as Model
        model = Model(iterations=3, verbose=0, allow_writing_files=False).fit(X, y)
        mlflow.sklearn.save_model(model, path, serialization_format="cloudpickle")""",
    "statsmodels": """
        import statsmodels.formula.api as smf
        model = smf.ols("label ~ x + y", X.assign(label=y)).fit()
        mlflow.statsmodels.save_model(model, path)""",
    "torch": """
        import torch
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.LSTM(3, 2))
        mlflow.pytorch.save_model(model, path, serialization_format="pickle")""",
    "prophet": """
        import pickle
        from prophet import Prophet
        os.makedirs(path)
        pickle.dump(Prophet(), open(path + "/model.pkl", "wb"))""",
}


@pytest.mark.parametrize("kind", FRAMEWORKS)
def test_what_mlflow_logs_of_a_framework_passes(kind, tmp_path):
    if find_spec(kind) is None:
        missing(f"{kind} is not installed")
    program = f"""
        import mlflow, os, sys, numpy as np, pandas as pd
        path = sys.argv[1]
        X = pd.DataFrame({{"x": [1.0, 2, 3, 4] * 10, "y": [0.5, 0.25, 4, 3] * 10}})
        y = pd.Series([0, 1, 0, 1] * 10, name="label")
        {FRAMEWORKS[kind]}"""
    place, environ = tmp_path / "model", {**os.environ, "MLFLOW_TRACKING_URI": str(tmp_path / "t")}
    program = "\n".join(line.strip() for line in textwrap.dedent(program).splitlines())
    subprocess.run([sys.executable, "-c", program, str(place)], check=True, env=environ)
    files = {
        f"model/{path.relative_to(place).as_posix()}": LocalFile(str(path), path.stat().st_size)
        for path in place.rglob("*")
        if path.is_file()
    }
    imported, findings = check_pickles(files, (), ())
    assert imported
    assert findings == ()
