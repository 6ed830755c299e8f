"""A publisher as MLflow's active run, and how its run ends: what MLflow has is looked at."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from adroit.training import NextdoorMLFlowRunPublisher, TrainingError

ROOT = Path(__file__).resolve().parents[2]
X = pd.DataFrame({"size": [1.0, 2.0, 3.0, 4.0]})
Y = pd.Series([5.0, 7.0, 9.0, 11.0], name="price")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A sqlite store whose tables exist."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    NextdoorMLFlowRunPublisher("first", tracking_uri=uri)
    return uri


@pytest.fixture
def store(made, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", made)
    return made


@pytest.fixture
def publisher(store, request):
    return NextdoorMLFlowRunPublisher(request.node.name)


def runs_of(publisher):
    return MlflowClient(publisher.tracking_uri).search_runs([publisher.experiment_id])


def run_of(publisher):
    return MlflowClient(publisher.tracking_uri).get_run(publisher.run_id)


# The active run


def test_what_mlflow_logs_in_a_block_goes_to_its_run(publisher, tmp_path, monkeypatch):
    from sklearn.linear_model import LinearRegression

    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "elsewhere")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with publisher:
        mlflow.log_dict({"a": 1}, "a.json")
        mlflow.log_metric("loss", 0.5)
        mlflow.sklearn.autolog(log_models=False)
        try:
            LinearRegression().fit(X, Y)
        finally:
            mlflow.sklearn.autolog(disable=True)
        with mlflow.start_run(nested=True, run_name="child"):
            mlflow.log_param("depth", 3)
    child, parent = runs_of(publisher)
    assert parent.info.run_id == publisher.run_id
    assert parent.data.metrics.keys() == {"loss", "training_mean_absolute_error",
        "training_mean_squared_error", "training_r2_score", "training_root_mean_squared_error",
        "training_score"}  # fmt: skip
    assert parent.data.params["fit_intercept"] == "True"
    assert [file.path for file in MlflowClient(publisher.tracking_uri).list_artifacts(
        publisher.run_id)] == ["a.json", "estimator.html"]  # fmt: skip
    assert child.data.tags["mlflow.parentRunId"] == publisher.run_id
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert mlflow.active_run() is None
    assert mlflow.get_tracking_uri() == elsewhere
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "elsewhere"
    assert os.environ["MLFLOW_RUN_ID"] == "0" * 32
    assert "MLFLOW_EXPERIMENT_ID" not in os.environ
    assert not Path(f"{tmp_path}/elsewhere.db").exists()


def test_system_metrics_go_to_the_run(publisher, monkeypatch):
    pytest.importorskip("psutil")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING", "1")
    with publisher:
        threading.Event().wait(1)
    assert any(name.startswith("system/") for name in run_of(publisher).data.metrics)


def test_a_publisher_goes_on_with_its_run_in_a_second_block(publisher):
    with publisher:
        mlflow.log_metric("loss", 0.5)
    with publisher:
        assert run_of(publisher).info.status == "RUNNING"
        mlflow.log_metric("loss", 0.25)
    [run] = runs_of(publisher)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 0.25})


def test_blocks_nest_and_give_back_what_they_found(store):
    outer, inner = NextdoorMLFlowRunPublisher("outer"), NextdoorMLFlowRunPublisher("inner")
    with outer:
        with inner:
            mlflow.log_metric("in", 1)
        mlflow.log_metric("out", 1)
        with mlflow.start_run(nested=True):
            pass
    assert run_of(inner).data.metrics == {"in": 1}
    assert run_of(inner).data.tags["mlflow.parentRunId"] == outer.run_id
    assert run_of(outer).data.metrics == {"out": 1}
    assert len(runs_of(outer)) == 2


def test_a_run_of_another_store_that_is_active_is_left_alone(publisher, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    with mlflow.start_run() as theirs:
        with publisher:
            mlflow.log_metric("ours", 1)
        assert mlflow.active_run() is theirs
        mlflow.log_metric("theirs", 1)
    assert "mlflow.parentRunId" not in run_of(publisher).data.tags
    assert run_of(publisher).data.metrics == {"ours": 1}
    assert mlflow.get_run(theirs.info.run_id).data.metrics == {"theirs": 1}


def test_a_run_that_was_ended_by_hand_ends_no_other(publisher):
    with publisher:
        mlflow.end_run()
        assert mlflow.active_run() is None
        publisher.log_metrics({"late": 1})

    def fail():
        mlflow.start_run(nested=True)  # which nobody ends
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), publisher:
        fail()
    assert mlflow.active_run() is None
    assert {run.info.status for run in runs_of(publisher)} == {"FAILED"}


def test_threads_have_each_their_run(store):
    publishers = [NextdoorMLFlowRunPublisher("threads") for _ in range(4)]
    ready = threading.Barrier(4)

    def train(number):
        with publishers[number]:
            ready.wait(60)
            mlflow.log_metric("number", number)
            with mlflow.start_run(nested=True):
                mlflow.log_metric("nested", number)
            ready.wait(60)

    threads = [threading.Thread(target=train, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run_of(each).data.metrics for each in publishers] == [{"number": n} for n in range(4)]
    children = [run for run in runs_of(publishers[0]) if "nested" in run.data.metrics]
    for run in children:
        parent = publishers[int(run.data.metrics["nested"])]
        assert run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert len(children) == 4
    assert os.environ["MLFLOW_TRACKING_URI"] == store


def test_a_block_of_another_experiment_in_another_thread_is_refused(publisher, store):
    other = NextdoorMLFlowRunPublisher("another")
    problems = []

    def train():
        with pytest.raises(TrainingError) as error, other:
            pass
        problems.append(error.value)
        other.log_metrics({"loss": 1})  # which needs no block

    with publisher:
        thread = threading.Thread(target=train)
        thread.start()
        thread.join()
    assert "without `with`" in problems[0].next_step
    assert run_of(other).data.metrics == {"loss": 1}


def test_threads_begin_one_run_of_a_publisher(publisher):
    threads = [
        threading.Thread(target=publisher.log_metrics, args=[{f"m{number}": number}])
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [run] = runs_of(publisher)
    assert len(run.data.metrics) == 8


def test_two_stores_at_once_do_not_mix(publisher, tmp_path):
    other = NextdoorMLFlowRunPublisher("other", tracking_uri=f"sqlite:///{tmp_path}/other.db")

    def log(each):
        for number in range(20):
            each.log_metrics({"loss": number}, step=number)

    threads = [threading.Thread(target=log, args=[each]) for each in (publisher, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in (publisher, other):
        history = MlflowClient(each.tracking_uri).get_metric_history(each.run_id, "loss")
        assert [metric.value for metric in history] == list(range(20))


# How a run ends


PROGRAM = """
import os, signal, sys, threading, time
from adroit.training import NextdoorMLFlowRunPublisher

publisher = NextdoorMLFlowRunPublisher({name!r})
publisher.log_params({{"depth": 3}})
{end}
"""


def ended(store, name, end, *, number=None):
    """Returns the status of a program's run, and the program's exit code."""
    program = PROGRAM.format(name=name, end=dedent(end))
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"MLFLOW_TRACKING_URI": store},
    )  # fmt: skip
    if number is not None:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
    process.communicate(timeout=300)
    client = MlflowClient(store)
    [run] = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return run.info.status, process.returncode


WAIT = "print('ready', flush=True); time.sleep(300)"


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        ("", "FINISHED", 0),
        ("sys.exit()", "FINISHED", 0),
        ("1 / 0", "FAILED", 1),
        ("with publisher: sys.exit(3)", "FAILED", 3),
        ("with publisher: sys.exit(0)", "FINISHED", 0),
        ("raise KeyboardInterrupt", "KILLED", -signal.SIGINT),
        (
            """
            def train():
                with publisher:
                    time.sleep(300)
            threading.Thread(target=train, daemon=True).start()
            time.sleep(1)
            """,
            "KILLED",
            0,
        ),
        (
            """
            if os.fork() == 0:
                publisher.log_metrics({"child": 1})
                sys.exit(1)
            os.wait()
            """,
            "FINISHED",
            0,
        ),
        (
            """
            with publisher:
                if os.fork() == 0:
                    publisher.log_metrics({"child": 1})
                    raise ValueError
                os.wait()
                import mlflow
                assert mlflow.get_run(publisher.run_id).info.status == "RUNNING"
                assert mlflow.get_run(publisher.run_id).data.metrics == {"child": 1}
            """,
            "FINISHED",
            0,
        ),
    ],
    ids=["last line", "exit", "exception", "exit in a block", "well in a block", "interrupt",
         "thread", "fork", "fork in a block"],
)  # fmt: skip
def test_no_run_outlives_its_process(store, request, end, status, code):
    assert ended(store, request.node.name, end) == (status, code)


@pytest.mark.parametrize("end", [WAIT, f"with publisher: {WAIT}"], ids=["plain", "block"])
def test_a_process_that_is_told_to_end_ends_its_run(store, request, end):
    found = ended(store, request.node.name, end, number=signal.SIGTERM)
    assert found == ("KILLED", 128 + signal.SIGTERM)


def test_a_handler_of_ones_own_for_sigterm_stays(publisher):
    def mine(*_): ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with publisher:
            assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


TASK = """
import sys
from metaflow import FlowSpec, step
from adroit.training import NextdoorMLFlowRunPublisher
class {name}(FlowSpec):
    @step
    def start(self):
        publisher = NextdoorMLFlowRunPublisher()
        publisher.log_params({{"depth": 3}})
        {end}
        self.next(self.end)
    @step
    def end(self):
        pass
if __name__ == "__main__":
    {name}()
"""


@pytest.mark.parametrize(("end", "status"), [("1 / 0", "FAILED"), ("pass", "FINISHED")])
def test_a_task_that_fails_has_a_failed_run(store, tmp_path, end, status):
    name = f"Task{status.title()}"
    flow = tmp_path / "flow.py"
    flow.write_text(TASK.format(name=name, end=end))
    local = {"METAFLOW_DEFAULT_DATASTORE": "local", "METAFLOW_DEFAULT_METADATA": "local"}
    path = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "METAFLOW_USER": "tester"}
    done = subprocess.run(
        [sys.executable, flow, "run"], cwd=tmp_path, env=os.environ | local | path, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode == 0) == (end == "pass"), done.stderr
    client = MlflowClient(store)
    [run] = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    assert run.info.status == status


# How much it asks


def test_a_search_asks_the_server_a_few_times_for_each_run(proxied_server, monkeypatch):
    """200 runs with parameters and metrics, one with a model: requests, and not seconds."""
    import requests
    from sklearn.linear_model import LinearRegression

    asked = []
    send = requests.Session.send

    def counted(session, request, **options):
        asked.append(f"{request.method} {request.path_url.partition('?')[0]}")
        return send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", counted)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxied_server)
    with NextdoorMLFlowRunPublisher("search") as parent:
        for number in range(200):
            with NextdoorMLFlowRunPublisher("search") as publisher:
                publisher.log_params({"depth": number, "rate": 0.1})
                publisher.log_metrics({"loss": 1 / (number + 1), "auc": 0.5})
    of_a_run = len(asked) / 200
    # The experiment, the run, its parameters, its metrics, its end, the page that MLflow prints.
    assert of_a_run < 6.1, sorted(set(asked))
    asked.clear()
    publisher.log_model(
        LinearRegression().fit(X, Y), X_test=X, pip_requirements=["mlflow", "scikit-learn"]
    )
    assert len(asked) < 40
    children = MlflowClient(proxied_server).search_runs(
        [parent.experiment_id], f"tags.mlflow.parentRunId = '{parent.run_id}'", max_results=1000
    )
    assert len(children) == 200
    assert {run.info.status for run in children} == {"FINISHED"}


# What a run can be given


def test_a_run_has_all_that_was_logged_to_it(publisher, tmp_path):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("a")
    then = datetime(2026, 11, 1, tzinfo=UTC)
    publisher.log_metrics({"loss": 0.5}, step=1, timestamp=then)
    publisher.log_metrics({"loss": 0.25}, step=2, timestamp=0)
    publisher.set_tags({"team": "ads", "reviewed": True})
    publisher.log_artifact(tmp_path / "files/a.txt", "one")
    publisher.log_artifacts(tmp_path / "files", "all")
    publisher.log_figure(plt.figure(), "figure.png")
    publisher.log_image(np.zeros((8, 8, 3), "uint8"), "image.png")
    publisher.log_image(np.zeros((8, 8, 3), "uint8"), key="series", step=3)
    publisher.log_table({"text": ["hi"], "score": [0.5]}, "table.json")
    publisher.log_table(pd.DataFrame({"text": ["ho"], "score": [1.0]}), "table.json")
    publisher.log_dict({"a": [1]}, "dict.yaml")
    publisher.log_text("hello", "text.txt")
    client = MlflowClient(publisher.tracking_uri)
    history = client.get_metric_history(publisher.run_id, "loss")
    assert sorted((m.step, m.timestamp) for m in history) == [
        (1, int(then.timestamp() * 1000)),
        (2, 0),
    ]
    tags = run_of(publisher).data.tags
    assert (tags["team"], tags["reviewed"]) == ("ads", "True")
    files = {file.path for file in client.list_artifacts(publisher.run_id)}
    assert files == {"one", "all", "figure.png", "image.png", "images", "table.json", "dict.yaml",
                     "text.txt"}  # fmt: skip
    table = mlflow.artifacts.load_text(f"{run_of(publisher).info.artifact_uri}/table.json")
    assert '["ho",1.0]' in table


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (X, "pandas"),
        (Y, "pandas"),
        (X.to_numpy(), "numpy"),
        ([[1.0], [2.0]], "numpy"),
    ],
    ids=["DataFrame", "Series", "ndarray", "list"],
)
def test_datasets_are_logged_with_their_digest_and_source(publisher, rows, kind):
    publisher.log_input(rows, "test", name="homes", source="s3://bucket/homes.parquet")
    [logged] = run_of(publisher).inputs.dataset_inputs
    assert logged.dataset.name == "homes"
    assert logged.dataset.digest
    assert "s3://bucket/homes.parquet" in logged.dataset.source
    assert [(tag.key, tag.value) for tag in logged.tags] == [("mlflow.data.context", "test")]
    assert kind in type(logged.dataset).__name__ or logged.dataset.schema


def test_a_dataset_of_mlflows_own_is_logged_as_it_is(publisher):
    publisher.log_input(mlflow.data.from_numpy(np.ones(3), source="data.csv", name="mine"))
    [logged] = run_of(publisher).inputs.dataset_inputs
    assert logged.dataset.name == "mine"


@pytest.mark.parametrize(
    "log",
    [
        lambda p: p.log_input({"a": object()}),
        lambda p: p.log_figure("no figure", "a.png"),
        lambda p: p.log_image("no image", "a.png"),
        lambda p: p.log_table([1, 2], "a.json"),
        lambda p: p.log_table({"a": [1]}, "a.csv"),
        lambda p: p.log_artifact("nowhere.txt"),
        lambda p: p.log_artifacts("nowhere"),
        lambda p: p.log_metrics({"loss": "much"}),
        lambda p: p.log_text("a", "../a.txt"),
        lambda p: p.set_tags({"a@\n": 1}),
        lambda p: p.log_params({"a" * 300: 1}),
    ],
    ids=["dataset", "figure", "image", "table", "suffix", "file", "directory", "metric", "path",
         "tag", "param"],
)  # fmt: skip
def test_what_cannot_be_logged_is_told_and_not_where_the_server_is(publisher, log):
    with pytest.raises(TrainingError) as error:
        log(publisher)
    assert "MLFLOW_TRACKING_URI" not in str(error.value)


def test_a_model_is_registered_and_has_the_metrics_that_follow(publisher):
    from sklearn.linear_model import LinearRegression

    with publisher:
        logged = publisher.log_model(
            LinearRegression().fit(X, Y), X_test=X, pip_requirements=["mlflow", "scikit-learn"]
        )
        publisher.log_metrics({"auc": 0.5})
        versions = [publisher.register("homes", logged, tags={"stage": 1}) for _ in range(2)]
    assert versions == ["1", "2"]
    client = MlflowClient(publisher.tracking_uri)
    version = client.get_model_version("homes", "2")
    assert (version.run_id, version.tags) == (publisher.run_id, {"stage": "1"})
    assert version.source == logged.uri
    model = client.get_logged_model(logged.model_id)
    assert [(metric.key, metric.value) for metric in model.metrics] == [("auc", 0.5)]
