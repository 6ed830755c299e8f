from __future__ import annotations

import os
import pickle
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from adroit_publish.artifacts import s3 as s3_artifacts
from adroit_publish.artifacts.pull import LocalFile, open_root, pull_model
from adroit_publish.artifacts.resolved_model import ResolvedModel
from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.errors import ModelNotFound, RefusedError, SourceError, StoreError
from adroit_publish.mlflow.model import resolve_model
from tests.servers.mlflow_servers import RUN_ID, HostileServer, free_port, log_model, send

pytest_plugins = ["tests.servers.mlflow_servers"]

BIG = random.Random(1).randbytes(3 << 20)


def model_at(artifact_uri: str, **sizes: int) -> ResolvedModel:
    files = tuple(RemoteFile(path, size) for path, size in sizes.items())
    return ResolvedModel(
        run_id=RUN_ID,
        model_id=None,
        name="model",
        artifact_uri=artifact_uri,
        files=files,
        tracking_uri="https://tracking.example",
        experiment_id="0",
        run_name="",
        run_url=None,
        metrics={},
        cache_key="key",
    )


def contents(pulled) -> dict[str, bytes]:
    found = {}
    for path, file in pulled.files.items():
        with file.open() as stream:
            found[path] = stream.read()
    return found


def whole_files(cache: Path) -> list[Path]:
    return [path for path in cache.glob("*/files/**/*") if path.is_file()]


# This machine


def test_files_of_this_machine_are_used_where_they_are(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id, _ = log_model(uri, tmp_path / "store", "model")
    model = resolve_model(uri, run_id, None)
    seen = []

    pulled = pull_model(model, tmp_path / "cache", progress=seen.append)

    assert Path(pulled.directory).is_relative_to(tmp_path / "store")
    assert not (tmp_path / "cache").exists()
    assert sum(seen) == pulled.bytes_cached == model.size_bytes
    assert pulled.bytes_downloaded == 0
    assert b"python_function" in contents(pulled)["MLmodel"]


def test_a_local_file_is_a_readable_by_reference(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    file = LocalFile(str(tmp_path / "a"), 10)
    assert isinstance(file, Readable)
    assert pickle.loads(pickle.dumps(file)) == file
    buffer = bytearray(4)
    with file.open() as stream:
        stream.seek(6)
        assert stream.readinto(buffer) == 4
    assert buffer == b"6789"


def test_a_local_file_that_is_gone_or_has_become_a_symlink_is_named(tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("gone", "link"):
        with pytest.raises(SourceError) as error:
            LocalFile(str(tmp_path / name), 1).open()
        assert name in str(error.value.where)


@pytest.mark.parametrize("kind", ["symlink", "folder symlink", "root symlink", "pipe"])
def test_what_is_no_plain_file_is_refused(tmp_path, kind):
    root = tmp_path / "model"
    root.mkdir()
    (root / "MLmodel").write_text("x")
    if kind == "symlink":
        (root / "link").symlink_to("/etc/passwd")
    elif kind == "folder symlink":
        (root / "link").symlink_to("/etc")
    elif kind == "pipe":
        os.mkfifo(root / "pipe")
    else:
        (tmp_path / "other").symlink_to(root)
        root = tmp_path / "other"
    with pytest.raises(SourceError, match="something else than files"):
        open_root(root.as_uri()).list_files()


def test_a_local_file_of_another_length_than_listed_is_named(tmp_path):
    (tmp_path / "MLmodel").write_bytes(b"12345")
    with pytest.raises(SourceError, match="changed") as error:
        pull_model(model_at(tmp_path.as_uri(), MLmodel=4), tmp_path)
    assert (error.value.got, error.value.wanted) == ("5 bytes", "4 bytes")


def test_a_local_directory_that_is_gone_is_no_model(tmp_path):
    with pytest.raises(ModelNotFound):
        open_root((tmp_path / "gone").as_uri()).list_files()


# A tracking server


@pytest.fixture
def stored(proxied_server):
    """A model of odd names and one large file, on a real server."""
    run_id, _ = log_model(proxied_server, None, "model")
    model = resolve_model(proxied_server, run_id, None)
    extra = {"data/big.bin": BIG, "a b/\u00fc+.txt": b"odd", "empty": b""}
    for path, data in extra.items():
        url = f"{model.artifact_uri}/{requests.utils.quote(path)}"
        requests.put(url, data=data, timeout=30).raise_for_status()
    return resolve_model(proxied_server, run_id, None), extra


def test_a_model_behind_a_real_server_is_pulled_once(stored, tmp_path):
    model, extra = stored
    seen = []
    first = pull_model(model, tmp_path, progress=seen.append)
    second = pull_model(model, tmp_path)

    assert contents(first).items() >= extra.items()
    assert {path: len(data) for path, data in contents(first).items()} == {
        file.path: file.size_bytes for file in model.files
    }
    assert (first.bytes_downloaded, first.bytes_cached) == (model.size_bytes, 0)
    assert (second.bytes_downloaded, second.bytes_cached) == (0, model.size_bytes)
    assert sum(seen) == model.size_bytes
    assert not list(tmp_path.glob("*/parts/*"))


def test_a_pull_goes_on_where_an_interrupted_one_stopped(stored, tmp_path):
    model, extra = stored

    class Interrupted(BaseException):
        pass

    def interrupt(size_bytes, here=[]):  # noqa: B006 - counts across calls
        here.append(size_bytes)
        if sum(here) > 2 << 20:
            raise Interrupted

    with pytest.raises(Interrupted):
        pull_model(model, tmp_path, progress=interrupt)
    assert "big.bin" not in [path.name for path in whole_files(tmp_path)]

    pulled = pull_model(model, tmp_path)
    assert pulled.bytes_cached >= 1 << 20
    assert pulled.bytes_downloaded <= 2 << 20
    assert contents(pulled).items() >= extra.items()


def test_pulls_of_one_model_at_the_same_time_both_end_right(stored, tmp_path):
    model, extra = stored
    with ThreadPoolExecutor(4) as pool:
        pulls = list(pool.map(lambda _: pull_model(model, tmp_path), range(4)))
    assert all(contents(pulled).items() >= extra.items() for pulled in pulls)
    assert sum(pulled.bytes_downloaded for pulled in pulls) == model.size_bytes


# A hostile one


def pull(server: HostileServer, cache: Path, give_up_after_s: float = 1.0):
    model = resolve_model(server.url, RUN_ID, None)
    return pull_model(model, cache, give_up_after_s=give_up_after_s)


def on_file(name: str, reply):
    """Lets ``reply(handler, how many times it was asked before)`` answer for one file."""
    asked = []

    def replies(path, handler):
        if not path.endswith("/" + name):
            return False
        asked.append(path)
        return reply(handler, len(asked) - 1)

    return replies


def cut_body(handler, data: bytes, stated: int | None, status: int = 200, **headers: str) -> bool:
    handler.send_response(status)
    if stated is not None:
        handler.send_header("Content-Length", str(stated))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)
    handler.close_connection = True
    return True


@pytest.mark.parametrize("stated", [len(BIG), None])
def test_a_body_cut_short_is_fetched_again(tmp_path, stated):
    def reply(handler, asked):
        return asked < 3 and cut_body(handler, BIG[: (asked + 1) << 19], stated)

    server = HostileServer(files={"MLmodel": b"x", "big.bin": BIG})
    server.replies = on_file("big.bin", reply)
    with server.running():
        assert contents(pull(server, tmp_path))["big.bin"] == BIG


def test_a_body_that_is_always_cut_is_given_up_and_leaves_no_whole_file(tmp_path):
    server = HostileServer(files={"MLmodel": b"x", "big.bin": BIG})
    server.replies = on_file("big.bin", lambda handler, asked: cut_body(handler, BIG[:99], None))
    with server.running(), pytest.raises(SourceError) as error:
        pull(server, tmp_path)
    assert "99 of 3145728 bytes" in error.value.got
    assert "big.bin" not in [path.name for path in whole_files(tmp_path)]


def test_ranges_are_asked_for_and_believed_only_where_they_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("adroit_publish.artifacts.cache.TWICE_BYTES", 1)  # one fetch is looked at
    asked_ranges = []

    def reply(handler, asked):
        asked_ranges.append((handler.headers["Range"], handler.headers["If-Range"]))
        if asked == 0:
            return cut_body(handler, BIG[: 1 << 20], len(BIG), ETag='"v1"')
        fits = f"bytes {1 << 20}-{len(BIG) - 1}/{len(BIG)}"
        return cut_body(handler, BIG[1 << 20 :], None, 206, Content_Range=fits)

    server = HostileServer(files={"MLmodel": b"x", "big.bin": BIG})
    server.replies = on_file("big.bin", reply)
    with server.running():
        assert contents(pull(server, tmp_path))["big.bin"] == BIG
    assert asked_ranges == [(None, None), (f"bytes={1 << 20}-", '"v1"')]


def test_a_range_of_another_place_is_refused(tmp_path):
    def reply(handler, asked):
        if asked == 0:
            return cut_body(handler, BIG[: 1 << 20], len(BIG))
        return cut_body(handler, BIG[:99], None, 206, Content_Range="bytes 0-98/99")

    server = HostileServer(files={"MLmodel": b"x", "big.bin": BIG})
    server.replies = on_file("big.bin", reply)
    with server.running(), pytest.raises(SourceError, match="not the file that it listed"):
        pull(server, tmp_path)


@pytest.mark.parametrize("stated", [len(BIG) + 1, None])
def test_a_body_longer_than_listed_is_refused(tmp_path, stated):
    server = HostileServer(files={"MLmodel": b"x", "big.bin": BIG})
    server.replies = on_file("big.bin", lambda handler, _: cut_body(handler, BIG + b"!", stated))
    with server.running(), pytest.raises(SourceError, match=r"more bytes|not the file"):
        pull(server, tmp_path)
    assert "big.bin" not in [path.name for path in whole_files(tmp_path)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_recovers_is_asked_again(tmp_path, status):
    server = HostileServer()
    server.replies = on_file(
        "MLmodel", lambda handler, asked: asked < 3 and cut_body(handler, b"", 0, status)
    )
    with server.running():
        assert contents(pull(server, tmp_path, give_up_after_s=20))["MLmodel"]


def test_retry_after_is_kept(tmp_path):
    import time

    times = []

    def reply(handler, asked):
        times.append(time.monotonic())
        return asked == 0 and cut_body(handler, b"", 0, 503, Retry_After="1")

    server = HostileServer(replies=on_file("MLmodel", reply))
    with server.running():
        pull(server, tmp_path, give_up_after_s=20)
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize("share", [0.5, 0.9] if os.environ.get("ADROIT_FULL") else [0.5])
def test_a_pull_ends_although_most_requests_fail(tmp_path, share):
    chance = random.Random(3)
    lock = threading.Lock()
    fired = []

    def replies(path, handler):
        with lock:
            kind = chance.choice(["cut", "500", "drop"]) if chance.random() < share else None
        if not kind or "/artifacts/0/" not in path:
            return False
        fired.append(kind)
        if kind == "500":
            send(handler, 500, b"no")
        elif kind == "drop":
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        else:
            cut_body(handler, b"y", 7)
        return True

    files = {"MLmodel": b"y" * 7} | {f"f{n}": b"y" * 7 for n in range(15)}
    server = HostileServer(files=files, replies=replies)
    with server.running():
        assert contents(pull(server, tmp_path, give_up_after_s=60)) == files
    assert len(fired) > 7


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, RefusedError), (403, RefusedError), (404, SourceError), (302, SourceError)],
)
def test_a_refused_download_is_not_tried_again(tmp_path, status, error):
    server = HostileServer()
    server.replies = on_file(
        "MLmodel",
        lambda handler, _: cut_body(handler, b"", 0, status, Location="http://127.0.0.1:9/x"),
    )
    with server.running(), pytest.raises(error):
        pull(server, tmp_path)
    assert len([path for path, _ in server.requests if path.endswith("MLmodel")]) == 1


def test_a_login_page_in_place_of_a_file_is_refused(tmp_path):
    page = b"<html>please log in</html>"
    server = HostileServer()
    server.replies = on_file(
        "MLmodel", lambda handler, _: not send(handler, 200, page, "text/html")
    )
    with server.running(), pytest.raises(SourceError, match="not the file") as error:
        pull(server, tmp_path)
    assert "text/html" in error.value.got


def test_a_dead_server_is_given_up(tmp_path):
    url = f"http://127.0.0.1:{free_port()}/api/2.0/mlflow-artifacts/artifacts/0"
    with pytest.raises(SourceError) as error:
        pull_model(model_at(url, MLmodel=4), tmp_path, give_up_after_s=0.5)
    assert "ConnectionError" in error.value.got


def test_credentials_reach_the_server_and_netrc_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("adroit_publish.artifacts.cache.TWICE_BYTES", 1)  # one fetch is looked at
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login netrc password canary\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    server = HostileServer()
    with server.running():
        pull(server, tmp_path / "1")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
        pull(server, tmp_path / "2")
    sent = [h.get("Authorization") for path, h in server.requests if path.endswith("MLmodel")]
    assert sent == [None, "Basic bWU6c2VjcmV0"]


# The cache's disk


def test_a_disk_without_room_is_named_before_the_work(tmp_path):
    url = f"http://127.0.0.1:{free_port()}/api/2.0/mlflow-artifacts/artifacts/0"
    with pytest.raises(StoreError, match="no room") as error:
        pull_model(model_at(url, MLmodel=1 << 60), tmp_path)
    assert str(tmp_path) in str(error.value.where)
    assert str(1 << 60) in error.value.wanted


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    url = f"http://127.0.0.1:{free_port()}/api/2.0/mlflow-artifacts/artifacts/0"
    with pytest.raises(StoreError, match="cannot be written"):
        pull_model(model_at(url, MLmodel=1), tmp_path / "cache")


# S3


@pytest.fixture(scope="module")
def bucket():
    from moto.server import ThreadedMotoServer

    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{moto.get_host_and_port()[1]}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client
    moto.stop()


def s3_model(bucket, prefix: str, files: dict[str, bytes]) -> ResolvedModel:
    for path, data in files.items():
        bucket.put_object(Bucket="models", Key=f"{prefix}/{path}", Body=data)
    model = model_at(f"s3://models/{prefix}")
    return replace(model, files=open_root(model.artifact_uri).list_files())


def test_a_model_in_s3_is_pulled_as_ranges_side_by_side(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", 1 << 18)
    files = {"MLmodel": b"x", "data/big.bin": BIG, "a b/%41+.txt": b"odd", "empty": b""}
    bucket.put_object(Bucket="models", Key="one-more/MLmodel", Body=b"not of this model")
    bucket.put_object(Bucket="models", Key="one/folder/", Body=b"")
    model = s3_model(bucket, "one", files)

    first = pull_model(model, tmp_path)
    second = pull_model(model, tmp_path)

    assert contents(first) == files
    assert first.bytes_downloaded == second.bytes_cached == sum(map(len, files.values()))
    assert not list(tmp_path.glob("*/parts/*"))


def test_ranges_that_have_arrived_are_kept_when_a_pull_is_interrupted(
    bucket, tmp_path, monkeypatch
):
    monkeypatch.setattr(s3_artifacts, "PIECE_BYTES", 1 << 18)
    model = s3_model(bucket, "two", {"MLmodel": b"x", "big.bin": BIG})
    seen = []

    def interrupt(size_bytes):
        seen.append(size_bytes)
        if sum(seen) > 2 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull_model(model, tmp_path, progress=interrupt)
    pulled = pull_model(model, tmp_path)

    assert 0 < pulled.bytes_downloaded < 2 << 20
    assert contents(pulled) == {"MLmodel": b"x", "big.bin": BIG}


def test_an_object_that_was_replaced_or_removed_is_refused(bucket, tmp_path):
    model = s3_model(bucket, "three", {"MLmodel": b"x", "data": b"abc"})
    bucket.put_object(Bucket="models", Key="three/data", Body=b"abcd")
    with pytest.raises(SourceError, match="another length"):
        pull_model(model, tmp_path / "1")
    bucket.delete_object(Bucket="models", Key="three/data")
    with pytest.raises(SourceError, match="gone"):
        pull_model(model, tmp_path / "2")


def test_a_bucket_or_profile_that_is_not_there_is_named(bucket):
    with pytest.raises(SourceError, match="gone"):
        open_root("s3://no-such-bucket/a").list_files()
    with pytest.raises(RefusedError, match="may not read"):
        open_root("s3://models/a", "no-such-profile").list_files()
