"""What was live at a time, as the entries of the ledger tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from adroit_publish.stores.ledger import (
    POINTING,
    LedgerEntry,
    Share,
    region_of,
    shares_in,
    weights_of,
)


@dataclass(frozen=True)
class Live:
    """What the sitevar said of a model for a while, or those of all regions.

    Attributes:
        since_utc: From when on.
        who: Who made the last change.
        shares: What it named; nothing where the model had been taken out of it.
    """

    since_utc: datetime
    who: str
    shares: tuple[Share, ...]


def live_at(entries: Iterable[LedgerEntry], when: datetime) -> Live | None:
    """Returns what was live at ``when``, or None where nothing had been pointed to yet.

    Args:
        entries: Entries of one model, oldest first.
        when: Aware of its zone; what happened at this very moment had happened.
    """
    told = list(entries)
    authors, live = authors_of(told), None
    by_region: dict[str, tuple[Share, ...]] = {}
    for entry in told:
        if entry.kind in POINTING and entry.utc <= when:
            author, region = authors.get(entry.number, entry), region_of(entry)
            by_region = {
                place: by_region[place] for place in by_region if bool(place) == bool(region)
            }
            by_region[region] = tuple(
                replace(share, region=region) for share in shares_in(author.facts["live"])
            )
            live = Live(
                entry.utc,
                author.who,
                tuple(share for shares in by_region.values() for share in shares),
            )
    return live


def live_flavors(told: Iterable[LedgerEntry]) -> set[str]:
    """Returns the flavors that the last word gives a share of the requests, in any region."""
    live = live_at(told, datetime.max.replace(tzinfo=UTC))
    return {share.flavor for share in live.shares} if live else set()


def authors_of(told: Sequence[LedgerEntry]) -> dict[int, LedgerEntry]:
    """Returns by number who came late to say that a ``changed-outside`` entry is theirs."""
    by_number = {entry.number: entry for entry in told if entry.kind in POINTING}
    late = [(entry.facts["entry"], entry) for entry in told if entry.kind == "explained"]
    return {
        number: entry
        for number, entry in late
        if weights_of(by_number[number].facts["live"]) == weights_of(entry.facts["live"])
    }
