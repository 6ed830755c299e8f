"""The report of a process that loaded a bundle and predicted once, and what is believed of it.

``judged`` turns the one JSON document that ``adroit.serving.predict_once`` wrote, wherever it was
confined, into a ``Verification``, or into the VerificationError that says which stage failed and
why. The document comes from a process that ran the model's code, so it is untrusted: its size,
depth, shape and characters are checked, nothing in it is believed to be safe to print, and it is
never unpickled.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from adroit_publish.bundle.record import Verification
from adroit_publish.edge.text import printable
from adroit_publish.errors import VerificationError
from adroit_publish.gates import sandbox
from adroit_publish.gates.env_contract import ObservedEnv

REPORT_SCHEMA = 1
TIMEOUT_S = 600.0
_DEPTH = 100
_NAMES = 20_000
_TEXT_CHARS = 2000
_TAIL_LINES = 12
_FRAME_LINES = 6
_STAGE = re.compile(r"^adroit: (\w+)$", re.MULTILINE)
_DOING = {
    "bundle": "The bundle's files are not what its record says.",
    "import_handler": "The handler of config.yaml cannot be imported from the bundle.",
    "load": "The model does not load from the bundle.",
    "predict": "The model loads and does not predict on its input example.",
    "output": "The model predicts, and its output cannot be served.",
    "serve": "The model predicts, and its server does not answer.",
}
_FOREIGN_CREDENTIALS = re.compile(r"AWS_|DATABRICKS_|NoCredentials|Unable to locate credentials")
_NO_NETWORK = re.compile(
    r"gaierror|Network is unreachable|Name or service not known|Temporary failure in name"
    r"|Connection refused|ConnectionError|Max retries exceeded|EndpointConnectionError"
)


def judged(
    done: sandbox.CompletedRun, timeout_s: float, check_env: Callable[[ObservedEnv], None]
) -> Verification:
    """Returns what the report of a run says, of which only the shape is believed.

    Args:
        done: The run.
        timeout_s: How many seconds it had, for the message.
        check_env: Told what the interpreter's environment holds before the prediction is judged;
            what it raises goes first, for it says why a model did not load.

    Raises:
        VerificationError: The bundle does not load, does not predict, or its outputs are not
            what the signature says; or the process ended without a report.
    """
    if done.timed_out:
        raise _ended(done, f"still running after {timeout_s:g} s", "a model that ends in time")
    report = _parsed(done)
    check_env(_observed_env(report))
    if not report["ok"]:
        raise _failed(done, report)
    return _verification(done.kind, report)


def _parsed(done: sandbox.CompletedRun) -> dict[str, Any]:
    """Returns the report, of which only the shape is believed."""
    wanted = "one report, written when the prediction is done"
    if not done.stdout:
        how = done.signal_name or f"exit code {done.exit_code}"
        raise _ended(done, f"the process ended ({how}) without a report", wanted)
    if len(done.stdout) > sandbox.STDOUT_BYTES:
        raise _ended(done, f"a report of more than {sandbox.STDOUT_BYTES} bytes", wanted)
    try:
        report = json.loads(done.stdout, parse_constant=_refuse_constant)
        _check_shape(report)
    except (ValueError, RecursionError, OverflowError) as error:
        got = f"something else where the report belongs ({_printable(str(error), 200)})"
        raise _ended(done, got, wanted) from None
    if report["ok"] != (done.exit_code == 0):
        raise _ended(done, f"exit code {done.exit_code} against the report's own word", wanted)
    return dict(report)


def _check_shape(report: Any) -> None:
    optional_number = (int, float, type(None))
    wanted: dict[str, type | tuple[type, ...]] = {
        "schema": int,
        "ok": bool,
        "stage": str,
        "error": (dict, type(None)),
        "input_example": bool,
        "outputs": object,
        "outputs_sha256": (str, type(None)),
        "outputs_truncated": bool,
        "served": bool,
        "load_seconds": optional_number,
        "predict_seconds": optional_number,
        "peak_memory_bytes": int,
        "python_version": str,
        "packages": dict,
        "import_names": list,
    }
    if not isinstance(report, dict) or report.get("schema") != REPORT_SCHEMA:
        raise ValueError("no report of this schema")
    for key, kinds in wanted.items():
        if key not in report or not isinstance(report[key], kinds):
            raise ValueError(f"{key} is missing or of another type")
    names = [*report["packages"], *report["packages"].values(), *report["import_names"]]
    if len(names) > _NAMES or not all(isinstance(name, str) for name in names):
        raise ValueError("packages and import_names are no tables of names")
    if report["ok"]:
        _check_success(report)
    elif not isinstance(report["error"], dict):
        raise ValueError("a failure without an error")


def _check_success(report: Mapping[str, Any]) -> None:
    digest, predicted = report["outputs_sha256"], report["input_example"]
    if report["stage"] != "done" or report["load_seconds"] is None:
        raise ValueError("a success that did not come to its end")
    if (digest is not None) != predicted or (report["predict_seconds"] is not None) != predicted:
        raise ValueError("outputs and input example contradict each other")
    if digest is not None and re.fullmatch("[0-9a-f]{64}", digest) is None:
        raise ValueError("outputs_sha256 is no digest")
    if not all(math.isfinite(report[key] or 0) for key in ("load_seconds", "predict_seconds")):
        raise ValueError("a duration that is no number")
    _check_depth(report["outputs"])


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, list | dict)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return
    raise ValueError(f"outputs nested more than {_DEPTH} deep")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _verification(kind: str, report: Mapping[str, Any]) -> Verification:
    env = _observed_env(report)
    return Verification(
        how=kind,
        predicted=report["input_example"],
        outputs=report["outputs"],
        outputs_sha256=report["outputs_sha256"],
        outputs_truncated=report["outputs_truncated"],
        served=report["served"],
        load_seconds=report["load_seconds"],
        predict_seconds=report["predict_seconds"],
        peak_memory_bytes=report["peak_memory_bytes"],
        python_version=env.python,
        packages=env.packages,
    )


def _observed_env(report: Mapping[str, Any]) -> ObservedEnv:
    return ObservedEnv(
        python=_printable(report["python_version"], 50),
        packages={
            _printable(name, 200): _printable(version, 200)
            for name, version in sorted(report["packages"].items())
        },
        import_names=frozenset(report["import_names"]),
    )


def _failed(done: sandbox.CompletedRun, report: Mapping[str, Any]) -> VerificationError:
    error = report["error"]
    kind = _printable(str(error.get("type", "")), 200)
    message = _printable(str(error.get("message", "")), _TEXT_CHARS)
    trace = _printable(str(error.get("traceback_tail", "")), 8 * _TEXT_CHARS)
    ours = kind.startswith("adroit.serving.")  # then the message says it all
    got = message if ours else f"{kind}: {message}\n{_frames(trace)}".rstrip()
    return VerificationError(
        _DOING.get(report["stage"], "The bundle cannot be verified."),
        where=f"stage {_printable(report['stage'], 40)}, {_place(done)}",
        got=got,
        next_step=_hint(report["stage"], kind, f"{message}\n{trace}"),
    )


def _ended(done: sandbox.CompletedRun, got: str, wanted: str) -> VerificationError:
    log = _printable(done.stderr.decode(errors="replace"), 8 * _TEXT_CHARS)
    stage = next(reversed(_STAGE.findall(log)), None)
    noise = re.compile(r"adroit: \w+$|Extension modules:|\s*$")
    tail = [line for line in log.splitlines() if not noise.match(line)]
    lines = "\n".join(tail[-_TAIL_LINES:])
    if done.signal_name in ("SIGKILL", "SIGXCPU") and not done.timed_out:
        got += "; it was killed, as a process is that takes more memory or time than there is"
    return VerificationError(
        "The model ended its verification before it could answer.",
        where=f"stage {stage or 'start'}, {_place(done)}",
        got=f"{got}\n{lines}".rstrip(),
        wanted=wanted,
        next_step=_hint(stage or "", "", lines),
    )


def _place(done: sandbox.CompletedRun) -> str:
    return "in a container" if done.kind == "image" else f"in a sandbox ({done.kind})"


def _frames(trace: str) -> str:
    """Returns the innermost lines of a traceback, less its last line, which is the message."""
    lines = [line for line in trace.rstrip().splitlines() if line.strip(" ^~")]
    frames = [line for line in lines if line.startswith(" ")]
    return "\n".join(frames[-_FRAME_LINES:])


def _hint(stage: str, kind: str, said: str) -> str:
    """Returns what to do next, from the exception where that shows what the model missed."""
    retry = "log the model again, and publish that run"
    if _FOREIGN_CREDENTIALS.search(said):
        return (
            "the model reads credentials, and a sandbox has none: let it load from its own "
            f"artifacts alone; {retry}"
        )
    if _NO_NETWORK.search(said):
        return (
            "the model reaches for the network, and a sandbox has none: log what it fetches as "
            f"artifacts of the model; {retry}"
        )
    if kind.endswith("MemoryError") or "MemoryError" in said:
        return "the model needs more memory than the sandbox allows; publish from a larger machine"
    if kind.endswith(("FileNotFoundError", "PermissionError")) or "Read-only file system" in said:
        return (
            "the model uses files outside its bundle, which is read-only and alone in a sandbox: "
            f"log them as artifacts, write only below TMPDIR; {retry}"
        )
    if stage == "import_handler":
        return "correct serve.handler or source.include in config.yaml, then the same command again"
    if "No module named" in said:
        return (
            "add the module to the project's source, to source.include or to the conda "
            "environment, then the same command again"
        )
    return f"correct the model or its handler; {retry}"


def _printable(text: str, limit: int) -> str:
    """Returns the last ``limit`` characters without what a terminal would obey."""
    return printable(text[-limit:], keep_lines=True)
