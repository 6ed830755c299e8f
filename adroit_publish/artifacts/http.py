"""The artifact proxy of a tracking server (``mlflow server``, proxied artifacts).

Spoken to directly: one pooled session with kept-alive connections is several times faster than
MLflow's client, and only so can lengths be checked and a download be resumed. Redirects are off,
and the credentials (those MLflow reads) go to this one host.

Source: MLflow 3.17, ``mlflow/server/handlers.py`` (``/api/2.0/mlflow-artifacts/artifacts``, which
honours Range and If-Range); RFC 9110, sections 10.2.3 (Retry-After), 13.1.5 (If-Range), 14 (Range).
"""

from __future__ import annotations

import base64
import configparser
import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote

import requests

from adroit_publish.artifacts.arrival.stated import Stated, stated_by, unless_of
from adroit_publish.artifacts.folders import FolderEntry, list_folders
from adroit_publish.artifacts.http_session import answered, body_of, failure_of, pooled_session
from adroit_publish.artifacts.location import PROXY_PATH
from adroit_publish.artifacts.remote_root import READ_TIMEOUT_S, Body
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.urls import check_http_address
from adroit_publish.errors import RefusedError

_LISTING_LIMIT_BYTES = 64 << 20
# A server in front of a bucket fetches the whole file before its first byte; at least this fast.
_SLOWEST_FETCH_BYTES_PER_S = 50e6


class HttpRoot:
    """One model's files behind a tracking server's artifact proxy; a ``RemoteRoot``.

    Args:
        url: ``http(s)://HOST[/PREFIX]/api/2.0/mlflow-artifacts/artifacts/PATH``, quoted.

    Raises:
        SourceError: The address is ``http:`` off loopback or holds credentials.
    """

    # For such a server a range costs as much as the whole file.
    piece_bytes: int | None = None

    def __init__(self, url: str) -> None:
        check_http_address(url, "The artifact proxy")
        self.url = url
        credentials = _credentials()
        self._session = pooled_session(lambda: credentials)
        self._session.verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
            os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
        )
        self._session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root, folder by folder."""
        return list_folders(self.url, self._list_page)

    def _list_page(self, folder: str, _token: str | None) -> tuple[list[FolderEntry], None]:
        base, _, root = self.url.partition(PROXY_PATH)
        path = f"{unquote(root).strip('/')}/{folder}".rstrip("/")
        with self._get(f"{base}{PROXY_PATH}?path={quote(path)}") as answer:
            data = answer.raw.read(_LISTING_LIMIT_BYTES + 1, decode_content=True)
        if len(data) > _LISTING_LIMIT_BYTES:
            raise ValueError(f"more than {_LISTING_LIMIT_BYTES} bytes")
        entries = [
            # MLflow leaves a size of 0 out.
            FolderEntry(entry["path"], bool(entry.get("is_dir")), int(entry.get("file_size", 0)))
            for entry in json.loads(data).get("files", [])
        ]
        return entries, None

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int, tag: str | None) -> Iterator[Body]:
        """Streams from ``start`` to the end, or from 0 where the file has another tag now."""
        headers = {"Range": f"bytes={start}-", "If-Range": tag or ""} if start else {}
        with self._get_file(file, headers) as answer:
            yield body_of(answer, file, start, stop, answer.url)

    def stated(self, file: RemoteFile, tag: str) -> Stated:
        """Returns what the server says of a file now."""
        with self._get_file(file, unless_of(tag)) as answer:
            is_same = answer.status_code == 304
            return Stated(tag) if is_same else stated_by(answer.headers, whole=True)

    def _get_file(
        self, file: RemoteFile, headers: dict[str, str]
    ) -> AbstractContextManager[requests.Response]:
        timeout_s = READ_TIMEOUT_S + file.size_bytes / _SLOWEST_FETCH_BYTES_PER_S
        return self._get(f"{self.url}/{quote(file.path)}", timeout_s, headers)

    @contextmanager
    def _get(
        self, url: str, timeout_s: float = READ_TIMEOUT_S, headers: dict[str, str] | None = None
    ) -> Iterator[requests.Response]:
        with answered(
            self._session,
            url,
            where=url,
            certificate_setting="MLFLOW_TRACKING_SERVER_CERT_PATH",
            timeout_s=timeout_s,
            headers=headers,
            # Of the request: requests lets REQUESTS_CA_BUNDLE override the session's.
            verify=self._session.verify,
        ) as answer:
            if answer.status_code in (401, 403):
                raise RefusedError(
                    "The tracking server refused the credentials.",
                    where=url,
                    got=f"{answer.status_code} {answer.reason}",
                    next_step="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                    "MLFLOW_TRACKING_TOKEN",
                )
            if answer.status_code not in (200, 206, 304):
                raise failure_of(answer, url)
            yield answer


def _credentials() -> dict[str, str]:
    """Returns the header with MLflow's credentials: the environment's first, then its file's."""
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
        file.clear()  # a broken file holds no credentials; the server says what is missing
    stored = file["mlflow"] if file.has_section("mlflow") else {}
    user, password = (
        os.environ.get(name.upper()) or stored.get(name)
        for name in ("mlflow_tracking_username", "mlflow_tracking_password")
    )
    if user and password:
        return {
            "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        }
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}
