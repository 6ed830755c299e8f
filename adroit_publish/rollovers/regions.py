"""The sitevars of all regions at once: where one does not answer, the others do not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from adroit_publish.errors import PublishError, RefusedError, StoreError
from adroit_publish.evidence.sitevars import Sitevars
from adroit_publish.rollover.evidence import PointerRead
from adroit_publish.rollover.needs import sitevar_name
from adroit_publish.rollovers.book import weights_in

ANSWER_S = 10.0
"""How long a region's sitevar may take to be read where there are others."""
SET_S = 120.0
"""And to be set, longer than who sets one tries by itself."""
T = TypeVar("T")


def read_pointers(sitevars: Mapping[str, Sitevars], model: str) -> PointerRead:
    """Returns what every sitevar says of a model; of regions also which could not be read.

    Args:
        sitevars: By region.
        model: The model.

    Raises:
        PublishError: The target's only sitevar cannot be read.
    """
    if list(sitevars) == [""]:
        reading = sitevars[""].get(model)
        return PointerRead(reading.read_utc.timestamp(), weights_in(reading.pointer) or None)
    began_s = time.time()
    answers = _everywhere(sitevars, lambda region: sitevars[region].get(model), ANSWER_S)
    regions, unread = {}, {}
    for region, answer in answers.items():
        if isinstance(answer, PublishError):
            unread[region] = "; ".join(filter(None, (answer.what, str(answer.where or ""))))
        else:
            regions[region] = weights_in(answer.pointer)
    said = list(regions.values())
    agreed = not unread and all(weights == said[0] for weights in said)
    return PointerRead(began_s, said[0] or None if agreed else None, regions, unread)


def set_everywhere(regions: Iterable[str], set_one: Callable[[str], None]) -> None:
    """Sets the sitevars of regions, all at once.

    Args:
        regions: Which.
        set_one: Sets that of one region; called in threads.

    Raises:
        RefusedError, StoreError: Names those that could not be set: refused where one was,
            ``transient`` where all failures are. Every other one was set.
    """
    wanted = list(regions)
    if wanted == [""]:
        set_one("")
        return
    answers = _everywhere(wanted, set_one, SET_S)
    failed = {region: error for region, error in answers.items() if error is not None}
    if failed:
        were_set = ", ".join(region for region in wanted if region not in failed) or "no other"
        what = f"{', '.join(map(sitevar_name, failed))} could not be set; set: {were_set}."
        facts = {
            "got": "\n".join(str(error) for error in failed.values()),
            "next_step": "run the same command again",
        }
        if any(isinstance(error, RefusedError) for error in failed.values()):
            raise RefusedError(what, **facts)
        passing = all(
            isinstance(error, StoreError) and error.transient for error in failed.values()
        )
        raise StoreError(what, transient=passing, **facts)


def _everywhere(
    regions: Iterable[str], act: Callable[[str], T], timeout_s: float
) -> dict[str, T | PublishError]:
    """Returns by region what ``act`` came to; an error of its own for who takes too long."""
    answers: dict[str, T | BaseException] = {}

    def run(region: str) -> None:
        try:
            answers[region] = act(region)
        except BaseException as error:  # noqa: BLE001  raised below, unless it is a region's own
            answers[region] = error

    threads = {
        region: threading.Thread(target=run, args=(region,), daemon=True) for region in regions
    }
    for thread in threads.values():
        thread.start()
    give_up = time.monotonic() + timeout_s
    late = StoreError(f"There was no answer in {timeout_s:g} s.", transient=True)
    came_to: dict[str, T | PublishError] = {}
    for region, thread in threads.items():
        thread.join(max(0.0, give_up - time.monotonic()))
        answer = answers.get(region, late)
        if isinstance(answer, BaseException) and not isinstance(answer, PublishError):
            raise answer
        came_to[region] = answer
    return came_to
