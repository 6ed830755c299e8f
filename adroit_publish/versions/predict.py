"""Asking a running server for a prediction, wherever it runs: the client's side of ``serve``."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from adroit_publish.errors import ConfigError, RefusedError, StoreError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.stored_blob import stored_files
from adroit_publish.version import Version

if TYPE_CHECKING:
    import requests

TIMEOUT_S = 90  # a server of ours answers within MLflow's 60
_SHOWN_CHARS = 2000
# What MLflow sends to a server as it is, and, in models of MLflow before 2.14, what it came from.
_EXAMPLES = ("serving_input_example.json", "input_example.json")

_AWAY = {
    503: "The server is busy or about to end.",
    504: "The server did not finish the prediction in time.",
}
_REFUSED = {
    400: "The server refuses the request.",
    413: "The request is larger than the server takes.",
    415: "The server does not take this kind of content.",
    422: "The server refuses the request.",
}


@dataclass(frozen=True)
class Prediction:
    """What a server answered.

    Attributes:
        request_id: As the server's log has it, or None where another kind of server answered.
        seconds: How long it took, the network included.
    """

    answer: Any
    request_id: str | None
    seconds: float


def served_version(store: BundleStore, url: str) -> Published:
    """Returns the version that the server at ``url`` runs, by its bundle id.

    Raises:
        ConfigError: ``url`` is not the URL of a server.
        RefusedError: This store has no version with that bundle.
        StoreError: The server does not answer; or the store failed.
        VerificationError: It is another kind of server; or a document of a version is damaged.
    """
    served = _json_of(_ask("GET", url, "/bundle"), f"{_shown(url)}/bundle")
    model_name, bundle_id = served.get("model_name"), served.get("bundle_id")
    for published in store.versions(str(model_name)) if model_name in store.models() else ():
        if Version(store, published).bundle.bundle_id == bundle_id:
            return published
    raise RefusedError(
        "The server runs a bundle that is not in this store.",
        where=store.location,
        got=f"{model_name} {bundle_id}",
        next_step="name the target it was published to with --target, or a version with --example",
    )


def example_request(store: BundleStore, published: Published) -> bytes:
    """Returns the model's input example as the body of a request, from the store.

    Raises:
        ConfigError: The model was logged without one.
        StoreError: The store failed.
        VerificationError: The version's bytes are not what they should be.
    """
    files = stored_files(store, published, "model", _EXAMPLES)
    serving, logged = (files.get(name) for name in _EXAMPLES)
    if serving is not None:
        return serving
    if logged is not None:
        return _as_request(logged)
    raise ConfigError(
        "The model has no input example.",
        where=published.version,
        wanted=f"{_EXAMPLES[0]} among its files: log the model with input_example=...",
        next_step="give a request of your own on standard input, without --example",
    )


def predict(url: str, body: bytes) -> Prediction:
    """Returns what the server at ``url`` answers to ``body``.

    Args:
        url: Of the server; ``/invocations`` is added.
        body: JSON in one of MLflow's forms.

    Raises:
        ConfigError: ``url`` is not the URL of a server, or ``body`` is empty.
        StoreError: The server does not answer, or not in time, or is not ready.
        VerificationError: It refuses the request, its model fails on it, or it answers no JSON.
    """
    started = time.monotonic()
    response = _ask("POST", url, "/invocations", body)
    seconds = time.monotonic() - started
    answer = _json_of(response, f"{_shown(url)}/invocations")
    return Prediction(answer, response.headers.get("x-request-id"), seconds)


def _as_request(example: bytes) -> bytes:
    value = json.loads(example)
    if isinstance(value, dict) and value.keys() >= {"columns", "data"}:
        return json.dumps({"dataframe_split": value}).encode()
    given = isinstance(value, dict) and value.keys() & {"inputs", "instances"}
    return example if given else json.dumps({"inputs": value}).encode()


def _is_server(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a malformed port or address
        return False


def _ask(method: str, url: str, path: str, body: bytes | None = None) -> requests.Response:
    import requests

    if not _is_server(url):
        raise ConfigError("Not the URL of a server.", got=_shown(url), wanted="http://HOST:PORT")
    if body is not None and not body.strip():
        raise ConfigError(
            "The request is empty.",
            wanted="JSON in one of MLflow's forms on standard input",
            next_step="pipe a request in, or add --example",
        )
    try:
        return requests.request(
            method,
            url.rstrip("/") + path,
            data=body,
            headers={"Content-Type": "application/json"},
            timeout=TIMEOUT_S,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        raise StoreError(
            "The server does not answer.",
            where=_shown(url),
            got=type(error).__name__,  # its text repeats the URL, credentials included
            transient=True,
            next_step="python -m adroit_publish serve VERSION, or look at the server's log",
        ) from error


def _json_of(response: requests.Response, where: str) -> Any:
    try:
        value = response.json()
    except ValueError:
        value = None
    status, is_json = response.status_code, isinstance(value, dict)
    if status == 200 and is_json:
        return value
    got = f"{status} {_printable(_said(value) or response.text)}"
    if status in _AWAY:
        raise StoreError(
            _AWAY[status],
            where=where,
            got=got,
            transient=True,
            next_step="run the same command again",
        )
    if status in _REFUSED or (status == 500 and is_json):
        raise VerificationError(
            _REFUSED.get(status, "The model failed on the request."),
            where=where,
            got=got,
            next_step="compare the request with the model's own: add --example",
        )
    raise VerificationError(
        "The server does not answer as a scoring server does.",
        where=where,
        got=got,
        wanted="200 and JSON",
    )


def _said(value: Any) -> str:
    """Returns what MLflow's, FastAPI's and KServe's errors say; empty where it is another's."""
    facts = value if isinstance(value, dict) else {}
    code = facts.get("error_code")
    text = facts.get("message") or facts.get("detail") or facts.get("error") or ""
    return f"{code}: {text}" if code and text else str(text)


def _shown(url: str) -> str:
    """Returns a URL without the credentials, query or path that it may hold."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that cannot be read"
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "no host"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text[:_SHOWN_CHARS])
