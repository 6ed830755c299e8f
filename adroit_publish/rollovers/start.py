"""How a rollover begins: which flavors, by what evidence, and whether it may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.rollout import Rollout, read_check
from adroit_publish.custody.rolled_back import refuse_rolled_back, rolled_back
from adroit_publish.custody.signature import admit_signed
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.evidence.answers import check_address
from adroit_publish.evidence.sources import lag_s, open_traffic
from adroit_publish.rollover.checks import Bound, Checks
from adroit_publish.rollover.evidence import PointerRead
from adroit_publish.rollover.needs import unread_text, weights_text
from adroit_publish.rollover.shares import CONFIDENCE
from adroit_publish.rollover.spelled import differences
from adroit_publish.rollover.state import Rollover, Side, Transition
from adroit_publish.rollovers.audit import check_signed_word
from adroit_publish.rollovers.book import last_hold
from adroit_publish.rollovers.probes import plain_addresses, plain_traffic
from adroit_publish.rollovers.regions import read_pointers
from adroit_publish.rollovers.verbs import Rolling
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.rollovers import Kept
from adroit_publish.version import Version

FRESH_S = 120.0


@dataclass(frozen=True)
class Asked:
    """What ``rollover start`` was told of evidence.

    Attributes:
        urls: Servers of the new version.
        replicas: How many are expected behind each, or None.
        traffic: Where it is counted, as ``evidence.sources`` has it: ``SCHEME:URL``.
        told: What was told of how it goes, by the names of ``Rollout``; config.yaml says the rest.
        old_urls: Servers of the old version: the way back.
    """

    urls: tuple[str, ...]
    replicas: int | None
    traffic: tuple[str, ...]
    told: Mapping[str, Any]
    old_urls: tuple[str, ...] = ()


def start(
    rolling: Rolling, old: str | None, new: str | None, model: str | None, asked: Asked
) -> Kept:
    """Begins a rollover, or finds the same one begun.

    Args:
        rolling: Where.
        old: The flavor that is live; None: what the sitevar of ``model`` says.
        new: The flavor that is to be; None: the model's only other published one.
        model: The model, where a flavor is not named.
        asked: Where the evidence comes from.

    Raises:
        ConfigError: A flavor or a model does not exist or is not clear; ``asked`` is not enough.
        RefusedError: A flavor is not published or is held, the sitevar says something else, or
            another rollover of the model is live.
        StoreError: A place failed.
        VerificationError: Something kept is damaged.
    """
    asked = _plain(asked)
    _check(asked)
    if old is None or new is None:
        old, new = _both(rolling, old, new, model)
    flavors = rolling.checkout.flavors
    sides = [find_flavor(flavors, name) for name in (old, new)]
    models = [rolling.checkout.project(flavor).model_name for flavor in sides]
    if models[0] != models[1] or model not in (None, models[0]):
        raise ConfigError(
            "The flavors are of different models.",
            got=f"{old}: {models[0]}, {new}: {models[1]}",
            wanted=model or models[0],
        )
    project = rolling.checkout.project(sides[1])
    rollout = replace(project.rollout, **asked.told)
    rollover = Rollover(
        id="0001",
        model=models[0],
        old=_side(rolling.store, models[0], sides[0]),
        new=_side(rolling.store, models[0], sides[1], signed=True),
        steps=rollout.steps,
        checks=_checks(asked, rollout, project.rtol),
    )
    check_regions(rolling, rollover)
    last = rolling.rollovers.last(rollover.model)
    if last and last.rollover.live:
        return _the_same(rolling, last, rollover)
    _check_start(rolling, rollover, sides[1])
    facts = _check_published(rolling, rollover)
    entry = Transition(rolling.world.now_s(), rolling.who, None, "proposed", facts=facts)
    number = int(last.rollover.id) + 1 if last else 1
    return rolling.rollovers.create(replace(rollover, id=f"{number:04d}", history=(entry,)))


def _plain(asked: Asked) -> Asked:
    """Returns what was asked, with addresses as they are kept."""
    return replace(
        asked,
        urls=plain_addresses(asked.urls),
        old_urls=plain_addresses(asked.old_urls),
        traffic=plain_traffic(asked.traffic),
    )


def fresh_s(traffic: Sequence[str]) -> float:
    """Returns how old a reading may be that counts, where traffic is counted there."""
    return FRESH_S + lag_s(traffic)


def _checks(asked: Asked, rollout: Rollout, rtol: float) -> Checks:
    return Checks(
        asked.urls,
        asked.replicas,
        asked.traffic,
        rollout.quiet_s,
        rollout.margin,
        rtol,
        fresh_s(asked.traffic),
        old_urls=asked.old_urls,
        min_requests=rollout.min_requests,
        bake_s=rollout.bake_s,
        confidence=CONFIDENCE,
        latency_margin=rollout.latency_margin,
        bounds=tuple(Bound(*read_check(text)) for text in rollout.checks),
        approve_at=rollout.approve_at,
        by_region=rollout.by_region,
    )


def _check(asked: Asked) -> None:
    """Raises ConfigError where there could never be enough evidence."""
    for url in (*asked.urls, *asked.old_urls):
        check_address(url)
    wrong = [
        (not asked.urls, "no server of the new version", "--url, once for each place it runs"),
        (
            not asked.traffic,
            "no place where traffic is counted",
            "--prometheus URL, or --metrics URL for each server of both versions",
        ),
    ]
    for is_wrong, got, wanted in wrong:
        if is_wrong:
            raise ConfigError("A rollover needs to know its evidence.", got=got, wanted=wanted)
    check_quiet(asked.told.get("quiet_s", 1))
    open_traffic(asked.traffic)


def check_quiet(quiet_s: float) -> None:
    """Refuses, as a ConfigError, a quiet time in which nothing could be counted."""
    if quiet_s < 1:
        raise ConfigError(
            "--quiet is not what it has to be.", got=f"{quiet_s:g}s", wanted="a second at least"
        )


def _both(rolling: Rolling, old: str | None, new: str | None, model: str | None) -> tuple[str, str]:
    """Returns the flavor that is live and the only other published one of the model."""
    if model is None:
        raise ConfigError("Which rollover?", wanted="--from FLAVOR --to FLAVOR, or --model MODEL")
    if old is None:
        pointer = _every_pointer(rolling, model)
        if pointer.weights is None or len(pointer.weights) != 1:
            raise RefusedError(
                f"The sitevar does not point {model} at one flavor.",
                got=_says(pointer),
                next_step=f"python -m adroit_publish sitevar set {model} FLAVOR --why TEXT",
            )
        (old,) = pointer.weights
    others = [
        flavor.name
        for flavor in rolling.checkout.flavors.values()
        if flavor.name != old
        and isinstance(flavor.version, PublishedVersion)
        and flavor.hold is None
        and rolling.checkout.project(flavor).model_name == model
    ]
    if new is None and len(others) != 1:
        raise ConfigError(
            f"It is not clear which flavor of {model} comes after {old}.",
            where="flavors.yaml",
            got=", ".join(others) or "no other published flavor",
            next_step=f"name it: --from {old} --to FLAVOR",
        )
    return old, new or others[0]


def _side(store: BundleStore, model: str, flavor: Flavor, *, signed: bool = False) -> Side:
    """Returns one side; ``signed`` has it be signed as is demanded: what is live may be older."""
    published = None
    if isinstance(flavor.version, PublishedVersion):
        published = store.find(model, flavor.version)
    if published is None:
        raise RefusedError(
            f"The flavor {flavor.name} is not published here.",
            where=store.location,
            got=flavor.version or "no version",
            wanted="a published version",
            next_step=f"python publish_mlflow_model_flow.py run --flavor={flavor.name}",
        )
    if signed:
        admit_signed(store, published, flavor.name)
    return Side(flavor.name, published.version, str(Version(store, published).bundle.bundle_id))


def _the_same(rolling: Rolling, last: Kept, wanted: Rollover) -> Kept:
    """Returns the live rollover where it is the one that is wanted; refuses any other."""
    there = last.rollover
    sides = (there.old, there.new) == (wanted.old, wanted.new)
    options = differences(there, wanted)
    ours, theirs = there.checks.rtol, wanted.checks.rtol
    other = [*options, *([(f"rtol {ours:g}", f"rtol {theirs:g}")] if ours != theirs else [])]
    if sides and not other:
        return last
    amend = (
        f"python -m adroit_publish rollover amend {there.model} --why TEXT",
        *(theirs for _, theirs in options if not theirs.startswith("no ")),
    )
    if sides:
        raise RefusedError(
            f"Another rollover of {there.model} is live: of these flavors, with other options.",
            where=rolling.rollovers.where(there),
            got=" ".join(ours for ours, _ in other),
            wanted=" ".join(theirs for _, theirs in other),
            next_step=" ".join(amend)
            if options
            else f"set verify.rtol in config.yaml to {ours:g} again; or end this rollover: "
            f"python -m adroit_publish rollover abandon {there.model} --why TEXT",
        )
    raise RefusedError(
        f"Another rollover of {there.model} is live.",
        where=rolling.rollovers.where(there),
        got=f"{there.old.flavor} -> {there.new.flavor}, {there.state}, "
        f"started by {there.history[0].who}",
        next_step=f"finish it, roll it back or abandon it: python -m adroit_publish rollover "
        f"status {there.model}",
    )


def check_regions(rolling: Rolling, rollover: Rollover) -> None:
    """Raises ConfigError where steps are to go region by region, and the target has one sitevar."""
    if rollover.checks.by_region and len(rolling.world.sitevars) < 2:
        raise ConfigError(
            "Steps can go region by region only where the target has several sitevars.",
            where="adroit.toml",
            got=", ".join(rolling.world.target.sitevar_addresses.values()),
            wanted='sitevars = {eu = "ADDRESS", us = "ADDRESS"}',
        )


def _check_start(rolling: Rolling, rollover: Rollover, new: Flavor) -> None:
    if rollover.old.bundle_id == rollover.new.bundle_id:
        raise RefusedError(
            "Both flavors serve the same bundle; there is nothing to roll over.",
            got=f"{rollover.old.version} and {rollover.new.version}",
        )
    if new.hold is not None:
        raise RefusedError(
            f"The flavor {new.name} is held.",
            where="flavors.yaml",
            got=new.hold,
            next_step=f"python -m adroit_publish unhold {new.name}",
        )
    held = last_hold(rolling.store, rollover.model, new.name)
    if held and held.kind == "held" and held.facts["version"] == rollover.new.version:
        raise RefusedError(
            f"The ledger says that {new.name} is held, which this clone's flavors.yaml does not.",
            where=f"history {rollover.model}, by {held.who} at {held.utc:%Y-%m-%d %H:%M:%S} UTC",
            got=held.facts.get("why"),
            next_step=f"git pull; once the reason is gone: python -m adroit_publish unhold "
            f"{new.name} --commit",
        )
    back = rolled_back(rolling.store, rollover.model)
    refuse_rolled_back(new.name, rollover.new.version, back)
    pointer = _every_pointer(rolling, rollover.model)
    if pointer.weights != rollover.weights(0):
        raise RefusedError(
            f"The sitevar does not point {rollover.model} at {rollover.old.flavor}.",
            got=_says(pointer),
            wanted=rollover.old.flavor,
            next_step=f"name the flavor that is live with --from, or python -m adroit_publish "
            f"sitevar set {rollover.model} {rollover.old.flavor} --why TEXT",
        )
    check_signed_word(rolling.world.target, rolling.store, rollover.model)


def _every_pointer(rolling: Rolling, model: str) -> PointerRead:
    """Returns what every region's sitevar says; raises StoreError where one cannot be read."""
    pointer = read_pointers(rolling.world.sitevars, model)
    if pointer.unread:
        raise StoreError(
            "Not every sitevar can be read.",
            where="adroit.toml",
            got=unread_text(pointer),
            transient=True,
            next_step="run the same command again, once all of them answer",
        )
    return pointer


def _says(pointer: PointerRead) -> str:
    """Returns what the sitevars say, a line each."""
    return "\n".join(
        f"{region}: {weights_text(weights)}" if region else weights_text(weights)
        for region, weights in pointer.by_region.items()
    )


def _check_published(rolling: Rolling, rollover: Rollover) -> Mapping[str, Any]:
    """Returns the reading that both versions are whole; raises RefusedError where they are not."""
    evidence, _ = rolling.world.read(rollover, ("published",))
    read = evidence.published
    problems = (*read.old, *read.new) if read else (evidence.absent["published"],)
    if problems:
        raise RefusedError(
            "A version is not whole.",
            where=rolling.store.location,
            got="\n".join(problems),
            next_step="publish it again: that heals it from its other place, or says what to do",
        )
    return evidence.facts(("published",))
