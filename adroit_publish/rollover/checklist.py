"""The guide's five boxes, ticked by what is on record: for a terminal, a pull request or a chat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.rollover.needs import pointed_text
from adroit_publish.rollover.state import Rollover, Transition


@dataclass(frozen=True)
class Box:
    """One line of the checklist.

    Attributes:
        title: What has to be true.
        done: Whether it is, by evidence.
        detail: The evidence, or how far it has come; may be empty.
        links: Where to look for oneself.
        at_s: When it was ticked, POSIX seconds in UTC; None where it is not.
        who: Who ran the command that found it.
    """

    title: str
    done: bool
    detail: str = ""
    links: tuple[str, ...] = ()
    at_s: float | None = None
    who: str | None = None


def boxes(rollover: Rollover) -> tuple[Box, ...]:
    """Returns the five boxes of a rollover, in the order of the guide."""
    old, new, checks = rollover.old, rollover.new, rollover.checks
    counted = tuple(address.partition(":")[2] for address in checks.traffic)
    pointed = pointed_text(rollover)
    undone = rollover.state == "rolled back"
    moved = undone or rollover.shares[0] > 0 or bool(rollover.ahead)
    return (
        _box(
            rollover, "proposed", f"new flavor published: {new.flavor} ({new.version})", _published
        ),
        _box(
            rollover, "verified", "deployed, and verified by its golden input", _served, checks.urls
        ),
        _box(
            rollover,
            "pointed",
            f"adroit_model_versions points at {new.flavor}",
            lambda _entry: f"now {pointed}",
            otherwise=f"now {pointed}" if moved else "",
            whole=rollover.shares == (100,),
        ),
        _box(
            rollover,
            "drained",
            f"the traffic of {old.flavor} ({old.version}) has drained",
            _traffic,
            counted,
            whole=rollover.state in ("drained", "retiring", "retired"),
        ),
        _box(
            rollover,
            "retired",
            f"old flavor deleted: {old.flavor}",
            lambda _entry: "gone from flavors.yaml",
        ),
    )


def _box(
    rollover: Rollover,
    state: str,
    title: str,
    detail: Any,
    links: tuple[str | None, ...] = (),
    *,
    otherwise: str = "",
    whole: bool = True,
) -> Box:
    """Returns a box that is ticked where ``state`` was reached, and ``whole`` says it still is."""
    entry = next((past for past in reversed(rollover.history) if past.after == state), None)
    kept = tuple(link for link in links if link)
    if entry is None or not whole:
        return Box(title, False, otherwise, kept)
    return Box(title, True, detail(entry), kept, entry.at_s, entry.who)


def _published(entry: Transition) -> str:
    read = _part(entry, "published")
    registry = " and the registry" if read.get("registry", True) else ""
    return f"whole in the store{registry}" if read else ""


def _served(entry: Transition) -> str:
    urls = _part(entry, "endpoints", "facts").get("urls", [])
    replicas = sum(url["replicas"] for url in urls)
    return f"{replicas} servers behind {len(urls)} addresses answer as recorded"


def _traffic(entry: Transition) -> str:
    read = _part(entry, "traffic")
    return f"{read['old']['requests']:.0f} requests in {read['window_s']:.0f} s" if read else ""


def _part(entry: Transition, *names: str) -> Mapping[str, Any]:
    part: Any = entry.facts
    for name in names:
        part = part.get(name) or {}
    return part if isinstance(part, Mapping) else {}
