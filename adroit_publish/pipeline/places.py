"""From a target's words to the places they name."""

from __future__ import annotations

from pathlib import Path

from adroit_publish.config.targets import Target
from adroit_publish.errors import RefusedError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.directory import DirectoryObjects


def open_store(target: Target) -> BundleStore:
    """Returns the bundle store of ``target``; nothing is read or made yet.

    Raises:
        RefusedError: This program does not know how to reach such a store.
    """
    scheme, _, rest = target.bundles.partition(":")
    if scheme == "file":
        return BundleStore(DirectoryObjects(Path(rest)))
    raise RefusedError(
        f"Target {target.name} keeps its bundles where this program cannot reach.",
        got=target.bundles,
        wanted="file:DIRECTORY",
    )


def is_local(target: Target) -> bool:
    """Tells whether the target's bundles are on this machine alone."""
    return target.bundles.startswith("file:")
