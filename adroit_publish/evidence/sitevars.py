"""The sitevar ``adroit_model_versions``: reading a model's pointer, and moving it.

Where it is kept differs in one thing: a file and an S3 object hold every model, SSM has a
parameter for each (4 KB is its limit). All three are ``Documents``, which replace what was seen
and nothing else; so one read-modify-write serves them, and keeps every other model's entry.

* ``set`` moves a pointer only from what the caller expects. A pointer that is already where it is
  wanted is success, which also resolves an answer that was lost: it is looked at again.
* The history is kept by us, one object a change that is created and never changed, in a place of
  its own (the target's store, ``sitevars/<model>/history/``, of a region
  ``sitevars/<model>/regions/<region>/history/``): the same for a file, an object and a parameter,
  with who and why, which no edge's own history tells. A change is recorded after it was made;
  where that was cut off, the same ``set`` again records it. What others change by other means
  shows as the next change's ``before``.
* The place numbers the history, so a clock that is wrong changes no order. What the first release
  wrote is named by its writers' clocks, and comes before.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.bundle.kept import Fields, optional, reading, text
from adroit_publish.config.sitevars import Pointer, check_model_name, parse_sitevar, with_pointer
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.stores.lock import Held

GIVE_UP_S = 55.0
_SCHEMA = 1
_ATTEMPTS = 40
"""So often may other writers of the history be faster."""


@dataclass(frozen=True)
class Seen:
    """A document as it was read; its tag changes whenever the document does."""

    data: bytes
    tag: str


class Documents(Protocol):
    """A place of small documents that change; ``location`` is as a user names it.

    Every method raises StoreError where the place fails and RefusedError where it denies access.
    """

    location: str

    def read(self, key: str) -> Seen | None:
        """Returns the document, or None where there is none."""
        ...

    def put(self, key: str, data: bytes, seen: Seen | None) -> bool:
        """Puts ``data`` in the place of what was seen; None: where nothing was.

        Returns:
            True: it is there, and durable. False: the document is another by now, or the outcome
            is not known; who asked looks again.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yields the keys that start with ``prefix``, sorted."""
        ...


Lock = Callable[[str], AbstractContextManager[Held]]
"""Gives the lock of a model while a context lasts; raises RefusedError where another keeps it."""


@dataclass(frozen=True)
class PointerReading:
    """A model's pointer as it was read.

    Attributes:
        tag: Of the document it stands in; another tag means that something in it was changed.
    """

    pointer: Pointer | None
    tag: str | None
    read_utc: datetime


@dataclass(frozen=True)
class Change:
    """One change of a model's pointer; None where there was no pointer.

    Attributes:
        number: Its number in the history; 0 for what the first release wrote.
    """

    utc: datetime
    who: str
    why: str
    before: Pointer | None
    after: Pointer
    number: int = 0


class Sitevars:
    """The pointers of all models at one address.

    Args:
        shared: The key of the one document that holds all models; None: each has its own.
        kept: Where the history is kept.
        region: The region that follows this address, where a target has several.
    """

    def __init__(
        self, documents: Documents, shared: str | None, kept: Documents, region: str = ""
    ) -> None:
        self._documents, self._shared, self._kept = documents, shared, kept
        self.region = region

    def get(self, model: str) -> PointerReading:
        """Returns what the sitevar says of a model now.

        Raises:
            ConfigError: The document is not what it has to be, or no model can be called so.
            RefusedError, StoreError: Access is denied, or the place failed.
        """
        check_model_name(model)
        now, seen = datetime.now(UTC), self._documents.read(self._key(model))
        pointers = self._parsed(model, seen)
        return PointerReading(pointers.get(model), seen.tag if seen else None, now)

    def pointers(self) -> dict[str, Pointer]:
        """Returns every model's pointer, sorted by model; raises as ``get`` does."""
        found: dict[str, Pointer] = {}
        keys = self._documents.keys("") if self._shared is None else [self._shared]
        for key in keys:
            found |= self._parsed(key, self._documents.read(key))
        return dict(sorted(found.items()))

    def set(
        self, model: str, pointer: Pointer, *, expected: Pointer | None, who: str, why: str
    ) -> Change | None:
        """Moves a model's pointer and records who did it and why; durable when this returns.

        Args:
            expected: What it says now; None: nothing.

        Returns:
            The change that this made; None where the entry says so already.

        Raises:
            ConfigError: The document is not what it has to be; it was left as it is.
            RefusedError: The entry says something else than expected, or access is denied.
            StoreError: The place failed.
        """
        check_model_name(model)
        end = time.monotonic() + GIVE_UP_S
        key, tries = self._key(model), 0
        while True:
            seen = self._documents.read(key)
            now = self._parsed(model, seen).get(model)
            if now == pointer:
                break
            if now != expected:
                raise self._conflict(model, now, expected)
            data = with_pointer(seen.data if seen else None, model, pointer, self._where(key))
            if self._documents.put(key, data, seen):
                return self._record(model, expected, pointer, who, why)
            tries += 1
            pause_s = random.uniform(0, min(1.0, 0.01 * 2**tries))
            if time.monotonic() + pause_s > end:
                raise StoreError(
                    "The sitevar could not be changed: others kept changing it.",
                    where=self._where(key),
                    transient=True,
                    next_step="run the same command again",
                )
            time.sleep(pause_s)
        last = next(reversed(self.history(model)), None)
        if last is None or last.after != pointer:  # whoever moved it came no further
            self._record(model, last.after if last else None, pointer, who, why)
        return None

    def history(self, model: str) -> list[Change]:
        """Returns the recorded changes of a model's pointer, oldest first; raises as ``get``.

        Raises:
            VerificationError: A record is damaged.
        """
        check_model_name(model)
        keys = sorted(self._kept.keys(self._history(model)), key=_number)  # else by their times
        return [self._change(key) for key in keys]

    def _record(
        self, model: str, before: Pointer | None, after: Pointer, who: str, why: str
    ) -> Change:
        utc = datetime.now(UTC)
        entry = {
            "schema": _SCHEMA,
            "utc": utc.isoformat(),
            "who": who,
            "why": why,
            "before": before.as_json() if before else None,
            "after": after.as_json(),
        }
        for _ in range(_ATTEMPTS):
            number = max(map(_number, self._kept.keys(self._history(model))), default=0) + 1
            key = f"{self._history(model)}{number:08}.json"
            if self._kept.put(key, canonical_json(entry), None):
                return Change(utc, who, why, before, after, number)
        raise StoreError(
            f"The sitevar of {model} was set, but the change is not recorded.",
            where=f"{self._kept.location}/{key}",
            transient=True,
            next_step="run the same command again",
        )

    def _change(self, key: str) -> Change:
        where = f"{self._kept.location}/{key}"
        seen = self._kept.read(key)
        entry = parse_json_object(seen.data if seen else b"", where)
        with reading("A change in the sitevar's history", where, entry.get("schema"), _SCHEMA):
            fields = Fields(entry)
            return Change(
                fields.take("utc", datetime.fromisoformat),
                fields.take("who", text),
                fields.take("why", text),
                fields.take("before", optional(Pointer.of), None),
                fields.take("after", Pointer.of),
                _number(key),
            )

    def _key(self, model: str) -> str:
        return self._shared or model

    def _history(self, model: str) -> str:
        return f"{history_folder(model, self.region)}history/"

    def _where(self, key: str) -> str:
        return f"{self._documents.location}/{key}"

    def _parsed(self, model: str, seen: Seen | None) -> dict[str, Pointer]:
        if seen is None:
            return {}
        where = self._where(self._key(model))
        pointers = parse_sitevar(seen.data, where)
        if self._shared is None and pointers.keys() - {model}:
            raise ConfigError(
                "A model's own parameter may hold no other model.",
                where=where,
                got=", ".join(sorted(pointers)),
                wanted=json.dumps({model: "FLAVOR"}),
            )
        return pointers

    def _conflict(self, model: str, now: Pointer | None, expected: Pointer | None) -> RefusedError:
        return RefusedError(
            f"The sitevar of {model} is not what was expected; it was left as it is.",
            where=self._where(self._key(model)),
            got=now or "no entry",
            wanted=expected or "no entry",
            next_step=f"see who changed it: python -m adroit_publish sitevar history {model}",
        )


def history_folder(model: str, region: str) -> str:
    """Returns the folder of the store in which a model's history and lock of a region are."""
    return f"sitevars/{model}/regions/{region}/" if region else f"sitevars/{model}/"


def _number(key: str) -> int:
    """Returns the number of a change; 0 for a name of the first release, which is a time."""
    name = key.rpartition("/")[2].removesuffix(".json")
    return int(name) if name.isdecimal() else 0
