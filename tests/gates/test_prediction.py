"""adroit_publish.gates.prediction: what is reported of models good, broken and hostile."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.bundle.record import Verification
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.gates import report, reporter, sandbox
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


def verify(layout: Path, *, timeout_s: float = 120.0, **options: Any) -> Verification:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "TIMEOUT_S", timeout_s)
        return predict_in_sandbox(layout, **{"allow_plain": True, **options})


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


def test_the_memory_that_is_seen_is_that_of_the_process_that_holds_the_model(
    kind: sandbox.Kind, tmp_path: Path
) -> None:
    loader = "weights = bytearray(b'x' * (600 << 20))\n" + GOOD["code/test_loader.py"]
    seen = verify(bundle(tmp_path / "b", loader_model(loader, outputs=DOUBLES)), _kind=kind)
    assert seen.peak_memory_bytes is not None
    assert seen.peak_memory_bytes > 600 << 20


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
        ("import os; os._exit(0)", "the server ended (exit code 0) before it answered"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import ctypes; ctypes.string_at(0)", "the server ended (SIGSEGV) before it answered"),
        ("import time; time.sleep(600)", "still running after 20 s"),
        ("return {1, 2}", "predict returned set"),
        ("import os\nif os.fork(): os.wait()\nreturn [1]", "still running after 20 s"),
    ],
)
def test_a_model_that_does_not_answer_has_failed(tmp_path: Path, body: str, said: str) -> None:
    assert said in failure_of(tmp_path, body, timeout_s=20.0)


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

    said = failure(bundle(tmp_path / "d", loader_model(predicting("return {1, 2}"))))
    assert "stage predict" in said


def test_nothing_from_the_model_reaches_a_terminal_as_a_control_sequence(tmp_path: Path) -> None:
    said = failure_of(tmp_path, "raise ValueError('\\x1b[2Jcleared\\x07')")
    assert "cleared" in said
    assert "\x1b" not in said
    assert "\x07" not in said


def test_without_a_sandbox_it_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="--verify none"):
        verify(tmp_path, allow_plain=False, _kind="plain")


GENUINE: dict[str, Any] = {
    "schema": 2,
    "nonce": "secret",
    "python_version": "3.11.7",
    "packages": {"numpy": "2.0"},
    "import_names": ["numpy"],
    "asked": True,
    "start_seconds": 0.1,
    "answer_seconds": 0.1,
    "status": 200,
    "outputs": [1],
    "outputs_sha256": "0" * 64,
    "whole": True,
    "repeats": True,
    "problem": None,
    "ended": None,
    "peak_memory_bytes": 1,
}
STARTING = b'{"message": "starting", "stage": "load"}\n'


def judged(stdout: bytes) -> Verification:
    done = sandbox.CompletedRun("plain", 0, stdout, STARTING, False)
    return report.judged(done, "secret", lambda env: None)


def test_a_genuine_report_is_read_and_its_digest_is_taken_here() -> None:
    seen = judged(json.dumps(GENUINE).encode())
    assert seen.outputs == [1]
    assert seen.outputs_sha256 == hashlib.sha256(b"[1]").hexdigest()


def test_outputs_are_kept_by_whole_rows_and_digested_whole() -> None:
    rows = [{"text": "x" * 100}] * 5000
    kept = reporter.bounded(rows, rows=1000, size_bytes=50_000)
    assert kept == rows[: len(kept)]
    assert 0 < len(reporter.canonical(kept)) <= 50_000
    assert reporter.bounded("x" * 100, rows=1, size_bytes=50) is None
    assert reporter.sha256({"b": 1, "a": 2}) == reporter.sha256({"a": 2, "b": 1})
    seen = judged(json.dumps({**GENUINE, "outputs": rows}).encode())
    assert (len(seen.outputs), seen.outputs_truncated) == (1000, True)
    assert seen.outputs_sha256 == reporter.sha256(rows)


@pytest.mark.parametrize(
    ("answer", "outputs"),
    [
        (
            b'{"predictions": [0.5, NaN, Infinity, -Infinity]}',
            [0.5, "NaN", "Infinity", "-Infinity"],
        ),
        (b'{"predictions": null}', None),
        (
            b'{"choices": [{"message": {"content": "hi"}}]}',
            {"choices": [{"message": {"content": "hi"}}]},
        ),
        (b"[1, 2]", [1, 2]),
    ],
)
def test_the_outputs_are_the_predictions_or_else_the_answer_itself(
    answer: bytes, outputs: object
) -> None:
    assert reporter.outputs_of(answer) == outputs


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 1},
        {"nonce": "another"},
        {"nonce": None},
        {"asked": "yes"},
        {"asked": False},
        {"outputs_sha256": None},
        {"outputs_sha256": 5},
        {"start_seconds": "1"},
        {"start_seconds": float("nan")},
        {"start_seconds": 10**400},
        {"problem": "and an answer"},
        {"ended": "0"},
        {"outputs": "x" * reporter.WHOLE_BYTES},
        {"packages": {"numpy": 2}},
        {"packages": {str(n): "1" for n in range(10_001)}},
        {"import_names": ["numpy", 1]},
        {"peak_memory_bytes": None},
    ],
)
def test_a_report_of_another_shape_is_not_believed(change: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="stage load"):
        judged(json.dumps({**GENUINE, **change}).encode())


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
        judged(stdout)


def test_a_server_that_ends_after_its_answer_has_failed() -> None:
    with pytest.raises(VerificationError, match=r"answered and ended \(exit code 0\)"):
        judged(json.dumps({**GENUINE, "ended": 0}).encode())


# Many clients at once.

STATEFUL = """
import numpy as np, time
self.t = model_input["x"].to_numpy() * 2.0
time.sleep(0.002)
return self.t
"""
MEANS = "return list(model_input['x'] - model_input['x'].mean())"
SAME = "return [1.0] * len(model_input)"


@pytest.mark.parametrize(
    ("body", "serve", "said"),
    [
        (STATEFUL, {"thread_safe": True}, "answers many clients at once otherwise"),
        (STATEFUL, {"thread_safe": False}, None),
        (MEANS, {"batch": {"max_rows": 64, "max_wait_ms": 20}}, "Nothing shows"),
        (f"{MEANS[:-1]} + model_input['x'])", {"batch": {"max_wait_ms": 20}}, "otherwise than one"),
        ("return list(model_input['x'] * 2.0)", {"batch": {"max_wait_ms": 5}}, None),
        ("return list(model_input['x'] * 2.0)", {"thread_safe": True, "batch": {}}, None),
        (SAME, {"thread_safe": True}, "2 rows with 1 different answers"),
    ],
    ids=["state", "processes", "same alone", "batch", "rows", "threads", "no difference"],
)
def test_threads_and_batches_have_to_answer_as_one_by_one(
    tmp_path: Path, body: str, serve: dict[str, Any], said: str | None
) -> None:
    root = bundle(tmp_path / "b", loader_model(predicting(body), outputs=DOUBLES), serve=serve)
    if said is None:
        assert verify(root, together_rtol=1e-6).predicted
    else:
        assert said in failure(root, together_rtol=1e-6)
