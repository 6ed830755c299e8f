"""C08's places: one fault in one message on its way, and what became of what was asked for.

A place names a message by its position in the operation and its side, and a fault by kind and spot.
``drive`` tries places until so many have changed a message: whatever is asked for ends with the
right bytes in the place, read around the proxy, or as one of our errors with nothing to believe;
and the same without a fault then ends with the right bytes.

    flip     one bit of the body
    cut      the connection ends in the middle of the body
    swap     other bytes of the same length under the same headers: another blob's or file's
    stale    an older body of the same request under the headers of now
    replay   an older message whole, its headers included
    header   one bit of the target, of the status, or of a header that says something of the body

A message without a body has what it has damaged: its headers are flipped, or lost.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

from adroit_publish.errors import PublishError
from tests.servers.fault_proxy import Exchange, FaultProxy, Message, Seen

KINDS = ("flip", "cut", "swap", "stale", "replay", "header")
SIDES = ("request", "answer")
SPOTS: Mapping[str, Callable[[int], int]] = {
    "first": lambda size: 0,
    "second": lambda size: 1,
    "gzip header's last": lambda size: 9,
    "first behind the gzip header": lambda size: 10,
    "tar header's last": lambda size: 511,
    "first of the tar's file": lambda size: 512,
    "block's last": lambda size: 65535,
    "next block's first": lambda size: 65536,
    "chunk's last": lambda size: (1 << 20) - 1,
    "next chunk's first": lambda size: 1 << 20,
    "middle": lambda size: size // 2,
    "last but one": lambda size: size - 2,
    "last": lambda size: size - 1,
}
TELLING = re.compile(
    rb"(content-(length|range|type|encoding)|docker-content-digest|docker-upload-uuid|etag|location"
    rb"|range|if-(none-)?match|transfer-encoding|x-amz-.*):",
    re.I,
)
MOST_SECONDS = 150.0
"""A peer is given up within a minute; an operation may have two, and the machine be busy."""


@dataclass(frozen=True)
class Place:
    """One fault in one message.

    Attributes:
        request: Which request of the operation, from 0.
        side: ``request`` or ``answer``.
        kind: One of ``KINDS``.
        spot: One of ``SPOTS``: where in the body, or in the header's value.
        header: Which of the telling headers, counted round.
    """

    request: int
    side: str
    kind: str
    spot: str
    header: int


def places(count: int, dice: random.Random) -> Iterator[Place]:
    """Yields places without end in an operation of so many requests; every kind in turn."""
    while True:
        for kind in KINDS:
            request, side = dice.randrange(count), dice.choice(SIDES)
            yield Place(request, side, kind, dice.choice(list(SPOTS)), dice.randrange(100))


class Tape:
    """What passed a proxy that keeps messages, to be played again.

    Args:
        seen: The requests of a whole operation upon older content, in order.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.seen = tuple(seen)

    def older(self, seen: Seen, side: str) -> Message | None:
        """Returns the older message of a request like this one, of equal length if there is one."""
        sizes = seen.headers.get("content-length")
        alike = [one for one in self.seen if shape(one) == shape(seen)]
        alike.sort(key=lambda one: one.headers.get("content-length") != sizes)
        messages = (one.request if side == "request" else one.answer for one in alike)
        return next((message for message in messages if message), None)

    def other(self, message: Message, side: str) -> bytes:
        """Returns other bytes of a body's length: of another message, or its own in disorder."""
        for one in self.seen:
            body = (one.request if side == "request" else one.answer) or Message(())
            if len(body.body) == len(message.body) and body.body != message.body:
                return body.body
        middle = len(message.body) // 2
        return message.body[middle:] + message.body[:middle]


def shape(seen: Seen) -> tuple[str, str, tuple[str, ...]]:
    """Returns what kind of request this is: its digests, ids and numbers do not matter."""
    address = urlsplit(seen.target)
    path = re.sub(r"[0-9a-f-]{8,}|(?<=/n)\d+", "*", address.path)
    names = sorted({name for name, _ in parse_qsl(address.query, keep_blank_values=True)})
    return seen.method, path, tuple(names)


class Injected:
    """A place's fault: an act for ``FaultProxy.inject`` that tells whether it changed anything."""

    def __init__(self, place: Place, tape: Tape) -> None:
        self.place, self.tape = place, tape
        self.seen: Seen | None = None
        self.changed = False

    def __call__(self, exchange: Exchange) -> None:
        self.seen = exchange.seen
        attribute = "rewrite" if self.place.side == "request" else "rewrite_answer"
        setattr(exchange, attribute, self._change)

    def _change(self, message: Message) -> Message:
        assert self.seen is not None
        older = self.tape.older(self.seen, self.place.side)
        other = self.tape.other(message, self.place.side)
        damaged = damage(message, self.place, older, other)
        self.changed = damaged != message
        return damaged


def damage(message: Message, place: Place, older: Message | None, other: bytes) -> Message:
    """Returns what becomes of a message at a place."""
    body, at = message.body, SPOTS[place.spot](len(message.body))
    at = min(max(at, 0), max(len(body) - 1, 0))
    if place.kind == "replay" and older:
        return older
    if place.kind == "stale" and older and older.body:
        return replace(message, body=older.body)
    if place.kind == "header" or not body:
        if place.kind == "cut":
            return replace(message, lines=message.lines[:1])
        return replace(message, lines=_flipped_head(message.lines, place))
    if place.kind == "flip":
        return replace(message, body=_flipped(body, at))
    if place.kind == "cut":
        return replace(message, body=body[:at], is_cut=True)
    return replace(message, body=other)


def _flipped_head(lines: Sequence[bytes], place: Place) -> tuple[bytes, ...]:
    """Flips a bit of the target or the status, or of a header that says something of the body."""
    telling = [0, *(index for index, line in enumerate(lines) if TELLING.match(line))]
    index = telling[place.header % len(telling)]
    before, separator, value = lines[index].partition(b" " if index == 0 else b":")
    value, blank, rest = (value.lstrip(), b" ", b"") if index else value.rpartition(b" ")
    if index == 0 and before.startswith(b"HTTP/"):
        value, blank, rest = lines[0][len(before) + 1 :].partition(b" ")
    at = min(max(SPOTS[place.spot](len(value)), 0), len(value) - 1)
    damaged = _flipped(value, at) if value else b"0"
    line = before + separator + (blank + damaged if index else damaged + blank + rest)
    return (*lines[:index], line, *lines[index + 1 :])


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


class Trial(Protocol):
    """An operation through a proxy, and how it looks around the proxy."""

    def prepare(self, number: int) -> None:
        """Makes a place that nothing has written to."""

    def act(self) -> object:
        """Does it; raises PublishError, or gives what ``problems`` is to judge."""

    def problems(self, outcome: object) -> list[str]:
        """Returns what is wrong once ``act`` has succeeded."""

    def believed(self) -> list[str]:
        """Returns what is wrong of what can be believed once ``act`` has failed."""


@dataclass
class Outcome:
    """What became of the places of one kind of operation.

    Attributes:
        counts: How many ended how: ``refused`` or ``right``.
        kinds: How many of each kind of fault, by side.
        shapes: How many by the kind of request.
        violations: What must not be, a line each.
    """

    counts: Counter[str]
    kinds: Counter[str]
    shapes: Counter[str]
    violations: list[str]

    @classmethod
    def none(cls) -> Outcome:
        return cls(Counter(), Counter(), Counter(), [])

    @property
    def injected(self) -> int:
        return sum(self.counts.values())

    def lines(self, name: str) -> Iterator[str]:
        """Yields what is to be told of it."""
        yield (
            f"C08 {name}: injected={self.injected} refused={self.counts['refused']} "
            f"right={self.counts['right']} violations={len(self.violations)}"
        )
        yield "    " + ", ".join(f"{kind} {n}" for kind, n in sorted(self.kinds.items()))
        yield "    " + ", ".join(f"{kind} {n}" for kind, n in sorted(self.shapes.items()))
        yield from (f"    violation: {line}" for line in self.violations)


def taped(proxy: FaultProxy, trial: Trial, number: int) -> Tape:
    """Does an operation without a fault, and returns what passed."""
    proxy.keeps_messages = True
    proxy.requests.clear()
    trial.prepare(number)
    assert trial.problems(trial.act()) == []
    proxy.keeps_messages = False
    return Tape(proxy.requests)


def drive(proxy: FaultProxy, trial: Trial, older: Tape, floor: int, dice: random.Random) -> Outcome:
    """Tries places until so many changed a message.

    Args:
        proxy: What the operation goes through.
        trial: The operation.
        older: The same operation upon older content of equal length.
        floor: How many.
        dice: Chooses the places.
    """
    outcome = Outcome.none()
    for number, place in enumerate(places(len(older.seen), dice)):
        if outcome.injected >= floor:
            return outcome
        trial.prepare(number)
        proxy.requests.clear()
        injected = Injected(place, older)
        fault = proxy.inject(injected, skip=place.request)
        verdict, problems = _tried(trial)
        fault.times = 0  # one that has met nothing is not to meet what comes after
        if not injected.changed or injected.seen is None:
            continue
        problems += [f"again: {problem}" for problem in _again(trial)]
        outcome.counts[verdict] += 1
        outcome.kinds[f"{place.kind} of {place.side}"] += 1
        outcome.shapes[" ".join(shape(injected.seen)[:2])] += 1
        at = f"{place} at {injected.seen.method} {injected.seen.target}"
        outcome.violations += [f"{verdict}, {problem} ({at})" for problem in problems]
    raise AssertionError("places end never")


def _tried(trial: Trial) -> tuple[str, list[str]]:
    began = time.monotonic()
    try:
        outcome = trial.act()
    except PublishError:
        verdict, problems = "refused", trial.believed()
    except Exception as error:  # noqa: BLE001 - whatever is not one of ours is a finding
        verdict, problems = "refused", [f"not one of our errors: {error!r}", *trial.believed()]
    else:
        verdict, problems = "right", trial.problems(outcome)
    took_s = time.monotonic() - began
    return verdict, problems + ([f"took {took_s:.0f} s"] if took_s > MOST_SECONDS else [])


def _again(trial: Trial) -> list[str]:
    try:
        return trial.problems(trial.act())
    except PublishError as error:
        return [repr(error)]
