"""A lock that writers on different machines share: one object in a store.

The object says who holds the lock and until when. It is taken by creating it, or by replacing,
under the condition that it still is what was seen, one that is free or has expired; and given
back by replacing it in the same way (a store deletes without a condition, and could delete the
lock of the next holder). A killed holder's lock expires.

Who holds it believes in it for less long than the others wait, by ``SKEW_S``: clocks that differ
by less than that do no harm. What is done under the lock has to end before ``left_s`` does.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.bundle.kept import Fields, number, reading, text
from adroit_publish.errors import RefusedError
from adroit_publish.stores.contract import KeyTaken, Objects, Stat

SCHEMA = 1
HOLD_S = 90.0
SKEW_S = 15.0
PATIENCE_S = HOLD_S + 2 * SKEW_S
"""So long a lock is waited for: longer than a killed holder keeps it."""


@dataclass(frozen=True)
class Held:
    """A lock that is held until ``until_s`` of ``clock``, in seconds since the epoch."""

    until_s: float
    clock: Callable[[], float]

    def left_s(self) -> float:
        """Returns for how long it certainly still is; 0 or less: no more."""
        return self.until_s - SKEW_S - self.clock()


@dataclass(frozen=True)
class _Lock:
    """What the object says: who holds the lock, by which token (empty: nobody), until when."""

    who: str
    token: str
    until_s: float


@contextmanager
def hold(
    objects: Objects,
    key: str,
    who: str,
    *,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.time,
) -> Iterator[Held]:
    """Holds the lock at ``key`` while the context lasts, for ``HOLD_S`` at most.

    Args:
        who: Whom to name to those that wait.
        patience_s: How long to wait for it.
        clock: Seconds since the epoch.

    Raises:
        RefusedError: Somebody else kept it for longer than that.
        StoreError: The store failed.
        VerificationError: What is at ``key`` is not a lock.
    """
    end = time.monotonic() + patience_s
    token = secrets.token_hex(16)
    while True:
        seen, lock = _look(objects, key)
        mine = _Lock(who, token, clock() + HOLD_S)
        busy = lock is not None and lock.token and clock() < lock.until_s + SKEW_S
        if not busy and _put(objects, key, mine, seen):
            break
        if time.monotonic() >= end:
            raise _kept_away(f"{objects.location}/{key}", lock)
        time.sleep(random.uniform(0.02, 0.2))
    try:
        yield Held(mine.until_s, clock)
    finally:
        seen, lock = _look(objects, key)
        if lock is not None and lock.token == token:
            _put(objects, key, _Lock(who, "", clock()), seen)


def _look(objects: Objects, key: str) -> tuple[Stat | None, _Lock | None]:
    seen = objects.stat(key)
    if seen is None:
        return None, None
    where = f"{objects.location}/{key}"
    value = parse_json_object(b"".join(map(bytes, objects.read(key))), where)
    with reading("The lock", where, value.get("schema", SCHEMA), SCHEMA):
        fields = Fields(value)
        return seen, _Lock(
            fields.take("who", text, ""), fields.take("token", text), fields.take("until_s", number)
        )


def _put(objects: Objects, key: str, lock: _Lock, seen: Stat | None) -> bool:
    data = canonical_json({"schema": SCHEMA, **asdict(lock)})
    try:
        if seen is None:
            objects.create(key, Inline(data), Digest.of(data))
        else:
            objects.replace(key, Inline(data), Digest.of(data), seen)
    except KeyTaken:
        return False
    return True


def _kept_away(where: str, lock: _Lock | None) -> RefusedError:
    until = datetime.fromtimestamp(lock.until_s, UTC) if lock else None
    return RefusedError(
        "Somebody else holds the lock.",
        where=where,
        got=f"{lock.who}, until {until:%Y-%m-%d %H:%M:%S} UTC" if lock else None,
        next_step="run the same command again when they are done",
    )
