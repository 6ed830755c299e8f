"""flavors.yaml as commits have it, and edits of it.

An edit is applied to what a commit says, never to the working tree's file, and never merged as
text. One that finds another value than it expects is a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from adroit_publish.errors import RefusedError
from adroit_publish.git.history import committed_file, read_blob
from adroit_publish.writeback.flavors_file import Edit, apply_edits

FILE = "flavors.yaml"


def bytes_at(root: Path, commit: str) -> bytes:
    """Returns flavors.yaml as a commit has it; raises SourceError where it has none."""
    return read_blob(root, committed_file(root, commit, FILE).blob)


def edited_as_committed(edits: Mapping[str, Edit], data: bytes, where: str) -> bytes:
    """Returns the file with every edit made.

    Raises:
        RefusedError: Some cannot be made; names them all, with what each found and wanted.
    """
    edited = apply_edits(data, edits)
    conflicts = list(edited.failures.values())
    if not conflicts:
        return edited.data
    several = len(conflicts) > 1
    raise RefusedError(
        "\n".join(str(conflict) if several else conflict.what for conflict in conflicts),
        where=f"{FILE} of {where}",
        got=None if several else conflicts[0].got,
        wanted=None if several else conflicts[0].wanted,
        next_step=(
            "nothing was committed and nothing is lost: the version is published and stands in "
            f"{FILE} of the working tree. `git fetch && git diff @{{upstream}} -- {FILE}` "
            "shows both; keep one of them and commit it"
        ),
    ) from conflicts[0]
