"""Listing a tree folder by folder, where a server lists one folder at a time and in pages.

What it says is not believed: an entry names its own folder's child, and the tree ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.artifacts.remote_root import persist
from adroit_publish.bundle.listing import MAX_DEPTH, MAX_FILES, RemoteFile, check_path
from adroit_publish.errors import SourceError


@dataclass(frozen=True)
class FolderEntry:
    """What a server lists in one folder; ``name`` is relative to it."""

    name: str
    is_folder: bool
    size_bytes: int

    @classmethod
    def of(cls, entry: Mapping[str, Any], within: str, *, is_folder: object) -> FolderEntry:
        """Returns an entry of Databricks'; one that is not below ``within`` is refused later."""
        name = str(entry["path"]).removeprefix(within)
        return cls(name, bool(is_folder), int(entry.get("file_size") or 0))


ListPage = Callable[[str, str | None], tuple[list[FolderEntry], str | None]]


def list_folders(where: str, list_page: ListPage) -> tuple[RemoteFile, ...]:
    """Returns all files of a tree, in no particular order.

    Args:
        where: The tree's root as it may be shown.
        list_page: Given a folder (``""``, or with a slash at its end) and a page's token, returns
            entries and the next page's token. May raise TransientFault, and KeyError, TypeError,
            ValueError or AttributeError where the answer is of another shape.

    Raises:
        SourceError: The answer is no listing, an entry is no plain name, or there are too many.
    """
    files: list[RemoteFile] = []
    folders: list[str] = [""]
    while folders:
        folder, token = folders.pop(), None
        seen: set[str] = set()
        while True:
            entries, token = _page(where, folder, token, list_page)
            for entry in entries:
                _check_name(entry.name, folder, where)
                path = folder + entry.name
                if entry.is_folder:
                    folders.append(path + "/")
                else:
                    files.append(RemoteFile(path, entry.size_bytes))
            if len(files) + len(folders) > MAX_FILES:
                raise SourceError(
                    "The listing holds too many files.", where=where, wanted=f"at most {MAX_FILES}"
                )
            if not token or not entries or token in seen:
                break
            seen.add(token)
    return tuple(files)


def _page(
    where: str, folder: str, token: str | None, list_page: ListPage
) -> tuple[list[FolderEntry], str | None]:
    try:
        return persist(lambda: list_page(folder, token), f"The listing of {where}/{folder}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise SourceError(
            "The answer is not a listing of artifacts.",
            where=f"{where}/{folder}",
            got=type(error).__name__,
            wanted="paths and sizes",
            next_step="check that the tracking_uri names an MLflow server (and not a login page)",
        ) from error


def _check_name(name: object, folder: str, where: str) -> None:
    if not isinstance(name, str) or "/" in name or folder.count("/") > MAX_DEPTH:
        raise SourceError(
            "The listing names a file outside its folder.",
            where=f"{where}/{folder}",
            got=ascii(name)[:200],
            wanted="a plain name",
            next_step="ask who runs the tracking server; do not publish this run",
        )
    check_path(folder + name, where)
