"""flavors.yaml as commits have it, and edits of it: functions from bytes to bytes.

An edit is applied to what a commit says, never to the working tree's file, and never merged as
text. One that finds another value than it expects is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_edit import set_version
from adroit_publish.errors import ConfigError, RefusedError
from adroit_publish.git.commit import committed_file, head_commit, read_blob

FILE = "flavors.yaml"
Edit = Callable[[bytes], bytes]


def version_edits(root: Path, versions: Mapping[str, str]) -> dict[str, Edit]:
    """Returns the edits that set versions where nobody set another since the commit at HEAD.

    What they expect is what the commit says, not what the working tree says: there a publish has
    been written already, and before that, perhaps, a run id that was never committed.

    Args:
        root: The directory of flavors.yaml.
        versions: Flavor -> its new version.
    """
    known = parse_flavors(bytes_at(root, head_commit(root)))
    return {
        flavor: partial(
            set_version,
            flavor=flavor,
            version=version,
            expected=known[flavor].version if flavor in known else None,
        )
        for flavor, version in versions.items()
    }


def bytes_at(root: Path, commit: str) -> bytes:
    """Returns flavors.yaml as a commit has it; raises SourceError where it has none."""
    return read_blob(root, committed_file(root, commit, FILE).blob)


def apply_edits(edits: Mapping[str, Edit], data: bytes, where: str) -> bytes:
    """Returns the file with every edit made.

    Args:
        edits: Flavor -> its edit.
        data: The whole file.
        where: The branch that has it, for messages.

    Raises:
        RefusedError: Some cannot be made; names them all, with what each found and wanted.
    """
    conflicts: list[RefusedError | ConfigError] = []
    for edit in edits.values():
        try:
            data = edit(data)
        except (RefusedError, ConfigError) as error:
            conflicts.append(error)
    if conflicts:
        several = len(conflicts) > 1
        raise RefusedError(
            "\n".join(str(c) if several else c.what for c in conflicts),
            where=f"{FILE} of {where}",
            got=None if several else conflicts[0].got,
            wanted=None if several else conflicts[0].wanted,
            next_step=(
                "nothing was committed and nothing is lost: the version is published and stands in "
                f"{FILE} of the working tree. `git fetch && git diff @{{upstream}} -- {FILE}` "
                "shows both; keep one of them and commit it"
            ),
        ) from conflicts[0]
    return data
