"""What a training flow logs with: the run, the checks before it, and where it goes.

Everything is really logged: to a sqlite store, to a real tracking server, and to a workspace on
loopback that answers as Databricks does. The project whose code is logged lies in a directory of
the test's own.
"""

from __future__ import annotations

import os
import pickle
import re
import sys
import traceback
from pathlib import Path
from textwrap import dedent

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from adroit.serving.features.reference import read_reference, reference_of
from adroit.training import LoggedRun, NextdoorMLFlowRunPublisher, TrainingError
from adroit.training.experiments import user_name
from tests.servers.fake_databricks import TOKEN, FakeDatabricks
from tests.servers.mlflow_servers import free_port, send
from tests.support.requirements import require

pytest_plugins = ["tests.servers.mlflow_servers"]

X = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "age": [4.0, 3.0, 2.0, 1.0]})
Y = pd.Series([5.0, 7.0, 9.0, 11.0], name="price")
PINS = ["mlflow"]

FILES = {
    "houses/__init__.py": "",
    "houses/prices.py": """
        import json

        from mlflow.pyfunc import PythonModel

        from houses.rooms import rooms_of


        class Prices(PythonModel):
            def load_context(self, context):
                with open(context.artifacts["rates"]) as file:
                    self.rate = json.load(file)["rate"]

            def predict(self, context, model_input, params=None):
                return rooms_of(model_input["size"]) * self.rate
        """,
    "houses/rooms.py": "def rooms_of(size):\n    return size * 2\n",
    "houses/held.py": """
        class Scale:
            def __call__(self, rows):
                return rows * 3
        """,
    "houses/holder.py": """
        from mlflow.pyfunc import PythonModel


        class Holder(PythonModel):
            def __init__(self, held):
                self.held = held

            def predict(self, context, model_input, params=None):
                return self.held(model_input["size"])
        """,
    "houses/leaning.py": """
        import os

        from mlflow.pyfunc import PythonModel


        class Leaning(PythonModel):
            def load_context(self, context):
                self.table = os.environ["ADROIT_RATES"]

            def predict(self, context, model_input, params=None):
                return model_input["size"]
        """,
    "houses/steps.py": """
        from sklearn.base import BaseEstimator, TransformerMixin


        class Doubled(TransformerMixin, BaseEstimator):
            def fit(self, x, y=None):
                return self

            def transform(self, x):
                return x * 2
        """,
    "houses/counts.py": """
        from mlflow.pyfunc import PythonModel


        class Counts(PythonModel):
            def predict(self, context, model_input, params=None):
                rows = model_input
                if isinstance(rows, dict):
                    rows = next(iter(rows.values()))
                return [0.0] * (rows.shape[0] if hasattr(rows, "shape") else len(rows))
        """,
    "houses/hinted.py": """
        from mlflow.pyfunc import PythonModel


        class Hinted(PythonModel):
            def predict(self, model_input: list[str], params=None) -> list[str]:
                return [text.upper() for text in model_input]
        """,
    "houses/flow.py": "raise AssertionError('is not logged')\n",
}


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """A checkout with a package ``houses`` that this process imports from it."""
    root = tmp_path_factory.mktemp("checkout")
    for path, text in FILES.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(dedent(text))
    (root / "rates.json").write_text('{"rate": 1.5}')
    sys.path.insert(0, str(root))
    yield root / "houses"
    sys.path.remove(str(root))
    for name in [name for name in sys.modules if name.partition(".")[0] == "houses"]:
        del sys.modules[name]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The address of a sqlite store that does not exist yet, as MLFLOW_TRACKING_URI has it."""
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def client(uri):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def check_nothing_is_logged(publisher):
    runs = client(publisher.tracking_uri).search_runs([publisher.experiment_id])
    assert (publisher.run_id, list(runs)) == (None, [])
    assert client(publisher.tracking_uri).search_logged_models([publisher.experiment_id]) == []


def artifacts_of(logged):
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(logged.uri, tracking_uri=logged.tracking_uri))


# The run


def test_a_run_has_its_parameters_and_metrics_and_is_finished(store):
    with NextdoorMLFlowRunPublisher("prices") as publisher:
        publisher.log_params({"depth": 3, "weights": None})
        publisher.log_metrics({"loss": 0.5}, step=1)
        publisher.log_metrics({"loss": 0.25}, step=2)
    run = client(store).get_run(publisher.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"depth": "3", "weights": "None"}
    assert run.data.metrics == {"loss": 0.25}
    assert len(client(store).get_metric_history(publisher.run_id, "loss")) == 2
    assert client(store).get_experiment(run.info.experiment_id).name == "prices"


def test_a_block_that_raises_leaves_a_failed_run(store):
    def train(publisher):
        publisher.log_params({"depth": 0})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), NextdoorMLFlowRunPublisher("prices") as publisher:
        train(publisher)
    assert client(store).get_run(publisher.run_id).info.status == "FAILED"


def test_a_publisher_that_was_pickled_goes_on_with_its_run_and_holds_no_secret(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "canary-password")
    monkeypatch.setenv("DATABRICKS_TOKEN", "canary-token")
    with NextdoorMLFlowRunPublisher("prices") as publisher:
        publisher.log_params({"depth": 3})
    kept = pickle.dumps(publisher)
    assert b"canary" not in kept
    again = pickle.loads(kept)
    again.log_metrics({"loss": 0.5})
    assert again.run_id == publisher.run_id
    assert client(store).get_run(publisher.run_id).data.metrics == {"loss": 0.5}


def test_the_process_has_its_own_tracking_address_again(store, tmp_path, monkeypatch):
    import mlflow

    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    mlflow.set_tracking_uri(elsewhere)
    NextdoorMLFlowRunPublisher("prices", tracking_uri=store).log_params({"depth": 3})
    assert mlflow.get_tracking_uri() == elsewhere
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    NextdoorMLFlowRunPublisher("prices", tracking_uri=store).log_params({"depth": 3})
    assert not mlflow.is_tracking_uri_set()


def test_two_that_make_the_same_experiment_get_the_same(store, monkeypatch):
    first = NextdoorMLFlowRunPublisher("prices")
    import mlflow

    get = mlflow.MlflowClient.get_experiment_by_name
    blind = iter([True])  # as if the other had made it in the moment between

    def not_yet(self, name):
        return None if next(blind, False) else get(self, name)

    monkeypatch.setattr(mlflow.MlflowClient, "get_experiment_by_name", not_yet)
    assert NextdoorMLFlowRunPublisher("prices").experiment_id == first.experiment_id


# Where it goes


def test_a_checkout_has_a_store_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "adroit.toml").touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below/flow.py").touch()
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", str(tmp_path / "below/flow.py"), raising=False
    )
    publisher = NextdoorMLFlowRunPublisher("prices")
    assert publisher.tracking_uri == f"sqlite:///{tmp_path}/.adroit/mlflow.db"
    where = client(publisher.tracking_uri).get_experiment(publisher.experiment_id)
    assert where.artifact_location == (tmp_path / ".adroit/artifacts").as_uri()


def test_outside_of_a_checkout_the_server_has_to_be_named(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/nowhere/flow.py", raising=False)
    monkeypatch.chdir("/")
    with pytest.raises(TrainingError, match="export MLFLOW_TRACKING_URI="):
        NextdoorMLFlowRunPublisher("prices")


@pytest.mark.parametrize(
    ("environ", "known_as", "user"),
    [
        ({"METAFLOW_USER": "jane", "USER": "joe"}, "bob@nextdoor.com", "jane"),
        ({"METAFLOW_USER": "jane@nextdoor.com"}, None, "jane"),
        ({"USER": "joe"}, "bob@nextdoor.com", "joe"),
        ({"USER": "root"}, "bob@nextdoor.com", "bob"),
        ({}, "bob@nextdoor.com", "bob"),
        ({"USER": "root"}, None, None),
    ],
)
def test_the_user_is_metaflows_then_the_shells_then_the_servers(environ, known_as, user):
    assert user_name(environ, known_as) == user


def test_a_pattern_names_experiments_by_user_and_name(store, monkeypatch):
    monkeypatch.setenv("ADROIT_EXPERIMENT", "/teams/search/{user}/{name}")
    assert NextdoorMLFlowRunPublisher("prices").experiment == "/teams/search/tester/prices"
    assert NextdoorMLFlowRunPublisher("/mine/{user}").experiment == "/mine/tester"
    monkeypatch.setenv("ADROIT_EXPERIMENT", "{team}/{name}")
    with pytest.raises(TrainingError, match=r"got: +\{team\}/\{name\}"):
        NextdoorMLFlowRunPublisher("prices")
    monkeypatch.setenv("ADROIT_EXPERIMENT", "{user}")
    monkeypatch.setenv("METAFLOW_USER", "root")
    for name in ("SUDO_USER", "USERNAME", "USER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(TrainingError, match="export METAFLOW_USER="):
        NextdoorMLFlowRunPublisher("prices")


def test_an_experiment_needs_a_name_outside_of_a_flow(store):
    with pytest.raises(TrainingError, match=r'NextdoorMLFlowRunPublisher\("my_model"\)'):
        NextdoorMLFlowRunPublisher()


def test_a_deleted_experiment_is_told_with_the_command_that_restores_it(store):
    publisher = NextdoorMLFlowRunPublisher("prices")
    client(store).delete_experiment(publisher.experiment_id)
    with pytest.raises(TrainingError, match=f"restore -x {publisher.experiment_id}"):
        NextdoorMLFlowRunPublisher("prices")


def test_an_address_with_a_password_is_refused_and_not_shown():
    with pytest.raises(TrainingError) as error:
        NextdoorMLFlowRunPublisher("prices", tracking_uri="https://jane:canary@mlflow.example")
    assert "canary" not in str(error.value)
    assert "MLFLOW_TRACKING_PASSWORD" in str(error.value)


def test_a_server_that_is_not_there_is_told_before_any_work(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrainingError, match="cannot be reached"):
        NextdoorMLFlowRunPublisher("x", tracking_uri=f"http://127.0.0.1:{free_port()}")


# The model


def test_a_class_is_logged_as_code_with_its_artifacts_signature_and_example(store, houses):
    from houses.prices import Prices

    publisher = NextdoorMLFlowRunPublisher("prices")
    publisher.log_params({"depth": 3})
    logged = publisher.log_model(
        Prices,
        artifacts={"rates": houses.parent / "rates.json"},
        X_test=X,
        y_test=Y,
        code_path=houses,
        pip_requirements=PINS,
    )
    run = client(store).get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert [model.model_id for model in run.outputs.model_outputs] == [logged.model_id]
    made = client(store).get_logged_model(logged.model_id)
    assert (made.name, str(made.status), made.params) == ("model", "READY", {"depth": "3"})
    assert logged == LoggedRun(
        publisher.run_id, made.model_id, "model", f"models:/{made.model_id}", "prices", store
    )
    assert logged.flavor_line == f"version: {run.info.run_id}"
    files = {str(p.relative_to(artifacts_of(logged))) for p in artifacts_of(logged).rglob("*.*")}
    assert {"served.py", "code/houses/prices.py", "artifacts/rates.json"} <= files
    assert not [name for name in files if "flow.py" in name or re.search("pkl|pyc", name)]

    import mlflow.pyfunc

    reference = read_reference(artifacts_of(logged))
    assert reference == reference_of(X)
    model = mlflow.pyfunc.load_model(str(artifacts_of(logged)))
    assert model.input_example.equals(X[:3])
    assert model.predict(X).tolist() == [3.0, 6.0, 9.0, 12.0]
    assert model.metadata.run_id == logged.run_id
    assert model.metadata.signature.inputs.input_names() == ["size", "age"]
    assert [str(t) for t in model.metadata.signature.outputs.input_types()] == ["DataType.double"]


def every_column():
    """Columns of each kind whose first three rows do not tell what the others are."""
    days = pd.date_range("2026-01-01", periods=5)
    return pd.DataFrame(
        {
            "day": days,
            "late_day": [*days[:4], None],
            "int8": pd.Series(range(5), dtype="int8"),
            "int32": pd.Series(range(5), dtype="int32"),
            "nullable": pd.Series([1, None, 3, 4, None], dtype="Int64"),
            "float32": pd.Series(range(5), dtype="float32"),
            "nullable_float": pd.Series([1.5, 2, 3, 4, None], dtype="Float32"),
            "bool": [True, False, True, False, True],
            "bool_or_none": pd.Series([True, False, True, False, None], dtype="object"),
            "nullable_bool": pd.Series([True, False, True, False, None], dtype="boolean"),
            "text": ["a", "b", "c", "d", None],
            "category": pd.Series(list("ababa")).astype("category"),
            "bytes": [b"a"] * 5,
            "list": [[1, 2]] * 5,
        }
    ).set_axis([0.5, 1.5, 2.5, 3.5, 4.5])


def log_counts(houses, rows, **options):
    """Logs a model that takes any rows; returns it as it is loaded, and the warnings of MLflow."""
    import mlflow.pyfunc
    from houses.counts import Counts

    logged = NextdoorMLFlowRunPublisher("prices").log_model(
        Counts, X_test=rows, code_path=houses, pip_requirements=PINS, **options
    )
    return mlflow.pyfunc.load_model(str(artifacts_of(logged)))


def test_the_signature_is_that_of_all_rows(store, houses):
    from mlflow.models import infer_signature

    rows = every_column()
    with pytest.warns(UserWarning, match="refuses"):  # categories, and nullable columns with NA
        model = log_counts(houses, rows)
    assert model.metadata.signature.inputs == infer_signature(rows).inputs
    assert model.metadata.signature.outputs is not None
    assert len(model.input_example) == 3
    taken = rows.drop(columns=["nullable", "nullable_bool", "category"])
    assert log_counts(houses, taken, validate=False).predict(taken) == [0.0] * 5


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        pd.Series([1.0, 2, 3, 4], name="size", index=[0.5, 1.5, 2.5, 3.5]),
        pd.Series(["a", "b", "c", None]),
        {"size": np.ones(4, "float32"), "age": np.ones((4, 2))},
        {"size": [1, 2, 3, 4], "age": [1.0, 2.0, 3.0, 4.0]},
        {"question": "how many?", "top": 3},
        np.ones((4, 2), "int32"),
        [1.5, 2.5, 3.5, 4.5],
        [{"a": 1}, {"a": 2}, {"a": 3}, {"a": 4, "b": "x"}],
        csr_matrix(np.eye(4)),
        pd.DataFrame(np.ones((4, 500), "float32")),
        pd.DataFrame({"any": pd.Series(range(4), dtype="uint64")}),
    ],
    ids=["Series", "text Series", "arrays", "lists", "one request", "ndarray", "list", "objects",
         "sparse", "wide", "any"],
)  # fmt: skip
def test_rows_of_each_form_are_logged_and_taken(store, houses, rows, validate):
    from mlflow.models import infer_signature

    model = log_counts(houses, rows, validate=validate)
    assert model.metadata.signature.inputs == infer_signature(rows).inputs
    model.predict(rows)
    example = model.input_example
    if isinstance(example, dict):
        example = next(iter(example.values()))
    assert (example.shape[0] if hasattr(example, "shape") else len(example)) in (
        3,
        len("how many?"),
    )


@pytest.mark.parametrize("rows", [X[:0], np.ones((0, 2)), [], pd.Series(dtype="float64")])
def test_no_rows_are_told(store, houses, rows):
    with pytest.raises(TrainingError, match="X_test has no rows"):
        log_counts(houses, rows)


@pytest.mark.parametrize(
    "rows",
    [object(), {"size": object()}, (1, 2), pd.DataFrame({"a": pd.to_timedelta([1, 2])})],
)
def test_rows_that_mlflow_cannot_keep_are_told(store, houses, rows):
    with pytest.raises(TrainingError, match="X_test"):
        log_counts(houses, rows, validate=False)


def test_a_signature_of_the_models_own_comes_first(store, houses):
    from houses.hinted import Hinted

    logged = NextdoorMLFlowRunPublisher("prices").log_model(
        Hinted, X_test=["a", "b", "c", "d"], code_path=houses, pip_requirements=PINS
    )
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(artifacts_of(logged)))
    assert str(model.metadata.signature.inputs) == "[string (required)]"
    assert model.metadata.signature._is_signature_from_type_hint
    assert model.predict(["x"]) == ["X"]


@pytest.mark.parametrize(
    ("log", "got"),
    [
        (lambda publisher: publisher.log_metrics({"acc@5": 0.5}), "acc@5"),
        (lambda publisher: publisher.log_params({"depth": 4}), "depth"),
    ],
)
def test_what_mlflow_does_not_take_is_told_in_its_words(proxied_server, store, log, got):
    for uri in (store, proxied_server):
        publisher = NextdoorMLFlowRunPublisher("names", tracking_uri=uri)
        publisher.log_params({"depth": 3})
        with pytest.raises(TrainingError, match=got) as error:
            log(publisher)
        assert "MLFLOW_TRACKING_URI" not in str(error.value)
        assert "as MLflow says" in error.value.next_step


def test_a_helper_that_is_not_in_code_path_is_told_by_name_and_line(store, houses, monkeypatch):
    from houses.prices import Prices

    monkeypatch.chdir(houses.parent)
    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError) as error:
        publisher.log_model(
            Prices,
            artifacts={"rates": "rates.json"},
            X_test=X,
            code_path=["houses/__init__.py", "houses/prices.py"],
        )
    assert error.value.got == "houses.rooms, imported at houses/prices.py:6"
    assert error.value.next_step == 'code_path=[..., "houses/rooms.py"]'
    with pytest.raises(TrainingError, match=r"houses, which holds the model's class"):
        publisher.log_model(Prices, artifacts={"rates": "rates.json"}, X_test=X)
    check_nothing_is_logged(publisher)


def test_a_helper_that_only_the_pickle_names_is_told(store, houses):
    from houses.held import Scale
    from houses.holder import Holder

    code = [houses / "__init__.py", houses / "holder.py"]
    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError, match=r"houses\.held, .* named in its pickle"):
        publisher.log_model(Holder(Scale()), X_test=X, code_path=code, pip_requirements=PINS)
    check_nothing_is_logged(publisher)
    logged = publisher.log_model(
        Holder(Scale()), X_test=X, code_path=[*code, houses / "held.py"], pip_requirements=PINS
    )
    assert (artifacts_of(logged) / "python_model.pkl").is_file()


def test_a_path_of_code_that_is_not_there_is_told(store, houses):
    with pytest.raises(TrainingError, match="does not exist"):
        NextdoorMLFlowRunPublisher("prices").log_model(None, code_path=houses / "romms.py")


def test_a_model_that_leans_on_the_training_process_is_not_logged(store, houses, monkeypatch):
    from houses.leaning import Leaning

    monkeypatch.setenv("ADROIT_RATES", "here and nowhere else")
    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError, match=r"KeyError: 'ADROIT_RATES'") as error:
        publisher.log_model(Leaning, X_test=X, code_path=houses, pip_requirements=PINS)
    assert error.value.what == "The model does not load in a clean process."
    check_nothing_is_logged(publisher)

    logged = publisher.log_model(
        Leaning,
        X_test=X,
        y_test=Y,
        code_path=houses,
        pip_requirements=PINS,
        validate=False,
        name="unseen",
    )
    described = (artifacts_of(logged) / "MLmodel").read_text()
    assert logged.name == "unseen"
    assert '"name": "price"' in described  # nobody asked the model: y_test is the outputs


def test_a_model_whose_predictions_fail_is_not_logged(store, houses):
    from houses.holder import Holder
    from houses.held import Scale  # isort: skip

    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError, match=r"(?s)does not predict.*KeyError: 'size'"):
        publisher.log_model(
            Holder(Scale()),
            X_test=X.rename(columns={"size": "sizes"}),
            code_path=houses,
            pip_requirements=PINS,
        )
    check_nothing_is_logged(publisher)


def test_a_sklearn_pipeline_with_a_step_of_its_own_is_no_pickle(store, houses):
    from houses.steps import Doubled
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(Doubled(), LinearRegression()).fit(X, Y)
    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError, match=r"houses\.steps, which holds the model's class"):
        publisher.log_model(
            model, X_test=X, code_path=houses / "__init__.py", pip_requirements=PINS
        )
    check_nothing_is_logged(publisher)
    logged = publisher.log_model(
        model, X_test=X, code_path=houses, pip_requirements=PINS, log_signature=False
    )
    assert (artifacts_of(logged) / "model.skops").is_file()
    assert "signature:" not in (artifacts_of(logged) / "MLmodel").read_text()


def test_a_lightgbm_model_is_logged_in_its_own_format(store):
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        require(False, f"lightgbm cannot be imported: {error} (Debian's libgomp1 has libgomp)")
    rows = pd.concat([X] * 25)
    model = lightgbm.LGBMRegressor(n_estimators=2, verbosity=-1, n_jobs=1).fit(rows, [*Y] * 25)
    logged = NextdoorMLFlowRunPublisher("prices").log_model(model, X_test=X, y_test=Y)
    text = (artifacts_of(logged) / "MLmodel").read_text()
    assert "loader_module: mlflow.lightgbm" in text
    assert "tensor" in text or "double" in text
    assert "lightgbm==" in (artifacts_of(logged) / "requirements.txt").read_text()


def torch_or_skip():
    return pytest.importorskip(
        "torch", reason="torch is not installed: no CPU build of it is in requirements.lock"
    )


def log_torch(model, rows, **options):
    """Logs a module; returns its files, and its answers to the rows asked for twice."""
    import mlflow.pyfunc

    logged = NextdoorMLFlowRunPublisher("prices").log_model(
        model, X_test=rows, pip_requirements=["mlflow", "torch"], **options
    )
    loaded = mlflow.pyfunc.load_model(str(artifacts_of(logged)))
    asked = rows.numpy() if hasattr(rows, "numpy") else rows
    return artifacts_of(logged), loaded, [np.asarray(loaded.predict(asked)) for _ in range(2)]


@pytest.mark.parametrize("kind", ["tensor", "ndarray", "one row", "DataFrame", "no signature"])
def test_a_torch_model_is_logged_and_answers_as_it_does_here(store, kind):
    torch = torch_or_skip()
    # In training mode, as a loop leaves it: dropout has to be off where it is served.
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Dropout(0.5))
    rows = {
        "tensor": torch.rand(10, 2),
        "ndarray": np.random.default_rng(7).random((10, 2), "float32"),
        "one row": torch.rand(1, 2),
        "DataFrame": X.astype("float32"),
        "no signature": torch.rand(10, 2),
    }[kind]
    files, loaded, answers = log_torch(model, rows, log_signature=kind != "no signature")
    assert model.training
    assert all(part.training for part in model)
    is_graph = kind in ("tensor", "ndarray", "one row")
    assert (files / "data/model.pt2").exists() == is_graph
    plain = torch.as_tensor(np.asarray(rows))
    with torch.no_grad():
        wanted = model.eval()(plain).numpy()
    for answer in answers:
        np.testing.assert_allclose(answer, wanted, rtol=1e-5)
    if is_graph:
        assert loaded.predict(np.ones((7, 2), "float32")).shape == (7, 3)


def test_a_torch_model_that_branches_on_its_input_is_pickled(store, capsys):
    torch = torch_or_skip()

    class Branching(torch.nn.Module):
        def forward(self, rows):
            return rows * 2 if rows.sum() > 1 else rows

    Branching.__module__ = "__main__"  # as of a flow's own file: pickled by value
    files, _, answers = log_torch(Branching(), torch.ones(4, 2))
    assert not (files / "data/model.pt2").exists()
    assert (answers[0] == 2).all()
    assert "cannot trace" in capsys.readouterr().err
    files, _, _ = log_torch(torch.jit.script(torch.nn.Linear(2, 1)), torch.ones(4, 2))
    assert not (files / "data/model.pt2").exists()


def test_tensors_in_a_dict_or_a_list_are_rows(store, houses):
    torch = torch_or_skip()
    model = log_counts(houses, {"size": torch.ones(4), "age": torch.ones(4, 2)})
    assert model.predict({"size": np.ones(2, "float32"), "age": np.ones((2, 2), "float32")})
    with pytest.raises(TrainingError, match=r"torch\.bfloat16"):
        log_counts(houses, torch.ones(4, 2).bfloat16())


class PlayedTensor:
    """What the conversion asks of a tensor, where torch is not installed."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.shape, self.dtype = self.values.shape, "torch.bfloat16"

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        if self.values.dtype == object:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def test_tensors_become_arrays_wherever_they_are():
    from adroit.training.examples import example_of, signature_of

    rows = PlayedTensor(np.ones((5, 2), "float32"))
    assert example_of(rows).shape == (3, 2)
    assert example_of({"a": rows})["a"].shape == (3, 2)
    signature = signature_of({"a": rows}, PlayedTensor(np.ones(5)))
    assert "float32" in str(signature.inputs)
    assert "float64" in str(signature.outputs)
    with pytest.raises(TrainingError, match=r"torch\.bfloat16"):
        example_of(PlayedTensor([object()]))


@pytest.mark.parametrize("form", ["coo_matrix", "csr_array", "lil_matrix", "csc_matrix"])
def test_sparse_rows_of_each_form_are_taken(store, houses, form):
    import scipy.sparse

    model = log_counts(houses, getattr(scipy.sparse, form)(np.eye(4)))
    assert model.predict(csr_matrix(np.eye(4))) == [0.0] * 4


def test_a_catboost_model_is_logged_in_its_own_format(store):
    catboost = pytest.importorskip("catboost")
    model = catboost.CatBoostRegressor(iterations=2, verbose=False, allow_writing_files=False)
    logged = NextdoorMLFlowRunPublisher("prices").log_model(
        model.fit(X, Y), X_test=X, pip_requirements=["mlflow", "catboost"]
    )
    assert "loader_module: mlflow.catboost" in (artifacts_of(logged) / "MLmodel").read_text()


def test_what_is_no_model_and_what_cannot_have_artifacts_is_told(store):
    from sklearn.linear_model import LinearRegression

    publisher = NextdoorMLFlowRunPublisher("prices")
    with pytest.raises(TrainingError, match=r"got: +builtins\.dict"):
        publisher.log_model({"weights": [1, 2]}, X_test=X)
    model = LinearRegression().fit(X, Y)
    with pytest.raises(TrainingError, match="wrap it in a PythonModel"):
        publisher.log_model(model, X_test=X, artifacts={"a": "b"})
    with pytest.raises(ValueError, match="X_test has 4 rows, y_test 3"):
        publisher.log_model(model, X_test=X, y_test=Y[:3])
    check_nothing_is_logged(publisher)


def test_a_real_server_has_all_of_it(proxied_server, monkeypatch):
    from sklearn.linear_model import LinearRegression

    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxied_server)
    monkeypatch.setenv("TRAINING_JOB_ARN", "arn:aws:sagemaker:us-east-1:1:training-job/a")
    with NextdoorMLFlowRunPublisher("on-a-server") as publisher:
        publisher.log_metrics({"loss": 0.5})
        logged = publisher.log_model(
            LinearRegression().fit(X.to_numpy(), Y),
            X_test=X.to_numpy(),
            y_test=np.array(Y),
            pip_requirements=PINS,
        )
    run = client(proxied_server).get_run(logged.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["sagemaker.training_job"].endswith("training-job/a")
    made = client(proxied_server).get_logged_model(logged.model_id)
    assert str(made.status) == "READY"
    assert {metric.key for metric in made.metrics} == {"loss"}
    from adroit_publish.mlflow.model import resolve_model

    assert resolve_model(proxied_server, logged.run_id, None).model_id == logged.model_id


# Databricks


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with FakeDatabricks().running() as running:
        monkeypatch.setenv("DATABRICKS_HOST", running.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", TOKEN)
        yield running


def test_on_databricks_the_personal_folder_is_made_and_the_experiment_in_it(
    workspace, monkeypatch, capsys
):
    monkeypatch.setenv("METAFLOW_USER", "jane")
    publisher = NextdoorMLFlowRunPublisher("prices")
    assert publisher.experiment == "/Shared/mlflow/experiments/jane@nextdoor.com/prices"
    assert "/Shared/mlflow/experiments/jane@nextdoor.com" in workspace.folders
    assert workspace.experiments == {publisher.experiment: publisher.experiment_id}
    publisher.log_params({"depth": 3})
    publisher.log_metrics({"loss": 0.5})
    assert workspace.count("/mlflow/runs/log-batch") == 2
    assert NextdoorMLFlowRunPublisher("prices").experiment_id == publisher.experiment_id
    assert workspace.count("/mlflow/experiments/create") == 1
    assert TOKEN not in pickle.dumps(publisher).decode("latin-1")
    assert capsys.readouterr().err == ""


def test_a_token_of_another_user_is_told_and_the_environment_decides(
    workspace, monkeypatch, capsys
):
    monkeypatch.setenv("METAFLOW_USER", "joe")
    publisher = NextdoorMLFlowRunPublisher("prices")
    assert publisher.experiment == "/Shared/mlflow/experiments/joe@nextdoor.com/prices"
    assert (
        "knows you as jane@nextdoor.com, the environment as joe: the run goes to "
        "/Shared/mlflow/experiments/joe@nextdoor.com/prices" in capsys.readouterr().err
    )


def test_a_name_that_is_no_path_of_the_workspace_is_told(workspace, monkeypatch):
    monkeypatch.setenv("ADROIT_EXPERIMENT", "{name}")
    with pytest.raises(TrainingError, match="named by its path in the workspace"):
        NextdoorMLFlowRunPublisher("prices")


def check_told(got):
    """Constructs one for ``databricks`` and returns the message; it shows no secret."""
    with pytest.raises(TrainingError) as error:
        NextdoorMLFlowRunPublisher("prices", tracking_uri="databricks")
    said = "".join(traceback.format_exception(error.value))
    assert got in str(error.value)
    assert re.search("export DATABRICKS_HOST=https?://.*\n +export DATABRICKS_TOKEN=", said)
    assert "canary" not in said


@pytest.mark.parametrize(
    ("answer", "status", "got"),
    [
        (b'{"error_code": 403, "message": "Invalid access token."}', 403, "403 403 Invalid"),
        (b'{"error_code": "UNAUTHENTICATED", "message": "no"}', 401, "another workspace's"),
        (b"<html>Forbidden</html>", 403, "403 Forbidden"),
        (b"<!doctype html><title>Log in</title>", 200, "no Databricks workspace"),
        (b"{}", 200, "without a userName"),
        (b"[]", 200, "no Databricks workspace"),
        (b"", 302, "no Databricks workspace"),
        (b"", 404, "no Databricks workspace"),
    ],
)
def test_an_answer_that_is_none_is_told_before_any_work(workspace, answer, status, got):
    workspace.spoil = lambda asked, handler: send(handler, status, answer) or True
    check_told(got)
    assert not [asked for asked in workspace.asked if "/mlflow/" in asked.path]


def test_a_token_of_another_workspace_is_told(workspace, monkeypatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary-of-another")
    check_told("refuses us")


def test_something_else_where_the_folder_is_to_be_is_told(workspace):
    exists = b'{"error_code": "RESOURCE_ALREADY_EXISTS", "message": "jane is a notebook"}'

    def spoil(asked, handler):
        return asked.path.endswith("mkdirs") and (send(handler, 400, exists) or True)

    workspace.spoil = spoil
    with pytest.raises(TrainingError, match=r"jane is a notebook(?s:.)*ADROIT_EXPERIMENT"):
        NextdoorMLFlowRunPublisher("prices")
    assert workspace.experiments == {}


@pytest.mark.parametrize(
    ("text", "got"),
    [
        (None, "does not exist"),
        (OSError, "Is a directory"),
        (b"[dev]\nhost = https://x\ntoken = canary\n", "the profiles dev"),
        (b"[DEFAULT]\nhost = https://x\n", "the profiles DEFAULT"),
        (b"", "no profile"),
        (b"token = canary\n", "not in INI form"),
        (b"\xff\xfe\x00canary", "not in INI form"),
        (b"[DEFAULT]\nhost = http://example.invalid\ntoken = canary\n", "https address"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_with_the_lines_to_export(
    tmp_path, monkeypatch, text, got
):
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / ".databrickscfg"
    if text is OSError:
        file.mkdir()
    elif text is not None:
        file.write_bytes(text)
    check_told(got)


def test_a_configuration_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    if os.geteuid() == 0:
        pytest.skip("root reads every file; the directory above is the same path in the code")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".databrickscfg").write_text("[DEFAULT]\ntoken = canary\n")
    (tmp_path / ".databrickscfg").chmod(0)
    check_told("Permission denied")


def test_a_workspace_that_is_dead_is_given_up(workspace, monkeypatch):
    monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{free_port()}")
    check_told("cannot be reached")


def test_errors_cross_processes_with_all_their_facts():
    error = TrainingError("No.", where="here", got=1, wanted=2, next_step="do")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert str(error).splitlines() == [
        "No.", "  where:  here", "  got:    1", "  wanted: 2", "  next:   do",
    ]  # fmt: skip
