"""What can be told of an address by its text: whose it is, and what may not be shown of it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from adroit_publish.errors import SourceError


def is_local(tracking_uri: str) -> bool:
    """Returns whether the tracking store is a file or directory of this machine."""
    return urlsplit(tracking_uri).scheme in ("sqlite", "file")


def is_databricks(tracking_uri: str) -> bool:
    """Returns whether the tracking store is a Databricks workspace."""
    return tracking_uri == "databricks" or tracking_uri.startswith("databricks://")


def without_credentials(uri: str) -> str:
    """Returns the text with every ``user:password@`` of a URL taken out."""
    return re.sub(r"(?<=//)[^/\s]*@", "", uri)


def check_http_address(url: str, what: str) -> None:
    """Refuses an address that holds credentials, or that would carry them in the clear.

    Raises SourceError where it holds a user or password, no host, or is ``http:`` off loopback.
    """
    address = urlsplit(url)
    if "@" in address.netloc:
        raise SourceError(
            f"{what} holds credentials in its address.",
            where=without_credentials(url),
            next_step="take them out and set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        )
    if not address.hostname or (address.scheme == "http" and not is_loopback(address.hostname)):
        raise SourceError(
            f"{what} is not reached over https.",
            where=url,
            got=f"{address.scheme}://{address.netloc}",
            wanted="https://, or http:// on loopback",
            next_step="set the target's tracking_uri in adroit.toml",
        )


def is_loopback(host: str) -> bool:
    """Returns whether a host's name or number means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
