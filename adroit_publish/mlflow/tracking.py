"""The edge to MLflow's tracking store: one client, bounded in time, its errors translated.

Allowed are ``sqlite:``, ``file:``, ``https:``, ``http:`` on loopback and ``databricks``. A local
store has to exist already, and is read by a copy (``snapshot.py``). Redirects are off, so
that no credential follows one. MLflow's settings are environment variables, so they are set for
the length of a call and put back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from adroit_publish.edge.urls import (
    check_http_address,
    is_databricks,
    is_local,
    without_credentials,
)
from adroit_publish.errors import ModelNotFound, RefusedError, SourceError
from adroit_publish.mlflow.snapshot import quiet_migration, snapshot_of, view_of

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENVIRONMENT = threading.RLock()
# MLflow's own defaults (7 retries, 120 s each) keep a user waiting for minutes at a dead server.
_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
_ALWAYS = {
    "MLFLOW_ALLOW_HTTP_REDIRECTS": "false",
    # A server may not make us sleep for as long as it likes.
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


@contextmanager
def tracking_client(tracking_uri: str, *, patient: bool = True) -> Iterator[MlflowClient]:
    """Gives an MLflow client for as long as the block runs; nothing global outlives it.

    The address is ``sqlite:///PATH``, ``file:PATH``, ``https://HOST``, ``http://`` on loopback,
    ``databricks`` or ``databricks://PROFILE``. An impatient one makes no request again.

    Raises:
        SourceError: The address is not allowed, the store is not there, cannot be reached, or
            answers what MLflow does not understand.
        ModelNotFound: What was asked for does not exist there.
        RefusedError: The server wants other credentials.
    """
    check_tracking_store(tracking_uri)
    login: Mapping[str, str | None] = {}
    if is_databricks(tracking_uri):
        from adroit_publish.artifacts.databricks_workspace import Workspace

        login = Workspace(tracking_uri).mlflow_settings()
    settings = login if patient else {**login, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    with (
        _ENVIRONMENT,
        _environment(settings),
        _readable(tracking_uri) as readable,
        _translated(tracking_uri),
    ):
        from mlflow.tracking import MlflowClient

        yield MlflowClient(tracking_uri=readable)


def check_tracking_store(tracking_uri: str) -> None:
    """Lets an address pass that is allowed; a store of this machine has to be there, and MLflow's.

    Nothing is written: what MLflow's own client would change is a copy (``snapshot.py``). Raises
    SourceError for any other address.
    """
    scheme = urlsplit(tracking_uri).scheme
    if scheme == "sqlite":
        snapshot_of(_place_of(tracking_uri))
    elif scheme == "file":
        _place_of(tracking_uri)
    elif scheme in ("http", "https"):
        check_http_address(tracking_uri, "The tracking server")
    elif not is_databricks(tracking_uri):
        raise SourceError(
            "This kind of tracking store is not supported.",
            where=without_credentials(tracking_uri),
            wanted="sqlite:///FILE, file:DIRECTORY, https://HOST or databricks",
            next_step="set the target's tracking_uri in adroit.toml",
        )


def _place_of(tracking_uri: str) -> Path:
    """Returns the database or the directory of a store of this machine, which has to be there."""
    place = Path(unquote(urlsplit(tracking_uri).path))
    is_there = place.is_dir
    if tracking_uri.startswith("sqlite:"):
        place = Path(tracking_uri.removeprefix("sqlite:///").partition("?")[0])
        is_there = place.is_file
    if not is_there():
        raise SourceError(
            "There is no tracking store at the target's tracking_uri.",
            where=tracking_uri,
            got=f"{place} does not exist",
            next_step="train a model first, or set the target's tracking_uri in adroit.toml",
        )
    return place.absolute()


@contextmanager
def _readable(tracking_uri: str) -> Iterator[str]:
    """Gives an address of the same runs that MLflow's client may open, and write to."""
    scheme = urlsplit(tracking_uri).scheme
    if scheme == "sqlite":
        with quiet_migration():
            yield f"sqlite:///{snapshot_of(_place_of(tracking_uri))}"
    elif scheme == "file":
        with view_of(_place_of(tracking_uri)) as view:
            yield view.as_uri()
    else:
        yield "databricks" if is_databricks(tracking_uri) else tracking_uri


@contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    limits = {key: os.environ.get(key, value) for key, value in _DEFAULTS.items()}
    wanted = {**limits, **_ALWAYS, **settings}
    before = {key: os.environ.get(key) for key in wanted}
    _set_environment(wanted)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value


@contextmanager
def _translated(tracking_uri: str) -> Iterator[None]:
    """Turns whatever MLflow raises into an error that says what to do."""
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException, RestException
    from requests.exceptions import RequestException, SSLError

    from adroit_publish.artifacts.http_session import untrusted

    where = without_credentials(tracking_uri)
    try:
        yield
    except MlflowException as error:
        code = str(error.error_code)
        if isinstance(error.__context__, SSLError):
            raise untrusted(where, error.__context__, "MLFLOW_TRACKING_SERVER_CERT_PATH") from None
        if isinstance(error.__context__, RequestException):
            raise SourceError(
                "The tracking server cannot be reached.",
                where=where,
                got=type(error.__context__).__name__,
                next_step="check the address, the network and the VPN, then run it again",
            ) from error
        if code in _DENIED:
            raise RefusedError(
                "The tracking server refused the credentials.",
                where=where,
                got=_first_line(error),
                next_step="databricks auth login, or set DATABRICKS_TOKEN"
                if is_databricks(tracking_uri)
                else "log in again, or set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            ) from error
        # A page that says 404 is not MLflow's word that a run does not exist.
        if code == "RESOURCE_DOES_NOT_EXIST" and (
            isinstance(error, RestException) or is_local(tracking_uri)
        ):
            raise ModelNotFound(
                "The tracking store does not know what was asked for.",
                where=where,
                got=_first_line(error),
                next_step="check the run id and the target",
            ) from error
        raise _not_understood(where, error) from error
    # protobuf, json and MLflow's own parsers raise what they like on an answer of another shape.
    except (ParseError, ValueError, TypeError, KeyError, AttributeError, RequestException) as error:
        raise _not_understood(where, error) from error


def _not_understood(where: str, error: Exception) -> SourceError:
    return SourceError(
        "The tracking store did not give a usable answer.",
        where=where,
        got=_first_line(error),
        next_step="check that the target's tracking_uri is an MLflow tracking store",
    )


def _first_line(error: Exception) -> str:
    text = without_credentials(str(error)).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 300 else line[:300] + "..."
