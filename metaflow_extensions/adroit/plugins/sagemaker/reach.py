"""Addresses that mean this machine, which a job on another one would take for its own. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit


def is_this_machine(address: str) -> bool:
    """Returns whether an ``http(s)://`` address leads to the machine that reads it."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.scheme not in ("http", "https"):
        return False
    host = (parts.hostname or "").rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        number = ip_address(host)
    except ValueError:
        return False
    return number.is_loopback or number.is_unspecified


def unreachable(addresses: Mapping[str, str | None]) -> list[str]:
    """Returns what is wrong with addresses that a job is to use, one line each.

    Args:
        addresses: By the name of the setting that has them; None where it has none.
    """
    advice = {
        "METAFLOW_SERVICE_INTERNAL_URL": "set it to the address that jobs reach the metadata "
        "service at: bootstrap/configure_metaflow.sh --service-internal-url URL",
        "MLFLOW_TRACKING_URI": "name the server by an address that jobs reach, or unset it and log "
        "in a later step",
    }
    return [
        f"{name} is {address}, which is this machine, and no job reaches it: "
        f"{advice.get(name, 'name an address that jobs reach')}"
        for name, address in addresses.items()
        if address and is_this_machine(address)
    ]
