"""Running a process where it can reach no credentials, no files and no network.

Three kinds. ``bubblewrap`` and ``namespaces`` confine (see ``confinement``); which of them this
machine has is found by trying, bubblewrap first. ``plain`` does not confine: it scrubs the
environment and limits memory and time, and is used only where the caller says it may be.

``run`` starts the process in a session of its own, with a handful of environment variables and
no descriptor but the three standard ones, keeps a bounded part of what it writes, and ends the
whole process tree on timeout, on Ctrl-C and when this process dies. Under ``plain`` a process
that leaves its process group escapes that, and so do children where this process is killed.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from adroit_publish.errors import RefusedError
from adroit_publish.gates import confinement
from adroit_publish.gates.interpreter import interpreter_of

Kind = Literal["bubblewrap", "namespaces", "plain"]
STDOUT_BYTES = 16 << 20
STDERR_BYTES = 16 << 10
_PROBE_TIMEOUT_S = 60.0
_DRAIN_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class CompletedRun:
    """How a run ended.

    Attributes:
        kind: What confined it; ``image`` for a container.
        exit_code: Its exit code; see ``signal_name``.
        stdout: The first ``STDOUT_BYTES``, and one byte more where there was more.
        stderr: The last ``STDERR_BYTES``.
    """

    kind: Kind | Literal["image"]
    exit_code: int
    stdout: bytes
    stderr: bytes
    timed_out: bool


def signal_name(exit_code: int) -> str | None:
    """Returns the signal N that ended a process (128 + N, or -N), as ``SIGSEGV``; None for none."""
    with suppress(ValueError):
        return signal.Signals(-exit_code if exit_code < 0 else exit_code - 128).name
    return None


@functools.cache
def available(python: str = sys.executable) -> Kind:
    """Returns the strongest kind that works with this interpreter; raises as ``interpreter_of``."""
    return next((kind for kind in ("bubblewrap", "namespaces") if works(kind, python)), "plain")


@functools.cache
def works(kind: Kind, python: str = sys.executable) -> bool:
    """Returns whether ``kind`` runs a process here, tried once; raises as ``interpreter_of``."""
    if not sys.platform.startswith("linux") and kind != "plain":
        return False
    with tempfile.TemporaryDirectory(prefix="adroit-probe-") as empty:
        try:
            probe = ["-I", "-S", "-c", "print('confined')"]
            done = run(
                probe, bundle=Path(empty), python=python, kind=kind, timeout_s=_PROBE_TIMEOUT_S
            )
        except OSError:
            return False
    return done.exit_code == 0 and done.stdout == b"confined\n"


def run(
    arguments: Sequence[str],
    *,
    bundle: Path,
    python: str = sys.executable,
    kind: Kind,
    timeout_s: float,
    memory_bytes: int | None = None,
    given: bytes = b"",
) -> CompletedRun:
    """Runs ``python arguments...`` in a sandbox; raises as ``interpreter_of``.

    Args:
        bundle: The directory shown read-only as /opt/adroit (under ``plain``, where it is: see
            ``bundle_root``); its ``runtime/`` is on PYTHONPATH.
        timeout_s: Wall-clock seconds before the process tree is killed.
        memory_bytes: Most private writable memory of one process; None for the machine's.
        given: What it finds on standard input, at most a few KiB.
    """
    interpreter = interpreter_of(python)
    with tempfile.TemporaryDirectory(prefix="adroit-sandbox-", ignore_cleanup_errors=True) as name:
        workspace = Path(name)
        task = confinement.Task(
            interpreter=interpreter,
            arguments=tuple(arguments),
            bundle=bundle.absolute(),
            workspace=workspace,
            memory_bytes=memory_bytes or _physical_memory_bytes(),
            cpu_s=math.ceil(timeout_s) * (os.cpu_count() or 1) + 1,
            drop_user=confinement.dropping_user_is_possible(bundle, interpreter),
        )
        home = workspace / "home" if kind == "plain" else Path("/tmp/home")
        if kind == "plain":
            home.mkdir()
        else:
            confinement.write_etc(workspace)
        command = {
            "bubblewrap": confinement.bubblewrap,
            "namespaces": confinement.namespaces,
            "plain": confinement.plain,
        }[kind](task)
        environment = _environment(home, bundle_root(bundle, kind))
        cwd = home if kind == "plain" else Path("/")
        return _completed(kind, command, environment, cwd, given, timeout_s)


def bundle_root(bundle: Path, kind: Kind) -> Path:
    """Returns where the process finds the bundle."""
    return bundle.absolute() if kind == "plain" else confinement.BUNDLE_ROOT


def refuse_plain(where: object) -> RefusedError:
    """Returns the refusal for a machine that cannot confine, where that is a must."""
    return RefusedError(
        "This machine has no sandbox to verify the model in: a model runs only where it can "
        "reach no credentials, files or network.",
        where=where,
        got="neither bubblewrap nor namespaces work here",
        wanted="bubblewrap, or util-linux with user namespaces (or root)",
        next_step="install bubblewrap (apt install bubblewrap), publish from Linux, or give "
        "--verify none, which the record keeps",
    )


def _environment(home: Path, root: Path) -> dict[str, str]:
    return {
        "PATH": confinement.SEARCH_PATH,
        "HOME": str(home),
        "TMPDIR": str(home.parent),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": str(root / "runtime"),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",  # a crash in native code says where
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # One thread: the outputs are compared with those of a later version.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def _completed(
    kind: Kind,
    command: list[str],
    environment: dict[str, str],
    cwd: Path,
    given: bytes,
    timeout_s: float,
) -> CompletedRun:
    if shutil.which(command[0], path=confinement.SEARCH_PATH) is None:
        raise FileNotFoundError(command[0])
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so Ctrl-C comes to us alone, and we end the tree
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = _Head(process.stdout, STDOUT_BYTES + 1), _Tail(process.stderr, STDERR_BYTES)
    timed_out = False
    try:
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(given)
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return CompletedRun(kind, process.returncode, stdout.result(), stderr.result(), timed_out)


class _Head(threading.Thread):
    """Reads a pipe to its end and keeps the first ``limit`` bytes."""

    def __init__(self, pipe: IO[bytes], limit: int) -> None:
        super().__init__(daemon=True)
        self._pipe, self._limit, self._bytes = pipe, limit, bytearray()
        self.start()

    def run(self) -> None:
        with self._pipe:
            while chunk := os.read(self._pipe.fileno(), 1 << 16):
                self._keep(chunk)

    def _keep(self, chunk: bytes) -> None:
        self._bytes += chunk[: self._limit - len(self._bytes)]

    def result(self) -> bytes:
        # Bounded, for under ``plain`` an escaped process may hold the pipe open.
        self.join(_DRAIN_TIMEOUT_S)
        return bytes(self._bytes)


class _Tail(_Head):
    """Reads a pipe to its end and keeps the last ``limit`` bytes."""

    def _keep(self, chunk: bytes) -> None:
        self._bytes += chunk
        del self._bytes[: -self._limit]


def _physical_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
