"""Diffing two versions: what their names mean, and what has to be read of them.

A name is a version, a flavor (the version that flavors.yaml gives it now), or ``flavor@REF`` (the
version it has in flavors.yaml at that commit, branch or tag). Of the layers only the source is
read, and only where it differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from adroit_publish.bundle.layer import layer_kind
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import find_flavor, parse_flavors
from adroit_publish.git.history import file_at
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.records import records
from adroit_publish.stores.stored_blob import stored_files
from adroit_publish.versions.comparison import (
    Compared,
    Diff,
    FileChange,
    TextDiff,
    compare,
    file_changes,
    text_diff,
)
from adroit_publish.versions.serve import find_published

TEXT_LIMIT_BYTES = 256 << 10
ALL_TEXTS_LIMIT_BYTES = 16 << 20


def diff(checkout: Checkout, store: BundleStore, a: str, b: str) -> Diff:
    """Returns what differs between two published versions.

    Args:
        checkout: The checkout.
        store: Where both versions are.
        a: The one before: a version, a flavor, or ``flavor@REF``.
        b: The one after.

    Raises:
        ConfigError: There is no such flavor or version, or the flavor was not published then.
        SourceError: git knows no such commit.
        StoreError: The store failed.
        VerificationError: A document or the source of a version is damaged, or a version was made
            by another schema of this program.
    """
    before, after = (_find(checkout, store, name) for name in (a, b))
    old, new = _side(store, a, before), _side(store, b, after)
    changes = [file for file in file_changes(old, new, "source") if file.change != "same"]
    return compare(old, new, _texts(store, before, after, changes))


def _find(checkout: Checkout, store: BundleStore, name: str) -> Published:
    flavor, at, ref = name.partition("@")
    if at:
        file = f"flavors.yaml at {ref}"
        flavors = parse_flavors(file_at(checkout.root, ref, "flavors.yaml"), file)
        find_flavor(flavors, flavor, file)
        return find_published(flavors, store, flavor)
    if not PublishedVersion.matches(name):
        find_flavor(checkout.flavors, name)
    return find_published(checkout.flavors, store, name)


def _side(store: BundleStore, asked: str, published: Published) -> Compared:
    sizes: Counter[str] = Counter()
    for layer in store.manifest(published).layers:
        sizes[layer_kind(layer)] += layer.size_bytes
    return Compared(
        asked,
        published.model_name,
        published.version,
        str(published.manifest.digest),
        store.bundle_record(published),
        dict(sizes),
        tuple(records(store, published)),
    )


def _texts(
    store: BundleStore, before: Published, after: Published, changes: list[FileChange]
) -> Iterator[TextDiff]:
    """Yields how each changed source file differs, as far as it is a text of a readable size."""
    shown = []
    left = ALL_TEXTS_LIMIT_BYTES
    for change in changes:
        size_bytes = max(change.before_bytes or 0, change.after_bytes or 0)
        if size_bytes <= min(TEXT_LIMIT_BYTES, left):
            shown.append(change)
            left -= size_bytes
    paths = {change.path for change in shown}
    old, new = (stored_files(store, published, "source", paths) for published in (before, after))
    for change in changes:
        if change.path in paths:
            yield text_diff(change.path, old.get(change.path), new.get(change.path))
        else:
            yield TextDiff(change.path, (), "too large to be shown")
