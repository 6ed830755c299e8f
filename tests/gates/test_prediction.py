"""adroit_publish.gates.prediction: what is reported of models good, broken and hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.bundle.record import Verification
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.gates import report, sandbox
from adroit_publish.gates.prediction import predict_in_sandbox
from tests.support.requirements import require, require_sandbox
from tests.support.serving_bundles import bundle, loader_model, predicting

DOUBLES = '[{"type": "double", "required": true}]'
GOOD = loader_model(predicting("return [x * 2.0 for x in model_input['x']]"), outputs=DOUBLES)


@pytest.fixture(params=["bubblewrap", "namespaces", "plain"])
def kind(request: pytest.FixtureRequest) -> sandbox.Kind:
    chosen: sandbox.Kind = request.param
    require_sandbox(chosen)
    return chosen


def verify(layout: Path, **options: Any) -> Verification:
    return predict_in_sandbox(layout, **{"allow_plain": True, "timeout_s": 60.0, **options})


def failure(layout: Path, **options: Any) -> str:
    with pytest.raises(VerificationError) as caught:
        verify(layout, **options)
    return str(caught.value)


def failure_of(tmp_path: Path, body: str, **options: Any) -> str:
    return failure(bundle(tmp_path / "b", loader_model(predicting(body))), **options)


def test_a_good_model_predicts_the_same_in_every_kind(kind: sandbox.Kind, tmp_path: Path) -> None:
    seen = verify(bundle(tmp_path / "b", GOOD), _kind=kind)
    assert (seen.how, seen.predicted, seen.outputs) == (kind, True, [2.0, 4.0])
    assert seen.outputs_sha256 == (
        "5d9db3021dafebe1f68ffadb534a96efa75df2b9add643f9905dd6427ce7a542"
    )
    assert seen.load_seconds is not None
    assert seen.load_seconds > 0
    assert seen.peak_memory_bytes is not None
    assert 10 << 20 < seen.peak_memory_bytes < 2 << 30
    assert "mlflow" in seen.packages
    json.dumps(seen.as_dict())


def test_the_source_runs_and_not_the_copy_that_was_logged_with_the_model(tmp_path: Path) -> None:
    """`code_paths` leaves old copies in the model; a republish changes the source alone."""
    body = (
        "from projects.tiny.scale import SCALE\nfrom projects.tiny.rest import REST\n"
        "return [x * SCALE + REST for x in model_input['x']]"
    )
    logged = {
        "code/projects/tiny/scale.py": "SCALE = 2",
        "code/projects/tiny/rest.py": "REST = 0.5",
    }
    model = loader_model(predicting(body), files=logged)
    source = {"projects/tiny/scale.py": "SCALE = 10"}
    assert verify(bundle(tmp_path / "b", model, source=source)).outputs == [10.5, 20.5]


def test_a_model_without_an_input_example_is_loaded_and_not_predicted(tmp_path: Path) -> None:
    model = loader_model(predicting("raise SystemExit"), example=False)
    seen = verify(bundle(tmp_path / "b", model))
    assert not seen.predicted
    assert seen.outputs is None
    assert seen.load_seconds is not None


def test_what_a_model_prints_does_not_reach_the_report(tmp_path: Path) -> None:
    loud = 'import os\nprint("{\\"ok\\": true}", flush=True)\nos.write(1, b"{}")\nreturn [1]'
    assert verify(bundle(tmp_path / "b", loader_model(predicting(loud)))).outputs == [1]


def test_a_handler_of_ones_own_is_what_predicts(tmp_path: Path) -> None:
    source = {
        "shop/handler.py": "class Mine:\n"
        "    def load(self, bundle): pass\n"
        "    def predict(self, inputs, params=None): return {'rows': len(inputs)}\n"
    }
    model = loader_model("raise RuntimeError('not mine to load')")
    root = bundle(tmp_path / "b", model, source=source, class_path="shop.handler:Mine")
    record = json.loads((root / "bundle.json").read_text())
    record["serve"]["handler"]["kwargs"] = {}
    (root / "bundle.json").write_text(json.dumps(record))
    assert verify(root).outputs == {"rows": 2}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("import os; os._exit(0)", "the process ended (exit code 0) without a report"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import ctypes; ctypes.string_at(0)", "(SIGSEGV) without a report"),
        ("import time; time.sleep(600)", "still running after 5 s"),
        ("return {1, 2}", "predict returned set"),
        (
            "import os\nfor fd in range(3, 20):\n"
            "    try: os.write(fd, b'{\"ok\": true}')\n    except OSError: pass\nreturn [1]",
            "something else where the report belongs",
        ),
    ],
)
def test_a_model_that_does_not_answer_has_failed(tmp_path: Path, body: str, said: str) -> None:
    assert said in failure_of(tmp_path, body, timeout_s=5.0)


def test_a_fork_that_comes_back_through_our_code_stays_silent(tmp_path: Path) -> None:
    model = loader_model(predicting("import os\nif os.fork(): os.wait()\nreturn [1]"))
    assert verify(bundle(tmp_path / "b", model)).outputs == [1]


def test_a_thread_and_an_exit_hook_do_not_hold_the_process(tmp_path: Path) -> None:
    body = (
        "import atexit, threading, time\natexit.register(time.sleep, 600)\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\nreturn [1]"
    )
    model = loader_model(predicting(body))
    assert verify(bundle(tmp_path / "b", model), timeout_s=30.0).outputs == [1]


@pytest.mark.parametrize(
    ("body", "exception", "hint"),
    [
        ("import os; os.environ['AWS_SECRET_ACCESS_KEY']", "KeyError", "reads credentials"),
        (
            "import socket; socket.create_connection(('example.com', 443))",
            "gaierror",
            "reaches for the network",
        ),
        (
            "import socket; socket.create_connection(('10.0.0.1', 443))",
            "Network is unreachable",
            "reaches for the network",
        ),
        ("open('/srv/models/weights.bin')", "FileNotFoundError", "files outside its bundle"),
        ("import no_such_package_here", "ModuleNotFoundError", "conda environment"),
        ("import numpy; numpy.ones(1 << 40)", "ArrayMemoryError", "more memory"),
    ],
)
def test_the_next_step_follows_from_what_the_model_missed(
    tmp_path: Path, body: str, exception: str, hint: str
) -> None:
    require(sandbox.available() != "plain", "no sandbox works on this machine")
    said = failure_of(tmp_path, body)
    assert "stage predict" in said
    assert exception in said
    assert "test_loader.py" in said
    assert hint in said


def test_each_stage_that_fails_is_named(tmp_path: Path) -> None:
    broken = bundle(tmp_path / "a", GOOD)
    (broken / "model/extra").write_text("")
    assert "stage bundle" in failure(broken)
    assert "model/extra: not in bundle.json" in failure(broken)

    said = failure(bundle(tmp_path / "b", GOOD, class_path="shop.handler:Mine"))
    assert "stage import_handler" in said
    assert "config.yaml" in said

    assert "stage load" in failure(bundle(tmp_path / "c", loader_model("raise ValueError('bad')")))

    words = loader_model(predicting("return ['a', 'b']"), outputs=DOUBLES)
    said = failure(bundle(tmp_path / "d", words))
    assert "stage output" in said
    assert "does not fit the signature's outputs" in said


def test_nothing_from_the_model_reaches_a_terminal_as_a_control_sequence(tmp_path: Path) -> None:
    said = failure_of(tmp_path, "raise ValueError('\\x1b[2Jcleared\\x07')")
    assert "cleared" in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_without_a_sandbox_it_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="--verify none"):
        verify(tmp_path, allow_plain=False, _kind="plain")


GENUINE: dict[str, Any] = {
    "schema": 1,
    "ok": True,
    "stage": "done",
    "error": None,
    "input_example": True,
    "outputs": [1],
    "outputs_sha256": "0" * 64,
    "outputs_truncated": False,
    "served": False,
    "load_seconds": 0.1,
    "predict_seconds": 0.1,
    "peak_memory_bytes": 1,
    "python_version": "3.11.7",
    "packages": {"numpy": "2.0"},
    "import_names": ["numpy"],
}


def parsed(stdout: bytes, exit_code: int = 0) -> dict[str, Any]:
    return report._parsed(
        sandbox.CompletedRun("plain", exit_code, stdout, b"adroit: load\n", False)
    )


def test_a_genuine_report_is_read() -> None:
    assert parsed(json.dumps(GENUINE).encode())["outputs"] == [1]


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"ok": "yes"},
        {"ok": False},
        {"stage": "load"},
        {"input_example": False},
        {"outputs_sha256": None},
        {"outputs_sha256": "../../etc"},
        {"load_seconds": None},
        {"load_seconds": "1"},
        {"load_seconds": float("nan")},
        {"load_seconds": 10**400},
        {"packages": {"numpy": 2}},
        {"packages": {str(n): "1" for n in range(10_001)}},
        {"import_names": ["numpy", 1]},
        {"peak_memory_bytes": None},
    ],
)
def test_a_report_of_another_shape_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="stage load"):
        parsed(json.dumps({**GENUINE, **change}).encode())


@pytest.mark.parametrize(
    "stdout",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps(GENUINE).encode() * 2,
        json.dumps({**GENUINE, "outputs": None})
        .replace('"outputs": null', '"outputs": ' + "[" * 200 + "]" * 200)
        .encode(),
        b" " * (sandbox.STDOUT_BYTES + 1),
    ],
    ids=["empty", "no keys", "null", "no text", "deep", "two", "deep outputs", "too long"],
)
def test_what_is_no_report_is_not_believed(stdout: bytes) -> None:
    with pytest.raises(VerificationError, match="before it could answer"):
        parsed(stdout)


def test_a_report_that_contradicts_its_exit_code_is_not_believed() -> None:
    with pytest.raises(VerificationError, match="exit code 1"):
        parsed(json.dumps(GENUINE).encode(), exit_code=1)
