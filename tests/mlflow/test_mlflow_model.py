from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from adroit_publish.artifacts.location import artifact_location
from adroit_publish.errors import AmbiguousModel, ModelNotFound, RefusedError, SourceError
from adroit_publish.mlflow.model import resolve_model
from tests.servers.mlflow_servers import MODEL_ID, RUN_ID, HostileServer, free_port, log_model, send

pytest_plugins = ["tests.servers.mlflow_servers"]


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('sqlite')}/mlflow.db"


@pytest.fixture(params=["sqlite", "file", "proxied_server"])
def store(request, tmp_path):
    """A tracking store of each kind, and the artifact root to log to."""
    if request.param == "proxied_server":
        return request.getfixturevalue("proxied_server"), None
    if request.param == "file":
        (tmp_path / "mlruns").mkdir()
        return (tmp_path / "mlruns").as_uri(), tmp_path / "artifacts"
    return request.getfixturevalue("sqlite"), tmp_path / "artifacts"


def test_a_run_with_one_model_resolves_in_every_kind_of_store(store):
    tracking_uri, root = store
    run_id, (model_id,) = log_model(tracking_uri, root, "model")

    model = resolve_model(tracking_uri, run_id, None)

    assert (model.run_id, model.model_id, model.name) == (run_id, model_id, "model")
    assert "MLmodel" in [file.path for file in model.files]
    assert list(model.files) == sorted(model.files, key=lambda file: file.path.encode())
    assert all(file.size_bytes > 0 for file in model.files)
    assert model.metrics == {"accuracy": 0.75}
    assert model.run_name == "tiny"
    assert bool(model.run_url) == tracking_uri.startswith("http")
    assert pickle.loads(pickle.dumps(model)) == model


def test_several_models_need_a_name_and_the_same_name_twice_an_id(sqlite, tmp_path):
    run_id, ids = log_model(sqlite, tmp_path, "big", "twice", "twice")

    with pytest.raises(AmbiguousModel) as several:
        resolve_model(sqlite, run_id, None)
    with pytest.raises(AmbiguousModel) as same_name:
        resolve_model(sqlite, run_id, "twice")
    with pytest.raises(ModelNotFound) as unknown:
        resolve_model(sqlite, run_id, "small")

    assert resolve_model(sqlite, run_id, "big").model_id == ids[0]
    assert resolve_model(sqlite, run_id, ids[1]).model_id == ids[1]
    assert several.value.next_step.endswith("big, " + ", ".join(sorted(ids[1:])))
    assert same_name.value.got.count("twice") == 2
    assert "big" not in same_name.value.got
    assert "big" in unknown.value.got


def test_a_run_without_a_model_says_so(sqlite, tmp_path):
    run_id, _ = log_model(sqlite, tmp_path)
    with pytest.raises(ModelNotFound, match="holds no model"):
        resolve_model(sqlite, run_id, None)


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED", "FAILED", "KILLED"])
def test_a_run_that_did_not_finish_is_refused(sqlite, tmp_path, status):
    from mlflow import MlflowClient

    run_id, _ = log_model(sqlite, tmp_path)
    MlflowClient(sqlite).update_run(run_id, status=status)
    with pytest.raises(SourceError) as refused:
        resolve_model(sqlite, run_id, None)
    assert refused.value.got == status


def test_a_deleted_run_is_refused_with_the_command_that_brings_it_back(sqlite, tmp_path):
    from mlflow import MlflowClient

    run_id, _ = log_model(sqlite, tmp_path)
    MlflowClient(sqlite).delete_run(run_id)
    with pytest.raises(SourceError, match="deleted") as refused:
        resolve_model(sqlite, run_id, None)
    assert "mlflow runs restore" in refused.value.next_step


def test_a_run_that_does_not_exist_is_not_found(store):
    tracking_uri, root = store
    log_model(tracking_uri, root)
    with pytest.raises(ModelNotFound):
        resolve_model(tracking_uri, "f" * 32, None)


def test_what_is_no_run_id_is_not_asked_for(sqlite):
    with pytest.raises(ModelNotFound, match="no run id"):
        resolve_model(sqlite, "../../etc", None)


@pytest.mark.parametrize("kind", ["sqlite", "proxied_server"])
def test_a_model_of_mlflow_2_lies_in_the_artifacts_of_its_run(kind, request, tmp_path):
    tracking_uri = request.getfixturevalue(kind)
    run_id = log_mlflow_2(tracking_uri, tmp_path, ["model"])
    model = resolve_model(tracking_uri, run_id, None)
    assert model.model_id is None
    assert [file.path for file in model.files] == ["MLmodel", "data/model.bin"]


def test_a_model_that_mlflow_2_logged_over_another_is_the_newest(sqlite, tmp_path):
    run_id = log_mlflow_2(sqlite, tmp_path, ["model", "model"])
    model = resolve_model(sqlite, run_id, None)
    assert [file.path for file in model.files] == ["MLmodel", "data/model.bin"]
    assert resolve_model(sqlite, run_id, "model") == model


def test_a_model_that_was_logged_over_once_more_is_another_one_in_the_cache(sqlite, tmp_path):
    from mlflow import MlflowClient

    run_id = log_mlflow_2(sqlite, tmp_path, ["model"])
    first = resolve_model(sqlite, run_id, None)
    newer = {"run_id": run_id, "artifact_path": "model", "utc_time_created": "2026-01-02 03:04:05"}
    history = json.dumps([newer, {**newer, "utc_time_created": "2025-01-02 03:04:05"}])
    MlflowClient(sqlite).set_tag(run_id, "mlflow.log-model.history", history)
    assert resolve_model(sqlite, run_id, None).cache_key != first.cache_key


def test_a_model_among_the_artifacts_that_no_tag_tells_of_is_found(store, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    tracking_uri, root = store
    run_id, _ = log_model(tracking_uri, root)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri)
    saved = tmp_path / "sv"
    (saved / "inner").mkdir(parents=True)
    for folder in (saved, saved / "inner"):  # one within another is a part of it
        (folder / "MLmodel").write_text("flavors: {}\n")
    client.log_artifacts(run_id, str(saved), "deep/model")
    model = resolve_model(tracking_uri, run_id, None)
    assert (model.name, model.model_id) == ("deep/model", None)
    assert [file.path for file in model.files] == ["MLmodel", "inner/MLmodel"]
    client.log_artifacts(run_id, str(saved), "other")
    with pytest.raises(AmbiguousModel):
        resolve_model(tracking_uri, run_id, None)
    assert resolve_model(tracking_uri, run_id, "other").name == "other"


def test_a_model_without_a_tag_is_found_by_its_name_next_to_one_that_was_logged(sqlite, tmp_path):
    from mlflow import MlflowClient

    run_id, _ = log_model(sqlite, tmp_path / "artifacts", "logged")
    (tmp_path / "sv").mkdir()
    (tmp_path / "sv" / "MLmodel").write_text("flavors: {}\n")
    MlflowClient(sqlite).log_artifacts(run_id, str(tmp_path / "sv"), "saved")
    assert resolve_model(sqlite, run_id, None).name == "logged"
    assert resolve_model(sqlite, run_id, "saved").name == "saved"


def test_a_run_whose_children_hold_models_names_them(sqlite, tmp_path):
    from mlflow import MlflowClient

    client = MlflowClient(sqlite)
    parent, _ = log_model(sqlite, tmp_path / "1")
    child, _ = log_model(sqlite, tmp_path / "2", "model")
    experiment = client.get_run(parent).info.experiment_id
    other = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    mine = client.create_run(experiment, tags={"mlflow.parentRunId": parent}).info.run_id
    client.set_tag(mine, "mlflow.log-model.history", "[]")
    client.set_tag(child, "mlflow.parentRunId", parent)
    with pytest.raises(ModelNotFound, match="holds no model") as refused:
        resolve_model(sqlite, parent, None)
    assert mine in refused.value.got
    assert other not in refused.value.got
    assert "run ids" in refused.value.next_step


def test_a_run_left_running_is_ended_by_the_command_that_is_named(sqlite, tmp_path):
    import shlex
    import subprocess
    import sys

    from mlflow import MlflowClient

    run_id, _ = log_model(sqlite, tmp_path, "model")
    MlflowClient(sqlite).update_run(run_id, status="RUNNING")
    with pytest.raises(SourceError) as refused:
        resolve_model(sqlite, run_id, None)
    command = shlex.split(refused.value.next_step[refused.value.next_step.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], check=True, timeout=120)
    assert resolve_model(sqlite, run_id, None).run_id == run_id


def test_an_artifact_without_an_mlmodel_file_is_no_model(sqlite, tmp_path):
    run_id = log_mlflow_2(sqlite, tmp_path, ["model"])
    next(tmp_path.rglob("artifacts/model/MLmodel")).unlink()
    with pytest.raises(ModelNotFound, match="is not a model"):
        resolve_model(sqlite, run_id, None)


def log_mlflow_2(tracking_uri: str, directory: Path, names: list[str]) -> str:
    """Logs a run as MLflow 2 does: files among the run's artifacts, told by a tag."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri)
    location = None if tracking_uri.startswith("http") else (directory / "store").as_uri()
    experiment = client.create_experiment(f"v2-{time.monotonic_ns()}", location)
    run_id = client.create_run(experiment).info.run_id
    source = directory / "made"
    (source / "data").mkdir(parents=True)
    (source / "MLmodel").write_text("flavors: {}\n")
    (source / "data/model.bin").write_bytes(b"weights")
    history = []
    for name in names:
        client.log_artifacts(run_id, str(source), name)
        history.append({"run_id": run_id, "artifact_path": name, "model_uuid": "u"})
    client.set_tag(run_id, "mlflow.log-model.history", json.dumps(history))
    client.set_terminated(run_id)
    return run_id


def test_a_missing_local_store_is_named_and_not_created(tmp_path):
    for uri, place in (
        (f"sqlite:///{tmp_path}/no/mlflow.db", tmp_path / "no"),
        ((tmp_path / "mlruns").as_uri(), tmp_path / "mlruns"),
    ):
        with pytest.raises(SourceError, match="no tracking store"):
            resolve_model(uri, RUN_ID, None)
        assert not place.exists()


def test_a_file_that_is_no_tracking_store_is_left_as_it_is(tmp_path):
    for name, data in (("empty.db", b""), ("text.db", b"not a database, but long enough" * 99)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError):
            resolve_model(f"sqlite:///{tmp_path}/{name}", RUN_ID, None)
        assert (tmp_path / name).read_bytes() == data


def test_an_unreachable_server_is_given_up_within_seconds():
    started = time.monotonic()
    with pytest.raises(SourceError, match="cannot be reached"):
        resolve_model(f"http://127.0.0.1:{free_port()}", RUN_ID, None)
    assert time.monotonic() - started < 15


def test_credentials_in_the_address_are_refused_and_never_shown():
    with pytest.raises(SourceError) as refused:
        resolve_model("http://me:hunter2@127.0.0.1:1", RUN_ID, None)
    assert "hunter2" not in str(refused.value)
    assert "MLFLOW_TRACKING_PASSWORD" in refused.value.next_step


def test_plain_http_is_for_loopback_only():
    with pytest.raises(SourceError, match="not reached over https"):
        resolve_model("http://mlflow.example.com", RUN_ID, None)


def test_mlflow_settings_do_not_outlive_a_call(monkeypatch):
    import os

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    before = dict(os.environ)
    with pytest.raises(SourceError):
        resolve_model(f"http://127.0.0.1:{free_port()}", RUN_ID, None)
    assert dict(os.environ) == before


def test_the_hostile_server_is_believed_where_it_tells_the_truth():
    with HostileServer(files={"MLmodel": b"x", "data/a/b": b"yy"}).running() as server:
        model = resolve_model(server.url, RUN_ID, None)
    assert model.model_id == MODEL_ID
    assert [(f.path, f.size_bytes) for f in model.files] == [("MLmodel", 1), ("data/a/b", 2)]


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc",
        "/etc",
        "FILE:///etc",
        "mlflow-artifacts:/0/../../secret",
        "mlflow-artifacts:/0/%2e%2e/secret",
        "mlflow-artifacts:/0/%252e%252e/secret",
        "mlflow-artifacts:/0/..%2fsecret",
        "mlflow-artifacts:/0/..\\secret",
        "mlflow-artifacts:/0//secret",
        "mlflow-artifacts://127.0.0.1:1/0/models/artifacts",
        "http://127.0.0.1:1/api/2.0/mlflow-artifacts/artifacts/0",
        "https://other.example/api/2.0/mlflow-artifacts/artifacts/0",
        "mlflow-artifacts:/0?path=../..",
        "s3://bucket/a/../b",
        "s3://key:secret@bucket/a",
        "s3:///a",
        "ftp://127.0.0.1/a",
        "mlflow-artifacts:/0/%00",
        "",
    ],
)
def test_a_location_that_a_server_may_not_name_is_refused(location):
    with HostileServer(location=location).running() as server:
        with pytest.raises(SourceError):
            resolve_model(server.url, RUN_ID, None)
        assert not [path for path, _ in server.requests if "artifacts" in path]


@pytest.mark.parametrize(
    ("address", "mine", "other"),
    [("/runs/get", RUN_ID, "e" * 32), ("/logged-models/", MODEL_ID, f"m-{'e' * 32}")],
)
def test_an_answer_about_another_run_or_model_is_refused(address, mine, other):
    """An older answer, or one for another request: its model would be published as this run's."""

    def replies(path, handler):
        if address not in path:
            return False
        route, _, query = path.partition("?")
        answer = json.dumps(server.answer(route, parse_qs(query)))
        send(handler, 200, answer.replace(mine, other).encode())
        return True

    server = HostileServer(replies=replies)
    with server.running(), pytest.raises(SourceError, match="about something else") as refused:
        resolve_model(server.url, RUN_ID, None)
    assert (refused.value.got, refused.value.wanted) == (other, mine)


def test_an_experiment_of_another_id_gives_a_run_no_name():
    def replies(path, handler):
        if "/experiments/get" not in path:
            return False
        experiment = {"experiment_id": "7", "name": "another", "lifecycle_stage": "active"}
        send(handler, 200, json.dumps({"experiment": experiment}).encode())
        return True

    with HostileServer(replies=replies).running() as server:
        assert resolve_model(server.url, RUN_ID, None).experiment is None


def test_the_servers_own_artifact_address_is_accepted_in_each_of_its_forms():
    server = "https://host:1/prefix"
    proxy = f"{server}/api/2.0/mlflow-artifacts/artifacts"
    for stated in (
        "mlflow-artifacts:/1/a b",
        "mlflow-artifacts://host:1/1/a%20b",
        f"{proxy}/1/a b",
    ):
        assert artifact_location(stated, server) == f"{proxy}/1/a%20b"
    assert artifact_location("s3://bucket/a/b/", server) == "s3://bucket/a/b"
    assert artifact_location("/a/100%25/b", "sqlite:////x") == "file:///a/100%2525/b"


def test_files_behind_a_server_are_not_looked_for_in_its_database(sqlite):
    with pytest.raises(SourceError, match="behind a tracking server"):
        artifact_location("mlflow-artifacts:/1/a", sqlite)


HOSTILE_NAMES = [
    "..",
    ".",
    "",
    "/etc/passwd",
    "a/../../b",
    "a\\b",
    "a\nb",
    "a\x00b",
    "a\u202eb",
    "\ud800",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_hostile_file_name_is_refused(name):
    def listing(path, handler):
        if "?path=" not in path:
            return False
        files = [{"path": name, "is_dir": False, "file_size": 1}]
        send(handler, 200, json.dumps({"files": files}).encode())
        return True

    with HostileServer(replies=listing).running() as server, pytest.raises(SourceError):
        resolve_model(server.url, RUN_ID, None)


@pytest.mark.parametrize(
    "names",
    [
        ("MLmodel", "mlmodel"),
        ("data/\u00e9", "data/e\u0301"),
        ("a", "A/b"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_collide_where_case_or_form_is_ignored_are_refused(names):
    server = HostileServer(files=dict.fromkeys(names, b"x"))
    with server.running(), pytest.raises(SourceError, match="would be one") as refused:
        resolve_model(server.url, RUN_ID, None)
    assert all(ascii(name)[1:-1] in refused.value.got for name in names)


def test_an_endless_tree_of_folders_ends():
    def listing(path, handler):
        if "?path=" not in path:
            return False
        send(handler, 200, b'{"files": [{"path": "deeper", "is_dir": true}]}')
        return True

    with HostileServer(replies=listing).running() as server, pytest.raises(SourceError):
        resolve_model(server.url, RUN_ID, None)


@pytest.mark.parametrize("size", [-1, None, "many", [1]])
def test_a_size_that_is_none_is_refused(size):
    with HostileServer(listed={"big.bin": size}).running() as server, pytest.raises(SourceError):
        resolve_model(server.url, RUN_ID, None)


@pytest.mark.parametrize("where", ["/runs/get", "?path="])
@pytest.mark.parametrize(
    ("status", "data", "error"),
    [
        (200, b"<html>please log in</html>", SourceError),
        (200, b"[]", SourceError),
        (200, b'{"run": 7, "files": 7}', SourceError),
        (404, b"<html>nginx</html>", SourceError),
        (302, b"", SourceError),
        (401, b"You are not authenticated.", RefusedError),
        (403, b"<html>no</html>", RefusedError),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', RefusedError),
        (403, b'{"error_code": 403, "message": "no"}', RefusedError),
    ],
)
def test_an_answer_of_another_kind_is_a_plain_message(where, status, data, error):
    def reply(path, handler):
        if where not in path:
            return False
        send(handler, status, data, Location="http://127.0.0.1:9/stolen")
        return True

    with HostileServer(replies=reply).running() as server, pytest.raises(error) as refused:
        resolve_model(server.url, RUN_ID, None)
    assert not isinstance(refused.value, ModelNotFound)
    assert refused.value.next_step
    assert len(str(refused.value)) < 1500


def test_credentials_of_the_environment_reach_the_server_and_no_message(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "canary-token")
    server = HostileServer(location="file:///etc")
    with server.running(), pytest.raises(SourceError) as refused:
        resolve_model(server.url, RUN_ID, None)
    assert server.requests[0][1]["Authorization"] == "Bearer canary-token"
    assert "canary" not in str(refused.value)
