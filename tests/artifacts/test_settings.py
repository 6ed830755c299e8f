"""MLflow's settings hold for artifacts as they hold for its own client."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from adroit_publish.artifacts.pull import open_root, pull_model
from adroit_publish.errors import SourceError
from adroit_publish.mlflow.model import resolve_model
from tests.artifacts.test_artifacts import contents, model_at
from tests.servers.mlflow_servers import RUN_ID, HostileServer
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, SHARED_BUCKET, seaweed

__all__ = ["seaweed"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A directory with two certificates of loopback that each vouch for themselves alone."""
    directory = tmp_path_factory.mktemp("tls")
    for name in ("server", "other"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-keyout", f"{name}.key", "-out", f"{name}.pem", "-subj", "/CN=localhost",
             "-addext", "subjectAltName=IP:127.0.0.1"],
            cwd=directory, check=True, capture_output=True,
        )  # fmt: skip
        both = (directory / f"{name}.pem").read_text() + (directory / f"{name}.key").read_text()
        (directory / f"{name}-both.pem").write_text(both)
    return directory


@pytest.fixture
def server(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    with HostileServer(tls=context).running() as server:
        yield server


@pytest.mark.parametrize("bundle", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("setting", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "insecure"])
def test_the_servers_certificate_goes_before_that_of_other_tools(
    server, authority, tmp_path, monkeypatch, bundle, setting
):
    monkeypatch.setenv(bundle, str(authority / "other.pem"))
    if setting == "insecure":
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    else:
        monkeypatch.setenv(setting, str(authority / "server.pem"))
    model = resolve_model(server.url, RUN_ID, None)
    assert contents(pull_model(model, tmp_path)) == server.files


def test_a_bundle_of_other_tools_is_used_where_mlflow_uses_it(
    server, authority, tmp_path, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority / "server.pem"))
    model = resolve_model(server.url, RUN_ID, None)
    assert contents(pull_model(model, tmp_path)) == server.files


def test_a_certificate_of_ours_is_shown_to_a_server_that_wants_one(
    authority, tmp_path, monkeypatch
):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    context.load_verify_locations(authority / "other.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority / "server.pem"))
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority / "other-both.pem"))
    with HostileServer(tls=context).running() as server:
        model = resolve_model(server.url, RUN_ID, None)
        assert contents(pull_model(model, tmp_path)) == server.files


def test_a_certificate_that_is_not_trusted_names_the_setting(server, tmp_path):
    url = f"{server.url}/api/2.0/mlflow-artifacts/artifacts/0/models/artifacts"
    for refused in (
        lambda: resolve_model(server.url, RUN_ID, None),
        lambda: pull_model(model_at(url, MLmodel=12), tmp_path),
    ):
        with pytest.raises(SourceError, match="certificate") as error:
            refused()
        assert "self-signed" in error.value.got or "self signed" in error.value.got
        assert "MLFLOW_TRACKING_SERVER_CERT_PATH" in error.value.next_step


def test_mlflows_endpoint_of_s3_is_used_for_artifacts(seaweed, monkeypatch, tmp_path):
    place = seaweed.new_place()
    seaweed.client().put_object(
        Bucket=SHARED_BUCKET, Key=f"{place.partition('/')[2]}/MLmodel", Body=b"flavors: {}"
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", seaweed.endpoint)
    (file,) = open_root(f"s3://{place}").list_files()
    assert (file.path, file.size_bytes) == ("MLmodel", 11)


def test_a_bucket_over_tls_that_nobody_checks_is_read_where_mlflow_would(
    authority, monkeypatch, tmp_path
):
    listing = b"<ListBucketResult><Contents><Key>a/MLmodel</Key><Size>1</Size></Contents>"
    seen = []

    def replies(path, handler):
        from tests.servers.mlflow_servers import send

        seen.append((path, handler.headers["x-amz-expected-bucket-owner"]))
        send(handler, 200, listing + b"</ListBucketResult>", "application/xml")
        return True

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "server.pem", authority / "server.key")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("MLFLOW_S3_IGNORE_TLS", "true")
    monkeypatch.setenv("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", "path")
    monkeypatch.setenv("MLFLOW_S3_EXPECTED_BUCKET_OWNER", "123456789012")
    with HostileServer(tls=context, replies=replies).running() as server:
        monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", server.url)
        assert [file.path for file in open_root("s3://bucket/a").list_files()] == ["MLmodel"]
    assert seen[0][0].startswith("/bucket?")
    assert seen[0][1] == "123456789012"
