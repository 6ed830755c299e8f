"""The report of what was seen of a bundle's server, and what is believed of it.

``judged`` turns the one JSON document that ``reporter`` wrote, wherever it was confined, into a
``Verification``, or into the VerificationError that says which stage failed and why. The nonce
tells that the reporter wrote it and not the model's process. What it passes on of the model's
answers, and all that came on standard error, is untrusted: its size, depth and characters are
checked, and its digest is taken here. The server's log is believed for nothing but the words of a
failure.
"""

from __future__ import annotations

import hmac
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.bundle.record import Verification
from adroit_publish.edge.text import printable
from adroit_publish.errors import VerificationError
from adroit_publish.gates.env_contract import ObservedEnv
from adroit_publish.gates.replay import check_together
from adroit_publish.gates.reporter import SCHEMA, WHOLE_BYTES, bounded, canonical, sha256
from adroit_publish.gates.sandbox import STDOUT_BYTES, CompletedRun, signal_name

TIMEOUT_S = 600.0
"""Wall-clock seconds for all that a reporter does."""

_DEPTH = 100
_NAMES = 20_000
_TEXT_CHARS = 2000
_TAIL_LINES = 12
_FRAMES = 6
_DOING = {
    "bundle": "The bundle's files are not what its record says.",
    "import_handler": "The handler of config.yaml cannot be imported from the bundle.",
    "load": "The model does not load from the bundle.",
    "predict": "The model loads and does not predict on its input example.",
    "serve": "The model predicts, and its server does not answer.",
}
_VARIES = BundleFinding(
    "answers:vary",
    "the same question was answered in two ways; the outputs are not compared with later ones",
)
_OURS = ("BundleError", "OutputError")
_FOREIGN_CREDENTIALS = re.compile(r"AWS_|DATABRICKS_|NoCredentials|Unable to locate credentials")
_VARIABLE = re.compile(r"KeyError\W+([A-Z][A-Z0-9]*_[A-Z0-9_]+)\b")
_NO_NETWORK = re.compile(
    r"gaierror|Network is unreachable|Name or service not known|Temporary failure in name"
    r"|Connection refused|ConnectionError|Max retries exceeded|EndpointConnectionError"
)


def judged(
    done: CompletedRun,
    nonce: str,
    check_env: Callable[[ObservedEnv], None],
    together_rtol: float | None = None,
) -> Verification:
    """Returns what the report of a run says.

    Args:
        nonce: What its reporter was given, and nobody else.
        check_env: Told what the interpreter's environment holds before the answer is judged; what
            it raises goes first, for it says why a model did not load.
        together_rtol: How far answers to many at once may differ, relative; None: none were asked.

    Raises:
        VerificationError: The bundle's server does not start, or does not answer with something
            that can be sent; or the run ended without a report.
    """
    if done.timed_out:
        raise _ended(done, f"still running after {TIMEOUT_S:g} s", "a model that ends in time")
    report = _parsed(done, nonce)
    check_env(_observed_env(report))
    ended = report["ended"]
    if report["start_seconds"] is None:
        raise _not_started(done, ended)
    if report["problem"] is not None:
        raise _not_served(done, printable(report["problem"], _TEXT_CHARS))
    if ended is not None:
        raise _not_served(done, f"it answered and ended ({_how_ended(ended)})")
    if together_rtol is not None and report["asked"]:
        check_together(report.get("together"), together_rtol, _place(done))
    return _verification(done.kind, report)


def _parsed(done: CompletedRun, nonce: str) -> dict[str, Any]:
    """Returns the report, once it is the reporter's and of the right shape."""
    wanted = "one report, written when the model has answered"
    if not done.stdout:
        raise _ended(done, f"the run ended ({_how_ended(done.exit_code)}) without a report", wanted)
    if len(done.stdout) > STDOUT_BYTES:
        raise _ended(done, f"a report of more than {STDOUT_BYTES} bytes", wanted)
    try:
        report = json.loads(done.stdout, parse_constant=_refuse_constant)
        _check_shape(report, nonce)
    except (ValueError, RecursionError, OverflowError) as error:
        got = f"something else where the report belongs ({printable(str(error), 200)})"
        raise _ended(done, got, wanted) from None
    return dict(report)


def _check_shape(report: Any, nonce: str) -> None:
    number = (int, float, type(None))
    wanted: dict[str, type | tuple[type, ...]] = {
        "nonce": str,
        "python_version": str,
        "packages": dict,
        "import_names": list,
        "asked": bool,
        "start_seconds": number,
        "answer_seconds": number,
        "outputs": object,
        "outputs_sha256": (str, type(None)),
        "whole": bool,
        "repeats": bool,
        "problem": (str, type(None)),
        "ended": (int, type(None)),
        "peak_memory_bytes": int,
    }
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ValueError("no report of this schema")
    for key, kinds in wanted.items():
        if key not in report or not isinstance(report[key], kinds):
            raise ValueError(f"{key} is missing or of another type")
    if not hmac.compare_digest(report["nonce"].encode(), nonce.encode()):
        raise ValueError("a report that is not the reporter's")
    names = [*report["packages"], *report["packages"].values(), *report["import_names"]]
    if len(names) > _NAMES or not all(isinstance(name, str) for name in names):
        raise ValueError("packages and import_names are not tables of names")
    if not all(math.isfinite(report[key] or 0) for key in ("start_seconds", "answer_seconds")):
        raise ValueError("a duration that is not a number")
    _check_answer(report)


def _check_answer(report: Mapping[str, Any]) -> None:
    started = report["start_seconds"] is not None
    answered = started and report["asked"] and report["problem"] is None
    if (report["outputs_sha256"] is not None) != answered:
        raise ValueError("the outputs and how the server did contradict each other")
    _check_depth(report["outputs"])
    if answered and report["whole"] and len(canonical(report["outputs"])) > WHOLE_BYTES:
        raise ValueError("outputs that are larger than they say")


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
    raise ValueError(f"{name} is not JSON")


def _verification(kind: str, report: Mapping[str, Any]) -> Verification:
    env, outputs = _observed_env(report), report["outputs"]
    predicted = report["outputs_sha256"] is not None
    shown = bounded(outputs)
    whole = report["whole"] and shown == outputs
    digest = sha256(outputs) if report["whole"] else printable(report["outputs_sha256"], 64)
    return Verification(
        how=kind,
        predicted=predicted,
        outputs=shown if predicted else None,
        outputs_sha256=digest if predicted else None,
        outputs_truncated=predicted and not whole,
        served=True,
        repeats=report["repeats"],
        findings=() if report["repeats"] else (_VARIES,),
        load_seconds=report["start_seconds"],
        predict_seconds=report["answer_seconds"],
        peak_memory_bytes=report["peak_memory_bytes"],
        python_version=env.python,
        packages=env.packages,
    )


def _observed_env(report: Mapping[str, Any]) -> ObservedEnv:
    return ObservedEnv(
        python=printable(report["python_version"], 50),
        packages={
            printable(name, 200): printable(version, 200)
            for name, version in sorted(report["packages"].items())
        },
        import_names=frozenset(report["import_names"]),
    )


def _not_started(done: CompletedRun, ended: int | None) -> VerificationError:
    """Returns why a server ended before it answered: what it logged last, or how it ended."""
    failures = [line for line in _events(done) if line["message"] == "not serving"]
    if not failures:
        how = f"the server ended ({_how_ended(ended or 0)}) before it answered"
        return _ended(done, how, "a server that answers", ended)
    event = failures[-1]
    stage, kind = _text(event, "stage", 40), _text(event, "error_type", 200)
    message = _text(event, "error", _TEXT_CHARS)
    frames = [printable(str(frame), 300) for frame in _list(event, "frames")[-_FRAMES:]]
    causes = [printable(str(cause), 300) for cause in _list(event, "causes")]
    ours = kind in _OURS  # then the message says it all
    lines = [message] if ours else [f"{kind}: {message}", *causes, *frames]
    return VerificationError(
        _DOING.get(stage, "The bundle cannot be verified."),
        where=f"stage {stage}, {_place(done)}",
        got="\n".join(lines),
        next_step=_hint(stage, kind, "\n".join((kind, message, *causes))),
    )


def _not_served(done: CompletedRun, problem: str) -> VerificationError:
    return VerificationError(
        _DOING["serve"],
        where=f"stage serve, {_place(done)}",
        got=problem,
        wanted="an answer to the model's input example, twice",
        next_step=_hint("serve", "", problem),
    )


def _ended(
    done: CompletedRun, got: str, wanted: str, exit_code: int | None = None
) -> VerificationError:
    stages = [_text(line, "stage", 40) for line in _events(done) if "stage" in line]
    log = printable(done.stderr.decode(errors="replace"), keep_lines=True)
    noise = re.compile(r'Extension modules:|\s*$|\{"time": .*"message": "starting"')
    tail = "\n".join([line for line in log.splitlines() if not noise.match(line)][-_TAIL_LINES:])
    signal = signal_name(done.exit_code if exit_code is None else exit_code)
    if signal in ("SIGKILL", "SIGXCPU") and not done.timed_out:
        got += "; it was killed, as a process is that takes more memory or time than there is"
    stage = stages[-1] if stages else "start"
    return VerificationError(
        "The model ended its verification before it could answer.",
        where=f"stage {stage}, {_place(done)}",
        got=f"{got}\n{tail}".rstrip(),
        wanted=wanted,
        next_step=_hint(stage, "", tail),
    )


def _how_ended(exit_code: int) -> str:
    return signal_name(exit_code) or f"exit code {exit_code}"


def _events(done: CompletedRun) -> list[dict[str, Any]]:
    """Returns the lines of the server's log that are whole on the kept part of standard error."""
    events = []
    for line in done.stderr.decode(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and "message" in event:
            events.append(event)
    return events


def _text(event: Mapping[str, Any], key: str, limit_chars: int) -> str:
    return printable(str(event.get(key, "")), limit_chars, keep_lines=True)


def _list(event: Mapping[str, Any], key: str) -> list[Any]:
    value = event.get(key)
    return value if isinstance(value, list) else []


def _place(done: CompletedRun) -> str:
    return "in a container" if done.kind == "image" else f"in a sandbox ({done.kind})"


def _hint(stage: str, kind: str, words: str) -> str:
    """Returns what to do next, from the exception where that shows what the model missed."""
    retry = "log the model again, and publish that run"
    if _FOREIGN_CREDENTIALS.search(words):
        return (
            "the model reads credentials, and a sandbox has none: let it load from its own "
            f"artifacts alone; {retry}"
        )
    if _NO_NETWORK.search(words):
        return (
            "the model reaches for the network, and a sandbox has none: log what it fetches as "
            f"artifacts of the model; {retry}"
        )
    if variable := _VARIABLE.search(words):
        return (
            f'the model reads {variable[1]} from its environment: add "verify: {{env: '
            f'{{{variable[1]}: dummy}}}}" to config.yaml, then the same command again'
        )
    if kind.endswith("MemoryError") or "MemoryError" in words:
        return "the model needs more memory than the sandbox allows; publish from a larger machine"
    if kind.endswith(("FileNotFoundError", "PermissionError")) or "Read-only file system" in words:
        return (
            "the model uses files outside its bundle, which is read-only and alone in a sandbox: "
            f"log them as artifacts, write only below TMPDIR; {retry}"
        )
    if stage == "import_handler":
        return "correct serve.handler or source.include in config.yaml, then the same command again"
    if "No module named" in words:
        return (
            "add the module to the project's source, to source.include or to the conda "
            "environment, then the same command again"
        )
    return f"correct the model or its handler; {retry}"
