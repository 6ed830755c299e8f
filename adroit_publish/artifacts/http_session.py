"""One pooled session to one host: the only credentials it sends, and what its answers may be.

Retries and redirects are not its business: ``edge.patience`` is the only place that retries,
and a redirect would carry a credential to another host, so callers follow none.

Source: RFC 9110, sections 8.4 (Content-Encoding), 10.2.3 (Retry-After), 14 (Range).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from adroit_publish.artifacts.cache import THREADS
from adroit_publish.artifacts.remote_root import TransientFault
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.patience import retry_after_s
from adroit_publish.errors import SourceError

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


@contextmanager
def translated(where: str, certificate_setting: str) -> Iterator[None]:
    """Turns a failed connection into a ``TransientFault``, which shows no address but ``where``.

    Args:
        where: The place as it may be shown.
        certificate_setting: The environment variable that names the server's certificate.

    Raises:
        SourceError: The certificate or the address cannot be used.
        TransientFault: Anything that may be gone the next time.
    """
    # `from None`: the cause's text has the whole address in it, and a traceback shows causes.
    try:
        yield
    except requests.exceptions.SSLError as error:
        raise untrusted(where, error, certificate_setting) from None
    except requests.exceptions.InvalidURL as error:
        raise SourceError(
            "The server's address cannot be used.",
            where=where,
            got=type(error).__name__,
            next_step="check tracking_uri in adroit.toml",
        ) from None
    except (requests.exceptions.RequestException, HTTPError) as error:
        raise TransientFault(f"{type(error).__name__} at {where}") from None


def untrusted(
    where: str, error: requests.exceptions.SSLError, certificate_setting: str
) -> SourceError:
    """Returns the error for a server whose certificate is not trusted, or that wants one of ours.

    Args:
        where: The place as it may be shown.
        error: What requests raised.
        certificate_setting: The environment variable that names the server's certificate.
    """
    reason = re.search(r"certificate verify failed: ([\w ,'.:-]+)|\] ([\w ]+) \(", str(error))
    why = (reason[1] or reason[2]).strip() if reason else type(error).__name__
    return SourceError(
        "The server's certificate is not trusted, or it does not trust ours.",
        where=where,
        got=why,
        next_step=f"export {certificate_setting}=/path/to/the/authority.pem (who runs the server "
        "has it), then run the same command again",
    )


def failure_of(answer: requests.Response, where: str) -> TransientFault | SourceError:
    """Returns what an answer other than 200, 206, 401 and 403 means for a download.

    Args:
        answer: Its body is not read.
        where: The place as it may be shown.
    """
    status = answer.status_code
    if status in (408, 429) or status >= 500:
        pause_s = retry_after_s(answer.headers.get("Retry-After"))
        return TransientFault(f"{status} {answer.reason} at {where}", pause_s)
    what = {
        404: "The model's files are gone.",
        412: "A file of the model was replaced while it was read.",
    }.get(status, "The server's answer is not the file that it listed.")
    return SourceError(
        what,
        where=where,
        got=f"{status} {answer.reason}" + (", a redirect" if 300 <= status < 400 else ""),
        wanted="200 OK",
        next_step="check that the run's artifacts can be opened in MLflow's pages",
    )


def body_start(
    answer: requests.Response, file: RemoteFile, start: int, stop: int, where: str
) -> int:
    """Returns the offset in the file of a body's first byte, before any byte of it is believed.

    Args:
        answer: 206 for ``[start, stop)``, or 200 for the whole file.
        file: As it was listed.
        start: Offset of the first byte that was asked for.
        stop: Offset behind the last.
        where: The place as it may be shown.

    Raises:
        SourceError: The headers state another length, another place or an encoding.
    """
    if answer.status_code != 206:
        start, stop = 0, file.size_bytes
    stated = answer.headers.get("Content-Length", "")
    placed = answer.headers.get("Content-Range", "")
    is_right = (
        (not stated.isdigit() or int(stated) == stop - start)
        and (answer.status_code != 206 or placed == f"bytes {start}-{stop - 1}/{file.size_bytes}")
        and answer.headers.get("Content-Encoding", "identity") == "identity"
    )
    if is_right:
        return start
    kind = answer.headers.get("Content-Type", "")
    raise SourceError(
        "The server's answer is not the file that it listed.",
        where=where,
        got=f"{answer.status_code}, {stated or 'no'} length, {kind[:100]!a} {placed[:100]}".strip(),
        wanted=f"bytes {start} to {stop} of {file.size_bytes}",
        next_step="check that nothing writes to the run any more, then run it again",
    )
