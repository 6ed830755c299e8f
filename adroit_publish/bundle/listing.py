"""What a listing of files may hold, whoever wrote it: a tracking server, a bucket or a commit.

A path is relative, POSIX, UTF-8 without control characters, and stays inside its root. Two paths
of one listing never mean the same file on a file system that ignores case or normalises Unicode
(macOS, Windows), so a bundle unpacks to the same files everywhere.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from adroit_publish.errors import SourceError

MAX_FILES = 100_000
MAX_DEPTH = 64


@dataclass(frozen=True)
class RemoteFile:
    """One file of a model, as the artifact store lists it.

    Attributes:
        path: Relative to the model's root, in POSIX form.
        size_bytes: The length the store states; a download is held to it.
        tag: The store's tag of the bytes (an ETag), where its listing has one.
        executable: Whether its owner may run it; only a directory of this machine tells.
    """

    path: str
    size_bytes: int
    tag: str | None = None
    executable: bool = False


def checked_listing(files: Iterable[RemoteFile], where: object) -> tuple[RemoteFile, ...]:
    """Returns the files of the place ``where``, sorted by path bytes, once every one is acceptable.

    Raises:
        SourceError: A path is not acceptable, two paths collide, a size is negative, or there
            are more than ``MAX_FILES``.
    """
    listed = tuple(files)
    if len(listed) > MAX_FILES:
        raise SourceError(
            "The listing holds too many files.",
            where=where,
            got=f"{len(listed)} files",
            wanted=f"at most {MAX_FILES}",
        )
    for file in listed:
        check_path(file.path, where)
        if file.size_bytes < 0:
            raise SourceError(
                f"The listing gives {file.path!r} a negative size.",
                where=where,
                got=f"{file.size_bytes} bytes",
            )
    check_collisions((file.path for file in listed), where)
    return tuple(sorted(listed, key=lambda file: file.path.encode()))


def check_path(path: str, where: object) -> None:
    """Refuses a path that is not relative, plain and inside its root; SourceError says why."""
    problem = _problem_of(path)
    if problem:
        raise SourceError(
            f"A file name cannot be used: {problem}.",
            where=where,
            got=ascii(path[:500]),
            wanted="a relative path of plain names, such as `data/model.bin`",
            next_step="rename the file where it comes from",
        )


def _problem_of(path: str) -> str | None:
    try:
        path.encode()
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if path.startswith("/"):
        return "it is absolute"
    if "\\" in path:
        return "it holds a backslash"
    # Cc and Cf: control characters, and the invisible ones that reorder or hide text.
    if any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in path):
        return "it holds control characters"
    parts = path.split("/")
    if "" in parts:
        return "a part of it is empty"
    if "." in parts or ".." in parts:
        return "it holds `.` or `..`"
    if len(parts) > MAX_DEPTH:
        return f"it is more than {MAX_DEPTH} levels deep"
    return None


def check_collisions(paths: Iterable[str], where: object) -> None:
    """Refuses paths that are one file, or a file and a folder, where case and form are ignored.

    SourceError names both paths.
    """
    files: dict[str, str] = {}
    for path in paths:
        folded = _folded(path)
        if folded in files:
            raise _collision(files[folded], path, where)
        files[folded] = path
    for folded, path in files.items():
        for at, char in enumerate(folded):
            if char == "/" and folded[:at] in files:
                raise _collision(files[folded[:at]], path, where)


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _collision(first: str, second: str, where: object) -> SourceError:
    return SourceError(
        "Two files would be one on a file system that ignores case or Unicode form.",
        where=where,
        got=f"{first!a} and {second!a}",
        next_step="rename one of them where they come from",
    )
