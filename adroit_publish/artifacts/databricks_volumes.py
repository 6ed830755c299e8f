"""Artifacts in a Unity Catalog volume, through the workspace's Files API.

The workspace streams the files itself; ranges are asked for where a download is taken up again.

Source: Databricks REST API, "Files" (``/api/2.0/fs/directories``, ``/api/2.0/fs/files``); MLflow
3.17, ``store/artifact/uc_volume_artifact_repo.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import quote

import requests

from adroit_publish.artifacts.arrival.stated import Stated, only_of, stated_by, unless_of
from adroit_publish.artifacts.databricks_workspace import Workspace
from adroit_publish.artifacts.folders import FolderEntry, list_folders
from adroit_publish.artifacts.http_session import body_of
from adroit_publish.artifacts.remote_root import Body
from adroit_publish.bundle.listing import RemoteFile


class VolumeRoot:
    """One model's files below ``/Volumes/CATALOG/SCHEMA/VOLUME/...``; a ``RemoteRoot``."""

    piece_bytes: int | None = None

    def __init__(self, uri: str, workspace: Workspace, path: str) -> None:
        self.uri = uri
        self._workspace = workspace
        self._path = path.rstrip("/")

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root, folder by folder, all pages of each."""
        return list_folders(self.uri, self._list_page)

    def _list_page(self, folder: str, token: str | None) -> tuple[list[FolderEntry], str | None]:
        within = f"{self._path}/{folder}"
        query = {"page_token": token} if token else None
        path = f"/api/2.0/fs/directories{quote(within.rstrip('/'))}"
        page = self._workspace.call("GET", path, query=query)
        entries = [
            FolderEntry.of(entry, within, is_folder=entry.get("is_directory"))
            for entry in page.get("contents", [])
        ]
        return entries, page.get("next_page_token")

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int, tag: str | None) -> Iterator[Body]:
        """Streams from ``start`` to the end, or from 0 where ranges are not honoured."""
        headers = {"Range": f"bytes={start}-", **only_of(tag)} if start else {}
        with self._get_file(file, headers) as answer:
            yield body_of(answer, file, start, stop, f"{self.uri}/{file.path}")

    def stated(self, file: RemoteFile, tag: str) -> Stated:
        """Returns what the workspace says of a file now."""
        with self._get_file(file, unless_of(tag)) as answer:
            is_same = answer.status_code == 304
            return Stated(tag) if is_same else stated_by(answer.headers, whole=True)

    def _get_file(
        self, file: RemoteFile, headers: dict[str, str]
    ) -> AbstractContextManager[requests.Response]:
        path = f"/api/2.0/fs/files{quote(f'{self._path}/{file.path}')}"
        return self._workspace.request("GET", path, headers=headers)
