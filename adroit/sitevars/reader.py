"""The sitevar as a service reads it: cached, refreshed beside the requests, never lost.

* Only the first question waits for the source. From then on a question is answered from memory;
  where the value is older than ``refresh_s``, it also starts a refresh in the background, one at
  a time.
* Where the source is away, or holds what is no sitevar, the last good value stays, however old:
  ``age_s`` and ``error`` tell, for a metric or a health check.
* An entry that is damaged keeps that model's last good one, and no other model's. One that is
  gone is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from adroit.sitevars.document import Pointer, read_pointers
from adroit.sitevars.sources import source_of
from adroit.sitevars.split import flavor_of


class SitevarError(Exception):
    """The sitevar does not say which flavor of a model is live."""


class Sitevar:
    """``adroit_model_versions`` at one address. Safe to share by threads; nothing is read yet.

    Args:
        address: ``file:PATH``, ``s3://BUCKET/KEY`` or ``ssm:/PREFIX``.
        refresh_s: How old a value may be before it is read again, in seconds; as long is waited
            after a failure.
        clock: Seconds, never going back.

    Raises:
        ValueError: ``address`` is none of these.
    """

    def __init__(
        self, address: str, *, refresh_s: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.address = address
        self._fetch = source_of(address)
        self._refresh_s, self._clock = refresh_s, clock
        self._pointers: Mapping[str, Pointer] | None = None
        self._read_at_s = self._asked_at_s = 0.0
        self._error: str | None = None
        self._first = threading.Lock()
        self._refreshing: threading.Thread | None = None

    def flavor(self, model: str, key: str | bytes) -> str:
        """Returns the flavor that a request gets; see ``split`` for what is promised.

        Args:
            model: The model.
            key: What is to stay on one flavor: a user's id, a session's, or a request's own.

        Raises:
            SitevarError: As ``pointer`` does.
        """
        return flavor_of(self.pointer(model), key)

    def pointer(self, model: str) -> Pointer:
        """Returns a model's flavors and their weights.

        Raises:
            SitevarError: The sitevar could not be read yet, or has no entry for the model.
        """
        pointers = self._current()
        if model not in pointers:
            reason = f": {self._error}" if self._error else ""
            raise SitevarError(f"{self.address} has no entry for {model!r}{reason}")
        return pointers[model]

    @property
    def age_s(self) -> float | None:
        """How long ago the source was last read with success, in seconds; None: never."""
        return None if self._pointers is None else self._clock() - self._read_at_s

    @property
    def error(self) -> str | None:
        """What was wrong when the source was last read; None: nothing."""
        return self._error

    def _current(self) -> Mapping[str, Pointer]:
        if self._pointers is None:
            with self._first:
                if self._pointers is None and not (self._error and self._is_fresh()):
                    self._refresh()
                if self._pointers is None:
                    raise SitevarError(f"{self.address} cannot be read: {self._error}")
        elif not self._is_fresh():
            self._refresh_beside()
        return self._pointers

    def _is_fresh(self) -> bool:
        return self._clock() - self._asked_at_s < self._refresh_s

    def _refresh_beside(self) -> None:
        if not self._first.acquire(blocking=False):
            return  # another request is just doing it
        try:
            if self._refreshing is None or not self._refreshing.is_alive():
                self._refreshing = threading.Thread(target=self._refresh, daemon=True)
                self._refreshing.start()
        finally:
            self._first.release()

    def _refresh(self) -> None:
        asked_at_s = self._clock()
        try:
            pointers, problems = read_pointers(self._fetch())
        except ValueError as reason:
            self._error = f"it {reason}"
        except Exception as error:  # noqa: BLE001 - a source can be away in any way
            self._error = type(error).__name__  # botocore's texts can hold a signed URL
        else:
            last = self._pointers or {}
            kept = {model: last[model] for model in problems if model in last}
            self._pointers, self._read_at_s = pointers | kept, asked_at_s
            said = [f"{model!r:.80} {reason}" for model, reason in problems.items()]
            self._error = "; ".join(said) or None
        self._asked_at_s = self._clock()
