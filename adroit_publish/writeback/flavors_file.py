"""Published versions into flavors.yaml: the only place that writes that file.

The promise: the file is the old one or the new one, never torn; no writer that uses this module
loses another's edit, and one that does not (an editor, git) loses none unless it writes between
the last look and the rename. Under an exclusive lock on the file's directory (flock on its
descriptor: nothing is left behind, and a killed holder frees it) the file is read afresh, every
edit made, the result written to a temporary file beside it, fsynced, renamed over the file, and
the directory fsynced. The mode is kept, the owner where the system permits. Temporary files of
killed runs are removed by the next writer, which holds the lock and so knows them to be dead.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from adroit_publish.config.flavors_edit import set_version
from adroit_publish.config.yaml.tree import MAX_BYTES
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
    with _translated(path):
        real = path.resolve(strict=True)
        directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            _remove_leftovers(real)
            while True:
                old = _read(real)
                new = edit(old)
                if new == old:
                    return False
                if _replace(directory, real, old, new):
                    return True
        finally:
            os.close(directory)


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


def _replace(directory: int, real: Path, old: bytes, new: bytes) -> bool:
    """Puts ``new`` in the file's place, durably; False where it no longer holds ``old``."""
    temporary = f".{real.name}.{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        with open(os.open(temporary, flags, 0o600, dir_fd=directory), "wb") as stream:
            stream.write(new)
            stream.flush()
            _keep_owner_and_mode(stream.fileno(), real.stat())
            os.fsync(stream.fileno())
        if _read(real) != old:
            return False
        os.rename(temporary, real.name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        return True
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)


def _keep_owner_and_mode(descriptor: int, before: os.stat_result) -> None:
    now = os.fstat(descriptor)
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        with suppress(PermissionError):
            os.fchown(descriptor, before.st_uid, before.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(before.st_mode))  # last: a change of owner drops bits


def _read(real: Path) -> bytes:
    with real.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)  # one more than the parser takes, so that it refuses


def _remove_leftovers(real: Path) -> None:
    for leftover in real.parent.glob(f".{real.name}.{'[0-9a-f]' * 16}.tmp"):
        leftover.unlink(missing_ok=True)


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
