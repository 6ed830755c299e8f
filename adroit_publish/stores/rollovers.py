"""Where rollovers are kept: ``rollovers/<model>/<id>.json`` in the target's bundle store.

A rollover's object is created once and afterwards only replaced by who has seen what it replaces,
so of two operators one moves it on and the other hears who was first. Ids count the model's
rollovers: the last one is the one that may be live, and of two that are started at once one is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from adroit_publish.bundle.content import Inline
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.rollover.state import Rollover, parse_rollover
from adroit_publish.stores.contract import KeyTaken, Objects, Stat

_PREFIX = "rollovers/"
START = (
    "python -m adroit_publish rollover start --from FLAVOR --to FLAVOR --url URL --prometheus URL"
)


@dataclass(frozen=True)
class Kept:
    """A rollover as it was read, and what it may be replaced by."""

    rollover: Rollover
    stat: Stat


class Rollovers:
    """The rollovers of one store.

    Args:
        objects: The store's place.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def where(self, rollover: Rollover) -> str:
        """Returns where it is kept, as a user names it."""
        return f"{self._objects.location}/{_key(rollover.model, rollover.id)}"

    def last(self, model: str) -> Kept | None:
        """Returns a model's last rollover, or None where it never had one.

        Raises:
            StoreError: The store failed.
            VerificationError: The rollover is damaged.
        """
        ids = self._ids(model)
        return self.get(model, ids[-1]) if ids else None

    def all(self, model: str) -> Iterator[Rollover]:
        """Yields every rollover of a model, oldest first; raises as ``last`` does."""
        yield from (self.get(model, id).rollover for id in self._ids(model))

    def _ids(self, model: str) -> list[str]:
        ids = [name.removesuffix(".json") for name in self._objects.children(_folder(model))]
        return sorted((id for id in ids if id.isdigit()), key=int)

    def live(self) -> Iterator[Kept]:
        """Yields the rollovers that have not ended, by model; raises as ``last`` does."""
        for model in self._objects.children(_PREFIX):
            kept = self.last(model)
            if kept and kept.rollover.live:
                yield kept

    def get(self, model: str, id: str) -> Kept:
        """Returns one rollover; raises as ``last`` does."""
        key = _key(model, id)
        where = f"{self._objects.location}/{key}"
        stat = self._objects.stat(key)  # before it is read: who replaces it meanwhile is noticed
        data = b"".join(bytes(chunk) for chunk in self._objects.read(key))
        if stat is None:
            raise StoreError(
                "A rollover was started while it was read.", where=where, transient=True
            )
        return Kept(parse_rollover(parse_json_object(data, where), where), stat)

    def create(self, rollover: Rollover) -> Kept:
        """Begins to keep a rollover.

        Raises:
            RefusedError: Another one was started at the same time.
            StoreError: The store failed.
        """
        data = canonical_json(rollover.as_dict())
        try:
            self._objects.create(_key(rollover.model, rollover.id), Inline(data), Digest.of(data))
        except KeyTaken:
            raise self._raced(self.get(rollover.model, rollover.id).rollover) from None
        return self.get(rollover.model, rollover.id)

    def keep(self, kept: Kept, rollover: Rollover) -> Kept:
        """Keeps ``rollover`` in the place of the one that was read.

        Raises:
            RefusedError: Somebody else moved it on meanwhile: who, when and to what.
            StoreError: The store failed.
        """
        data = canonical_json(rollover.as_dict())
        key = _key(rollover.model, rollover.id)
        try:
            self._objects.replace(key, Inline(data), Digest.of(data), kept.stat)
        except KeyTaken:
            raise self._raced(self.get(rollover.model, rollover.id).rollover) from None
        return self.get(rollover.model, rollover.id)

    def check(self, kept: Kept) -> None:
        """Lets pass who still has the last word; raises as ``keep`` does for anybody else."""
        there = self.get(kept.rollover.model, kept.rollover.id)
        if there != kept:
            raise self._raced(there.rollover)

    def _raced(self, there: Rollover) -> RefusedError:
        last = there.history[-1]
        return RefusedError(
            "Somebody else moved the rollover on in the meantime.",
            where=self.where(there),
            got=f"{last.who} at {utc_text(last.at_s)}: {last.before or 'nothing'} -> {last.after}",
            next_step=f"python -m adroit_publish rollover status {there.model}",
        )


def find_rollover(rollovers: Rollovers, model: str | None) -> Kept:
    """Returns a model's last rollover, or the only live one.

    Args:
        rollovers: Where they are.
        model: The model; None: the one that has a live rollover.

    Raises:
        ConfigError: No rollover is live, or several are.
        StoreError: The store failed.
        VerificationError: The rollover is damaged.
    """
    if model is not None:
        kept = rollovers.last(model)
        if kept is None:
            raise ConfigError(
                f"The model {model} has no rollover.",
                next_step=START,
            )
        return kept
    live = list(rollovers.live())
    if len(live) == 1:
        return live[0]
    raise ConfigError(
        "It is not clear which rollover is meant." if live else "No rollover is live.",
        got=", ".join(kept.rollover.model for kept in live) or None,
        next_step="name the model" if live else START,
    )


def utc_text(at_s: float) -> str:
    """Returns a time as people read it: ``2026-11-24 16:30:00 UTC``."""
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _folder(model: str) -> str:
    return f"{_PREFIX}{model}/"


def _key(model: str, id: str) -> str:
    return f"{_folder(model)}{id}.json"
