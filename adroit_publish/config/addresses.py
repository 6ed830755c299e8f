"""The addresses of adroit.toml: which are accepted, and in which form they come out.

Paths are joined to the directory of adroit.toml: ``file:/abs`` for stores; for MLflow
``sqlite:////abs`` and ``file:///abs``, the latter percent-encoded, since MLflow decodes it.
``http:`` is accepted on loopback only: models and credentials would cross the network
unprotected. No address may hold a user or a password. Each function raises ValueError with a
reason that follows the key's name and never repeats the address, which may hold a secret.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from urllib.parse import quote, urlsplit

_LOOPBACK = re.compile(r"localhost|127(\.[0-9]{1,3}){3}|::1")
_S3 = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*'()-]+)*/?")
_SSM = re.compile(r"ssm:([a-z]{2,}(-[a-z0-9]+)+)?(/[A-Za-z0-9_.-]+){1,14}")
_KMS = re.compile(r"awskms:[A-Za-z0-9:/_-]{1,2048}")
_DATABRICKS = re.compile(r"databricks(://[\w.-]+)?")


def storage_address(uri: str, base: str) -> str:
    """Returns ``file:/abs`` or ``s3://bucket/prefix``, without a slash at its end."""
    form = STORAGE.get(uri.partition(":")[0])
    if form is None:
        raise ValueError("must be file:PATH or s3://BUCKET/PREFIX")
    return form(uri, base)


def _file_address(uri: str, base: str) -> str:
    return f"file:{_absolute(_file_path(uri), base)}"


def _s3_address(uri: str, _base: str) -> str:
    if not _S3.fullmatch(uri) or {".", ".."} & set(uri.split("/")):
        raise ValueError("must be file:PATH or s3://BUCKET/PREFIX")
    return uri.rstrip("/")


STORAGE: dict[str, Callable[[str, str], str]] = {"file": _file_address, "s3": _s3_address}
"""By scheme, what makes an address of a target's words; raises ValueError with the right form."""


def sitevar_address(uri: str, base: str) -> str:
    """Returns ``file:/abs``, ``s3://bucket/key``, ``ssm:/prefix`` or ``ssm:eu-west-1/prefix``.

    Below an SSM prefix each model has a parameter of its own; SSM allows 15 levels, none of which
    may begin with aws or ssm.
    """
    if uri.startswith("ssm:"):
        if not _SSM.fullmatch(uri) or re.match(r"ssm:[^/]*/(aws|ssm)", uri, re.IGNORECASE):
            raise ValueError("must be ssm:[REGION]/PREFIX, not beginning with aws or ssm")
        return uri
    if uri.startswith("s3:") and (uri.endswith("/") or uri.count("/") < 3):
        raise ValueError("must name one object: s3://BUCKET/KEY")
    try:
        return storage_address(uri, base)
    except ValueError:
        if uri.startswith("file:"):
            raise
        raise ValueError("must be file:PATH, s3://BUCKET/KEY or ssm:/PREFIX") from None


def tracking_address(uri: str, base: str) -> str:
    """Returns a tracking URI that MLflow takes from any working directory.

    ``uri`` is ``sqlite:///PATH``, ``file:PATH``, ``https://``, ``http://`` on loopback,
    ``databricks`` or ``databricks://PROFILE``.
    """
    if _DATABRICKS.fullmatch(uri):
        return uri
    if uri.startswith("sqlite:///"):
        return f"sqlite:///{_absolute(uri.removeprefix('sqlite:///'), base)}"
    if uri.startswith("file:"):
        return f"file://{quote(_absolute(_file_path(uri), base))}"
    if not uri.startswith(("http:", "https:")):
        raise ValueError("must begin with sqlite:///, file:, https:// or databricks")
    return web_address(uri, base)


def web_address(uri: str, _base: str) -> str:
    """Returns ``https://HOST...``, or ``http://`` on loopback, without a slash at its end."""
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("is not a web address") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError("must begin with https:// (or http:// on loopback)")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("may hold no user, password, query or fragment")
    if parts.scheme == "http" and not _LOOPBACK.fullmatch(host):
        raise ValueError("is http:// to another machine, where it must be https://")
    return uri.rstrip("/")


def key_address(uri: str, base: str) -> str:
    """Returns ``file:/abs`` of a PEM file, or ``awskms:KEY``: an id, an ARN or an alias."""
    if _KMS.fullmatch(uri):
        return uri
    if not uri.startswith("file:"):
        raise ValueError("must be file:PATH or awskms:KEY")
    return _file_address(uri, base)


def _file_path(uri: str) -> str:
    return re.sub(r"\A//(localhost)?(?=/)", "", uri.removeprefix("file:"))


def _absolute(path: str, base: str) -> str:
    if not path or path.startswith(("~", "//")):
        raise ValueError("needs a path, absolute or relative to adroit.toml")
    return posixpath.normpath(posixpath.join(base, path))
