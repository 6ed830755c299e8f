"""Loaders and workers as the server sees them: started, told apart, ended."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from adroit.serving.workers import native
from adroit.serving.workers.frames import Decoder, FrameError
from adroit.serving.workers.loader import Instructions

_POLL_S = 0.05
_END_S = 2.5
_PIECE_BYTES = 1 << 16


class LoaderEndedError(Exception):
    """A loader ended before its model was ready; its log says why.

    Attributes:
        exit_code: As of ``subprocess``: negative where a signal ended it.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"the loader ended with exit code {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True)
class Loader:
    """A process that has loaded the model, or is about to.

    Attributes:
        process: Ends with the server.
        control: Where it hears of workers to fork; the worker's own socket where it is one.
        decoder: Of what the socket gives.
    """

    process: subprocess.Popen[bytes]
    control: socket.socket
    decoder: Decoder

    @classmethod
    def start(cls, instructions: Instructions, key: bytes) -> Loader:
        """Starts a loader, which begins at once to load; ``key`` opens frames."""
        ours, theirs = socket.socketpair()
        watched = ["-X", "faulthandler"] if faulthandler.is_enabled() else []
        command = [sys.executable, *watched, "-m", "adroit.serving.workers.loader"]
        threads = 1 if instructions.forks else instructions.native_threads
        process = subprocess.Popen(
            [*command, str(theirs.fileno()), key.hex()],
            env={**os.environ, **native.thread_environ(threads)},
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        ours.sendall(instructions.frame().encoded(key))
        return cls(process, ours, Decoder(key))

    def wait(self) -> Mapping[str, Any]:
        """Returns what it says once the model is loaded and has predicted.

        Raises:
            LoaderEndedError: It ended instead, or said something else.
        """
        while True:
            # Its end shows here alone: what it has started may hold its socket.
            exit_code = self.process.poll()
            if exit_code is not None:
                raise LoaderEndedError(exit_code)
            if not select.select([self.control], [], [], _POLL_S)[0]:
                continue
            try:
                piece = self.control.recv(_PIECE_BYTES)
                frames = list(self.decoder.feed(piece))
            except (FrameError, OSError):
                self.process.kill()
                continue
            if not piece:
                time.sleep(_POLL_S)
            for frame in frames:
                if "loaded" in frame.facts:
                    return frame.facts

    def fork(self) -> socket.socket:
        """Returns the socket of a worker that it forks.

        Raises:
            OSError: It has ended.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self.control, [b"F"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours

    def end(self) -> None:
        """Lets it end, with its workers, and sees to it that it does."""
        with suppress(OSError):
            self.control.close()
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def started_alone(instructions: Instructions, key: bytes) -> Loader:
    """Starts a loader that is a worker once it has loaded."""
    return Loader.start(replace(instructions, forks=False), key)


def kill(pid: int) -> None:
    """Ends a worker that hangs. Its socket is open, so the number is still its own."""
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)
