"""Holding a flavor and ending that: in flavors.yaml, in git, and in the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import find_flavor
from adroit_publish.config.flavors_edit import clear_hold, set_hold
from adroit_publish.custody.rolled_back import rolled_back
from adroit_publish.edge.user import user_name
from adroit_publish.errors import PublishError
from adroit_publish.rollovers.audit import models_with_ledgers
from adroit_publish.rollovers.book import note_hold
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import check_enterable
from adroit_publish.stores.ledger import entries
from adroit_publish.writeback.one_flavor import FlavorEdited, InGit, edit_flavor


def hold(
    checkout: Checkout, store: BundleStore, name: str, why: str, in_git: InGit
) -> FlavorEdited:
    """Holds a flavor.

    Args:
        checkout: The checkout.
        store: Where the ledger is.
        name: The flavor.
        why: The reason.
        in_git: Whether flavors.yaml is committed, and pushed.

    Raises:
        ConfigError: There is no such flavor.
        PublishError: As ``check_enterable`` and ``edit_flavor`` do; and as ``note_hold``, after the
            edit was made.
    """
    flavor = find_flavor(checkout.flavors, name)
    model = checkout.project(flavor).model_name
    check_enterable(store, model)
    edit = partial(set_hold, flavor=name, why=why)
    edited = edit_flavor(checkout.root, name, edit, f"Hold {name}", in_git)
    facts = {"flavor": name, "version": str(flavor.version or ""), "why": why}
    note_hold(store, model, "held", facts, user_name())
    return edited


def unhold(
    checkout: Checkout,
    store: BundleStore,
    name: str,
    in_git: InGit,
    warn: Callable[[str], None],
) -> tuple[FlavorEdited, bool]:
    """Ends a flavor's hold, and that of its version, where that was rolled back.

    A flavor that is gone from flavors.yaml may still hold a version in the ledger of any model.

    Args:
        checkout: The checkout.
        store: Where the ledgers are.
        name: The flavor.
        in_git: Whether flavors.yaml is committed, and pushed.
        warn: Told of each ledger that may have the flavor and cannot be read.

    Returns:
        The edit; and whether the flavor was held, by flavors.yaml or by the ledger.

    Raises:
        ConfigError: There is no such flavor, and none of its name holds a version.
        PublishError: As ``hold``.
    """
    edited, version, flavor = FlavorEdited(False, None, ""), "", None
    gone = name not in checkout.flavors
    models = list(_models_that_hold(store, name, warn)) if gone else []
    if not models:
        flavor = find_flavor(checkout.flavors, name)
        models, version = [checkout.project(flavor).model_name], str(flavor.version or "")
    for model in models:
        check_enterable(store, model)
    if flavor:
        edit, subject = partial(clear_hold, flavor=name), f"End the hold of {name}"
        edited = edit_flavor(checkout.root, name, edit, subject, in_git)
    facts = {"flavor": name, "version": version, "why": None}
    entered = [note_hold(store, model, "unheld", facts, user_name()) for model in models]
    return edited, edited.changed or any(entered)


def _models_that_hold(store: BundleStore, name: str, warn: Callable[[str], None]) -> Iterator[str]:
    """Yields the models whose ledgers hold a version that was rolled back in a flavor."""
    for model in models_with_ledgers(store):
        try:
            entries(store, model)  # raises where it is damaged: such a ledger takes no entry
            held = rolled_back(store, model)
        except PublishError as error:
            warn(
                f"the ledger of {model} cannot be read, and is passed over: {error.what} "
                f"next: python -m adroit_publish verify-ledger {model}"
            )
        else:
            if name in {entry.facts["flavor"] for entry in held.values()}:
                yield model
