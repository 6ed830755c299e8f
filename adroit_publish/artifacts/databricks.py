"""Artifacts that Databricks keeps for MLflow: listed by the workspace, read from its storage.

    dbfs:/databricks/mlflow-tracking/EXPERIMENT/RUN/artifacts/PATH             MLflow 2
    dbfs:/databricks/mlflow-tracking/EXPERIMENT/logged_models/MODEL/artifacts  MLflow 3
    dbfs:/Volumes/CATALOG/SCHEMA/VOLUME/PATH                                   databricks_volumes.py

The workspace gives out signed addresses of files in S3, Azure or Google storage, many at a time;
they are read directly, in ranges side by side. A signed address is itself a credential: it is in no
message, and ours goes to the workspace alone. It expires within the hour, so a refused one is asked
for anew before anything is given up.

Source: MLflow 3.17, ``store/artifact/databricks_artifact_repo.py`` and its ``..._resources.py``;
``protos/databricks_artifacts.proto``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any
from urllib.parse import urlsplit

import requests

from adroit_publish.artifacts.arrival.stated import Stated, only_of, stated_by, unless_of
from adroit_publish.artifacts.databricks_volumes import VolumeRoot
from adroit_publish.artifacts.databricks_workspace import Workspace
from adroit_publish.artifacts.folders import FolderEntry, list_folders
from adroit_publish.artifacts.http_session import answered, body_of, failure_of, pooled_session
from adroit_publish.artifacts.remote_root import Body, TransientFault
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.errors import RefusedError, SourceError

PIECE_BYTES = 64 << 20
SIGNED_AT_ONCE = 100
"""Few enough that their addresses are used before they expire."""
_REFUSALS = 3
_EXPIRED = (400, 401, 403)  # Google and S3 (with a session's keys) say 400
_RUN = re.compile(r"/databricks/mlflow-tracking/[^/]+/([0-9a-f]{32})/artifacts(?:/(.+))?")
_MODEL = re.compile(r"/databricks/mlflow-tracking/[^/]+/logged_models/([^/]+)/artifacts(?:/(.+))?")


def open_databricks(uri: str, files: Sequence[RemoteFile]) -> DatabricksRoot | VolumeRoot:
    """Returns the root of a ``dbfs:`` location that ``location.artifact_location`` gave.

    ``files`` are going to be read, as they were listed: their addresses are signed together.

    Raises:
        RefusedError: There are no credentials for the workspace.
        SourceError: ``~/.databrickscfg`` cannot be read.
    """
    address = urlsplit(uri)
    profile, _, _ = address.netloc.partition("@")
    workspace = Workspace(f"databricks://{profile}" if profile else "databricks")
    if address.path.startswith("/Volumes/"):
        return VolumeRoot(uri, workspace, address.path)
    return DatabricksRoot(uri, workspace, _api_of(address.path), files)


@dataclass(frozen=True)
class _Api:
    """The requests for one run's artifacts, or for one logged model's.

    Attributes:
        below: The model's folder among them, ``""`` or with a slash at its end.
        fields: Of every request.
    """

    below: str
    fields: Mapping[str, str]
    listing: str
    folder_field: str
    signing: str
    paths_field: str
    signed_field: str


def _api_of(path: str) -> _Api:
    if run := _RUN.fullmatch(path):
        return _Api(
            below=f"{run[2]}/" if run[2] else "",
            fields={"run_id": run[1]},
            listing="/api/2.0/mlflow/artifacts/list",
            folder_field="path",
            signing="/api/2.0/mlflow/artifacts/credentials-for-read",
            paths_field="path",
            signed_field="credential_infos",
        )
    model = _MODEL.fullmatch(path)
    if not model:
        raise ValueError(f"no location that artifact_location gives: {path}")
    artifacts = f"/api/2.0/mlflow/logged-models/{model[1]}/artifacts"
    return _Api(
        below=f"{model[2]}/" if model[2] else "",
        fields={},
        listing=f"{artifacts}/directories",
        folder_field="artifact_directory_path",
        signing=f"{artifacts}/credentials-for-download",
        paths_field="paths",
        signed_field="credentials",
    )


@dataclass(frozen=True)
class _Signed:
    """A signed address, the headers that go with it and the kind of its storage."""

    url: str = field(repr=False)
    kind: str
    headers: Mapping[str, str] = field(repr=False)


class DatabricksRoot:
    """One model's files in a workspace's storage; a ``RemoteRoot``."""

    def __init__(
        self, uri: str, workspace: Workspace, api: _Api, files: Sequence[RemoteFile]
    ) -> None:
        self.uri = uri
        self.piece_bytes: int | None = PIECE_BYTES
        self._workspace = workspace
        self._api = api
        self._unsigned = dict.fromkeys(file.path for file in files)
        self._signed: dict[str, _Signed] = {}
        self._signing = threading.Lock()
        self._refusals: dict[str, int] = {}
        self._session = pooled_session()

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root, folder by folder, all pages of each."""
        return list_folders(self.uri, self._list_page)

    def _list_page(self, folder: str, token: str | None) -> tuple[list[FolderEntry], str | None]:
        within = self._api.below + folder
        query = {**self._api.fields, self._api.folder_field: within.rstrip("/")}
        if token:
            query["page_token"] = token
        page = self._workspace.call("GET", self._api.listing, query=query)
        entries = [
            FolderEntry.of(entry, within, is_folder=entry.get("is_dir"))
            for entry in page.get("files", [])
        ]
        return entries, page.get("next_page_token")

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int, tag: str | None) -> Iterator[Body]:
        """Streams bytes ``[start, stop)`` of a file from the storage that it lies in."""
        whole = (start, stop) == (0, file.size_bytes)
        ranged = {} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        wanted_status = 200 if whole else 206
        where = f"{self.uri}/{file.path}"
        with self._get(file.path, {**ranged, **only_of(tag)}, wanted_status) as (answer, is_s3):
            yield body_of(answer, file, start, stop, where, etag_is_md5=is_s3)

    def stated(self, file: RemoteFile, tag: str) -> Stated:
        """Returns what the storage says of a file now."""
        with self._get(file.path, unless_of(tag), 200) as (answer, is_s3):
            stated = stated_by(answer.headers, whole=True, etag_is_md5=is_s3)
            return replace(stated, tag=tag) if answer.status_code == 304 else stated

    @contextmanager
    def _get(
        self, path: str, headers: Mapping[str, str], wanted_status: int
    ) -> Iterator[tuple[requests.Response, bool]]:
        """Gives the storage's answer, and whether the storage is S3."""
        where = f"the storage of {self.uri}/{path}"
        signed = self._address_of(path)
        headers = {**signed.headers, **headers}
        with answered(self._session, signed.url, where=where, headers=headers) as answer:
            if answer.status_code in _EXPIRED:
                raise self._refused(path, signed, answer.status_code)
            if answer.status_code not in (wanted_status, 304):
                raise failure_of(answer, where)
            self._refusals.pop(path, None)
            yield answer, signed.kind.startswith("AWS")

    def _address_of(self, path: str) -> _Signed:
        with self._signing:
            if path not in self._signed:
                self._unsigned.pop(path, None)
                paths = [path, *islice(self._unsigned, SIGNED_AT_ONCE - 1)]
                self._signed |= self._sign(paths)
                for name in paths:
                    self._unsigned.pop(name, None)
            return self._signed[path]

    def _sign(self, paths: Sequence[str]) -> dict[str, _Signed]:
        asked = [self._api.below + path for path in paths]
        body: dict[str, Any] = {**self._api.fields, self._api.paths_field: asked}
        signed: list[Any] = []
        try:
            while len(signed) < len(asked):
                page = self._workspace.call("POST", self._api.signing, body=body)
                given = page.get(self._api.signed_field, [])
                signed += [row.get("credential_info", row) for row in given]
                body["page_token"] = page.get("next_page_token")
                if not given or not body["page_token"]:
                    break
            # In the order they were asked for, unless they say otherwise.
            by_path = {
                row.get("path") or name: self._signed_of(row)
                for name, row in zip(asked, signed, strict=False)
            }
            return {path: by_path[name] for path, name in zip(paths, asked, strict=True)}
        except (KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                "The workspace did not sign the addresses of the files.",
                where=self._workspace.host + self._api.signing,
                got=f"{len(signed)} addresses for {len(asked)} files",
                next_step="check that the run's artifacts can be opened in the workspace",
            ) from error

    def _signed_of(self, given: Any) -> _Signed:
        url = str(given["signed_uri"])
        scheme = urlsplit(url).scheme
        # Plain http only for a workspace that is itself on this machine.
        if scheme != "https" and not (
            scheme == "http" and self._workspace.host.startswith("http:")
        ):
            raise SourceError(
                "The workspace names a storage that is not reached over https.",
                where=self.uri,
                got=f"{scheme}:",
                wanted="https:",
                next_step="ask who runs the workspace; do not publish this run",
            )
        headers = {str(row["name"]): str(row["value"]) for row in given.get("headers") or []}
        return _Signed(url, str(given.get("type", "")), headers)

    def _refused(self, path: str, signed: _Signed, status: int) -> Exception:
        with self._signing:
            refusals = self._refusals.get(path, 0)
            if self._signed.get(path) is signed:  # else another range has been here before
                del self._signed[path]
                self._refusals[path] = refusals = refusals + 1
        if refusals < _REFUSALS:
            return TransientFault(f"{status} at the storage of {self.uri}/{path}")
        return RefusedError(
            "The storage refuses the addresses that Databricks has just signed.",
            where=f"{self.uri}/{path}",
            got=f"{status}, {refusals} times",
            next_step="check this machine's clock, and whether the workspace's storage may be "
            "reached from this network (its firewall or private link)",
        )
