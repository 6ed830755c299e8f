"""Published versions into flavors.yaml: the only place that writes that file.

The promise: no writer that uses this module loses another's edit, and one that does not (an editor,
git) loses none unless it writes between the last look and the rename. Under the file's lock
(``edge.files``) it is read afresh, every edit made, and the result put in its place as a whole.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from adroit_publish.config.flavors_edit import set_version
from adroit_publish.config.yaml.tree import MAX_BYTES
from adroit_publish.edge.files import locked
from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError

_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP}


def write_versions(path: Path, versions: Mapping[str, tuple[str | None, str]]) -> tuple[str, ...]:
    """Sets the versions of some flavors, in one edit of the file.

    Args:
        path: flavors.yaml; where it is a symbolic link, the file it leads to is edited.
        versions: By flavor, the version that was there when the publish began (None: none), and
            the new one.

    Returns:
        The flavors whose version was changed, in the order given; durable when this returns. A
        flavor that already has its version is not among them; where none changed, nothing was
        written.

    Raises:
        ConfigError: The file is missing or not acceptable, or a flavor's version cannot be set.
        RefusedError: Another writer changed a flavor's version meanwhile (named, with both
            values), or the file may not be written.
        StoreError: The disk is full or failed.

    Where some flavors cannot be set, the others are written before this raises.
    """
    edits = {
        flavor: partial(
            set_version, flavor=flavor, version=version, expected=expected, file=path.name
        )
        for flavor, (expected, version) in versions.items()
    }
    return written(*try_edits(path, edits))


def written(changed: tuple[str, ...], failures: Mapping[str, PublishError]) -> tuple[str, ...]:
    """Returns the flavors that were changed; raises one error for those that could not be."""
    if failures:
        raise _combined(list(failures.values()), changed)
    return changed


def try_edits(
    path: Path, edits: Mapping[str, Callable[[bytes], bytes]]
) -> tuple[tuple[str, ...], dict[str, PublishError]]:
    """Makes the edits that can be made, in one; raises only where the file itself fails.

    Args:
        path: As for ``write_versions``.
        edits: By flavor; one that raises ConfigError or RefusedError leaves its flavor as it is.

    Returns:
        The flavors that were changed, and why each of the others could not be.

    Raises:
        ConfigError, RefusedError, StoreError: As for ``write_versions``, of the file itself.
    """
    changed: tuple[str, ...] = ()
    failures: dict[str, PublishError] = {}

    def edit(data: bytes) -> bytes:
        nonlocal changed, failures
        data, changed, failures = _apply(data, edits)
        return data

    edit_file(path, edit)
    return changed, failures


def edit_file(path: Path, edit: Callable[[bytes], bytes]) -> bool:
    """Makes one edit of the file, under its lock.

    Args:
        path: flavors.yaml; where it is a symbolic link, the file it leads to is edited.
        edit: From the file's bytes to its new ones; what it raises leaves the file as it was. It is
            called again where someone without the lock wrote meanwhile.

    Returns:
        Whether the file was changed; durable when this returns.

    Raises:
        ConfigError, RefusedError, StoreError: As for ``write_versions``.
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


def _apply(
    data: bytes, edits: Mapping[str, Callable[[bytes], bytes]]
) -> tuple[bytes, tuple[str, ...], dict[str, PublishError]]:
    changed: list[str] = []
    failures: dict[str, PublishError] = {}
    for flavor, one in edits.items():
        try:
            edited = one(data)
        except (ConfigError, RefusedError) as error:
            failures[flavor] = error
            continue
        if edited != data:
            changed.append(flavor)
        data = edited
    return data, tuple(changed), failures


def _combined(failures: list[PublishError], changed: tuple[str, ...]) -> PublishError:
    """Returns one error for all flavors that were not set; a conflict decides the class."""
    if len(failures) == 1:
        return failures[0]
    refused = any(isinstance(failure, RefusedError) for failure in failures)
    kind = RefusedError if refused else ConfigError
    return kind(
        "\n".join(str(failure) for failure in failures),
        got=f"{len(failures)} flavors not written; written: {', '.join(changed) or 'none'}",
        next_step="look at the file, then run the same command again",
    )


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
