"""Tracking servers whose artifacts are in a real object store, proxied or not."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from adroit_publish.artifacts.pull import open_root, pull_model
from adroit_publish.errors import RefusedError, SourceError
from adroit_publish.mlflow.model import resolve_model
from tests.artifacts.test_artifacts import model_at
from tests.servers.fault_proxy import FaultProxy, answer, cut_answer, flip_answer, s3_error
from tests.servers.mlflow_servers import log_model, mlflow_server
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET, seaweed

__all__ = ["seaweed"]

READER = "AKIAREADERREADERREAD"


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    """AWS profiles: `data` may read the artifacts, `eng` may not; nothing else is set."""
    file = tmp_path_factory.mktemp("aws") / "config"
    file.write_text(
        f"[profile data]\nregion = us-east-1\naws_access_key_id = {READER}\n"
        f"aws_secret_access_key = {SECRET_KEY}\n"
        "[profile eng]\nregion = us-east-1\naws_access_key_id = AKIAOTHER\n"
        "aws_secret_access_key = other\n"
    )
    return file


@contextmanager
def written_with(endpoint):
    """The environment of whoever trains: may write artifacts."""
    import boto3
    from mlflow.store.artifact import s3_artifact_repo

    with pytest.MonkeyPatch.context() as patch:
        for name, value in _writer(endpoint).items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        # Both keep whoever's credentials an earlier test of this process had.
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        s3_artifact_repo._cached_get_s3_client.cache_clear()
        yield
        s3_artifact_repo._cached_get_s3_client.cache_clear()


def _writer(endpoint):
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@pytest.fixture(scope="module", params=["proxied", "direct"])
def logged(request, seaweed, tmp_path_factory):
    """A server, and the runs of MLflow 3 and 2 logged to it."""
    place = f"s3://{seaweed.new_place()}"
    directory = tmp_path_factory.mktemp(request.param)
    arguments = ["--artifacts-destination", place]
    if request.param == "direct":
        arguments = ["--no-serve-artifacts", "--default-artifact-root", place]
    with mlflow_server(directory, *arguments, **_writer(seaweed.endpoint)) as url:
        with written_with(seaweed.endpoint):
            new = log_model(url, None, "model")[0]
            old = log_as_mlflow_2(url, directory)
        yield request.param, url, {"MLflow 3": new, "MLflow 2": old}


def log_as_mlflow_2(url, directory):
    """Logs a run as MLflow 2 does: files among the run's artifacts, told by a tag."""
    from mlflow import MlflowClient

    client = MlflowClient(url)
    run_id = client.create_run(client.create_experiment("v2")).info.run_id
    made = directory / "made"
    (made / "data").mkdir(parents=True)
    (made / "MLmodel").write_text("flavors: {}\n")
    (made / "data" / "weights.bin").write_bytes(bytes(range(256)) * 4096)
    client.log_artifacts(run_id, str(made), "model")
    history = json.dumps([{"run_id": run_id, "artifact_path": "model", "model_uuid": "u"}])
    client.set_tag(run_id, "mlflow.log-model.history", history)
    client.set_terminated(run_id)
    return run_id


@pytest.fixture
def reading(monkeypatch, credentials, seaweed):
    """Whoever publishes: profiles alone, and ``eng`` in use."""
    monkeypatch.setenv("AWS_CONFIG_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "eng")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweed.endpoint)


@pytest.mark.parametrize("era", ["MLflow 3", "MLflow 2"])
def test_a_model_in_s3_is_pulled_through_the_server_and_directly(
    logged, reading, seaweed, tmp_path, era
):
    kind, url, runs = logged
    model = resolve_model(url, runs[era], None, source_profile="data")
    pulled = pull_model(model, tmp_path, source_profile="data")

    assert model.artifact_uri.startswith("s3://" if kind == "direct" else url)
    assert (model.model_id is None) == (era == "MLflow 2")
    assert {file.path for file in model.files} == pulled.files.keys()
    for path, file in pulled.files.items():
        with file.open() as stream:
            assert stream.read() == stored(seaweed, kind, model, path)


def stored(seaweed, kind, model, path):
    """Reads an artifact past the code: from the bucket, or by one plain request."""
    if kind == "proxied":
        return requests.get(
            f"{model.artifact_uri}/{requests.utils.quote(path)}", timeout=30
        ).content
    bucket, _, prefix = model.artifact_uri.removeprefix("s3://").partition("/")
    return seaweed.client().get_object(Bucket=bucket, Key=f"{prefix}/{path}")["Body"].read()


def test_a_profile_of_another_account_is_refused_with_the_setting_to_make(logged, reading):
    kind, url, runs = logged
    if kind == "proxied":
        # The server reads for us: no credential of ours is asked for.
        assert resolve_model(url, runs["MLflow 3"], None).files
        return
    with pytest.raises(RefusedError, match="may not read") as refused:
        resolve_model(url, runs["MLflow 3"], None)
    assert "source_profile" in refused.value.next_step


def put(seaweed, files):
    """Puts a model's files into the bucket and returns its address."""
    place = seaweed.new_place()
    for path, data in files.items():
        key = f"{place.partition('/')[2]}/{path}"
        seaweed.client().put_object(Bucket=SHARED_BUCKET, Key=key, Body=data)
    return f"s3://{place}"


def pull_from(uri, cache, **options):
    files = open_root(uri, "data").list_files()
    model = replace(model_at(uri), files=files)
    pulled = pull_model(model, cache, source_profile="data", **options)
    return {path: Path(file.path).read_bytes() for path, file in pulled.files.items()}


FILES = {"MLmodel": b"flavors: {}\n", "data/big.bin": bytes(range(256)) * 12288, "empty": b""}


@pytest.fixture
def before_s3(seaweed, reading, monkeypatch):
    with FaultProxy(seaweed.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield proxy


@pytest.mark.parametrize(
    "fault",
    [
        cut_answer(1 << 20),
        s3_error(503, "SlowDown"),
        s3_error(500, "InternalError"),
        answer(429, {"Retry-After": "0"}),
    ],
    ids=["cut", "503", "500", "429"],
)
def test_a_download_that_breaks_goes_on_where_it_broke(seaweed, before_s3, tmp_path, fault):
    uri = put(seaweed, FILES)
    injected = before_s3.inject(fault, "GET", "big.bin", times=2)
    assert pull_from(uri, tmp_path) == FILES
    assert injected.fired == 2


@pytest.mark.parametrize("code", ["ExpiredToken", "AccessDenied", "InvalidAccessKeyId"])
def test_credentials_that_expire_in_the_middle_are_refused_and_what_arrived_is_kept(
    seaweed, before_s3, tmp_path, code
):
    uri = put(seaweed, FILES)
    pull_from(put(seaweed, {"MLmodel": b"x"}), tmp_path / "warm")
    fault = before_s3.inject(s3_error(403, code), "GET", "big.bin", times=1)
    with pytest.raises(RefusedError, match="may not read") as refused:
        pull_from(uri, tmp_path)
    assert (refused.value.got, refused.value.exit_code, fault.fired) == (code, 4, 1)
    assert pull_from(uri, tmp_path) == FILES


def test_an_html_page_in_place_of_a_file_is_refused(seaweed, before_s3, tmp_path):
    uri = put(seaweed, FILES)
    page = b"<html>please log in</html>"
    before_s3.inject(answer(200, {"ETag": '"x"'}, page), "GET", "big.bin", times=9)
    with pytest.raises(SourceError, match="another length"):
        pull_from(uri, tmp_path)


def test_a_flipped_bit_of_a_download_is_never_taken_for_the_file(seaweed, before_s3, tmp_path):
    uri = put(seaweed, FILES)
    fault = before_s3.inject(flip_answer(5), "GET", "MLmodel")
    assert pull_from(uri, tmp_path) == FILES
    assert fault.fired == 1
