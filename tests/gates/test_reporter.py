"""Models that would rather write their own report: none is believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.bundle.record import Verification
from adroit_publish.errors import VerificationError
from adroit_publish.gates import reporter, sandbox
from adroit_publish.gates.prediction import (
    instructions,
    predict_in_sandbox,
    reporter_arguments,
)
from tests.support.requirements import require_sandbox
from tests.support.serving_bundles import bundle, loader_model, predicting

FORGED = {
    "schema": 2,
    "nonce": "0" * 64,
    "python_version": "3.11.7",
    "packages": {"mlflow-skinny": "3.17.2", "numpy": "2", "pandas": "3"},
    "import_names": ["json"],
    "asked": True,
    "start_seconds": 0.1,
    "answer_seconds": 0.1,
    "status": 200,
    "outputs": [1.0, 2.0],
    "outputs_sha256": "0" * 64,
    "whole": True,
    "repeats": True,
    "problem": None,
    "ended": None,
    "peak_memory_bytes": 1,
}
AS_IT_WAS = {  # what the first reporters wrote, in the model's own process
    "schema": 1,
    "ok": True,
    "stage": "done",
    "error": None,
    "input_example": True,
    "outputs": [1.0, 2.0],
    "outputs_sha256": "0" * 64,
    "outputs_truncated": False,
    "served": True,
    "load_seconds": 0.1,
    "predict_seconds": 0.1,
    "peak_memory_bytes": 1,
    "python_version": "3.11.7",
    "packages": {},
    "import_names": [],
}
PREDICT_RAISES = (
    "class Model:\n"
    "    def predict(self, model_input, params=None):\n"
    "        raise RuntimeError('never')\n"
)
WRITE_EVERYWHERE = """
import glob, os
written = set()
def write_everywhere(text):
    # Once to each, for two documents are not one.
    def write(fd):
        facts = os.fstat(fd)
        if (facts.st_dev, facts.st_ino) not in written:
            written.add((facts.st_dev, facts.st_ino))
            os.write(fd, text)
    for fd in range(200):
        try: write(fd)
        except OSError: pass
    for path in glob.glob("/proc/[0-9]*/fd/*") + ["/dev/stdout", "/dev/fd/1"]:
        try: write(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError: pass
"""


@pytest.fixture(params=["bubblewrap", "namespaces"])
def kind(request: pytest.FixtureRequest) -> sandbox.Kind:
    chosen: sandbox.Kind = request.param
    require_sandbox(chosen)
    return chosen


def seen(tmp_path: Path, loader: str, **options: Any) -> Verification:
    return predict_in_sandbox(
        bundle(tmp_path / "b", loader_model(loader)), allow_plain=True, **options
    )


def refused(tmp_path: Path, loader: str, **options: Any) -> str:
    with pytest.raises(VerificationError) as error:
        seen(tmp_path, loader, **options)
    return str(error.value)


@pytest.mark.parametrize("document", [AS_IT_WAS, FORGED], ids=["as it was", "as it is"])
@pytest.mark.parametrize(
    "ending",
    [
        "os._exit(0)",
        "if os.fork() == 0:\n        while True: write_everywhere(TEXT)\n    os._exit(0)",
        "import atexit; atexit.register(write_everywhere, TEXT); raise SystemExit(0)",
        "import threading; threading.Thread(target=write_everywhere, args=(TEXT,)).start()\n"
        "    raise RuntimeError('later')",
        "return Model()",
        "import signal; os.kill(os.getppid(), signal.SIGKILL); os._exit(0)",
    ],
    ids=["exits", "forks", "atexit", "thread", "goes on", "kills its reporter"],
)
def test_a_report_that_a_model_writes_is_not_believed(
    tmp_path: Path, document: dict[str, Any], ending: str
) -> None:
    loader = (
        f"{WRITE_EVERYWHERE}{PREDICT_RAISES}TEXT = {json.dumps(document).encode()!r}\n"
        f"def _load_pyfunc(path):\n    write_everywhere(TEXT)\n    {ending}\n"
    )
    message = refused(tmp_path, loader)
    assert "does not" in message or "before it could answer" in message


WRITE_TO_3_TO_19 = """
import os
def write_to_3_to_19(text):
    for fd in range(3, 20):
        try: os.write(fd, text)
        except OSError: pass
"""


@pytest.mark.parametrize("document", [AS_IT_WAS, FORGED], ids=["as it was", "as it is"])
@pytest.mark.parametrize("write", ["write_to_3_to_19", "write_everywhere"])
@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("os._exit(0)", "(exit code 0) before it answered"),
        (
            "if os.fork() == 0:\n    while True: {write}(TEXT)\nos._exit(0)",
            "(exit code 0) before it answered",
        ),
        ("raise RuntimeError('after it')", "stage predict"),
    ],
    ids=["exits", "forks", "raises"],
)
def test_a_report_that_a_model_writes_while_it_predicts_is_not_believed(
    tmp_path: Path, document: dict[str, Any], write: str, ending: str, said: str
) -> None:
    assert said in refused(tmp_path, forging(document, f"{write}(TEXT)\n{ending}", write))


def test_a_report_in_the_place_of_its_servers_answer_never_gets_there(tmp_path: Path) -> None:
    """The process that predicts has no socket of a client's."""
    body = "write_to_3_to_19(TEXT)\nreturn [1.0, 2.0]"
    found = seen(tmp_path, forging(FORGED, body))
    assert (found.outputs, found.repeats) == ([1.0, 2.0], True)
    assert found.packages != FORGED["packages"]


@pytest.mark.parametrize("write", ["write_to_3_to_19", "write_everywhere"])
def test_a_model_that_forges_and_then_predicts_is_seen_as_its_server_answers(
    tmp_path: Path, write: str
) -> None:
    body = "if not WROTE:\n    WROTE.append(1)\n    {write}(TEXT)\nreturn [7.0, 8.0]"
    found = seen(tmp_path, "WROTE = []\n" + forging(FORGED, body, write))
    assert found.outputs == [7.0, 8.0]
    assert found.outputs_sha256 == reporter.sha256([7.0, 8.0])
    assert found.packages != FORGED["packages"]


def forging(document: dict[str, Any], body: str, write: str = "") -> str:
    """A loader whose model predicts by ``body``, which has ways to write, and TEXT."""
    text = f"{WRITE_EVERYWHERE}{WRITE_TO_3_TO_19}TEXT = {json.dumps(document).encode()!r}\n"
    return text + predicting(body.format(write=write))


def test_the_reporter_cannot_be_looked_into(kind: sandbox.Kind, tmp_path: Path) -> None:
    body = """
import ctypes, os
reporter, opened = os.getppid(), []
for name in ("environ", "mem", "maps", "fd/0", "fd/1", "fd/2", "cwd", "auxv", "stack"):
    try:
        os.close(os.open(f"/proc/{reporter}/{name}", os.O_RDONLY | os.O_NONBLOCK))
        opened.append(name)
    except OSError: pass
libc = ctypes.CDLL(None, use_errno=True)
seize = 0x4206  # as attach, which would stop the reporter
if libc.ptrace(seize, reporter, 0, 0) == 0: opened.append("ptrace")
for pid in filter(str.isdigit, os.listdir("/proc")):
    for name in ("environ", "cmdline"):
        try: text = open(f"/proc/{pid}/{name}", "rb").read()
        except OSError: continue
        if b"nonce" in text and name == "environ": opened.append(pid)
def inherited(fd):
    return os.readlink(f"/proc/self/fd/{fd}")
streams = [inherited(fd) for fd in (0, 1, 2)]
return [opened, streams[0], streams[1] == streams[2], "ADROIT_REPORTER" in os.environ]
"""
    outputs = seen(tmp_path, predicting(body), _kind=kind).outputs
    assert outputs == [[], "/dev/null", True, False]


def test_what_a_model_patches_in_its_own_process_changes_no_digest(tmp_path: Path) -> None:
    body = """
import hashlib, json, os
class Zeros:
    def __init__(self, *_): pass
    def update(self, *_): pass
    def hexdigest(self): return "0" * 64
    def digest(self): return bytes(32)
hashlib.sha256 = Zeros
return [1.0, 2.0]
"""
    found = seen(tmp_path, predicting(body))
    assert found.outputs == [1.0, 2.0]
    assert found.outputs_sha256 == reporter.sha256([1.0, 2.0])


def test_packages_are_those_of_before_the_model_was_loaded(tmp_path: Path) -> None:
    loader = """
import importlib.metadata, sys
sys.path.insert(0, "/tmp")
import os
os.makedirs("/tmp/xgboost-9.9.dist-info")
open("/tmp/xgboost-9.9.dist-info/METADATA", "w").write("Name: xgboost\\nVersion: 9.9\\n")
importlib.metadata.distributions = lambda: []
"""
    found = seen(tmp_path, loader + predicting("return [1]"))
    assert "xgboost" not in found.packages
    assert "mlflow" in found.packages


def test_packages_are_listed_before_a_model_can_add_to_them(tmp_path: Path) -> None:
    """Here the model may write where the reporter looks, as root may in a container."""
    site = tmp_path / "site"
    (site / "old-1.dist-info").mkdir(parents=True)
    (site / "old-1.dist-info/METADATA").write_text("Name: old\nVersion: 1\n")
    loader = f"""
import os
os.makedirs("{site}/new-9.dist-info")
open("{site}/new-9.dist-info/METADATA", "w").write("Name: new\\nVersion: 9\\n")
"""
    root = bundle(tmp_path / "b", loader_model(loader + predicting("return [1]")))
    python_path = os.pathsep.join([str(site), str(root / "runtime"), str(root / "source")])
    done = subprocess.run(
        [sys.executable, *reporter_arguments(), str(root)],
        input=instructions("n" * 64, None, together=False),
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    assert report["status"] == 200, report
    assert (site / "new-9.dist-info").is_dir()
    assert report["packages"]["old"] == "1"
    assert "new" not in report["packages"]


def test_outputs_that_differ_from_one_time_to_the_next_are_told(tmp_path: Path) -> None:
    body = "import time\nreturn [time.monotonic_ns()]"
    assert seen(tmp_path, predicting(body)).repeats is False


def test_outputs_too_large_to_report_are_digested_whole_where_they_were_asked(
    tmp_path: Path,
) -> None:
    body = "return ['x' * 100_000] * 100"
    found = seen(tmp_path, predicting(body))
    assert found.outputs_truncated
    assert 0 < len(found.outputs) < 100
    assert found.outputs_sha256 == reporter.sha256(["x" * 100_000] * 100)


def test_a_dummy_of_config_yaml_reaches_the_model_alone(tmp_path: Path) -> None:
    body = "import os\nreturn [os.environ['MY_SVC_API_KEY']]"
    assert "verify: {env: {MY_SVC_API_KEY: dummy}}" in refused(tmp_path, predicting(body))
    (tmp_path / "again").mkdir()
    found = seen(tmp_path / "again", predicting(body), model_env={"MY_SVC_API_KEY": "dummy"})
    assert found.outputs == ["dummy"]
