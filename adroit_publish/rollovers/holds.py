"""Holding a flavor and ending that: in flavors.yaml, in git, and in the ledger."""

from __future__ import annotations

from functools import partial

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import find_flavor
from adroit_publish.config.flavors_edit import clear_hold, set_hold
from adroit_publish.edge.user import user_name
from adroit_publish.rollovers.book import note_hold
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.writeback.one_flavor import FlavorEdited, InGit, edit_flavor


def hold(
    checkout: Checkout, store: BundleStore, name: str, why: str | None, in_git: InGit
) -> FlavorEdited:
    """Holds a flavor, or ends its hold.

    Args:
        checkout: The checkout.
        store: Where the ledger is.
        name: The flavor.
        why: The reason; None ends the hold.
        in_git: Whether flavors.yaml is committed, and pushed.

    Raises:
        ConfigError: There is no such flavor.
        PublishError: As ``edit_flavor`` does; and as ``note_hold``, after the edit was made.
    """
    flavor = find_flavor(checkout.flavors, name)
    if why is None:
        edit, subject = partial(clear_hold, flavor=name), f"End the hold of {name}"
    else:
        edit, subject = partial(set_hold, flavor=name, why=why), f"Hold {name}"
    edited = edit_flavor(checkout.root, name, edit, subject, in_git)
    kind = "unheld" if why is None else "held"
    facts = {"flavor": name, "version": str(flavor.version or ""), "why": why}
    note_hold(store, checkout.project(flavor).model_name, kind, facts, user_name())
    return edited
