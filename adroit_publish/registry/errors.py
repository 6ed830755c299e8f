"""What a registry's failure means to a user: one switch from status and code to an error.

A registry answers ``{"errors": [{"code": ..., "message": ...}]}``; both are shown. Whatever else
it answers (a proxy's HTML, a stack trace) is not. Nothing that is shown has a query in its URLs,
where signatures live.

Source: OCI distribution specification 1.1, "Error Codes".
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable
from contextlib import AbstractContextManager
from http.client import responses
from typing import TYPE_CHECKING

from adroit_publish.edge.patience import Patience
from adroit_publish.edge.text import printable
from adroit_publish.errors import PublishError, RefusedError, StoreError, VerificationError
from adroit_publish.registry.http import TRY_AGAIN, Answer, read_answer

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse as HTTPResponse

_SHOWN_CHARACTERS = 300
_NO_ROOM = re.compile(r'no space left|quota exceeded|"Err": ?28\b', re.IGNORECASE)
_QUERY = re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*")
_SECRET = re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)


class StaysDamaged(VerificationError):
    """A registry was sent what is right, and keeps what is wrong: some believe what they have."""


def stays_damaged(where: str) -> StaysDamaged:
    """Returns the error of a registry that was sent the right bytes and still gives others."""
    return StaysDamaged(
        "The registry was sent the right bytes, and keeps the wrong ones.",
        where=where,
        next_step="have that blob removed from the registry's storage, then the same again",
    )


def error_codes(answer: Answer) -> frozenset[str]:
    """Returns the codes of a registry's error, in capitals: ``{"TAG_INVALID"}``."""
    return frozenset(code for code, _ in _errors_of(answer))


def shown(answer: Answer) -> str:
    """Returns status, code and message as one line fit for a user."""
    parts = [f"{code}: {message}" if message else code for code, message in _errors_of(answer)]
    reason = f"{answer.status} {responses.get(answer.status, '')}".strip()
    return " ".join([reason, "; ".join(parts)]).strip()


def has_no_room(answer: Answer) -> bool:
    """Tells whether the registry's own disk or quota is full."""
    text = answer.body[:65536].decode("utf-8", "replace")
    return answer.status == 507 or (answer.status >= 400 and bool(_NO_ROOM.search(text)))


def may_help_to_try_again(answer: Answer) -> bool:
    """Tells whether the same request may be answered otherwise a little later."""
    return answer.status in TRY_AGAIN and not has_no_room(answer)


def answered(
    exchange: Callable[[], AbstractContextManager[HTTPResponse]],
    what: str,
    where: object,
    patience: Patience,
) -> Answer:
    """Returns the answer to a request that ``exchange`` makes, again while that may help.

    Args:
        what: What is being done, as the beginning of a sentence: "The blob could not be sent".

    Raises:
        RefusedError: The server's certificate is not trusted.
        StoreError: The server cannot be reached, or goes on failing (transient).
    """
    while True:
        try:
            with exchange() as response:
                answer = read_answer(response)
        except OSError as error:
            patience.wait_or_raise(unreachable(error, what, where))
            continue
        patience.heard()
        if not may_help_to_try_again(answer):
            return answer
        patience.wait_or_raise(failure(answer, what, where), answer.retry_after_s)


def failure(answer: Answer, what: str, where: object) -> PublishError:
    """Returns the error that an answer means whose status was not hoped for.

    It is a RefusedError for 401, 403, 413 and a missing repository, a StoreError for the rest.
    """
    got = shown(answer)
    if has_no_room(answer):
        return StoreError(
            f"{what}: the registry has no room left.",
            where=where,
            got=got,
            next_step="have room made in that registry, then run the same command again",
        )
    if answer.status in (401, 403):
        return RefusedError(
            f"{what}: the registry denies access.",
            where=where,
            got=got,
            next_step="log in to it (docker login, or the AWS profile of the target), or have "
            "the permission to pull and push granted",
        )
    if answer.status == 413:
        return RefusedError(f"{what}: it is too large for the registry.", where=where, got=got)
    if answer.status == 404 and "NAME_UNKNOWN" in error_codes(answer):
        return RefusedError(
            f"{what}: the registry has no such repository.",
            where=where,
            got=got,
            next_step="have the repository created, then run the same command again",
        )
    if answer.status in TRY_AGAIN:
        return StoreError(
            f"{what}: the registry is failing.",
            transient=True,
            where=where,
            got=got,
            next_step="run the same command again later; what was sent stays sent",
        )
    return StoreError(f"{what}.", where=where, got=got)


def unreachable(error: BaseException, what: str, where: object) -> StoreError:
    """Returns the error that a failed connection means.

    Raises:
        RefusedError: The server's certificate is not trusted; no attempt will change that.
        StoreError: The server's name is unknown; nor that.
    """
    name = type(error).__name__
    got = f"{name}: {error}" if str(error) else name
    if isinstance(error, ssl.SSLCertVerificationError):
        raise RefusedError(
            f"{what}: the registry's certificate is not trusted.",
            where=where,
            got=error.verify_message,
            next_step="name the file of its certificate authority in SSL_CERT_FILE",
        ) from error
    if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
        raise StoreError(
            f"{what}: the registry's name is not known here.",
            where=where,
            got=error.strerror,
            next_step="correct the name, or connect to the network that knows it",
        ) from error
    return StoreError(
        f"{what}: the registry could not be reached, or went away.",
        transient=True,
        where=where,
        got=got,
        next_step="run the same command again; what was sent stays sent",
    )


def _errors_of(answer: Answer) -> list[tuple[str, str]]:
    try:
        value = json.loads(answer.body[:65536])
        errors = value["errors"]
        found = [(str(each["code"]).upper(), str(each.get("message") or "")) for each in errors]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return [(_clean(code), _clean(message)) for code, message in found[:5]]


def _clean(text: str) -> str:
    text = printable(_SECRET.sub(r"\1 ...", _QUERY.sub(r"\1?...", text)))
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
