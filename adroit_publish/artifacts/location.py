"""Where a model's files may be, given what a tracking store says and which store says it.

Pure text: nothing is opened here. The rules are those of design.md, section 10: artifact
locations only of allowed schemes, ``file:`` only from a local tracking store, no ``..``, nothing
of another host than the one the credentials are for.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from adroit_publish.bundle.listing import check_path
from adroit_publish.edge.urls import is_databricks, is_local, without_credentials
from adroit_publish.errors import SourceError

PROXY_PATH = "/api/2.0/mlflow-artifacts/artifacts"
# What MLflow reads through the workspace's own API; the rest of DBFS is open to a whole workspace.
_IN_WORKSPACE = re.compile(
    r"/databricks/mlflow-tracking/[^/]+/(logged_models/m-[0-9a-f]{32}|[0-9a-f]{32})/artifacts(/.+)?"
    r"|/Volumes/[^/]+/[^/]+/[^/]+(/.+)?"
)


def artifact_location(stated: str, tracking_uri: str) -> str:
    """Returns the location: ``file:///...``, ``s3://...``, a proxy URL, or one in Databricks.

    The last is ``dbfs:/PATH``, or ``dbfs://PROFILE@databricks/PATH`` as MLflow spells a workspace
    that is not the default one.

    Args:
        stated: What the tracking store says: a path, ``file:``, ``s3:``, ``mlflow-artifacts:``,
            ``dbfs:``, or the URL of an artifact proxy.
        tracking_uri: The tracking store that said it.

    Raises:
        SourceError: The scheme is not supported or not this store's to name, the host is another,
            or the path holds ``..``, control characters or an empty part.
    """
    if stated.startswith("/"):
        check_path(stated.strip("/"), where=stated)
        return _directory(stated, stated, "", tracking_uri)
    try:
        address = urlsplit(stated)
        plain = _decoded(address.path)
    except ValueError as error:
        raise _refused("is not an address", stated, tracking_uri) from error
    scheme = address.scheme.lower()
    if address.query or address.fragment or "@" in address.netloc:
        raise _refused("holds more than a place", stated, tracking_uri)
    check_path(plain.strip("/"), where=without_credentials(stated))
    if scheme == "file":
        return _directory(stated, plain, address.netloc, tracking_uri)
    if scheme == "s3" and address.netloc:
        return f"s3://{address.netloc}/{address.path.strip('/')}"
    if scheme in ("mlflow-artifacts", "http", "https"):
        return _proxied(stated, tracking_uri)
    if scheme == "dbfs" and _IN_WORKSPACE.fullmatch(address.path.rstrip("/")):
        return _in_workspace(stated, tracking_uri)
    raise SourceError(
        "The model's artifact store is of a kind that cannot be read.",
        where=without_credentials(stated),
        got=f"{scheme}:",
        wanted="a local directory, s3:, the tracking server's own artifacts, or in Databricks a "
        "run, a logged model or a volume",
        next_step="log the model to an experiment with such an artifact location",
    )


def _directory(stated: str, path: str, host: str, tracking_uri: str) -> str:
    if not is_local(tracking_uri):
        raise _refused("is a path of this machine, named by a server", stated, tracking_uri)
    if host not in ("", "localhost") or not path.startswith("/"):
        raise _refused("is not an absolute path of this machine", stated, tracking_uri)
    return Path(path).as_uri()


def _proxied(stated: str, tracking_uri: str) -> str:
    server, address = urlsplit(tracking_uri), urlsplit(stated)
    if server.scheme not in ("http", "https"):
        raise SourceError(
            "The model's files are behind a tracking server, and the target names its database.",
            where=without_credentials(stated),
            got=f"tracking_uri = {without_credentials(tracking_uri)}",
            wanted="the address of the tracking server",
            next_step="set the target's tracking_uri in adroit.toml to http(s)://...",
        )
    prefix = server.path.rstrip("/") + PROXY_PATH
    path = address.path
    if address.scheme == "mlflow-artifacts":
        same_host = address.netloc in ("", server.netloc)
    else:
        same_host = (address.scheme, address.netloc) == (server.scheme, server.netloc)
        same_host = same_host and path.startswith(prefix + "/")
        path = path.removeprefix(prefix)
    if not same_host:
        raise _refused("is not the tracking server's own", stated, tracking_uri)
    # MLflow puts the path into the URL as it stands, so it is quoted exactly once here.
    quoted = quote(unquote(path).strip("/"))
    return f"{server.scheme}://{server.netloc}{prefix}/{quoted}"


def _in_workspace(stated: str, tracking_uri: str) -> str:
    address = urlsplit(stated)
    if not is_databricks(tracking_uri) or address.netloc:
        raise _refused("is not the tracking store's own workspace", stated, tracking_uri)
    _, _, profile = tracking_uri.partition("://")
    workspace = f"//{profile}@databricks" if profile else ""
    return f"dbfs:{workspace}{address.path.rstrip('/')}"


def _decoded(path: str) -> str:
    """Decodes as often as any server might: ``%252e`` is a dot to one that decodes twice."""
    while (decoded := unquote(path, errors="strict")) != path:
        path = decoded
    return path


def _refused(why: str, stated: str, tracking_uri: str) -> SourceError:
    return SourceError(
        f"The tracking store names a location that is not trusted: it {why}.",
        where=without_credentials(tracking_uri),
        got=ascii(without_credentials(stated)[:300]),
        wanted="s3:, the server's own mlflow-artifacts:, or a directory of a local store",
        next_step="ask who runs the tracking server; do not publish this run",
    )
