"""A Databricks workspace: its address and credentials, one request to its API, its answers' words.

Who we are is found by Databricks' own SDK (``DATABRICKS_HOST`` and ``DATABRICKS_TOKEN``, a profile
of ``~/.databrickscfg``, OAuth, ...), which renews what expires. What it says when it finds nothing
is of no help to a user, so that is said here. Nothing of a file's content is ever shown: where a
line is malformed, it may be the one with the token.

Only the SDK's ``Config`` is used, and imported where it is needed: ``import databricks.sdk`` takes
as long as ten times ``import requests``. Its client does not make our requests: it follows
redirects, retries by a clock of its own and knows nothing of signed addresses.

Source: Databricks, "Unified authentication" and "REST API: errors".
"""

from __future__ import annotations

import configparser
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from adroit.databricks_answers import error_of, profiles_in
from adroit_publish.artifacts.http_session import answered, failure_of, pooled_session
from adroit_publish.edge.urls import is_loopback
from adroit_publish.errors import PublishError, RefusedError, SourceError

if TYPE_CHECKING:
    from databricks.sdk.config import Config

_ANSWER_LIMIT_BYTES = 64 << 20
_LOG_IN = "databricks auth login --host https://WORKSPACE, or set DATABRICKS_HOST and "
_LOG_IN += "DATABRICKS_TOKEN"


class Workspace:
    """A workspace (``databricks``, or ``databricks://PROFILE``) and the right to ask it.

    Raises:
        RefusedError: Nothing says which workspace, or as whom.
        SourceError: ``~/.databrickscfg`` cannot be read, or the workspace is not at https.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._tracking_uri = tracking_uri
        self._config = _configuration(tracking_uri)
        self.host = str(self._config.host or "").rstrip("/")
        _check_host(self.host, tracking_uri)
        self._session = pooled_session(lambda: _credentials(self._config, tracking_uri))

    def mlflow_settings(self) -> dict[str, str | None]:
        """Returns the environment that lets MLflow ask this workspace, without Databricks' SDK.

        Through the SDK, MLflow follows redirects and waits five minutes for a dead workspace.
        Raises RefusedError where logging in failed, or gives no bearer token.
        """
        kind, _, token = _credentials(self._config, self._tracking_uri)["Authorization"].partition(
            " "
        )
        if kind != "Bearer":
            raise RefusedError(
                "Databricks is logged in to in a way that gives no token.",
                where=f"tracking_uri = {self._tracking_uri}",
                got=self._config.auth_type,
                next_step=_LOG_IN,
            )
        others = ("CONFIG_PROFILE", "USERNAME", "PASSWORD", "CLIENT_ID", "CLIENT_SECRET")
        unset = dict.fromkeys(f"DATABRICKS_{name}" for name in others)
        login = {"DATABRICKS_HOST": self.host, "DATABRICKS_TOKEN": token}
        return {**unset, **login, "MLFLOW_ENABLE_DB_SDK": "false"}

    def call(
        self, method: str, path: str, *, query: Any = None, body: Any = None
    ) -> dict[str, Any]:
        """Makes one request and returns the JSON object it was answered with.


        Raises:
            TransientFault: The connection or the workspace failed.
            RefusedError: It wants other credentials, or ours have expired.
            SourceError: What was asked for is not there, or the answer is none of Databricks'.
        """
        with self.request(method, path, query=query, body=body) as answer:
            data = answer.raw.read(_ANSWER_LIMIT_BYTES + 1, decode_content=True)
        try:
            parsed = json.loads(data) if len(data) <= _ANSWER_LIMIT_BYTES else None
        except (ValueError, RecursionError):
            parsed = None
        if not isinstance(parsed, dict):
            raise SourceError(
                "The workspace's answer is not one of Databricks' API.",
                where=self.host + path,
                got=ascii(data[:80]),
                wanted="a JSON object",
                next_step="check DATABRICKS_HOST, or the profile's host (a login page answers so)",
            )
        return parsed

    @contextmanager
    def request(
        self,
        method: str,
        path: str,
        *,
        query: Any = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """Gives the answer to one request while its body is read; raises as ``call`` does."""
        url = self.host + path
        with answered(
            self._session, url, where=url, method=method, params=query, json=body, headers=headers
        ) as answer:
            _check_status(answer, url)
            yield answer


def _check_status(answer: requests.Response, url: str) -> None:
    status = answer.status_code
    if status in (200, 206, 304):
        return
    if status in (408, 412, 429) or status >= 500:
        raise failure_of(answer, url)
    code, text = error_of(answer.raw.read(1 << 16, decode_content=True))
    got = f"{status} {code or answer.reason} {text}".strip()
    if status in (401, 403):
        raise RefusedError(
            "Databricks refused the credentials, or they have expired.",
            where=url,
            got=got,
            next_step="log in again (databricks auth login, or a new DATABRICKS_TOKEN), then run "
            "the same command again: what has arrived is kept",
        )
    raise SourceError(
        "Databricks does not give what was asked for.",
        where=url,
        got=got + (", a redirect" if 300 <= status < 400 else ""),
        wanted="200 OK",
        next_step="check that the run's artifacts can be opened in the workspace",
    )


def _configuration(tracking_uri: str) -> Config:
    from databricks.sdk.config import Config

    profile = tracking_uri.partition("://")[2] or None
    options: dict[str, Any] = {"http_timeout_seconds": 10, "retry_timeout_seconds": 3}
    if profile:  # one of None would switch off what the environment says
        options["profile"] = profile
    try:
        return Config(**options)
    except (configparser.Error, ValueError) as error:
        if isinstance(error, ValueError) and not isinstance(error.__cause__, UnicodeDecodeError):
            raise _no_credentials(tracking_uri, profile, error) from None
        raise SourceError(
            "The Databricks configuration file cannot be read.",
            where=_config_file(),
            got="not in INI form",
            wanted="[PROFILE], and below it host = https://... and token = ...",
            next_step="mend or remove it, then: databricks auth login --host https://WORKSPACE",
        ) from None


def _credentials(config: Config, tracking_uri: str) -> dict[str, str]:
    try:
        return config.authenticate()
    except Exception as error:  # noqa: BLE001 - each of the SDK's many ways to log in has its own
        raise RefusedError(
            "Logging in to Databricks failed.",
            where=f"tracking_uri = {tracking_uri}",
            got=type(error).__name__,
            next_step=_LOG_IN,
        ) from None


def _check_host(host: str, tracking_uri: str) -> None:
    address = urlsplit(host)
    is_web = address.scheme == "https" or (
        address.scheme == "http" and is_loopback(address.hostname or "")
    )
    if not is_web or not address.hostname or "@" in address.netloc:
        raise SourceError(
            "The Databricks workspace is not reached over https.",
            where=f"tracking_uri = {tracking_uri}",
            got=f"{address.scheme}://{address.hostname or ''}" if host else "no host",
            wanted="https://WORKSPACE",
            next_step="set DATABRICKS_HOST, or the profile's host",
        )


def _config_file() -> Path:
    return Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()


def _no_credentials(tracking_uri: str, profile: str | None, error: Exception) -> PublishError:
    file = _config_file()
    if "more than one authorization method" in str(error):
        got = "more than one way to log in is set; DATABRICKS_AUTH_TYPE says which is meant"
    else:
        got = _state_of(file)
    wanted = f"a profile {profile}" if profile else "a DEFAULT profile"
    return RefusedError(
        "There are no Databricks credentials that can be used.",
        where=f"tracking_uri = {tracking_uri}",
        got=got,
        wanted=f"{wanted} with host and token in {file}, or DATABRICKS_HOST and DATABRICKS_TOKEN",
        next_step=_LOG_IN + (f" (--profile {profile})" if profile else ""),
    )


def _state_of(file: Path) -> str:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return f"{file} does not exist"
    except OSError as error:
        return f"{file}: {error.strerror}"
    return f"{file} holds {profiles_in(text)}"
