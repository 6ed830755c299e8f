"""One registry on the wire: its endpoint, its connections, what it is told, whom it may point to.

Every request goes to the registry's endpoint with the Authorization it wants. Where it answers
with a redirect, or names another server for an upload, that server is asked without any
credential, by https only (loopback may name loopback).

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from adroit_publish.edge.patience import GIVE_UP_S, Patience
from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError
from adroit_publish.registry.auth import Authorization
from adroit_publish.registry.docker_config import Credentials
from adroit_publish.registry.errors import answered, failure
from adroit_publish.registry.http import Answer, Body, Endpoint, Http, read_answer

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as HTTPResponse

_USER_AGENT = "adroit-publish"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 5
_MAX_ANSWERS = 2  # the login that is known, then a new one
_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}


class Registry:
    """One registry; shared by its repositories and by threads.

    Args:
        host: Its name in image references, with its port where it has one.
        endpoint: The URL where it is reached, if not at its own name (by https; a name on
            loopback by http); ConfigError where it cannot be used.
    """

    def __init__(
        self,
        host: str,
        credentials: Credentials,
        endpoint: str | None = None,
        *,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self.host = host
        self.give_up_s = give_up_s
        self.endpoint = Endpoint.parse(endpoint) if endpoint else default_endpoint(host)
        self._http = Http()
        self._authorization = Authorization(host, self.endpoint, credentials, self._http, give_up_s)

    def call(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        what: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        patience: Patience | None = None,
    ) -> Answer:
        """Returns the answer to a request that may be sent twice, asked again while that may help.

        Args:
            url: Path and query at this registry, or a URL that it gave.
            scopes: What a token has to be good for: ``repository:NAME:pull,push``.
            what: What is being done, for messages: "The blob could not be sent".
            patience: Of the operation that this request is part of.

        Raises:
            RefusedError: No access, or the registry points where it must not.
            StoreError: It cannot be reached, or goes on failing (transient).
        """
        patience = patience or Patience(self.give_up_s)
        exchange = partial(
            self.open, method, url, scopes, what, headers=headers, body=body, patience=patience
        )
        where = f"{self.host}{urlsplit(url).path}"
        answer = answered(exchange, what, where, patience)
        if answer.status in (401, 403):
            raise failure(answer, what, where)
        return answer

    @contextmanager
    def open(
        self,
        method: str,
        url: str,
        scopes: Sequence[str],
        what: str,
        *,
        patience: Patience,
        headers: Mapping[str, str] | None = None,
        body: Body = b"",
        answer_timeout_s: float | None = None,
    ) -> Iterator[HTTPResponse]:
        """Gives the response to one request, authorized and redirected, but not tried again.

        Args:
            body: Bytes, or what gives the pieces of the body; that is called once more where
                the registry wants other credentials.
            answer_timeout_s: How long it may take to answer once it has the whole body.

        The other arguments are those of ``call``.

        Raises:
            OSError: The connection failed.
            RefusedError: As ``call``.
            StoreError: The server of tokens cannot be reached.
        """
        endpoint, target, ours = self.place(url)
        authorization = self._authorization.header(scopes) if ours else None
        answers = 0
        for _ in range(_MAX_REDIRECTS + _MAX_ANSWERS + 1):
            sent = {"User-Agent": _USER_AGENT, "Accept": "*/*"} | dict(headers or {})
            if ours and authorization:
                sent["Authorization"] = authorization
            with self._http.exchange(
                endpoint,
                method,
                target,
                sent,
                body,
                timeout_s=patience.timeout_s,
                answer_timeout_s=answer_timeout_s,
            ) as response:
                follows = method in ("GET", "HEAD") and response.status in _REDIRECTS
                location = response.headers.get("Location") if follows else None
                refused = ours and answers < _MAX_ANSWERS and response.status in (401, 403)
                if not location and not refused:
                    yield response
                    return
                answer = read_answer(response)
            patience.heard()
            if location:
                endpoint, target, ours = self.place(f"{endpoint}{target}", location)
                continue
            fresh = self._authorization.answer(answer, scopes, authorization)
            if fresh is None:
                raise failure(answer, what, f"{self.host}{urlsplit(url).path}")
            authorization, answers = fresh, answers + 1
        raise StoreError("The registry redirects without end.", where=self.host)

    def place(self, url: str, location: str = "") -> tuple[Endpoint, str, bool]:
        """Returns endpoint and target of a URL, and whether that is the registry itself.

        A registry behind a proxy or an endpoint of another name gives absolute URLs under its
        own name, and at times under the wrong scheme; those are asked where it is reached.
        ``location``, which may be relative, was given there as the place to go on to.

        Raises:
            RefusedError: It is neither https nor the registry's own, or is this machine.
        """
        try:
            parts = urlsplit(urljoin(url, location))
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            own_names = ("", self.host.lower(), self.endpoint.authority.lower())
            if parts.netloc.lower() in own_names:
                return self.endpoint, target, True
            endpoint = Endpoint.parse(parts.geturl())
        except ValueError:
            raise self._astray("a malformed address") from None
        except ConfigError as error:
            raise self._astray(f"{error.where}: {error.what}") from None
        if endpoint.is_loopback and not self.endpoint.is_loopback:
            raise self._astray(f"{endpoint}: That is this machine.")
        return endpoint, target, endpoint == self.endpoint

    def _astray(self, pointed_to: str) -> PublishError:
        return RefusedError(
            "The registry points to an address that must not be asked.",
            where=self.host,
            got=pointed_to,
            wanted="its own address, or another one by https",
        )


def default_endpoint(host: str) -> Endpoint:
    """Returns where a registry is reached by its name: by https, on loopback by http."""
    host = _DOCKER_HUB.get(host, host)
    by_https = Endpoint.parse(f"https://{host}")
    return Endpoint.parse(f"http://{host}") if by_https.is_loopback else by_https
