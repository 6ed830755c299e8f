"""``serve`` and ``predict`` as a user runs them, on really published versions."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.errors import PublishError, StoreError, VerificationError
from adroit_publish.publish.release import Release
from adroit_publish.versions.predict import predict
from tests.servers.live_servers import LiveServer, ask, started
from tests.support.checkouts import FLOW, Trained, make_checkout

PYTHON = [sys.executable, "-m", "adroit_publish"]
PLACE = {"PYTHONPATH": str(FLOW.parent)}
PREDICTED = [{"x": 2.0, "y": 6.0}, {"x": 4.0, "y": 8.0}]


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, trained: Trained
) -> tuple[Path, Release, Release]:
    """A checkout, its flavor ``a``, and ``bare``, whose model has no input example."""
    flavors = {"a": trained.good[0], "bare": trained.without_example, "waits": trained.good[1]}
    root = make_checkout(tmp_path_factory.mktemp("p") / "repo", trained.tracking_uri, flavors)
    release, bare = publish("a", root=root), publish("bare", root=root)
    text = (root / "flavors.yaml").read_text()
    (root / "flavors.yaml").write_text(text.replace(release.run_id, release.version))
    return root, release, bare


@pytest.fixture(scope="module")
def served(published: tuple[Path, Release, Release]) -> Iterator[LiveServer]:
    with serve(published[0], "a") as server:
        yield server


def serve(root: Path, name: str, **environ: str) -> AbstractContextManager[LiveServer]:
    return started([*PYTHON, "serve", name, "--port", "0"], environ=PLACE | environ, cwd=root)


def run(
    root: Path, *arguments: str, stdin: str = "", exit_code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PYTHON, *arguments],
        cwd=root,
        env=os.environ | PLACE,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == exit_code, done.stderr
    return done


def left(root: Path) -> list[Path]:
    return list((root / ".adroit").glob("serve-*"))


def test_a_flavor_is_served_as_the_version_it_names(
    published: tuple[Path, Release, Release], served: LiveServer
) -> None:
    _, release, _ = published
    assert ask(served.url + "/bundle").json["bundle_id"] == release.bundle_id
    assert f'version="{release.version}"' in ask(served.url + "/metrics").body.decode()


def test_predict_sends_the_example_of_the_version_that_is_served(
    published: tuple[Path, Release, Release], served: LiveServer
) -> None:
    root, release, _ = published
    answer = json.loads(run(root, "predict", served.url, "--example").stdout)
    assert answer == {"predictions": PREDICTED}
    said = run(root, "predict", served.url, "--example", release.version, "--json").stdout
    assert json.loads(said)["answer"] == answer
    logged = {line["request_id"] for line in served.events("request")}
    assert json.loads(said)["request_id"] in logged


def test_predict_sends_a_request_of_ones_own(
    published: tuple[Path, Release, Release], served: LiveServer
) -> None:
    own = '{"dataframe_records": [{"x": 10.0, "y": 0.5}]}'
    answer = json.loads(run(published[0], "predict", served.url, stdin=own).stdout)
    assert answer == {"predictions": [{"x": 20.0, "y": 1.0}]}
    refused = run(published[0], "predict", served.url, stdin='{"rows": []}', exit_code=6)
    assert "exactly one of the input fields" in refused.stderr
    assert refused.stderr.startswith("The server refuses the request.\n")
    wrong = '{"dataframe_records": [{"x": "ten", "y": 0.5}]}'
    refused = run(published[0], "predict", served.url, stdin=wrong, exit_code=6)
    assert "scoring server" not in refused.stderr
    assert "got:    400 BAD_REQUEST: " in refused.stderr


MLFLOW = b'{"error_code": "BAD_REQUEST", "message": "Column x is missing."}'


@pytest.mark.parametrize(
    ("status", "body", "error", "what", "got"),
    [
        (400, MLFLOW, VerificationError, "refuses", "400 BAD_REQUEST: Column x is missing."),
        (400, b'{"error": "bad rows"}', VerificationError, "refuses", "400 bad rows"),
        (400, b"not JSON", VerificationError, "refuses", "400 not JSON"),
        (413, b'{"message": "over 10 bytes"}', VerificationError, "larger", "413 over 10 bytes"),
        (415, b'{"detail": "text/html"}', VerificationError, "kind of", "415 text/html"),
        (422, b'{"detail": [{"loc": "x"}]}', VerificationError, "refuses", "422 [{'loc': 'x'}]"),
        (500, MLFLOW, VerificationError, "model failed", "500 BAD_REQUEST: Column x"),
        (500, b"<html>", VerificationError, "scoring server", "500 <html>"),
        (503, b'{"message": "draining"}', StoreError, "busy", "503 draining"),
        (504, b"time exceeded limit", StoreError, "in time", "504 time exceeded limit"),
    ],
)
def test_what_a_server_says_about_a_request_is_shown(
    status: int, body: bytes, error: type[PublishError], what: str, got: str
) -> None:
    with answering(status, body) as url, pytest.raises(error, match=what) as caught:
        predict(url, b"{}")
    assert str(caught.value.got).startswith(got)
    assert caught.value.next_step or "scoring server" in what


def test_sigterm_ends_it_with_exit_0_and_nothing_is_left(
    published: tuple[Path, Release, Release],
) -> None:
    root, release, _ = published
    before = set(left(root))
    with serve(root, release.version) as server:
        assert ask(server.url + "/ping").status == 200
        server.terminate()
        assert server.wait() == 0
        assert server.events("ended")
    assert set(left(root)) == before


def test_ctrl_c_ends_server_and_command_with_exit_130(
    published: tuple[Path, Release, Release],
) -> None:
    root, release, _ = published
    before = set(left(root))
    with serve(root, release.version) as server:
        url = server.url
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 130
        assert "Traceback" not in "".join(server.raw)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    assert set(left(root)) == before


def test_the_model_does_not_see_the_users_credentials_or_home(
    published: tuple[Path, Release, Release],
) -> None:
    root, release, _ = published
    with serve(root, release.version, AWS_SECRET_ACCESS_KEY="canary") as server:
        assert server.url
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                seen = dict(item.partition(b"=")[::2] for item in path.read_bytes().split(b"\0"))
            except OSError:
                continue
            if seen.get(b"ADROIT_VERSION") == release.version.encode():
                found.append(seen)
    assert found
    assert not any(b"AWS_SECRET_ACCESS_KEY" in seen for seen in found)
    assert not any(seen[b"HOME"] == os.environ.get("HOME", "").encode() for seen in found)


def test_a_flavor_that_is_not_published_names_the_command_that_does(
    published: tuple[Path, Release, Release],
) -> None:
    done = run(published[0], "serve", "waits", exit_code=2)
    assert "run --flavor=waits" in done.stderr
    assert "versions MODEL" in run(published[0], "serve", "nothing", exit_code=2).stderr


def test_a_damaged_version_is_not_served(
    published: tuple[Path, Release, Release], tmp_path: Path
) -> None:
    root, release, _ = published
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    blob = copy / ".adroit/bundles/blobs/sha256" / release.layers[0].digest[7:]
    blob.chmod(0o644)
    data = blob.read_bytes()
    blob.write_bytes(data[:600] + bytes([data[600] ^ 1]) + data[601:])
    before = set(left(copy))
    run(copy, "serve", release.version, exit_code=6)
    assert set(left(copy)) == before


def test_a_port_that_is_taken_is_said_before_anything_is_pulled(
    published: tuple[Path, Release, Release],
) -> None:
    root, release, _ = published
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run(root, "serve", release.version, "--port", port, exit_code=2)
    assert f"Port {port}" in done.stderr
    assert "--port 0" in done.stderr


def test_a_model_without_an_example_says_what_to_send_instead(
    published: tuple[Path, Release, Release], served: LiveServer
) -> None:
    root, _, bare = published
    done = run(root, "predict", served.url, "--example", bare.version, exit_code=2)
    assert "without --example" in done.stderr


def test_a_server_that_is_not_there_is_exit_5_and_shows_no_password(
    published: tuple[Path, Release, Release],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://user:hunter2@127.0.0.1:{port}"
    done = run(published[0], "predict", url, "--example", exit_code=5)
    assert "hunter2" not in done.stderr
    assert f"http://127.0.0.1:{port}" in done.stderr
    assert "http://HOST:PORT" in run(published[0], "predict", "ftp://x", exit_code=2).stderr


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """A server that is none of ours: it says the same to every request."""

    class Same(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Same) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "exit_code", "said"),
    [
        (200, b'{"model_name": "doubler", "bundle_id": "sha256:0"}', 4, "--target"),
        (200, b'{"model_name": ["x"]}', 4, "not in this store"),
        (200, b"hello \x1b[2J", 6, "hello  [2J"),
        (404, b"{}", 6, "404"),
        (503, b"", 5, "busy or about to end"),
    ],
)
def test_a_server_of_another_kind_is_told_by_what_it_says(
    published: tuple[Path, Release, Release], status: int, body: bytes, exit_code: int, said: str
) -> None:
    with answering(status, body) as url:
        done = run(published[0], "predict", url, "--example", exit_code=exit_code)
    assert said in done.stderr
