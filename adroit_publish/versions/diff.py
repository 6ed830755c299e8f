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
from adroit_publish.errors import ConfigError
from adroit_publish.git.history import file_at
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.stored_blob import stored_files
from adroit_publish.version import Version, Versions
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
    """Returns what differs between two published versions; raises as ``Version`` too.

    Raises:
        ConfigError: There is no such flavor or version, or the flavor was not published then.
        SourceError: git knows no such commit.
    """
    versions = Versions(store)
    before, after = (_find(checkout, versions, name) for name in (a, b))
    old, new = _side(a, before), _side(b, after)
    changes = [file for file in file_changes(old, new, "source") if file.change != "same"]
    return compare(old, new, _texts(before, after, changes))


def _find(checkout: Checkout, versions: Versions, name: str) -> Version:
    flavor, at, ref = name.partition("@")
    if at:
        file = f"flavors.yaml at {ref}"
        flavors = parse_flavors(file_at(checkout.root, ref, "flavors.yaml"), file)
        version = find_flavor(flavors, flavor, file).version
        if not isinstance(version, PublishedVersion):
            raise ConfigError(
                f"The flavor {flavor} was not published then.",
                where=file,
                got=version or "no version",
                wanted="a published version",
                next_step=f"name a commit that has one: git log -p {ref} -- flavors.yaml",
            )
        return versions.open(versions.store.get(version))
    if not PublishedVersion.matches(name):
        find_flavor(checkout.flavors, name)
    return versions.open(find_published(checkout.flavors, versions.store, name))


def _side(asked: str, version: Version) -> Compared:
    sizes: Counter[str] = Counter()
    for layer in version.manifest.layers:
        sizes[layer_kind(layer)] += layer.size_bytes
    return Compared(
        asked,
        version.model_name,
        version.name,
        str(version.published.manifest.digest),
        version.bundle,
        dict(sizes),
        version.records,
    )


def _texts(before: Version, after: Version, changes: list[FileChange]) -> Iterator[TextDiff]:
    """Yields how each changed source file differs, as far as it is a text of a readable size."""
    shown = []
    left = ALL_TEXTS_LIMIT_BYTES
    for change in changes:
        size_bytes = max(change.before_bytes or 0, change.after_bytes or 0)
        if size_bytes <= min(TEXT_LIMIT_BYTES, left):
            shown.append(change)
            left -= size_bytes
    paths = {change.path for change in shown}
    old, new = (
        stored_files(version.store, version.published, "source", paths)
        for version in (before, after)
    )
    for change in changes:
        if change.path in paths:
            yield text_diff(change.path, old.get(change.path), new.get(change.path))
        else:
            yield TextDiff(change.path, (), "too large to be shown")
