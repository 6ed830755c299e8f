"""How the servers that are asked let somebody in: a file of the user's own, by address.

``ADROIT_TRAFFIC_ACCESS`` names a TOML file with a table for each server, by its scheme and host:

    ["https://prometheus.us.example"]
    token_file = "/run/secrets/prometheus-us"

    ["https://prometheus.eu.example"]
    username = "rollover"
    password_file = "/run/secrets/prometheus-eu"
    ca_file = "/etc/ssl/internal.pem"
    cert_file = "/etc/ssl/me.pem"
    key_file = "/etc/ssl/me.key"

Secrets stay in files of their own, are read when they are sent, and go to that server alone: over
https, or to this machine.
"""

from __future__ import annotations

import os
import tomllib
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.answers import Access, check_address

VARIABLE = "ADROIT_TRAFFIC_ACCESS"
_KEYS = ("token_file", "username", "password_file", "ca_file", "cert_file", "key_file")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def access_to(url: str, environ: Mapping[str, str] = os.environ) -> Access:
    """Returns how the server at ``url`` lets us in; nothing at all where the file has no table.

    Args:
        url: The server's address.
        environ: The environment's variables.

    Raises:
        ConfigError: ``url`` is not an address; the file, or a file that it names, cannot be read
            or is not what it has to be; a secret would go over plain http to another machine.
    """
    check_address(url)
    file = environ.get(VARIABLE)
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    table = _tables(Path(file)).get(origin, {}) if file else {}
    headers = _headers(table)
    if headers and parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            "A secret would go over plain http.", where=origin, wanted="https, or this machine"
        )
    certificate = (table["cert_file"], table["key_file"]) if "cert_file" in table else None
    return Access(headers, table.get("ca_file"), certificate)


def _tables(file: Path) -> Mapping[str, Mapping[str, str]]:
    try:
        tables = tomllib.loads(_read(file))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{VARIABLE} names a file that is not TOML: {error}", where=file
        ) from None
    for origin, table in tables.items():
        wrong = (
            [key for key, value in table.items() if key not in _KEYS or not value]
            if isinstance(table, dict)
            else [origin]
        )
        pairs = (("username", "password_file"), ("cert_file", "key_file"))
        wrong += [a for a, b in pairs if (a in table) != (b in table)]
        if wrong:
            raise ConfigError(
                "A server's table is not what it has to be.",
                where=f"{file}: {origin}",
                got=", ".join(wrong),
                wanted=f"{', '.join(_KEYS)}; username with password_file, cert_file with key_file",
            )
    return tables


def _headers(table: Mapping[str, str]) -> dict[str, str]:
    if "token_file" in table:
        return {"Authorization": f"Bearer {_read(Path(table['token_file'])).strip()}"}
    if "username" in table:
        password = _read(Path(table["password_file"])).rstrip("\r\n")
        pair = b64encode(f"{table['username']}:{password}".encode()).decode()
        return {"Authorization": f"Basic {pair}"}
    return {}


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "A file for access to a server cannot be read.", where=file, got=type(error).__name__
        ) from None
