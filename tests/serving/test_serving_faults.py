"""What hurts a server: models that keep state, hang or die, and clients that send nonsense."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adroit.serving.features.dogstatsd import Agent
from tests.servers.live_servers import LiveServer, Reply, ask, serving
from tests.support.serving_bundles import bundle, loader_model, predicting

JSON = {"content-type": "application/json"}
DOUBLES = '[{"type": "double", "required": true}]'
PATIENCE_S = 60


def model(body: str, **options: Any) -> dict[str, str]:
    return loader_model(predicting(body), outputs=DOUBLES, **options)


def rows(*values: Any) -> str:
    return json.dumps({"dataframe_split": {"columns": ["x"], "data": [[one] for one in values]}})


def invoke(server: LiveServer, body: str | bytes, **headers: str) -> Reply:
    return ask(f"{server.url}/invocations", body, JSON | headers)


def metric(server: LiveServer, name: str, label: str = "") -> float:
    text = ask(f"{server.url}/metrics").body.decode()
    lines = [line for line in text.splitlines() if line.startswith(name + "{") and label in line]
    return sum(float(line.split()[-1]) for line in lines)


def eventually(true: Callable[[], bool]) -> None:
    give_up, patience = time.monotonic() + PATIENCE_S, threading.Event()
    while not true():
        assert time.monotonic() < give_up
        patience.wait(0.02)


# A model's state, and its end.

STATEFUL = """
import numpy as np
self.t = model_input["x"].to_numpy() * 2.0
a = np.ones((300, 300)); a @ a
return self.t
"""


def wrong_answers(server: LiveServer, clients: int, requests: int) -> int:
    def client(number: int) -> int:
        host = server.url.removeprefix("http://")
        connection, wrong = http.client.HTTPConnection(host, timeout=PATIENCE_S), 0
        for request in range(requests):
            value = number * requests + request
            connection.request("POST", "/invocations", rows(value), JSON)
            answer = connection.getresponse()
            wrong += json.loads(answer.read()) != {"predictions": [value * 2.0]}
        connection.close()
        return wrong

    with ThreadPoolExecutor(clients) as threads:
        return sum(threads.map(client, range(clients)))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_model_that_keeps_state_answers_every_client_its_own(
    tmp_path: Path, workers: str
) -> None:
    root = bundle(tmp_path / "b", model(STATEFUL))
    with serving(root, environ={"ADROIT_WORKERS": workers}) as server:
        assert wrong_answers(server, clients=8, requests=50) == 0
        assert metric(server, "adroit_workers") == int(workers)


HANGS = """
import pathlib, time
if model_input["x"].iloc[0] < 0:
    while True: time.sleep(1)
return [1.0] * len(model_input)
"""


def test_predictions_that_hang_end_their_workers_and_not_the_server(tmp_path: Path) -> None:
    environ = {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "1"}
    with serving(bundle(tmp_path / "b", model(HANGS)), environ=environ) as server:
        with ThreadPoolExecutor(4) as threads:
            hung = [threads.submit(invoke, server, rows(-1)) for _ in range(4)]
            assert {one.result().status for one in hung} == {504}
        eventually(lambda: invoke(server, rows(1)).status == 200)
        assert ask(f"{server.url}/ping").status == 200
        assert metric(server, "adroit_workers_ended_total", 'reason="timeout"') >= 2
        eventually(lambda: metric(server, "adroit_workers") == 2)


DIES = """
import os, signal
if model_input["x"].iloc[0] < 0:
    os.kill(os.getpid(), signal.SIGKILL)
return [float(os.getpid())]
"""


def test_a_worker_that_dies_is_a_500_and_is_replaced(tmp_path: Path) -> None:
    with serving(bundle(tmp_path / "b", model(DIES, example=False))) as server:
        for _ in range(5):
            answer = invoke(server, rows(-1))
            assert (answer.status, answer.json["error_code"]) == (500, "INTERNAL_ERROR")
            eventually(lambda: ask(f"{server.url}/ping").status == 200)
        assert invoke(server, rows(1)).status == 200
        assert metric(server, "adroit_workers_ended_total", 'reason="died"') == 5
        assert metric(server, "adroit_invocation_faults_total", 'fault="model"') == 5


def test_signals_of_a_model_end_nothing(tmp_path: Path) -> None:
    body = (
        "import os, signal\n"
        "for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):\n"
        "    for line in open(f'/proc/{os.getppid()}/status'):\n"
        "        if line.startswith('PPid:') and 'ADROIT_TEST' in os.environ:\n"
        "            os.kill(int(line.split()[1]), number)\n"
        "    os.kill(os.getppid(), number)\n"
        "return [1.0] * len(model_input)"
    )
    root = bundle(tmp_path / "b", model(body, example=False))
    with serving(root, environ={"ADROIT_TEST": "1"}) as server:
        assert invoke(server, rows(1)).status == 200
        assert invoke(server, rows(1)).status == 200
        assert metric(server, "adroit_workers_ended_total") == 0


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_without_a_worker_it_is_neither_ready_nor_healthy_until_one_loads(tmp_path: Path) -> None:
    loader = (
        "import os, pathlib\n"
        f"if pathlib.Path({str(tmp_path)!r}, 'broken').exists(): raise ValueError('broken')\n"
        + predicting(DIES.strip())
    )
    with serving(bundle(tmp_path / "b", loader_model(loader, example=False))) as server:
        server_pid = server.process.pid
        assert ask(f"{server.url}/health").status == 200
        (tmp_path / "broken").touch()
        (loading,) = children(server_pid)
        for pid in [*children(loading), loading]:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: ask(f"{server.url}/ping").status == 503)
        eventually(lambda: ask(f"{server.url}/health").status == 503)
        (tmp_path / "broken").unlink()
        eventually(lambda: ask(f"{server.url}/ping").status == 200)
        assert ask(f"{server.url}/health").status == 200
        assert invoke(server, rows(1)).status == 200


def test_no_process_outlives_a_server_that_is_killed(tmp_path: Path) -> None:
    with serving(bundle(tmp_path / "b", model("return [1.0] * len(model_input)"))) as server:
        assert invoke(server, rows(1)).status == 200
        (loading,) = children(server.process.pid)
        workers = children(loading)
        assert len(workers) == 2
        server.process.kill()
        server.process.wait()
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in [loading, *workers]))


def test_what_a_model_writes_where_it_should_not_changes_no_answer(tmp_path: Path) -> None:
    body = (
        "import os\n"
        "if model_input['x'].iloc[0] < 0:\n"
        "    for fd in range(3, 50):\n"
        "        try: os.write(fd, b'\\xff' * 64)\n"
        "        except OSError: pass\n"
        "return [1.0] * len(model_input)"
    )
    with serving(bundle(tmp_path / "b", model(body))) as server:
        for _ in range(5):
            assert invoke(server, rows(-1)).json == {"predictions": [1.0]}
        assert metric(server, "adroit_workers_ended_total") == 0


@pytest.mark.parametrize(
    "starts",
    [
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "import socket\nkept = socket.create_server(('127.0.0.1', 0))",
    ],
    ids=["a thread", "a socket"],
)
def test_a_model_that_cannot_be_forked_is_loaded_by_each_worker(
    tmp_path: Path, starts: str
) -> None:
    loader = f"import os\n{starts}\n" + predicting("return [float(os.getpid())] * len(model_input)")
    root = bundle(tmp_path / "b", loader_model(loader, outputs=DOUBLES))
    with serving(root, environ={"ADROIT_WORKERS": "2"}) as server:
        eventually(lambda: metric(server, "adroit_workers") == 2)
        pids = children(server.process.pid)
        assert len(pids) == 2
        assert invoke(server, rows(1)).json["predictions"][0] in pids
        assert server.events("the model is loaded by each worker anew")


# Clients.


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    body = "if (model_input['x'] < 0).any(): raise ValueError('negative')\n"
    body += "return [float('nan') if x == 7 else float(x) for x in model_input['x']]"
    root = bundle(tmp_path_factory.mktemp("served") / "b", model(body))
    environ = {"ADROIT_BODY_S": "3", "ADROIT_HEAD_S": "2", "ADROIT_BODY_LIMIT_BYTES": "100000"}
    with serving(root, environ=environ) as server:
        yield server


def connected(server: LiveServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30)


def test_uploads_that_never_come_do_not_stop_a_server(served: LiveServer) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n"
    with ExitStack() as stack:
        idle = [stack.enter_context(connected(served)) for _ in range(1030)]
        for one in idle:
            one.sendall(head)
        assert invoke(served, rows(1)).status == 200
        assert ask(f"{served.url}/ping").status == 200
        answers = [one.recv(65536) for one in idle]
    assert all(answer.startswith(b"HTTP/1.1 408") for answer in answers)
    assert invoke(served, rows(1)).status == 200


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /invocations HTTP/1.1\r\nHost: a\r\n", b"G"],
    ids=["nothing", "half a head", "a letter"],
)
def test_a_head_that_never_ends_is_given_up(served: LiveServer, sent: bytes) -> None:
    with connected(served) as client:
        client.sendall(sent)
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408") or (answer == b"" and not sent)


def test_a_body_that_drips_is_given_up(served: LiveServer) -> None:
    with connected(served) as client:
        client.sendall(b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: 6000\r\n\r\n")
        client.settimeout(0.2)
        answer = b""
        while not answer:
            client.sendall(b"1")
            try:
                answer = client.recv(65536)
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


def test_connections_beyond_the_limit_take_the_place_of_idle_ones(tmp_path: Path) -> None:
    root = bundle(tmp_path / "b", model("return [1.0] * len(model_input)"))
    with serving(root, environ={"ADROIT_CONNECTIONS": "20"}) as server, ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(60)]
        assert invoke(server, rows(1)).status == 200
        assert clients[0].recv(1) == b""


@pytest.mark.parametrize("text", ["GET / HTTP/1.1\r\n\r\n", "\x00\x01\r\n\r\n", "A" * 70_000])
def test_what_is_not_http_is_refused_as_json(served: LiveServer, text: str) -> None:
    with connected(served) as client:
        client.sendall(text.encode())
        answer = client.recv(65536)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))
    assert b'"error_code"' in answer
    assert ask(f"{served.url}/ping").status == 200


def test_requests_one_behind_the_other_are_answered_in_order(served: LiveServer) -> None:
    ping = b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"
    body = rows(3).encode()
    length = b"Content-Length: %d\r\n" % len(body)
    head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + length
    last = b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connected(served) as client:
        client.sendall(ping * 1500 + head + b"\r\n" + body + last)
        answer = b""
        while piece := client.recv(1 << 20):
            answer += piece
    assert answer.count(b"HTTP/1.1 200") == 1502
    assert answer.index(b'{"predictions": [3.0]}') > answer.rindex(b"\r\n\r\n\n")


@pytest.mark.parametrize(
    "body",
    [
        '{"dataframe_records": ' + "[" * 2000 + "]" * 2000 + "}",
        '{"dataframe_split": {"columns": ["x"], "data": ' + "[" * 100_0 + "]" * 100_0 + "}}",
        '{"dataframe_split": {"columns": ["x"], "data": [[' + "9" * 20_000 + "]]}}",
        '{"inputs": ' + "9" * 5_000 + "}",
        '{"instances": ' + '{"a":' * 2000 + "1" + "}" * 2000 + "}",
        "9" * 20_000,
    ],
    ids=["deep", "deep data", "digits", "digits of inputs", "deep objects", "digits alone"],
)
def test_json_that_nobody_can_parse_is_the_clients_400(served: LiveServer, body: str) -> None:
    before = metric(served, "adroit_invocation_faults_total", 'fault="client"')
    answer = invoke(served, body)
    assert (answer.status, answer.json["error_code"]) == (400, "BAD_REQUEST")
    assert metric(served, "adroit_invocation_faults_total", 'fault="client"') == before + 1


def test_a_models_error_is_counted_apart_from_a_clients(served: LiveServer) -> None:
    def faults() -> tuple[float, ...]:
        name = "adroit_invocation_faults_total"
        return tuple(metric(served, name, f'fault="{fault}"') for fault in ("client", "model"))

    client, of_model = faults()
    assert invoke(served, rows(-1)).status == 400
    assert faults() == (client, of_model + 1)
    for body in (rows("text"), '{"dataframe_records": [{"y": 1}]}', "{", '{"rows": 1}'):
        assert invoke(served, body).status == 400
    assert faults() == (client + 4, of_model + 1)


def test_not_a_number_is_bare_as_mlflow_has_it_and_null_where_asked(
    served: LiveServer, tmp_path: Path
) -> None:
    assert invoke(served, rows(7, 1)).body == b'{"predictions": [NaN, 1.0]}'
    root = bundle(tmp_path / "b", model("return [float('nan'), float('-inf'), 1.5]"))
    with serving(root, environ={"ADROIT_NAN": "null"}) as server:
        assert invoke(server, rows(1)).body == b'{"predictions": [null, null, 1.5]}'


def test_features_go_nowhere_unless_an_agent_is_named(tmp_path: Path) -> None:
    assert Agent.named({}) is None
    assert Agent.named({"DD_DOGSTATSD_PORT": "9"}) == Agent("localhost", 9)
    kwargs = {"model_name": "tiny", "log_features_percent": 100}
    root = bundle(tmp_path / "b", model("return [1.0] * len(model_input)"), kwargs=kwargs)
    with serving(root) as server:
        assert invoke(server, rows(1)).status == 200
        text = ask(f"{server.url}/metrics").body.decode()
    assert "adroit_feature_samples_total{" not in text


@pytest.mark.parametrize("params", [[1], {}, "text", 3, None])
def test_params_of_any_form_reach_a_model_without_them(served: LiveServer, params: Any) -> None:
    body = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1]]}, "params": params})
    assert invoke(served, body).json == {"predictions": [1.0]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/invocations", 405), ("POST", "/ping", 405)],
)
def test_errors_of_the_server_are_json(
    served: LiveServer, method: str, path: str, status: int
) -> None:
    answer = ask(served.url + path, b"{}" if method == "POST" else None)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"error_code", "message"}


def test_the_endpoints_are_described_from_the_signature(served: LiveServer) -> None:
    described = ask(f"{served.url}/openapi.json").json
    body = described["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]
    record = body["schema"]["properties"]["dataframe_records"]["items"]
    assert record["properties"]["x"]["type"] == "integer"
    assert record["required"] == ["x"]
    assert invoke(served, json.dumps(body["example"])).status == 200
    docs = ask(f"{served.url}/docs")
    assert docs.headers["content-type"] == "text/html; charset=utf-8"
    assert b"/invocations" in docs.body


def test_a_compressed_body_is_read_up_to_its_limit(served: LiveServer) -> None:
    gzipped = {"content-encoding": "gzip"}
    whole = rows(2).encode()
    assert invoke(served, gzip.compress(whole), **gzipped).json == {"predictions": [2.0]}
    two = gzip.compress(whole[:9]) + gzip.compress(whole[9:])
    assert invoke(served, two, **gzipped).json == {"predictions": [2.0]}
    bomb = gzip.compress(b" " * 10_000_000)
    assert invoke(served, bomb, **gzipped).status == 413
    for broken in (b"no gzip", gzip.compress(whole)[:-9], gzip.compress(whole) + b"rest"):
        assert invoke(served, broken, **gzipped).status == 400
    assert invoke(served, whole, **{"content-encoding": "br"}).status == 415


SLOW = "import time\ntime.sleep(0.2)\nreturn [1.0] * len(model_input)"


def test_what_is_too_much_is_refused_at_once_and_told_when_to_come_back(tmp_path: Path) -> None:
    environ = {"ADROIT_WORKERS": "1", "ADROIT_QUEUE": "2"}
    with serving(bundle(tmp_path / "b", model(SLOW)), environ=environ) as server:
        server.url  # noqa: B018  waits until it is ready
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda _: invoke(server, rows(1)), range(12)))
        statuses = [answer.status for answer in answers]
        assert set(statuses) == {200, 503}
        assert statuses.count(200) >= 3
        refused = next(answer for answer in answers if answer.status == 503)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert invoke(server, rows(1)).status == 200


def test_a_client_that_leaves_takes_its_request_out_of_the_queue(tmp_path: Path) -> None:
    with serving(bundle(tmp_path / "b", model(SLOW)), environ={"ADROIT_WORKERS": "1"}) as server:
        body = rows(1).encode()
        head = b"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        for _ in range(30):
            with connected(server) as client:
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        eventually(lambda: metric(server, "adroit_invocations_in_flight") == 0)
        assert metric(server, "adroit_queue_seconds_count") < 30
