"""The Databricks workspace that runs are logged to: who we are there, and its folders.

Asked before any work: MLflow's own client waits minutes for a dead workspace, makes one message of
every way in which ``~/.databrickscfg`` can be wrong, and does not make the folder of an experiment.
Credentials are found by Databricks' SDK, as MLflow finds them. Every message ends with the two
lines that make it work; none shows a token or a line of the file.

Source: Databricks, "Unified authentication"; REST API: ``workspace/mkdirs``, ``scim/v2/Me``.
"""

from __future__ import annotations

import configparser
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adroit.databricks_answers import error_of, profiles_in
from adroit.training.errors import TrainingError

if TYPE_CHECKING:
    import requests
    from databricks.sdk.config import Config

EXPORTS = "export DATABRICKS_HOST=https://WORKSPACE\nexport DATABRICKS_TOKEN=dapi..."
_TIMEOUT_S = (10, 30)
_ANSWER_BYTES = 1 << 20


def is_databricks(tracking_uri: str) -> bool:
    """Returns whether runs are logged to a workspace: ``databricks`` or ``databricks://PROFILE``."""
    return tracking_uri == "databricks" or tracking_uri.startswith("databricks://")


class DatabricksWorkspace:
    """A workspace, and the right to ask it.

    Args:
        tracking_uri: ``databricks``, or ``databricks://PROFILE``.

    Attributes:
        host: ``https://...``, without a slash at its end.

    Raises:
        TrainingError: Nothing says which workspace, or as whom.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._profile = tracking_uri.partition("://")[2] or None
        self._config = _configuration(self._profile)
        self.host = str(self._config.host or "").rstrip("/")

    def user_name(self) -> str:
        """Returns whom the workspace knows us as: an e-mail address, or a service principal's id.

        Raises:
            TrainingError: It refuses us, cannot be reached, or is no workspace.
        """
        me = self._call("GET", "/api/2.0/preview/scim/v2/Me")
        name = me.get("userName")
        if not isinstance(name, str) or not name:
            raise self._no_workspace("/api/2.0/preview/scim/v2/Me", "an answer without a userName")
        return name

    def make_directory(self, path: str) -> None:
        """Makes a folder of the workspace and those above it; one that is there is left alone.

        Args:
            path: Absolute, such as ``/Shared/mlflow/experiments/jane@nextdoor.com``.

        Raises:
            TrainingError: We may not, or something that is no folder lies there.
        """
        self._call("POST", "/api/2.0/workspace/mkdirs", {"path": path}, about=path)

    def _call(self, method: str, path: str, body: Any = None, about: str = "") -> dict[str, Any]:
        import requests

        headers = self._login()
        try:
            answer = requests.request(
                method,
                self.host + path,
                json=body,
                headers=headers,
                stream=True,
                allow_redirects=False,  # no credential follows one
                timeout=_TIMEOUT_S,
            )
            data = answer.raw.read(_ANSWER_BYTES, decode_content=True)
        except (requests.RequestException, OSError) as error:
            # `from None`: the cause's text may hold more of the request than may be shown.
            raise TrainingError(
                "The Databricks workspace cannot be reached.",
                where=self.host,
                got=type(error).__name__,
                next_step="check the address, the network and the VPN; another workspace:\n"
                + EXPORTS,
            ) from None
        if answer.status_code != 200:
            raise self._refused(answer, data, about or path)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._no_workspace(path, ascii(data[:60]))
        return found

    def _login(self) -> dict[str, str]:
        try:
            return self._config.authenticate()
        except Exception as error:  # noqa: BLE001 - each of the SDK's ways to log in has its own
            raise TrainingError(
                "Logging in to Databricks failed.",
                where=self.host,
                got=type(error).__name__,
                next_step=EXPORTS,
            ) from None

    def _refused(self, answer: requests.Response, data: bytes, about: str) -> TrainingError:
        code, said = error_of(data)
        got = f"{answer.status_code} {code or answer.reason} {said}".strip()
        if code == "RESOURCE_ALREADY_EXISTS":
            return TrainingError(
                "Something that is no folder lies where the experiment's folder is to be.",
                where=f"{self.host}: {about}",
                got=got,
                next_step="rename it in the workspace, or set ADROIT_EXPERIMENT to another "
                "pattern, such as /Users/{user}@nextdoor.com/{name}",
            )
        if answer.status_code in (401, 403):
            return TrainingError(
                "The Databricks workspace refuses us: the token has expired, is another "
                "workspace's, or may not do this.",
                where=f"{self.host}: {about}",
                got=got,
                wanted=f"a token made in {self.host} (Settings, Developer, Access tokens)",
                next_step=EXPORTS.replace("https://WORKSPACE", self.host),
            )
        if answer.status_code == 404 or 300 <= answer.status_code < 400:
            return self._no_workspace(about, got)
        return TrainingError(
            "The Databricks workspace did not do what was asked.",
            where=f"{self.host}: {about}",
            got=got,
            next_step="run it again; if it stays, ask the workspace's administrators",
        )

    def _no_workspace(self, path: str, got: str) -> TrainingError:
        return TrainingError(
            "What answers is no Databricks workspace, or its login page.",
            where=self.host + path,
            got=got,
            wanted="the JSON of Databricks' API",
            next_step="name the workspace, without a path:\n" + EXPORTS,
        )


def _configuration(profile: str | None) -> Config:
    from databricks.sdk.config import Config

    options: dict[str, Any] = {"http_timeout_seconds": 10, "retry_timeout_seconds": 3}
    if profile:  # one of None would switch off what the environment says
        options["profile"] = profile
    try:
        config = Config(**options)
    except (ValueError, configparser.Error) as error:
        raise _no_credentials(profile, error) from None
    host = str(config.host or "")
    if not host.startswith(("https://", "http://127.0.0.1:", "http://localhost:")):
        raise TrainingError(
            "The Databricks workspace is not named by an https address.",
            got=host.partition("://")[0] + "://..." if "://" in host else "no address",
            wanted="https://WORKSPACE",
            next_step=EXPORTS,
        )
    return config


def _no_credentials(profile: str | None, error: Exception) -> TrainingError:
    file = Path(os.environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
    if "more than one authorization method" in str(error):
        got = "more than one way to log in is set; DATABRICKS_AUTH_TYPE says which is meant"
    else:
        got = _state_of(file)
    return TrainingError(
        "There are no Databricks credentials that can be used.",
        where=file,
        got=got,
        wanted=f"[{profile or 'DEFAULT'}], and below it host = https://... and token = ...",
        next_step=EXPORTS,
    )


def _state_of(file: Path) -> str:
    try:
        text = file.read_text()
        configparser.ConfigParser().read_string(text)
    except FileNotFoundError:
        return "the file does not exist"
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"
    except (UnicodeDecodeError, configparser.Error):
        return "the file is not in INI form"
    return f"the file holds {profiles_in(text)}"
