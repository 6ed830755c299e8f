"""One pooled session to one host, and the only credentials it sends.

Retries and redirects are not its business: ``remote_root.Patience`` is the only place that retries,
and a redirect would carry a credential to another host, so callers follow none.

Source: RFC 9110, sections 8.4 (Content-Encoding), 10.2.3 (Retry-After).
"""

from __future__ import annotations

from collections.abc import Callable

import requests
from requests.adapters import HTTPAdapter

from adroit_publish.artifacts.cache import THREADS

Authenticate = Callable[[requests.PreparedRequest], requests.PreparedRequest]


def pooled_session(authenticate: Authenticate | None = None) -> requests.Session:
    """Returns a session that keeps a connection for each download thread.

    Args:
        authenticate: Adds the credentials to a request; None where none may be sent.
    """
    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=THREADS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # Lengths are those of the file, not of a compressed form of it.
    session.headers["Accept-Encoding"] = "identity"
    # An authenticator of our own, also where it adds nothing: requests would look into ~/.netrc.
    session.auth = authenticate or (lambda request: request)
    return session


def retry_after_s(answer: requests.Response) -> float | None:
    """Returns how many seconds the server asks to be left alone, where it says so in seconds."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None
