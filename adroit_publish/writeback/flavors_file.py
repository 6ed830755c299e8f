"""Published versions into flavors.yaml: the only place that writes that file.

The promise: no writer that uses this module loses another's edit, and one that does not (an editor,
git) loses none unless it writes between the last look and the rename. Under the file's lock
(``edge.files``) it is read afresh, every edit made, and the result put in its place as a whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.config.yaml.tree import MAX_BYTES
from adroit_publish.edge.files import locked
from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError

_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}


Edit = Callable[[bytes], bytes]
"""From a file's bytes to its new ones."""


@dataclass(frozen=True)
class Edited:
    """What came of the edits of several flavors: the file, who changed, and why others did not."""

    data: bytes
    changed: tuple[str, ...]
    failures: Mapping[str, ConfigError | RefusedError]


def apply_edits(data: bytes, edits: Mapping[str, Edit]) -> Edited:
    """Makes the edits that can be made; one that raises leaves its flavor as it is."""
    changed, failures = [], {}
    for flavor, edit in edits.items():
        try:
            before, data = data, edit(data)
        except (ConfigError, RefusedError) as error:
            failures[flavor] = error
        else:
            changed += [flavor] if data != before else []
    return Edited(data, tuple(changed), failures)


def try_edits(
    path: Path, edits: Mapping[str, Edit]
) -> tuple[tuple[str, ...], Mapping[str, PublishError]]:
    """Makes the edits that can be made, in one write; raises as ``edit_file`` of the file itself.

    Returns:
        The flavors that were changed, durable by now; and why each of the others could not be.
    """
    edited = Edited(b"", (), {})

    def edit(data: bytes) -> bytes:
        nonlocal edited
        edited = apply_edits(data, edits)
        return edited.data

    edit_file(path, edit)
    return edited.changed, edited.failures


def written(changed: tuple[str, ...], failures: Mapping[str, PublishError]) -> tuple[str, ...]:
    """Returns the flavors that were changed; raises one error for those that could not be."""
    if len(failures) == 1:
        raise next(iter(failures.values()))
    if failures:
        refused = any(isinstance(failure, RefusedError) for failure in failures.values())
        kind = RefusedError if refused else ConfigError  # a conflict decides the class
        raise kind(
            "\n".join(map(str, failures.values())),
            got=f"{len(failures)} flavors not written; written: {', '.join(changed) or 'none'}",
            next_step="look at the file, then run the same command again",
        )
    return changed


def edit_file(path: Path, edit: Edit) -> bool:
    """Makes one edit of the file, under its lock.

    Args:
        path: flavors.yaml; where it is a symbolic link, the file it leads to is edited.
        edit: What it raises leaves the file as it was. It is called again where someone without the
            lock wrote meanwhile.

    Returns:
        Whether the file was changed; durable when this returns.

    Raises:
        ConfigError: The file is missing, or as ``edit``.
        RefusedError: It may not be written, or as ``edit``.
        StoreError: The disk is full or failed.
    """
    with _translated(path), locked(path.resolve(strict=True)) as file:
        while True:
            old = file.read(MAX_BYTES + 1)  # one more than the parser takes, so that it refuses
            if old is None:
                raise FileNotFoundError(path)
            new = edit(old)
            if new == old:
                return False
            if file.replace(new, seen=old):
                return True


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise ConfigError("There is no such file.", where=path, wanted="flavors.yaml") from error
    except OSError as error:
        if error.errno in _REFUSALS:
            raise RefusedError(
                "flavors.yaml may not be written; it is as it was.",
                next_step="give yourself write permission to the file's directory",
                where=path,
                got=error.strerror,
            ) from error
        raise StoreError(
            "flavors.yaml could not be written; it is as it was.",
            next_step="free space on that disk, or mend it, then run the same command again",
            where=path,
            got=error.strerror,
        ) from error
