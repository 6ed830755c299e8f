"""Holding a flavor and ending that: in flavors.yaml, in git, and in the ledger."""

from __future__ import annotations

from functools import partial

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import find_flavor
from adroit_publish.config.flavors_edit import clear_hold, set_hold
from adroit_publish.custody.rolled_back import rolled_back
from adroit_publish.edge.user import user_name
from adroit_publish.rollovers.audit import models_with_ledgers
from adroit_publish.rollovers.book import note_hold
from adroit_publish.stores.bundle_store import BundleStore
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
        PublishError: As ``edit_flavor`` does; and as ``note_hold``, after the edit was made.
    """
    flavor = find_flavor(checkout.flavors, name)
    edit = partial(set_hold, flavor=name, why=why)
    edited = edit_flavor(checkout.root, name, edit, f"Hold {name}", in_git)
    facts = {"flavor": name, "version": str(flavor.version or ""), "why": why}
    note_hold(store, checkout.project(flavor).model_name, "held", facts, user_name())
    return edited


def unhold(
    checkout: Checkout, store: BundleStore, name: str, in_git: InGit
) -> tuple[FlavorEdited, bool]:
    """Ends a flavor's hold, and that of its version, where that was rolled back.

    A flavor that is gone from flavors.yaml may still hold a version in the ledger.

    Returns:
        The edit; and whether the flavor was held, by flavors.yaml or by the ledger.

    Raises:
        ConfigError: There is no such flavor, and none of its name holds a version.
        PublishError: As ``hold``.
    """
    edited, version = FlavorEdited(False, None, ""), ""
    models = [
        model
        for model in models_with_ledgers(store)
        if name in {entry.facts["flavor"] for entry in rolled_back(store, model).values()}
    ]
    if name in checkout.flavors or not models:
        flavor = find_flavor(checkout.flavors, name)
        edit, subject = partial(clear_hold, flavor=name), f"End the hold of {name}"
        edited = edit_flavor(checkout.root, name, edit, subject, in_git)
        models, version = [checkout.project(flavor).model_name], str(flavor.version or "")
    facts = {"flavor": name, "version": version, "why": None}
    entered = [note_hold(store, model, "unheld", facts, user_name()) for model in models]
    return edited, edited.changed or any(entered)
