"""Models of every kind people log: published, served, and as right as the object that was trained.

Each kind has its own project, is really trained, verified in the real sandbox, served by the
command a user types, and asked about rows that its input example does not hold. The kinds that
must not be published are at the end: they leave neither a version nor a changed flavors.yaml.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions, version
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import pandas as pd
import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.errors import VerificationError
from adroit_publish.gates import sandbox
from adroit_publish.places import open_store
from tests.servers.live_servers import ask, started
from tests.support.checkouts import FLOW, Trained, commit, make_checkout
from tests.support.requirements import missing, require

MLFLOW_HANDLER = "adroit.serving.mlflow_handler:MlflowHandler"
OWN_HANDLER = """
    import mlflow.pyfunc

    from projects.shared.bands import band

    class TumourHandler:
        def __init__(self, model_name, threshold=0.5, labels=("no", "yes")):
            self.threshold = threshold
            self.labels = labels

        def load(self, bundle):
            self.model = mlflow.pyfunc.load_model(str(bundle.model_dir))

        def predict(self, inputs, params=None):
            shares = self.model.predict(inputs)[:, 1]
            return [band(share, self.threshold, self.labels) for share in shares]
"""
SHARED_CODE = """
    def band(share, threshold, labels):
        return labels[int(share >= threshold)]
"""
CENTROIDS = """
    import json

    import mlflow
    import numpy as np
    from mlflow.pyfunc import PythonModel

    class Nearest(PythonModel):
        def load_context(self, context):
            with open(context.artifacts["centroids"]) as file:
                self.centroids = np.array(json.load(file))

        def predict(self, context, model_input, params=None):
            away = model_input.to_numpy()[:, None, :] - self.centroids
            return np.linalg.norm(away, axis=2).argmin(axis=1)

    mlflow.models.set_model(Nearest())
"""

SKLEARN_NEEDS = "mlflow scikit-learn skops"

LogModel = Callable[..., str]


@dataclass(frozen=True)
class Logged:
    """A trained model in the tracking store.

    Attributes:
        run_id: Its run.
        request: A body for ``/invocations``.
        predicted: What the trained object itself says to it, as JSON values.
    """

    run_id: str
    request: Mapping[str, Any]
    predicted: list[Any]


@pytest.fixture(scope="module")
def log(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> LogModel:
    """Logs a model by its MLflow flavor to the session's tracking store; gives the run id."""
    import mlflow

    place = tmp_path_factory.mktemp("kinds").as_uri()
    experiment = mlflow.MlflowClient(trained.tracking_uri).create_experiment("kinds", place)

    def log_model(flavor: Any, needs: str, **options: Any) -> str:
        pins = [name if "==" in name else f"{name}=={version(name)}" for name in needs.split()]
        mlflow.set_tracking_uri(trained.tracking_uri)
        try:
            with mlflow.start_run(experiment_id=experiment) as run:
                flavor.log_model(name="model", pip_requirements=pins, **options)
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        return str(run.info.run_id)

    return log_model


@pytest.fixture
def checkout(tmp_path: Path, trained: Trained) -> Path:
    return make_checkout(tmp_path / "repo", trained.tracking_uri, {})


def list_env(root: Path) -> None:
    """Commits an environment.yml that lists what is installed here."""
    here = sorted({f"{one.name}=={one.version}" for one in distributions() if one.name})
    python = ".".join(map(str, sys.version_info[:2]))
    listed = {"dependencies": [f"python={python}", "pip", {"pip": here}]}
    (root / "environment.yml").write_text(json.dumps(listed))  # JSON is YAML
    commit(root, "the env as it is here")


def add_flavor(
    root: Path,
    run_id: str,
    *,
    handler: str = MLFLOW_HANDLER,
    kwargs: Mapping[str, Any] | None = None,
    source: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Commits the project ``kind`` with these files, and the flavor ``kind`` of it."""
    serve = {"handler": {"class_path": handler, "kwargs": {"model_name": "kind", **(kwargs or {})}}}
    config = {"model_name": "kind", "serve": serve, "source": source or {}}
    written = {"projects/kind/config.yaml": json.dumps(config), **(files or {})}  # JSON is YAML
    for path, text in written.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(dedent(text))
    with (root / "flavors.yaml").open("a") as file:
        file.write(
            f"kind:\n  config: projects/kind/config.yaml\n  conda_env: plain\n  version: {run_id}\n"
        )
    commit(root, "a model of this kind")


def check_published_served_and_right(root: Path, logged: Logged) -> None:
    require(sandbox.available() != "plain", "no sandbox works on this machine")
    list_env(root)
    release = publish("kind", root=root, verify="process")
    assert release.verification["predicted"] is True
    assert release.verification["how"] in ("bubblewrap", "namespaces")
    assert release.warnings == ()  # the env holds to the letter what the model was logged with
    command = [sys.executable, "-m", "adroit_publish", "serve", release.version, "--port", "0"]
    with started(command, environ={"PYTHONPATH": str(FLOW.parent)}, cwd=root) as server:
        assert ask(server.url + "/bundle").json["bundle_id"] == release.bundle_id
        body = json.dumps(logged.request)
        reply = ask(server.url + "/invocations", body, {"Content-Type": "application/json"})
    assert reply.status == 200, reply.body
    answers = reply.json["predictions"]
    assert len(answers) == len(logged.predicted) > 1
    for answer, predicted in zip(answers, logged.predicted, strict=True):
        assert answer == pytest.approx(predicted)  # to a millionth; words exactly


def split(frame: pd.DataFrame) -> dict[str, Any]:
    """A request for a frame's rows."""
    return {"dataframe_split": frame.to_dict(orient="split")}


def train_tumours() -> tuple[Any, pd.DataFrame]:
    """A pipeline that tells tumours apart, and rows it was not trained on."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame[:400], labels[:400])
    return model, frame[400:]


def log_tumours(log: LogModel, needs: str = SKLEARN_NEEDS, **options: Any) -> Logged:
    """Logs that pipeline as it is, by MLflow's sklearn flavor."""
    import mlflow.sklearn

    model, unseen = train_tumours()
    run_id = log(mlflow.sklearn, needs, sk_model=model, input_example=unseen[:3], **options)
    return Logged(run_id, split(unseen[3:]), model.predict(unseen[3:]).tolist())


def test_a_plain_sklearn_model_is_published_served_and_right(checkout: Path, log: LogModel) -> None:
    logged = log_tumours(log)
    add_flavor(checkout, logged.run_id)
    check_published_served_and_right(checkout, logged)


def test_a_lightgbm_model_is_published_served_and_right(checkout: Path, log: LogModel) -> None:
    try:
        import lightgbm
        import mlflow.lightgbm
    except (ImportError, OSError) as error:
        require(False, f"lightgbm cannot be imported: {error} (Debian's libgomp1 has libgomp)")
    from sklearn.datasets import load_diabetes

    frame, target = load_diabetes(return_X_y=True, as_frame=True)
    data = lightgbm.Dataset(frame[:300], target[:300])
    model: Any = lightgbm.train({"objective": "l2", "verbosity": -1, "num_threads": 1}, data, 20)
    unseen = frame[300:]
    run_id = log(
        mlflow.lightgbm,
        "mlflow lightgbm scikit-learn",
        lgb_model=model,
        input_example=unseen[:3],
    )
    add_flavor(checkout, run_id)
    predicted = model.predict(unseen[3:]).tolist()
    check_published_served_and_right(checkout, Logged(run_id, split(unseen[3:]), predicted))


def test_a_python_model_with_a_file_artifact_is_published_served_and_right(
    checkout: Path, log: LogModel, tmp_path: Path
) -> None:
    import mlflow.pyfunc
    from sklearn.datasets import load_iris
    from sklearn.neighbors import NearestCentroid

    frame, species = load_iris(return_X_y=True, as_frame=True)
    model, unseen = NearestCentroid().fit(frame[::2], species[::2]), frame[1::2]
    (tmp_path / "centroids.json").write_text(json.dumps(model.centroids_.tolist()))
    (tmp_path / "nearest.py").write_text(dedent(CENTROIDS))
    run_id = log(
        mlflow.pyfunc,
        "mlflow numpy",
        python_model=str(tmp_path / "nearest.py"),
        artifacts={"centroids": str(tmp_path / "centroids.json")},
        input_example=unseen[:3],
    )
    add_flavor(checkout, run_id)
    predicted = model.predict(unseen).tolist()
    assert set(predicted) == {0, 1, 2}
    check_published_served_and_right(checkout, Logged(run_id, split(unseen), predicted))


def test_a_custom_handler_with_kwargs_and_shared_code_is_published_served_and_right(
    checkout: Path, log: LogModel
) -> None:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    model, unseen = train_tumours()
    shares = model.predict_proba(unseen)[:, 1]
    labels = ["look" if share < 0.9 else "leave" for share in shares]
    assert labels != ["look" if share < 0.5 else "leave" for share in shares]  # kwargs matter
    run_id = log(
        mlflow.sklearn,
        SKLEARN_NEEDS,
        sk_model=model,
        pyfunc_predict_fn="predict_proba",
        input_example=unseen[:3],
        signature=infer_signature(unseen, labels),  # what is served: the handler's outputs
    )
    add_own_handler(checkout, run_id, source={"include": ["projects/shared"]})
    check_published_served_and_right(checkout, Logged(run_id, split(unseen), labels))


def add_own_handler(
    root: Path, run_id: str, *, source: Mapping[str, Any], code: str = OWN_HANDLER
) -> None:
    """Adds the flavor with a handler of its own, and code beside the project that it imports."""
    files = {
        "projects/kind/handler.py": code,
        "projects/kind/bands.py": SHARED_CODE,
        "projects/shared/bands.py": SHARED_CODE,
    }
    add_flavor(
        root,
        run_id,
        handler="projects.kind.handler:TumourHandler",
        kwargs={"threshold": 0.9, "labels": ["look", "leave"]},
        source=source,
        files=files,
    )


def test_a_torch_model_on_the_cpu_is_published_served_and_right(
    checkout: Path, log: LogModel
) -> None:
    if find_spec("torch") is None:
        missing("torch is not installed: no CPU build of it is in requirements.lock")
    import mlflow.pytorch
    import torch
    from sklearn.datasets import load_iris

    torch.manual_seed(7)
    features, species = load_iris(return_X_y=True)
    rows = features.astype("float32")
    net = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3), torch.nn.Softmax(dim=1)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        chances = net(torch.from_numpy(rows[::2]))
        torch.nn.functional.nll_loss(chances.log(), torch.from_numpy(species[::2])).backward()
        optimizer.step()
    unseen = rows[1::2].copy()  # of its own layout: an exported graph keeps its example's strides
    with torch.no_grad():
        predicted = net(torch.from_numpy(unseen)).tolist()
    run_id = log(
        mlflow.pytorch, "mlflow torch numpy", pytorch_model=net.eval(), input_example=unseen[:3]
    )
    add_flavor(checkout, run_id)
    request = {"inputs": unseen.tolist()}
    check_published_served_and_right(checkout, Logged(run_id, request, predicted))


# What must not be published: each cause is named, and nothing has changed.


def check_stopped(root: Path, *causes: str) -> None:
    """Publishes the flavor ``kind`` and expects exit 6, these words, and no trace."""
    before = (root / "flavors.yaml").read_bytes()
    with pytest.raises(VerificationError) as error:
        publish("kind", root=root, verify="process")
    assert error.value.exit_code == 6
    for cause in causes:
        assert cause in str(error.value)
    assert (root / "flavors.yaml").read_bytes() == before
    store = open_store(open_checkout(root, {}).target(None))
    assert list(store.versions("kind")) == []


def test_a_model_that_needs_a_package_the_env_lacks_is_stopped_by_its_name(
    checkout: Path, log: LogModel
) -> None:
    logged = log_tumours(log, SKLEARN_NEEDS + " absent-scorer==2.1")
    add_flavor(checkout, logged.run_id)
    check_stopped(checkout, "absent-scorer: nothing, requirements.txt wants ==2.1: not installed")


def test_a_handler_that_imports_a_package_the_env_lacks_is_stopped_by_its_line(
    checkout: Path, log: LogModel
) -> None:
    code = dedent(OWN_HANDLER).replace("import mlflow.pyfunc", "import absent_scorer")
    source = {"include": ["projects/shared"]}
    add_own_handler(checkout, log_tumours(log).run_id, source=source, code=code)
    check_stopped(checkout, "absent_scorer, imported at projects/kind/handler.py:2", "conda env")


def test_a_model_pickled_under_another_python_minor_is_stopped_by_both_versions(
    checkout: Path, log: LogModel, trained: Trained
) -> None:
    needs = "mlflow scikit-learn cloudpickle"
    logged = log_tumours(log, needs, serialization_format="cloudpickle")
    mlmodel = mlmodel_of(trained, logged.run_id)
    major, minor = sys.version_info[:2]
    other = f"{major}.{minor + 1}.1"
    text, edits = re.subn(r"(python_version: ).*", rf"\g<1>{other}", mlmodel.read_text())
    assert edits == 1
    mlmodel.write_text(text)
    add_flavor(checkout, logged.run_id)
    check_stopped(checkout, f"python: {major}.{minor}.", f"MLmodel wants =={other}", "pickles")


@pytest.mark.parametrize(
    ("source", "module", "named"),
    [
        ({}, "projects.shared.bands", "projects.shared"),  # of which the bundle holds nothing
        ({"exclude": ["bands.py"]}, "projects.kind.bands", "projects.kind.bands"),
    ],
    ids=["not included", "excluded"],
)
def test_a_handler_that_imports_a_file_left_out_of_the_bundle_is_stopped_by_its_line(
    checkout: Path, log: LogModel, source: Mapping[str, Any], module: str, named: str
) -> None:
    code = OWN_HANDLER.replace("projects.shared.bands", module)
    add_own_handler(checkout, log_tumours(log).run_id, source=source, code=code)
    cause = f"{named}, imported at projects/kind/handler.py:4"
    check_stopped(checkout, cause, "source.include")


def mlmodel_of(trained: Trained, run_id: str) -> Path:
    """The MLmodel file of a run's one model, as the store keeps it."""
    from mlflow import MlflowClient

    client = MlflowClient(trained.tracking_uri)
    outputs = client.get_run(run_id).outputs
    assert outputs
    (output,) = outputs.model_outputs
    location = client.get_logged_model(output.model_id).artifact_location
    return Path(location.removeprefix("file://")) / "MLmodel"
