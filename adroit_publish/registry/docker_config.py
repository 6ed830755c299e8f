"""The Docker config's credentials: what ``docker login`` left behind.

``config.json`` in ``$DOCKER_CONFIG`` or ``~/.docker`` names, by registry, a helper program
(``credHelpers``), one helper for all (``credsStore``), or the credentials themselves (``auths``);
that is also the order in which they are asked. A helper is asked as Docker asks it:
``docker-credential-NAME get`` with the registry on its standard input.

``docker.auth`` reads the entries and matches them to registries. It is guarded, because it takes
malformed JSON for no config and raises a bare ValueError for bad base64. A helper is run here:
``docker.credentials`` drops what a helper says on its standard error, and waits for it forever.

Source: Docker CLI reference, "Credential stores", and docker/docker-credential-helpers, README.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from adroit_publish.errors import ConfigError, RefusedError

_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_TIMEOUT_S = 30
_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
_TOKEN_USER = "<token>"  # how a helper says that the secret is an identity token


@dataclass(frozen=True)
class Login:
    """Credentials for one registry.

    ``secret`` is a password, or an identity token where ``username`` is empty.
    """

    username: str
    secret: str = field(repr=False)


class Credentials(Protocol):
    """What knows the credentials of registries."""

    def get(self, host: str) -> Login | None:
        """Returns the credentials for ``host``, or None; RefusedError where they cannot be had."""
        ...

    def renew(self, host: str) -> Login | None:
        """Returns them once more, asking whoever issues them again."""
        ...


class DockerCredentials:
    """Credentials from a Docker config; a config that is not there knows none.

    ``environ`` is for ``DOCKER_CONFIG``, ``HOME`` and the helpers' PATH.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = dict(environ)
        directory = environ.get("DOCKER_CONFIG")
        home = Path(environ.get("HOME") or Path.home())
        self.path = Path(directory) if directory else home / ".docker"
        self.path /= "config.json"

    def get(self, host: str) -> Login | None:
        """Returns the credentials for the registry ``host``; None where the config has none.

        Raises:
            ConfigError: The config is not what Docker writes.
            RefusedError: A helper failed.
        """
        config = self._read()
        hub = host in _DOCKER_HUB
        keys = (_DOCKER_HUB_KEY,) if hub else (host, f"https://{host}", f"http://{host}")
        helpers = _section(config, "credHelpers")
        for key in keys:
            if helper := helpers.get(key):
                return self._ask(str(helper), key)
        if store := config.get("credsStore"):
            for key in keys[:2]:
                if login := self._ask(str(store), key):
                    return login
        entries = _section(config, "auths")
        return self._stored(entries, _DOCKER_HUB[0] if hub else host) if entries else None

    renew = get  # helpers issue new tokens, files are edited

    def _read(self) -> dict[str, Any]:
        try:
            config = json.loads(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise ConfigError(
                "The Docker config cannot be read.", where=self.path, got=error.strerror
            ) from error
        except (ValueError, RecursionError):
            config = None
        if not isinstance(config, dict):
            raise ConfigError(
                "The Docker config is malformed.", where=self.path, wanted="a JSON object"
            )
        return config

    def _stored(self, entries: Mapping[str, Any], host: str) -> Login | None:
        """Returns the login that the config itself holds for a registry, if it does."""
        from docker.auth import AuthConfig, resolve_index_name

        for written, entry in entries.items():
            if not isinstance(entry, dict) or resolve_index_name(written) != host:
                continue
            if entry.get("username") and entry.get("password"):
                return Login(str(entry["username"]), str(entry["password"]))
            filled = {name: value for name, value in entry.items() if value}  # Docker leaves blanks
            try:
                login = AuthConfig.parse_auth({written: filled})[written]
            except (ValueError, TypeError):
                login = {"username": ""}
            if login.get("IdentityToken"):
                return Login("", str(login["IdentityToken"]))
            if login.get("username"):
                return Login(login["username"], login["password"].rstrip("\0"))
            if login:
                raise ConfigError(
                    "The Docker config is malformed.",
                    where=f"{self.path}, auths, {written}",
                    wanted="`auth`: base64 of user:password",
                    next_step=f"docker login {written}",
                )
        return None

    def _ask(self, helper: str, key: str) -> Login | None:
        program = f"docker-credential-{helper}"
        if not _HELPER.fullmatch(helper):
            raise ConfigError("A credential helper's name is malformed.", where=self.path)
        try:
            asked = subprocess.run(
                [program, "get"],
                input=key.encode(),
                capture_output=True,
                timeout=_HELPER_TIMEOUT_S,
                env=self._environ,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = getattr(error, "strerror", None) or f"no answer in {_HELPER_TIMEOUT_S} s"
            raise _helper_failed(program, key, reason) from None
        if asked.returncode:
            said = (asked.stdout + asked.stderr).decode(errors="replace").strip()
            if "credentials not found" in said.lower():
                return None
            raise _helper_failed(program, key, said[:200] or f"exit {asked.returncode}")
        try:
            answer = json.loads(asked.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise _helper_failed(program, key, "an answer that is no JSON") from None
        return Login("" if username == _TOKEN_USER else username, secret)


def _helper_failed(program: str, key: str, reason: str) -> RefusedError:
    return RefusedError(
        "A Docker credential helper gave no credentials.",
        where=f"{program} get, for {key}",
        got=reason,
        next_step="log in with it again, or take it out of the Docker config",
    )


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}
