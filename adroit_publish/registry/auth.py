"""What a registry is told about who is asking.

A registry is asked without credentials first; its 401 says how it wants them: ``Basic``, or
``Bearer`` with a token from a *realm*, a server that the registry names. A token is good for
named scopes and for a time, and is fetched again before that time is over.

No credential goes to a host it is not for. A realm belongs to its registry where

* by https, its host name is the registry's (any port), or both are names under one parent domain
  (``registry-1.docker.io`` and ``auth.docker.io``; ``registry.gitlab.com`` and ``gitlab.com``),
  a parent such as ``co.uk`` or one that hosts many owners' names not counting;
* by http, which is loopback, its host and port are the registry's own.

Any other realm is refused where there are credentials, and asked without any where there are none.

Source: distribution/distribution, "Token Authentication Specification" and "OAuth2 Token
Authentication"; RFC 9110, section 11.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode, urlsplit

from adroit_publish.edge.patience import Patience
from adroit_publish.errors import ConfigError, RefusedError, StoreError
from adroit_publish.registry.docker_config import Credentials, Login
from adroit_publish.registry.errors import answered, failure, shown
from adroit_publish.registry.http import Answer, Endpoint, Http

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as HTTPResponse

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_SCHEME = re.compile(r"(?:^|,)\s*(Basic|Bearer)(?=\s|$)", re.IGNORECASE)
_SHARED_PARENTS = re.compile(
    r"[a-z]{1,3}\.[a-z]{2}|(?:.+\.)?(?:amazonaws\.com(?:\.cn)?|azurecr\.io|gcr\.io|pkg\.dev)"
)
_DEFAULT_LIFE_S = 60.0
_MARGIN_S = 10.0
_CLIENT_ID = "adroit-publish"


@dataclass(frozen=True)
class Challenge:
    """How a registry wants to be told: ``scheme`` is ``basic`` or ``bearer``.

    ``realm`` is where tokens are issued, ``service`` what the realm knows the registry as.
    """

    scheme: str
    realm: str = ""
    service: str = ""


@dataclass(frozen=True)
class _Token:
    header: str
    good_until: float  # by time.monotonic()


class Authorization:
    """Makes the Authorization header for one registry; safe to share between threads."""

    def __init__(
        self, host: str, endpoint: Endpoint, credentials: Credentials, http: Http, give_up_s: float
    ) -> None:
        self._host = host
        self._endpoint = endpoint
        self._credentials = credentials
        self._http = http
        self._give_up_s = give_up_s
        self._lock = threading.RLock()
        self._challenge: Challenge | None = None
        self._login: Login | None = None
        self._asked = False
        self._tokens: dict[tuple[str, ...], _Token] = {}

    def header(self, scopes: Sequence[str]) -> str | None:
        """Returns the header's value for a request that needs ``scopes``; None before any 401.

        Raises:
            RefusedError: There are no credentials, they are denied, or are not the realm's to see.
            StoreError: The realm cannot be reached.
        """
        with self._lock:
            if self._challenge is None:
                return None
            if self._challenge.scheme == "basic":
                return _basic(self._known_login())
            token = self._tokens.get(tuple(scopes))
            if token is None or token.good_until < time.monotonic():
                token = self._tokens[tuple(scopes)] = self._fetch(self._challenge, scopes)
            return token.header

    def answer(self, answer: Answer, scopes: Sequence[str], used: str | None) -> str | None:
        """Returns the header to try after a 401 or 403; None where there is nothing new to try.

        Raises as ``header`` does.
        """
        with self._lock:
            if answer.status == 403 and (used is None or not used.startswith("Basic")):
                return None
            challenge = parse_challenge(answer.headers.get_all("WWW-Authenticate") or [])
            if challenge is None and self._challenge is None:
                return None
            if used is not None and self.header(scopes) == used:
                # It was good once and is no longer, or never was: whoever issues it knows.
                self._tokens.pop(tuple(scopes), None)
                if used.startswith("Basic"):
                    self._login = self._credentials.renew(self._host)
            self._challenge = challenge or self._challenge
            fresh = self.header(scopes)
            return fresh if fresh != used else None

    def _known_login(self) -> Login | None:
        if not self._asked:
            self._login = self._credentials.get(self._host)
            self._asked = True
        return self._login

    def _fetch(self, challenge: Challenge, scopes: Sequence[str]) -> _Token:
        login = self._known_login()
        realm = self._realm(challenge, login)
        fields = [("service", challenge.service)] if challenge.service else []
        headers = {"Accept": "application/json", "User-Agent": _CLIENT_ID}
        parts = urlsplit(challenge.realm)
        path = parts.path or "/"
        if login is not None and not login.username:
            fields += [
                ("grant_type", "refresh_token"),
                ("refresh_token", login.secret),
                ("client_id", _CLIENT_ID),
                ("scope", " ".join(scopes)),
            ]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            method, body = "POST", urlencode(fields).encode()
        else:
            if header := _basic(login):
                headers["Authorization"] = header
            query = parse_qsl(parts.query, keep_blank_values=True) + fields
            path += "?" + urlencode(query + [("scope", scope) for scope in scopes])
            method, body = "GET", b""
        return _parse_token(self._ask_realm(realm, method, path, headers, body), str(realm))

    def _realm(self, challenge: Challenge, login: Login | None) -> Endpoint:
        try:
            realm = Endpoint.parse(challenge.realm)
        except ConfigError as error:
            raise RefusedError(
                "The registry names a server of tokens that must not be asked.",
                where=self._host,
                got=f"{error.where or error.got}: {error.what}",
                wanted=error.wanted,
            ) from None
        if realm.is_loopback and not self._endpoint.is_loopback:
            raise RefusedError(
                "The registry names this machine as the server of its tokens.",
                where=self._host,
                got=str(realm),
            )
        registry = Endpoint.parse(f"https://{self._host}")
        if login is None or any(is_for(realm, each) for each in (self._endpoint, registry)):
            return realm
        raise RefusedError(
            "The registry wants its credentials sent to another host.",
            where=self._host,
            got=f"token realm {realm}",
            wanted="a realm on the registry's own host, or under its parent domain",
            next_step="log out of the registry if it can be read without credentials, or use a "
            "credential helper that gives it a token of its own",
        )

    def _ask_realm(
        self, realm: Endpoint, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Answer:
        what, patience = f"No token for {self._host} could be had", Patience(self._give_up_s)

        def exchange() -> AbstractContextManager[HTTPResponse]:
            timeout_s = patience.timeout_s
            return self._http.exchange(realm, method, path, headers, body, timeout_s=timeout_s)

        answer = answered(exchange, what, realm, patience)
        if answer.status != 200:
            raise failure(answer, what, realm)
        return answer


def parse_challenge(headers: Sequence[str]) -> Challenge | None:
    """Returns the challenge of a 401, Bearer before Basic; None where it has neither."""
    challenges: dict[str, Challenge] = {}
    for header in headers:
        starts = list(_SCHEME.finditer(header))
        for index, start in enumerate(starts):
            end = starts[index + 1].start() if index + 1 < len(starts) else len(header)
            values = {
                name.lower(): re.sub(r"\\(.)", r"\1", quoted) or plain
                for name, quoted, plain in _PARAMETER.findall(header[start.end() : end])
            }
            scheme = start[1].lower()
            challenge = Challenge(scheme, values.get("realm", ""), values.get("service", ""))
            challenges.setdefault(scheme, challenge)
    return challenges.get("bearer") or challenges.get("basic")


def is_for(realm: Endpoint, registry: Endpoint) -> bool:
    """Tells whether the registry's credentials may be shown to ``realm``."""
    if not realm.https or not registry.https:
        return realm == registry
    if realm.host == registry.host:
        return True
    if _is_address(realm.host) or _is_address(registry.host):
        return False
    parent = registry.host.partition(".")[2]
    if "." not in parent or _SHARED_PARENTS.fullmatch(parent):
        return False
    return realm.host == parent or realm.host.endswith(f".{parent}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _basic(login: Login | None) -> str | None:
    if login is None or not login.username:  # an identity token is for a realm alone
        return None
    pair = f"{login.username}:{login.secret}".encode()
    return "Basic " + base64.b64encode(pair).decode()


def _parse_token(answer: Answer, realm: str) -> _Token:
    try:
        value = json.loads(answer.body)
        token = value.get("token") or value.get("access_token")
        life_s = float(value.get("expires_in") or _DEFAULT_LIFE_S)
    except (ValueError, TypeError, AttributeError, RecursionError):
        token, life_s = None, 0.0
    if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
        raise StoreError(
            "The registry's token server gave no token.",
            where=realm,
            got=shown(answer),
            wanted='JSON with "token" or "access_token"',
        )
    life_s = max(life_s - _MARGIN_S, life_s / 2)
    return _Token(f"Bearer {token}", time.monotonic() + life_s)
