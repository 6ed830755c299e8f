"""What a process holds below Python: whether it can be forked, and how many threads it computes on.

A fork copies one thread. What other threads held stays locked for ever in the copy, a GPU's context
is lost, and a socket is shared by both. So a process with a second thread, a socket or an open GPU
is not forked. While a model is loaded, the libraries that compute are told to use one thread; then
their pools do not exist yet, and a forked worker gets its share of the cores by ``compute_on``.

Source: fork(2); GCC documentation, libgomp ("OMP_NUM_THREADS"); PyTorch documentation, "Poison
fork in multiprocessing".
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_SETTERS = (
    "omp_set_num_threads",
    "openblas_set_num_threads",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "openblas_set_num_threads64_",
    "MKL_Set_Num_Threads",
)
_COMPUTING = ("gomp", "iomp", "libomp", "openblas", "mkl_rt")
_FORK_SAFE = {"jemalloc_bg_thd"}  # pyarrow's allocator; jemalloc has fork handlers of its own
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4


def why_not_forked(own_sockets: int) -> str | None:
    """Returns why this process cannot be forked; None where it can.

    Args:
        own_sockets: Sockets that the server has given it.
    """
    if sys.platform != "linux":
        return "not on this system"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "it uses a GPU"
    if threading.active_count() > 1 or len(list(_threads())) > 1:
        return "it has started threads"
    if sum(1 for _ in _sockets()) > own_sockets:
        return "it has opened sockets"
    return None


def cores() -> int:
    """Returns how many cores this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = _QUOTA.read_text().split()
        count = min(count, max(1, math.ceil(int(quota) / int(period))))
    return count


def threads_of(workers: int) -> int:
    """Returns how many threads a worker computes on: what its owner set, or its share of cores."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) else max(1, cores() // workers)


def thread_environ(threads: int) -> dict[str, str]:
    """Returns the variables that libraries read when they are loaded."""
    return {name: str(threads) for name in THREAD_VARIABLES}


def compute_on(threads: int) -> None:
    """Lets the libraries that are loaded compute on so many threads, and those to come."""
    os.environ.update(thread_environ(threads))
    for path in _computing_libraries():
        with suppress(OSError):
            library = ctypes.CDLL(path)
            for name in _SETTERS:
                if setter := getattr(library, name, None):
                    setter(ctypes.c_int(threads))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)


def end_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends."""
    _prctl(_PR_SET_PDEATHSIG, 9)


def stay_behind_if_forked(pid: int) -> None:
    """Never returns in a child that a model forked and did not end: one process answers, not two.

    Args:
        pid: Of the process that may go on.
    """
    if os.getpid() != pid:
        end_with_parent()
        while True:
            signal.pause()


def outlive_signals() -> None:
    """Lets signals pass that mean nothing here: a model may send them to all that it sees."""
    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM"):
        signal.signal(getattr(signal, name), lambda *_: None)


def hide(hidden: bool) -> None:
    """Keeps every process without capabilities out of this one's memory, or lets them in again."""
    _prctl(_PR_SET_DUMPABLE, int(not hidden))


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _threads() -> Iterator[str]:
    """Yields the names of the threads that a fork would break."""
    for number in os.listdir("/proc/self/task"):
        with suppress(OSError):
            name = Path(f"/proc/self/task/{number}/comm").read_text().strip()
            if name not in _FORK_SAFE:
                yield name


def _sockets() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith("socket:") and int(name) > 2:
                yield target


def _computing_libraries() -> Iterator[str]:
    with suppress(OSError):
        paths = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
        for path in sorted(paths):
            if any(word in path.rpartition("/")[2] for word in _COMPUTING):
                yield path
