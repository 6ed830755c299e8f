"""How a publish is watched: bars on a terminal, one line a stage elsewhere.

The steps of a flow are processes of their own whose output Metaflow prefixes line by line, so they
cannot draw. Where the flow was started on a terminal, its main process listens on a datagram
socket and draws the bars; the steps tell it what moved (``Relay``). Losing a datagram loses a
tick of a bar and nothing else. Lines and bars go through one console, so that they never collide.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adroit_publish.publish.stages import Listener
from adroit_publish.stores.contract import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

INTERRUPTED = "Interrupted. The same command goes on where this one stopped."
LOG_VARIABLE = "ADROIT_LOG"
"""The level at which libraries log, in the steps of a flow too."""
QUIET_VARIABLE = "ADROIT_QUIET"
"""Set: no bars, and no line for a stage."""
SOCKET_VARIABLE = "ADROIT_PROGRESS_SOCKET"
_TICK_SECONDS = 0.1
_SHOWN_AFTER_SECONDS = 1.0


class Lines(Listener):
    """A listener that prints one line for each stage that ended, and each warning."""

    def ended(self, flavor: str, stage: str, seconds: float, note: str) -> None:
        if QUIET_VARIABLE in os.environ:
            return
        print(f"{flavor}: {stage:<16} {seconds:7.2f} s  {note}".rstrip(), flush=True)

    def warned(self, flavor: str, warning: str) -> None:
        print(f"{flavor}: warning: {warning}", flush=True)


class Relay(Lines):
    """Prints lines, and tells the flow's main process, at its socket, of bytes on the move."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._path = path
        self._last: dict[str, float] = {}

    def moved(self, flavor: str, stage: str, place: str, done_bytes: int, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._last.get(place, 0.0) >= _TICK_SECONDS or done_bytes >= total_bytes:
            self._last[place] = now
            self._tell([flavor, stage, place, done_bytes, total_bytes])

    def ended(self, flavor: str, stage: str, seconds: float, note: str) -> None:
        self._tell([flavor, stage, None, None, None])
        super().ended(flavor, stage, seconds, note)

    def _tell(self, message: list[object]) -> None:
        with suppress(OSError):
            self._socket.sendto(json.dumps(message).encode(), self._path)


def step_listener() -> Listener:
    """Returns the listener of a step: a relay where a main process listens, else lines."""
    path = os.environ.get(SOCKET_VARIABLE)
    return Relay(path) if path else Lines()


class Bars:
    """Bars on a terminal, under the lines that are printed while they move.

    A bar shows once its work has taken a second: what is done by then needs none. Several threads
    may tell it of bytes.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        self._bars = Progress(
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=12),
            DownloadColumn(table_column=Column(no_wrap=True)),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            expand=True,
        )
        self._clock = clock
        self._lock = threading.Lock()
        self._began: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}

    def moved(self, name: str, done_bytes: int, total_bytes: int) -> None:
        """More is done; a bar that is full and was not shown will not be."""
        with self._lock:
            now = self._clock()
            long_enough = now - self._began.setdefault(name, now) >= _SHOWN_AFTER_SECONDS
            if name not in self._tasks:
                if not long_enough or done_bytes >= total_bytes > 0:
                    return
                self._bars.start()
                self._tasks[name] = self._bars.add_task(name, total=total_bytes)
            self._bars.update(self._tasks[name], completed=done_bytes)

    def ended(self, prefix: str) -> None:
        """What begins with ``prefix`` is done; its bars go."""
        with self._lock:
            for name in [name for name in self._began if name.startswith(prefix)]:
                del self._began[name]
                task = self._tasks.pop(name, None)
                if task is not None:  # the first one's id is 0
                    self._bars.remove_task(task)
            if not self._tasks:
                self._bars.stop()

    def close(self) -> None:
        """Removes what still shows."""
        self._bars.stop()


@contextmanager
def bars_for_steps() -> Iterator[Console | None]:
    """Draws the bars of all steps while the flow runs, and gives the console for lines above them.

    Off a terminal it draws nothing and gives None. Where only one of the two outputs is a terminal,
    the bars are on standard error, and the lines are Metaflow's own: None again.
    """
    if not _draws():
        yield None
        return
    from rich.console import Console

    console = Console(stderr=not sys.stdout.isatty())
    bars = Bars(console)
    with tempfile.TemporaryDirectory(prefix="adroit-") as directory:
        path = str(Path(directory) / "progress")
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(path)
        os.environ[SOCKET_VARIABLE] = path
        with receiver:
            thread = threading.Thread(target=_draw, args=(receiver, bars), daemon=True)
            thread.start()
            try:
                yield None if console.stderr else console
            finally:
                del os.environ[SOCKET_VARIABLE]
                with suppress(OSError):
                    receiver.shutdown(socket.SHUT_RDWR)
                bars.close()


def _draw(receiver: socket.socket, bars: Bars) -> None:
    with suppress(OSError):
        while data := receiver.recv(4096):
            flavor, stage, place, done, total = json.loads(data)
            name = f"{flavor}: {stage}"
            if done is None:
                bars.ended(name)
            else:
                bars.moved(f"{name} to {place}" if place else name, done, total)


def _draws() -> bool:
    return sys.stderr.isatty() and QUIET_VARIABLE not in os.environ


@contextmanager
def bar(label: str, total_bytes: int) -> Iterator[Progress]:
    """Draws one bar for a command; silent off a terminal."""
    if not _draws():
        yield lambda _size_bytes: None
        return
    from rich.console import Console

    bars, done_bytes, lock = Bars(Console(stderr=True)), 0, threading.Lock()

    def moved(size_bytes: int) -> None:
        nonlocal done_bytes
        with lock:
            done_bytes += size_bytes
            bars.moved(label, done_bytes, total_bytes)

    try:
        yield moved
    finally:
        bars.close()
