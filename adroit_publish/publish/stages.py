"""The stages of a publish as the user sees them; a stage's name is its log line."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from adroit_publish.stores.contract import Progress


class Listener:
    """Hears how a publish goes, from several threads; this one does nothing about it."""

    def started(self, flavor: str, stage: str) -> None:
        """A stage began."""

    def moved(self, flavor: str, stage: str, place: str, done_bytes: int, total_bytes: int) -> None:
        """More bytes of a stage are done, on their way to one place (empty: there is but one)."""

    def ended(self, flavor: str, stage: str, seconds: float, note: str) -> None:
        """A stage is done."""

    def warned(self, flavor: str, warning: str) -> None:
        """Something did not stop the publish and should be known."""


class Stage:
    """One running stage; ``note`` is what the line at its end says beside the seconds."""

    def __init__(self, moved: Callable[[str, int, int], None]) -> None:
        self.note = ""
        self._moved = moved

    def progress(self, total_bytes: int, place: str = "") -> Progress:
        """Returns a callback to be told of more bytes, of ``total_bytes`` in all to ``place``."""
        lock = threading.Lock()
        done = 0

        def heard(size_bytes: int) -> None:
            nonlocal done
            with lock:
                done += size_bytes
                now = done
            self._moved(place, now, total_bytes)

        return heard


class Stages:
    """The stages of one flavor's publish, and the seconds that each took."""

    def __init__(self, flavor: str, listener: Listener) -> None:
        self.flavor = flavor
        self.seconds: dict[str, float] = {}
        self.warnings: list[str] = []
        self._listener = listener

    @contextmanager
    def __call__(self, name: str) -> Iterator[Stage]:
        """Runs the stage ``name``."""
        stage = Stage(partial(self._listener.moved, self.flavor, name))
        self._listener.started(self.flavor, name)
        began = time.monotonic()
        yield stage
        self.seconds[name] = round(time.monotonic() - began, 3)
        self._listener.ended(self.flavor, name, self.seconds[name], stage.note)

    def warn(self, warning: str) -> None:
        """Keeps and tells a warning."""
        self.warnings.append(warning)
        self._listener.warned(self.flavor, warning)
