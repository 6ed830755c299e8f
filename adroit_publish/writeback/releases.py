"""What releases change in flavors.yaml: a version of a flavor, or a new flavor beside the old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_edit import set_version
from adroit_publish.config.flavors_entries import copy_flavor
from adroit_publish.errors import PublishError
from adroit_publish.git.history import head_commit
from adroit_publish.publish.release import Release
from adroit_publish.writeback.commit import commit_edits
from adroit_publish.writeback.commit_message import CommitMessage, VersionChange
from adroit_publish.writeback.committed_flavors import bytes_at
from adroit_publish.writeback.flavors_file import Edit, try_edits, written
from adroit_publish.writeback.push import Committed


def write_releases(checkout: Checkout, releases: Sequence[Release]) -> tuple[str, ...]:
    """Writes what is new into flavors.yaml, in one edit; returns who was changed, durable by now.

    A flavor's version has to be what it is in ``checkout``. Where some flavors cannot be set, the
    others are written before this raises.

    Raises:
        ConfigError, RefusedError, StoreError: As ``edit_file`` and ``set_version``.
    """
    before = {name: flavor.version for name, flavor in checkout.flavors.items()}
    return written(*try_releases(checkout.flavors_file, releases, before))


def try_releases(
    path: Path, releases: Sequence[Release], before: Mapping[str, str | None]
) -> tuple[tuple[str, ...], Mapping[str, PublishError]]:
    """Writes what can be written, as ``write_releases``; and returns why the rest cannot.

    Args:
        before: The version that each flavor has to have still.
    """
    edits = {
        release.flavor: _edit(release, before.get(release.copied_from or release.flavor))
        for release in releases
        if release.news and release.flavor
    }
    return try_edits(path, edits) if edits else ((), {})


def commit_releases(root: Path, releases: Sequence[Release], *, push: bool) -> Committed:
    """Commits what releases change, against what HEAD says; raises as ``commit_edits``.

    A release without news is committed too, where an earlier run was killed after the write-back.
    """
    known = parse_flavors(bytes_at(root, head_commit(root)))
    edits, changes = {}, []
    for release in releases:
        origin = known.get(release.copied_from or release.flavor)
        before = origin.version if origin else None
        edits[release.flavor] = _edit(release, before)
        old = None if release.copied_from else before
        changes.append(VersionChange(release.flavor, old, release.version, release.run_id))
    return commit_edits(root, edits, CommitMessage(tuple(changes), releases[0].target), push=push)


def _edit(release: Release, expected: str | None) -> Edit:
    version = release.version
    if release.copied_from:
        return partial(
            copy_flavor,
            flavor=release.copied_from,
            new=release.flavor,
            version=version,
            expected=expected,
        )
    return partial(set_version, flavor=release.flavor, version=version, expected=expected)
