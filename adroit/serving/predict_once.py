"""Loads a bundle, predicts on the model's input example, and reports what happened, once.

    python -m adroit.serving.predict_once [--server] [DIRECTORY]        (default /opt/adroit)

Runs where the model may do harm (the sandbox, or a container of the image), and is the only thing
there that answers. Standard output carries one JSON document and nothing else: the real descriptor
is put aside before any code of the bundle runs, and what the model prints goes to standard error.
A process that ends without the document has failed, whatever its exit code. The reader still
treats the document as untrusted: a model that means to can write anything.

    {"schema": 1, "ok": true, "stage": "done",
     "error": null | {"type": "...", "message": "...", "traceback_tail": "..."},
     "input_example": true, "outputs": JSON | null, "outputs_sha256": hex | null,
     "outputs_truncated": false, "served": false,
     "load_seconds": 0.1, "predict_seconds": 0.1 | null,
     "peak_memory_bytes": 1, "python_version": "3.11.7", "packages": {"numpy": "2.1.0", ...},
     "import_names": ["json", "numpy", ...]}

``stage`` is where it stopped: bundle, import_handler, load, predict, output, serve, done. Each is
also a line ``adroit: <stage>`` on standard error, which tells where a process ended that could not
report. A model without an input example is loaded and not predicted; ``input_example`` says so.
The stage ``serve`` is there with ``--server`` alone: it asks the real server (see ``serve_once``),
and ``served`` says that it answered. ``packages`` are the distributions that are installed,
``import_names`` the top-level modules that they and Python itself bring. Both, and the version, are
taken before any code of the bundle runs, and are there in a failure too, which they may explain.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
import traceback
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from adroit.serving import outputs as output_rules
from adroit.serving.bundle import DEFAULT_ROOT, Bundle
from adroit.serving.loading import load_handler

SCHEMA = 1
OUTPUT_ROWS = 1000
OUTPUT_BYTES = 1 << 20
_TAIL_CHARS = 8000


def main(arguments: list[str]) -> None:
    """Writes the report of the bundle that is named and ends the process: 0 if it is ok."""
    channel, owner = _take_stdout(), os.getpid()
    roots = [argument for argument in arguments if argument != "--server"]
    report = observe(Path(roots[0]) if roots else DEFAULT_ROOT, server="--server" in arguments)
    if os.getpid() == owner:  # a fork made by the model comes through here too, and stays silent
        _write(channel, json.dumps(report).encode())
    # Not sys.exit: threads and atexit hooks of the model could hold the process for ever.
    os._exit(0 if report["ok"] else 1)


def observe(root: Path, *, server: bool = False) -> dict[str, Any]:
    """Returns the report of the bundle in ``root``; a failure of the bundle is in the report.

    Args:
        root: Holds bundle.json.
        server: Ask the real server too.
    """
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "ok": False,
        "stage": "bundle",
        "error": None,
        "input_example": False,
        "outputs": None,
        "outputs_sha256": None,
        "outputs_truncated": False,
        "served": False,
        "load_seconds": None,
        "predict_seconds": None,
        "python_version": platform.python_version(),
        "packages": _packages(),
        "import_names": _import_names(),
    }
    try:
        _load_and_predict(root, report, server)
        report["ok"] = True
    except BaseException as error:  # noqa: BLE001  sys.exit in a model is a failure like any other
        report["error"] = _described(error)
    report["peak_memory_bytes"] = _peak_memory_bytes()
    return report


def _load_and_predict(root: Path, report: dict[str, Any], server: bool) -> None:
    _enter("bundle", report)
    bundle = Bundle.read(root)
    bundle.check()

    _enter("import_handler", report)
    handler = load_handler(bundle)

    _enter("load", report)
    started = time.monotonic()
    handler.load(bundle)
    report["load_seconds"] = time.monotonic() - started

    _enter("predict", report)
    from mlflow.models import Model

    model = Model.load(str(bundle.model_dir))
    example = model.load_input_example(str(bundle.model_dir))
    if example is not None:
        report["input_example"] = True
        params = model.load_input_example_params(str(bundle.model_dir))
        started = time.monotonic()
        outputs = handler.predict(example, params)
        report["predict_seconds"] = time.monotonic() - started
        _enter("output", report)
        _report_outputs(outputs, model.signature, report)
    if server:
        from adroit.serving.serve_once import serve_once

        _enter("serve", report)
        serve_once(bundle, handler, model)
        report["served"] = True
    _enter("done", report)


def _report_outputs(outputs: Any, signature: Any, report: dict[str, Any]) -> None:
    if signature is not None and signature.outputs is not None:
        output_rules.check_signature(outputs, signature.outputs)
    value = output_rules.as_json(outputs)
    kept = output_rules.bounded(value, rows=OUTPUT_ROWS, size_bytes=OUTPUT_BYTES)
    report["outputs"] = kept
    report["outputs_sha256"] = output_rules.sha256(value)
    report["outputs_truncated"] = kept != value


def _enter(stage: str, report: dict[str, Any]) -> None:
    report["stage"] = stage
    os.write(2, f"adroit: {stage}\n".encode())


def _take_stdout() -> int:
    """Returns a descriptor for the report; from here on descriptor 1 is standard error."""
    channel = os.dup(1)  # not inheritable: what the model starts does not get it
    os.dup2(2, 1)
    return channel


def _write(channel: int, document: bytes) -> None:
    rest = memoryview(document)
    while rest:
        rest = rest[os.write(channel, rest) :]


def _described(error: BaseException) -> dict[str, str]:
    try:
        message, trace = str(error), "".join(traceback.format_exception(error))
    except BaseException:  # noqa: BLE001  the exception is the model's, and so is its __str__
        message, trace = "(the exception cannot be shown)", ""
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins."),
        "message": message[:_TAIL_CHARS],
        "traceback_tail": trace[-_TAIL_CHARS:],
    }


def _peak_memory_bytes() -> int:
    try:
        status = Path("/proc/self/status").read_text()
        # Not ru_maxrss where it can be helped: that starts at the size of the parent that forked.
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and name not in found:  # the first on sys.path is the one that is imported
            found[name] = distribution.version
    return dict(sorted(found.items()))


def _import_names() -> list[str]:
    found = {*sys.stdlib_module_names}
    with suppress(Exception):  # one damaged installation must not hide what the others bring
        found |= metadata.packages_distributions().keys()
    # Debian's packages and some of conda's leave no list of their files.
    for directory in map(Path, sys.path):
        if directory.name in ("site-packages", "dist-packages") and directory.is_dir():
            found |= {
                path.name.partition(".")[0]
                for path in directory.iterdir()
                if path.suffix in (".py", ".so") or (path.is_dir() and not path.suffix)
            }
    return sorted(name for name in found if name.isidentifier() and name != "__pycache__")


if __name__ == "__main__":
    main(sys.argv[1:])
