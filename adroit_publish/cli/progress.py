"""How a publish is watched: bars on a terminal, one line a stage elsewhere.

The steps of a flow are processes of their own whose output Metaflow prefixes line by line, so they
cannot draw. Where the flow was started on a terminal, its main process listens on a datagram
socket and draws the bars; the steps tell it what moved (``Relay``). Losing a datagram loses a
tick of a bar and nothing else.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from adroit_publish.publish.stages import Listener
from adroit_publish.stores.contract import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

SOCKET_VARIABLE = "ADROIT_PROGRESS_SOCKET"
_TICK_SECONDS = 0.1


class Lines(Listener):
    """A listener that prints one line for each stage that ended, and each warning."""

    def ended(self, flavor: str, stage: str, seconds: float, note: str) -> None:
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


@contextmanager
def bars_for_steps() -> Iterator[None]:
    """Draws the bars of all steps while the flow runs; does nothing off a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    with tempfile.TemporaryDirectory(prefix="adroit-") as directory:
        path = str(Path(directory) / "progress")
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        receiver.bind(path)
        os.environ[SOCKET_VARIABLE] = path
        with _bars() as bars, receiver:
            thread = threading.Thread(target=_draw, args=(receiver, bars), daemon=True)
            thread.start()
            try:
                yield
            finally:
                del os.environ[SOCKET_VARIABLE]
                with suppress(OSError):
                    receiver.shutdown(socket.SHUT_RDWR)


def _draw(receiver: socket.socket, bars: Bars) -> None:
    tasks: dict[str, TaskID] = {}
    with suppress(OSError):
        while data := receiver.recv(4096):
            flavor, stage, place, done, total = json.loads(data)
            name = f"{flavor}: {stage}"
            if done is None:
                for bar_name in [task_name for task_name in tasks if task_name.startswith(name)]:
                    bars.remove_task(tasks.pop(bar_name))
                continue
            bar_name = f"{name} to {place}" if place else name
            if bar_name not in tasks:
                tasks[bar_name] = bars.add_task(bar_name, total=total)
            bars.update(tasks[bar_name], completed=done)


@contextmanager
def bar(label: str, total_bytes: int) -> Iterator[Progress]:
    """Draws one bar for a command; silent off a terminal."""
    if not sys.stderr.isatty():
        yield lambda _size_bytes: None
        return
    with _bars() as bars:
        task = bars.add_task(label, total=total_bytes)
        yield lambda size_bytes: bars.advance(task, size_bytes)


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
