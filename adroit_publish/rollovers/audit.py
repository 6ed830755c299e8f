"""Whether a model's ledger is whole: its chain, what rollovers did, and what the sitevar says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adroit_publish.config.targets import Target
from adroit_publish.errors import PublishError, RefusedError
from adroit_publish.rollover.needs import sitevar_name, weights_text
from adroit_publish.rollovers.book import pointer_keys, weights_in
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import check_enterable, look_at_chain, unsigned_tip
from adroit_publish.stores.ledger import LedgerEntry, entries, pointed_to
from adroit_publish.stores.rollovers import Rollovers


@dataclass(frozen=True)
class Audit:
    """What was found of one model's ledger.

    Attributes:
        model: The model.
        entries: How many entries are right.
        tip: The digest that the next entry will name; to be written down elsewhere, and compared.
        problems: What is damaged, taken out or put in; empty where the ledger is whole.
        outside: Where the sitevar says something else than the last entry; None where it does not.
    """

    model: str
    entries: int
    tip: str
    problems: tuple[str, ...]
    outside: str | None


def audit(target: Target, store: BundleStore, model: str) -> Audit:
    """Proves a model's ledger from the first entry to the last. Reads only.

    Raises:
        StoreError: The store failed.
    """
    chain, damaged = look_at_chain(store, model)
    problems = [str(problem) for problem in damaged or filter(None, [unsigned_tip(chain)])]
    outside = None
    if not problems:
        try:
            told = entries(store, model)
            problems += _not_entered(store, model, {entry.key for entry in told})
            outside = "; ".join(_outside(target, store, model, told)) or None
        except PublishError as error:
            problems.append(str(error))
    return Audit(model, len(chain.links), str(chain.tip), tuple(problems), outside)


def check_signed_word(target: Target, store: BundleStore, model: str) -> None:
    """Holds the sitevar to what the ledger's signed last entry says, where a target demands that.

    Raises:
        ConfigError: The signing key cannot be read.
        RefusedError: The sitevar says something else, or the ledger lacks what a rollover did; or
            what this target enters would not be accepted.
        StoreError: The store failed.
        VerificationError: The ledger is damaged, or its last entry is not signed.
    """
    if not store.demand:
        return
    check_enterable(store, model)
    found = audit(target, store, model)
    if found.problems or found.outside:
        raise RefusedError(
            f"What is live of {model} is not what was signed.",
            where=f"{store.location}/ledger/{model}",
            got="\n".join([*found.problems, *filter(None, [found.outside])]),
            wanted="a sitevar that says what the ledger's last entry says, which is signed",
            next_step=f"python -m adroit_publish verify-ledger {model} --target {target.name}; "
            "where the sitevar is right, say so: python -m adroit_publish sitevar set "
            f"{model} FLAVOR --why TEXT",
        )


def models_with_ledgers(store: BundleStore) -> list[str]:
    """Returns the models that have a ledger, sorted."""
    return list(store.objects.children("ledger/"))


def _outside(
    target: Target, store: BundleStore, model: str, told: Sequence[LedgerEntry]
) -> Iterator[str]:
    """Yields a line for each sitevar that says something else than its last entry."""
    for region, sitevars in (
        sitevars_of(target, store) if target.sitevar_addresses else {}
    ).items():
        known = pointed_to(told, region) or {}
        says = weights_in(sitevars.get(model).pointer)
        if says != known:
            yield (
                f"{sitevar_name(region)} says {weights_text(says)}, "
                f"the last entry says {weights_text(known)}"
            )


def _not_entered(store: BundleStore, model: str, keys: set[str]) -> list[str]:
    """Returns a line for each step of a rollover that the ledger does not have."""
    return [
        f"rollover {rollover.id} of {model} set the sitevar, and the ledger does not have it: {key}"
        for rollover in Rollovers(store.objects).all(model)
        for key in pointer_keys(rollover)
        if key not in keys
    ]
