"""python -m adroit.serving as a real process: beside MLflow's own server, and on its own."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from adroit.serving.features.reference import FILE, reference_of
from adroit.serving.server import PROBE_HEADER
from tests.servers.live_servers import (
    LiveServer,
    Reply,
    ask,
    mlflow_serving,
    serving,
    started,
)
from tests.support.requirements import require
from tests.support.serving_bundles import bundle, loader_model, predicting

JSON = "application/json"
DOUBLES = '[{"type": "double", "required": true}]'
CODE = """
import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

class Mixed(PythonModel):
    def predict(self, context, model_input, params=None):
        if (model_input["age"] < 0).any():
            raise ValueError("age is negative")
        scale = (params or {}).get("scale", 1.0)
        answer = model_input[["city"]].copy()
        answer["score"] = model_input["age"] * scale / model_input["income"]
        return answer

mlflow.models.set_model(Mixed())
"""
SPLIT = {"columns": ["city", "income", "age"], "data": [["Bonn", 2.0, 30], ["Köln", 4.0, 41]]}
RECORDS = [{"age": 30, "income": 2.0, "city": "Bonn", "not_asked_for": 1}]
COLUMNS = {"age": [30, 41], "income": [2.0, 4.0], "city": ["Bonn", "Köln"]}
# MLflow's server and ours are asked each of these; (name, content type, body)
SAME_ANSWERS: list[tuple[str, str | None, Any]] = [
    ("dataframe_split", JSON, {"dataframe_split": SPLIT}),
    ("dataframe_records", JSON, {"dataframe_records": RECORDS}),
    ("inputs by column", JSON, {"inputs": COLUMNS}),
    ("inputs by row", JSON, {"inputs": RECORDS}),
    ("instances", JSON, {"instances": RECORDS}),
    ("params", JSON, {"dataframe_split": SPLIT, "params": {"scale": 10.0}}),
    ("charset", "application/json; charset=UTF-8", {"dataframe_split": SPLIT}),
    ("csv", "text/csv", "city,income,age\nBonn,2.0,30\nKöln,4.0,41\n"),
    ("csv with charset", "text/csv; charset=utf-8", "age,city,income\n30,Bonn,2.0\n"),
    ("not a number", JSON, {"dataframe_records": [{"age": 0, "income": 0.0, "city": "x"}]}),
    ("params that the signature lacks", JSON, {"inputs": COLUMNS, "params": {"other": 1}}),
    ("params of another type", JSON, {"inputs": COLUMNS, "params": {"scale": "much"}}),
    ("a column of another type", JSON, {"inputs": {**COLUMNS, "age": ["old", "young"]}}),
    ("a missing column", JSON, {"dataframe_records": [{"age": 30, "city": "Bonn"}]}),
    ("split that does not fit", JSON, {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}),
    ("no form", JSON, {"rows": [1]}),
    ("two forms", JSON, {"inputs": COLUMNS, "instances": RECORDS}),
    ("a list", JSON, [1, 2]),
    ("a number", JSON, 3),
    ("no json", JSON, "{"),
    ("nothing", JSON, ""),
    ("no utf-8", JSON, b'{"inputs": "\xff"}'),
    ("csv of no utf-8", "text/csv", b"a\n\xff\n"),
    ("another media type", "application/x-www-form-urlencoded", "a=1"),
    ("another charset", "application/json; charset=latin-1", {"inputs": COLUMNS}),
    ("a strange parameter", "application/json; format=pandas", {"inputs": COLUMNS}),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A really saved model with named columns of three types, and a parameter."""
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import infer_signature

    root = tmp_path_factory.mktemp("model")
    (root / "code.py").write_text(CODE)
    inputs = pd.DataFrame(COLUMNS)
    outputs = pd.DataFrame({"city": ["Bonn"], "score": [1.0]})
    mlflow.pyfunc.save_model(
        str(root / "saved"),
        python_model=str(root / "code.py"),
        signature=infer_signature(inputs, outputs, params={"scale": 1.0}),
        input_example=inputs,
        pip_requirements=["mlflow"],
    )
    return root / "saved"


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    root = bundle(tmp_path_factory.mktemp("served") / "b", model)
    with serving(root, "serve", environ={"ADROIT_BODY_LIMIT_BYTES": "100000"}) as server:
        yield server


@pytest.fixture(scope="module")
def mlflows(model: Path) -> Iterator[str]:
    with mlflow_serving(model) as url:
        yield url


def invoke(url: str, body: Any, content_type: str | None = JSON, **headers: str) -> Reply:
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    typed = {"content-type": content_type} if content_type else {}
    return ask(f"{url}/invocations", data, typed | headers)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [row[1:] for row in SAME_ANSWERS],
    ids=[row[0] for row in SAME_ANSWERS],
)
def test_every_form_is_answered_as_mlflows_server_answers(
    served: LiveServer, mlflows: str, content_type: str, body: Any
) -> None:
    ours, theirs = invoke(served.url, body, content_type), invoke(mlflows, body, content_type)
    assert ours.status == theirs.status
    assert ours.headers["content-type"] == theirs.headers["content-type"]
    if b"stack_trace" in theirs.body:  # an answer of ours never holds one
        wanted = {key: value for key, value in theirs.json.items() if key != "stack_trace"}
        assert ours.json == wanted
    elif b"{'inputs', " in theirs.body or b"'dataframe_split'" in theirs.body:
        # MLflow prints a set, whose order is another one in each process.
        assert sorted(ours.body) == sorted(theirs.body)
    else:
        assert ours.body == theirs.body


def test_the_forms_are_right_and_the_wrong_ones_are_wrong(served: LiveServer) -> None:
    """So that two servers that refuse everything do not pass as equal."""
    statuses = {
        name: invoke(served.url, body, content_type).status
        for name, content_type, body in SAME_ANSWERS
    }
    assert set(list(statuses.values())[:10]) == {200}
    assert [statuses[name] for name in ("a missing column", "no json")] == [400, 400]
    assert statuses["another media type"] == 415
    answer = invoke(served.url, {"dataframe_split": SPLIT, "params": {"scale": 10.0}})
    assert answer.json == {
        "predictions": [{"city": "Bonn", "score": 150.0}, {"city": "Köln", "score": 102.5}]
    }


@pytest.mark.parametrize("path", ["/ping", "/health", "/version"])
def test_the_other_endpoints_are_mlflows_too(served: LiveServer, mlflows: str, path: str) -> None:
    ours, theirs = ask(served.url + path), ask(mlflows + path)
    assert (ours.status, ours.body) == (theirs.status, theirs.body)
    assert ours.headers["content-type"] == theirs.headers["content-type"]


def test_mlflows_own_client_is_served(served: LiveServer) -> None:
    import pandas as pd
    from mlflow.pyfunc.scoring_server.client import ScoringServerClient

    url = served.url
    client = ScoringServerClient("127.0.0.1", int(url.rpartition(":")[2]))
    client.wait_server_ready(timeout=10)
    answer = client.invoke(pd.DataFrame(COLUMNS), params={"scale": 2.0})
    assert list(answer.get_predictions()["score"]) == [30.0, 20.5]


def test_a_models_own_error_is_a_400_that_says_it(served: LiveServer, mlflows: str) -> None:
    body = {"inputs": {"age": [-1], "income": [1.0], "city": ["Bonn"]}}
    ours, theirs = invoke(served.url, body), invoke(mlflows, body)
    assert (ours.status, ours.json["error_code"]) == (theirs.status, theirs.json["error_code"])
    assert ours.status == 400
    assert ours.json["message"] == theirs.json["message"] + " ValueError: age is negative"
    assert b"Traceback" not in ours.body


def test_the_bundle_says_who_it_is(served: LiveServer) -> None:
    said = ask(served.url + "/bundle").json
    assert said["model_name"] == "tiny"
    assert said["bundle_id"].startswith("sha256:")
    assert set(said) == {"bundle_id", "model_name", "run_id", "instance_id", "probe_header"}
    assert said["instance_id"] == served.events("ready")[0]["instance_id"]


def test_metrics_count_requests_by_model_and_bundle(served: LiveServer) -> None:
    def count() -> float:
        text = ask(served.url + "/metrics").body.decode()
        lines = [line for line in text.splitlines() if "invocations_total{" in line]
        return sum(float(line.split()[-1]) for line in lines if 'status="200"' in line)

    before = count()
    invoke(served.url, {"inputs": COLUMNS})
    assert count() == before + 1
    bundle_id = ask(served.url + "/bundle").json["bundle_id"]
    text = ask(served.url + "/metrics")
    assert f'{{model="tiny",bundle_id="{bundle_id}",status="200"}}' in text.body.decode()
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_probe_is_answered_and_counted_apart_from_requests(served: LiveServer) -> None:
    def counts() -> dict[str, float]:
        lines = ask(served.url + "/metrics").body.decode().splitlines()
        return {
            name: sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))
            for name in (
                "adroit_probes_total",
                "adroit_invocations_total",
                "adroit_invocation_errors_total",
                "adroit_invocation_faults_total",
                "adroit_invocation_seconds_count",
                "adroit_rows_total",
                "adroit_queue_seconds_count",
                "adroit_batch_requests_count",
            )
        }

    before, probe = counts(), {ask(served.url + "/bundle").json["probe_header"]: "1"}
    assert invoke(served.url, {"inputs": COLUMNS}, **probe).status == 200
    assert invoke(served.url, {"rows": []}, **probe).status == 400
    assert counts() == before | {"adroit_probes_total": before["adroit_probes_total"] + 2}


def test_a_request_id_comes_back_and_is_made_where_it_is_missing(served: LiveServer) -> None:
    ids = [
        invoke(served.url, {"inputs": COLUMNS}, **{"x-request-id": sent}).headers["x-request-id"]
        for sent in ("abc-1", "with blank", "x" * 129)
    ]
    assert ids[0] == "abc-1"
    assert all(len(made) == 32 for made in ids[1:])
    assert invoke(served.url, {"rows": []}, **{"x-request-id": "bad-1"}).status == 400
    logged: dict[str, int] = {}
    give_up = time.monotonic() + 30  # a line of the log may come after the answer
    while not {"abc-1", "bad-1"} <= logged.keys() and time.monotonic() < give_up:
        logged = {line["request_id"]: line["status"] for line in served.events("request")}
        time.sleep(0.01)
    assert (logged["abc-1"], logged["bad-1"]) == (200, 400)


def test_logs_are_json_and_hold_no_feature_values(served: LiveServer) -> None:
    secret = {"age": [-77123], "income": [98765.25], "city": ["Atlantis"]}
    assert invoke(served.url, {"inputs": secret}).status == 400
    assert invoke(served.url, {"inputs": {**secret, "age": ["Eldorado"]}}).status == 400
    log = "".join(served.raw)
    failed = [line for line in served.events("request") if line["status"] == 400]
    assert any(line.get("error_type") == "ValueError" for line in failed)
    assert any("predict" in frame for line in failed for frame in line.get("frames", ()))
    for value in ("77123", "98765", "Atlantis", "Eldorado"):
        assert value not in log


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_a_413(served: LiveServer, declared: bool) -> None:
    host = served.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=30)
    body = b"x" * 100_001
    sent: Any = body if declared else iter([body])
    connection.request(
        "POST", "/invocations", sent, {"content-type": JSON}, encode_chunked=not declared
    )
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error_code"]) == (
        413,
        "REQUEST_LIMIT_EXCEEDED",
    )
    connection.close()
    assert invoke(served.url, {"inputs": COLUMNS}).status == 200


def test_what_is_not_there_is_404_and_the_wrong_method_405(served: LiveServer) -> None:
    assert ask(served.url + "/nothing").status == 404
    assert ask(served.url + "/invocations").status == 405


# What a process does from its start to its end.

GATED = """
import pathlib, time
gate = pathlib.Path({gate!r})
if len(model_input) == 1:
    (gate / 'entered').touch()
    while not (gate / 'open').exists(): time.sleep(0.01)
return [1.0] * len(model_input)
"""


def gated(tmp_path: Path) -> Path:
    """A bundle whose model answers a request of one row only once ``tmp_path/open`` is there."""
    body = GATED.format(gate=str(tmp_path))
    return bundle(tmp_path / "b", loader_model(predicting(body), outputs=DOUBLES))


def wait_for(path: Path) -> None:
    patience = threading.Event()
    for _ in range(3000):
        if path.exists():
            return
        patience.wait(0.01)
    raise AssertionError(f"{path} never came")


def accepts(url: str) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5).close()
    except OSError:
        return False
    return True


ONE_ROW = {"dataframe_split": {"columns": ["x"], "data": [[1]]}}
TWO_ROWS = {"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}


def test_nothing_is_accepted_before_the_model_has_predicted_its_example(tmp_path: Path) -> None:
    body = (
        f"import pathlib, time\ngate = pathlib.Path({str(tmp_path)!r})\n"
        "(gate / 'entered').touch()\n"
        "while not (gate / 'open').exists(): time.sleep(0.01)\nreturn [1.0, 2.0]"
    )
    root = bundle(tmp_path / "b", loader_model(predicting(body), outputs=DOUBLES))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(root, "--port", str(port)) as server:
        wait_for(tmp_path / "entered")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        (tmp_path / "open").touch()
        assert server.url.endswith(str(port))
        assert ask(server.url + "/ping").status == 200


def test_while_it_drains_it_is_not_ready_and_still_answers_all(tmp_path: Path) -> None:
    with serving(gated(tmp_path)) as server:
        url = server.url
        late: list[Reply] = []
        asking = threading.Thread(target=lambda: late.append(invoke(url, ONE_ROW)))
        asking.start()
        wait_for(tmp_path / "entered")
        server.terminate()
        while ask(url + "/ping").status == 200:
            pass
        assert ask(url + "/health").status == 200
        answer = invoke(url, TWO_ROWS)
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        (tmp_path / "open").touch()
        asking.join(30)
        assert late[0].status == 200
        assert server.wait() == 0
        assert server.events("ended")


def test_a_request_that_outlasts_the_drain_is_still_answered(tmp_path: Path) -> None:
    with serving(gated(tmp_path), environ={"ADROIT_DRAIN_S": "0.1"}) as server:
        url = server.url
        late: list[Reply] = []
        asking = threading.Thread(target=lambda: late.append(invoke(url, ONE_ROW)))
        asking.start()
        wait_for(tmp_path / "entered")
        server.terminate()
        while accepts(url):
            threading.Event().wait(0.01)
        (tmp_path / "open").touch()
        asking.join(30)
        assert late[0].status == 200
        assert server.wait() == 0


def test_sigterm_under_load_fails_no_request(tmp_path: Path) -> None:
    require(shutil.which("wrk"), "wrk is not installed (a Debian package)")
    model = loader_model(predicting("return [1.0] * len(model_input)"), outputs=DOUBLES)
    script = tmp_path / "post.lua"
    script.write_text(
        f"wrk.method = 'POST'\nwrk.body = '{json.dumps(TWO_ROWS)}'\n"
        "wrk.headers['Content-Type'] = 'application/json'\n"
    )
    with serving(bundle(tmp_path / "b", model)) as server:
        command = ["wrk", "-t1", "-c8", "-d3s", "-s", str(script), f"{server.url}/invocations"]
        wrk = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        while len(server.events("request")) < 50:
            threading.Event().wait(0.01)
        server.terminate()
        said = wrk.communicate(timeout=60)[0]
        assert server.wait() == 0
        answered = len(server.events("request"))
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    assert answered > 200


def test_a_prediction_that_takes_too_long_is_mlflows_504(tmp_path: Path) -> None:
    environ = {"MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": "1"}
    with serving(gated(tmp_path), environ=environ) as server:
        answer = invoke(server.url, ONE_ROW)
        assert (answer.status, answer.body) == (504, b"Request processing time exceeded limit")
        assert invoke(server.url, TWO_ROWS).status == 200
        (tmp_path / "open").touch()


def test_features_of_the_share_asked_for_reach_the_agent(tmp_path: Path) -> None:
    model = loader_model(predicting("return [1.0] * len(model_input)"), outputs=DOUBLES)
    kwargs = {"model_name": "tiny", "log_features_percent": 100}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(30)
        environ = {
            "DD_AGENT_HOST": "127.0.0.1",
            "DD_DOGSTATSD_PORT": str(agent.getsockname()[1]),
            "ADROIT_FLAVOR": "tiny_v2",
        }
        with serving(bundle(tmp_path / "b", model, kwargs=kwargs), environ=environ) as server:
            assert (
                invoke(server.url, {"instances": [{"x": 9}]}, **{PROBE_HEADER: "1"}).status == 200
            )
            assert invoke(server.url, TWO_ROWS).status == 200
            line = agent.recv(65536).decode()
            bundle_id = ask(server.url + "/bundle").json["bundle_id"]
            text = ask(server.url + "/metrics").body.decode()
    tags = f"model:tiny,bundle_id:{bundle_id},flavor:tiny_v2,feature:x"
    assert line == f"adroit.feature.value:1:2|d|#{tags}"  # and not the input example before it
    assert 'flavor="tiny_v2",outcome="sent"} 1' in text


def test_drift_from_x_test_is_in_the_metrics_of_a_model_that_has_a_reference(
    tmp_path: Path,
) -> None:
    reference = reference_of(pd.DataFrame({"x": range(1000)}))
    assert reference is not None
    files = {FILE: json.dumps(reference.as_dict())}
    model = loader_model(predicting("return [1.0] * len(model_input)"), files=files)
    rows = [[number + 500] for number in range(600)]
    probe = {"dataframe_split": {"columns": ["x"], "data": [[0]]}}
    with serving(bundle(tmp_path / "b", model), environ={"ADROIT_WORKERS": "1"}) as server:
        body = {"dataframe_split": {"columns": ["x"], "data": rows}}
        assert invoke(server.url, probe, **{PROBE_HEADER: "1"}).status == 200
        assert invoke(server.url, body).status == 200
        give_up = time.monotonic() + 30
        while 'feature="x"} 600' not in (text := ask(server.url + "/metrics").body.decode()):
            assert time.monotonic() < give_up, text
            time.sleep(0.05)
    (index,) = re.findall(r'adroit_feature_psi{.*feature="x"} (\S+)', text)
    assert float(index) > 0.25


def fails(root: Path, environ: Mapping[str, str] | None = None, *arguments: str) -> dict[str, Any]:
    with serving(root, *arguments, environ=environ) as server:
        assert server.wait() == 1
        return server.events("not serving")[0]


def test_what_cannot_be_served_is_one_line_that_names_the_stage(tmp_path: Path) -> None:
    good = loader_model(predicting("return [1.0, 2.0]"), outputs=DOUBLES)
    changed = bundle(tmp_path / "a", good)
    (changed / "model/MLmodel").open("a").write("\n")
    said = fails(changed)
    assert said["stage"] == "bundle"
    assert "model/MLmodel" in said["error"]
    same_size = bundle(tmp_path / "e", good)
    example = same_size / "model/input_example.json"
    example.write_text(example.read_text().replace("1", "7"))
    said = fails(same_size, None, "--deep")
    assert (said["stage"], "model/input_example.json: sha256" in said["error"]) == ("bundle", True)
    said = fails(bundle(tmp_path / "b", good, class_path="shop.handler:Mine"))
    assert said["stage"] == "import_handler"
    said = fails(bundle(tmp_path / "c", loader_model("raise ValueError('no weights')")))
    assert (said["stage"], said["error"]) == ("load", "no weights")
    broken = loader_model(predicting("raise ValueError('no luck')"), outputs=DOUBLES)
    said = fails(bundle(tmp_path / "d", broken))
    assert (said["stage"], said["error_type"]) == ("predict", "ValueError")


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    root = bundle(tmp_path / "b", loader_model("raise SystemExit('loaded')"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = fails(root, None, "--port", str(taken.getsockname()[1]))
    assert said["stage"] == "listen"
    assert "in use" in said["error"]


def test_a_wrong_environment_is_exit_2_and_one_line(tmp_path: Path) -> None:
    root = bundle(tmp_path / "b", loader_model(predicting("return [1]")))
    with serving(root, environ={"ADROIT_THREADS": "many"}) as server:
        assert server.wait() == 2
        assert server.raw == ["adroit.serving: ADROIT_THREADS is 'many'; it is a positive number\n"]


def test_a_model_without_an_example_is_served_with_a_warning(tmp_path: Path) -> None:
    model = loader_model(predicting("return [1.0] * len(model_input)"), example=False)
    with serving(bundle(tmp_path / "b", model)) as server:
        assert invoke(server.url, TWO_ROWS).json == {"predictions": [1.0, 1.0]}
        assert any(line["level"] == "WARNING" for line in server.lines)


def test_it_serves_from_directories_it_cannot_write(tmp_path: Path) -> None:
    model = loader_model(predicting("return [1.0, 2.0]"), outputs=DOUBLES)
    root = bundle(tmp_path / "b", model)
    for path in (root, *root.rglob("*")):
        path.chmod(path.stat().st_mode & 0o555)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    own = {"HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(root, environ=own) as server:
        assert invoke(server.url, TWO_ROWS).status == 200
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert not (tmp_path / "home").exists()


TRACED = """
import mlflow
from mlflow.pyfunc import PythonModel

class Traced(PythonModel):
    @mlflow.trace
    def predict(self, context, model_input, params=None):
        return model_input * 2

mlflow.models.set_model(Traced())
"""


def test_a_traced_model_leaves_no_tracking_database_where_it_is_served(tmp_path: Path) -> None:
    import mlflow
    import pandas as pd

    (tmp_path / "model.py").write_text(TRACED)
    example = pd.DataFrame({"x": [1.0]})
    model = tmp_path / "model"
    mlflow.pyfunc.save_model(model, python_model=tmp_path / "model.py", input_example=example)
    root, directory = bundle(tmp_path / "bundle", model), tmp_path / "where it stands"
    directory.mkdir()
    command = [sys.executable, "-m", "adroit.serving", "--root", str(root)]
    place = ["--host", "127.0.0.1", "--port", "0"]
    environ = {"PYTHONPATH": str(root / "runtime"), "PYTHONSAFEPATH": "1"}
    with started([*command, *place], environ=environ, cwd=directory) as server:
        question = (model / "serving_input_example.json").read_bytes()
        answer = ask(f"{server.url}/invocations", question, {"Content-Type": JSON})
    assert answer.status == 200
    assert list(directory.iterdir()) == []
