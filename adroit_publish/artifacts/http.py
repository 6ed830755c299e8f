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
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import requests
from urllib3.exceptions import HTTPError

from adroit_publish.artifacts.http_session import pooled_session, retry_after_s
from adroit_publish.artifacts.location import PROXY_PATH
from adroit_publish.artifacts.remote_root import (
    CHUNK_BYTES,
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Body,
    Patience,
    TransientFault,
    persist,
)
from adroit_publish.bundle.listing import MAX_DEPTH, MAX_FILES, RemoteFile, check_path
from adroit_publish.edge.urls import check_http_address
from adroit_publish.errors import RefusedError, SourceError

_LISTING_LIMIT_BYTES = 64 << 20
# A server in front of a bucket fetches the whole file before its first byte; at least this fast.
_SLOWEST_FETCH_BYTES_PER_S = 50e6


class HttpRoot:
    """One model's files behind a tracking server's artifact proxy.

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
        self._session = _session()
        self._etags: dict[str, str] = {}

    def list_files(self) -> tuple[RemoteFile, ...]:
        """Returns the files below the root, folder by folder, as the server lists them.

        Raises:
            SourceError: The server cannot be reached, or answers what is no listing.
            RefusedError: The server wants other credentials.
        """
        found: list[RemoteFile] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            patience = Patience(f"The listing of {self.url}/{folder}")
            for entry in persist(lambda: self._list_folder(folder), patience):  # noqa: B023
                path, size_bytes = self._checked_entry(folder, entry)
                if size_bytes is None:
                    folders.append(path + "/")
                else:
                    found.append(RemoteFile(path, size_bytes))
            if len(found) + len(folders) > MAX_FILES:
                raise SourceError(
                    "The listing holds too many files.",
                    where=self.url,
                    wanted=f"at most {MAX_FILES}",
                )
        return tuple(found)

    @contextmanager
    def read(self, file: RemoteFile, start: int, stop: int) -> Iterator[Body]:
        """Streams a file from ``start`` to its end, or from 0 where ranges are not honoured.

        Raises:
            TransientFault: The connection or the server failed.
            SourceError: The file is gone or of another length than listed.
            RefusedError: The server wants other credentials.
        """
        url = f"{self.url}/{quote(file.path)}"
        headers = {}
        if start:
            headers["Range"] = f"bytes={start}-"
            if etag := self._etags.get(file.path):
                headers["If-Range"] = etag
        timeout_s = READ_TIMEOUT_S + file.size_bytes / _SLOWEST_FETCH_BYTES_PER_S
        with _translated(url), self._get(url, headers, timeout_s) as answer:
            _check_status(answer, url)
            begins = start if answer.status_code == 206 else 0
            _check_length(answer, file, begins, url)
            etag = answer.headers.get("ETag", "")
            if etag.startswith('"'):  # a weak one (W/"...") says nothing of bytes
                self._etags[file.path] = etag
            yield Body(begins, answer.raw.stream(CHUNK_BYTES, decode_content=False))

    def _get(self, url: str, headers: dict[str, str], timeout_s: float) -> requests.Response:
        return self._session.get(
            url,
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=(CONNECT_TIMEOUT_S, timeout_s),
        )

    def _list_folder(self, folder: str) -> list[Any]:
        base, _, root = self.url.partition(PROXY_PATH)
        path = f"{unquote(root).strip('/')}/{folder}".rstrip("/")
        url = f"{base}{PROXY_PATH}?path={quote(path)}"
        with _translated(url), self._get(url, {}, READ_TIMEOUT_S) as answer:
            _check_status(answer, url)
            data = answer.raw.read(_LISTING_LIMIT_BYTES + 1, decode_content=True)
        try:
            if len(data) > _LISTING_LIMIT_BYTES:
                raise ValueError(f"more than {_LISTING_LIMIT_BYTES} bytes")
            files = json.loads(data).get("files", [])
            if not isinstance(files, list):
                raise ValueError("`files` is not a list")
            return files
        except (ValueError, AttributeError, RecursionError) as error:
            raise _no_listing(url, ascii(data[:80]), "MLflow's JSON") from error

    def _checked_entry(self, folder: str, entry: Any) -> tuple[str, int | None]:
        """Returns an entry's path, and its size or None for a folder."""
        where = f"{self.url}/{folder}"
        try:
            name, is_folder = entry["path"], entry.get("is_dir", False)
            # MLflow leaves a size of 0 out.
            size_bytes = None if is_folder else int(entry.get("file_size", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _no_listing(where, ascii(entry)[:200], "a path, and a size") from error
        # An entry names its own folder's child; anything else would be a way around the checks.
        if not isinstance(name, str) or "/" in name.strip("/") or folder.count("/") > MAX_DEPTH:
            raise _no_listing(where, ascii(name)[:200], "a plain name")
        check_path(folder + name, where)
        return folder + name, size_bytes


def _session() -> requests.Session:
    authorization = _authorization()
    session = pooled_session(lambda request: _authorized(request, authorization))
    session.verify = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or (
        os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("true", "1")
    )
    session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None
    return session


def _authorized(
    request: requests.PreparedRequest, authorization: str | None
) -> requests.PreparedRequest:
    if authorization:
        request.headers["Authorization"] = authorization
    return request


def _authorization() -> str | None:
    """Returns the header for MLflow's credentials: environment first, then its file."""
    file = configparser.ConfigParser(interpolation=None)
    try:
        file.read(Path("~/.mlflow/credentials").expanduser())
    except (configparser.Error, OSError, UnicodeDecodeError, RuntimeError):
        file.clear()  # a broken file holds no credentials; the server says what is missing
    kept = file["mlflow"] if file.has_section("mlflow") else {}
    user, password = (
        os.environ.get(name.upper()) or kept.get(name)
        for name in ("mlflow_tracking_username", "mlflow_tracking_password")
    )
    if user and password:
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return f"Bearer {token}" if token else None


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (requests.exceptions.SSLError, requests.exceptions.InvalidURL) as error:
        raise SourceError(
            "The tracking server cannot be talked to.",
            where=url,
            got=type(error).__name__,
            next_step="check the address, and MLFLOW_TRACKING_SERVER_CERT_PATH for its certificate",
        ) from error
    except (requests.exceptions.RequestException, HTTPError) as error:
        raise TransientFault(f"{type(error).__name__} at {url}") from error


def _check_status(answer: requests.Response, url: str) -> None:
    status = answer.status_code
    got = f"{status} {answer.reason}"
    if status in (200, 206):
        return
    if status in (401, 403):
        raise RefusedError(
            "The tracking server refused the credentials.",
            where=url,
            got=got,
            next_step="set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN",
        )
    if status in (408, 429) or status >= 500:
        raise TransientFault(f"{got} at {url}", retry_after_s(answer))
    if 300 <= status < 400:
        got += ", a redirect"
    raise SourceError(
        "The tracking server does not give the file.",
        where=url,
        got=got,
        wanted="200 OK",
        next_step="check that the run's artifacts can be opened in MLflow's pages",
    )


def _check_length(answer: requests.Response, file: RemoteFile, begins: int, url: str) -> None:
    """Compares what the headers state with the listing, before any byte is believed."""
    problem = None
    stated = answer.headers.get("Content-Length", "")
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        problem = f"Content-Encoding {answer.headers['Content-Encoding']}"
    elif answer.status_code == 206:
        stated_range = answer.headers.get("Content-Range", "")
        if stated_range != f"bytes {begins}-{file.size_bytes - 1}/{file.size_bytes}":
            problem = f"Content-Range {stated_range[:100]!a}"
    elif stated.isdigit() and int(stated) != file.size_bytes:
        kind = answer.headers.get("Content-Type", "")
        problem = f"{stated} bytes of {kind[:100]!a}"
    if problem:
        raise SourceError(
            "The tracking server's answer is not the file that it listed.",
            where=url,
            got=problem,
            wanted=f"{file.size_bytes} bytes, from byte {begins}",
            next_step="check that nothing writes to the run any more, then run it again",
        )


def _no_listing(where: str, got: object, wanted: str) -> SourceError:
    return SourceError(
        "The tracking server's answer is not a listing of artifacts.",
        where=where,
        got=got,
        wanted=wanted,
        next_step="check that the target's tracking_uri is an MLflow server (and not a login page)",
    )
