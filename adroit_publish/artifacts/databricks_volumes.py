"""Artifacts in a Unity Catalog volume, through the workspace's Files API.

The workspace streams the files itself; ranges are asked for where a download is taken up again.

Source: Databricks REST API, "Files" (``/api/2.0/fs/directories``, ``/api/2.0/fs/files``); MLflow
3.17, ``store/artifact/uc_volume_artifact_repo.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from adroit_publish.artifacts.databricks_workspace import Workspace
from adroit_publish.artifacts.folders import Entry, list_folders
from adroit_publish.artifacts.http_session import body_start
from adroit_publish.artifacts.remote_root import CHUNK_BYTES, Body
from adroit_publish.bundle.listing import RemoteFile


class VolumeRoot:
    """One model's files in a volume.

    Args:
        uri: The location as it may be shown.
        workspace: Who has them.
        path: ``/Volumes/CATALOG/SCHEMA/VOLUME/...``.
    """

    piece_bytes: int | None = None

    def __init__(self, uri: str, workspace: Workspace, path: str) -> None:
        self.uri = uri
        self._workspace = workspace
        self._path = path.rstrip("/")

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root, folder by folder, all pages of each.

        Raises:
            SourceError: The workspace cannot be reached, or answers what is no listing.
            RefusedError: It wants other credentials.
        """
        return list_folders(self.uri, self._list_page)

    def _list_page(self, folder: str, token: str | None) -> tuple[list[Entry], str | None]:
        within = f"{self._path}/{folder}"
        query = {"page_token": token} if token else None
        path = f"/api/2.0/fs/directories{quote(within.rstrip('/'))}"
        page = self._workspace.call("GET", path, query=query)
        entries = [
            Entry(
                str(entry["path"]).removeprefix(within),
                bool(entry.get("is_directory", False)),
                int(entry.get("file_size") or 0),
            )
            for entry in page.get("contents", [])
        ]
        return entries, page.get("next_page_token")

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[Body]:
        """Streams a file from ``start`` to its end, or from 0 where ranges are not honoured.

        Raises:
            TransientFault: The connection or the workspace failed.
            SourceError: The file is gone or of another length than listed.
            RefusedError: The workspace wants other credentials.
        """
        path = f"/api/2.0/fs/files{quote(f'{self._path}/{file.path}')}"
        headers = {"Range": f"bytes={start}-"} if start else None
        with self._workspace.request("GET", path, headers=headers) as answer:
            begins = body_start(answer, file, start, file.size_bytes, f"{self.uri}/{file.path}")
            yield Body(begins, answer.raw.stream(CHUNK_BYTES, decode_content=False))
