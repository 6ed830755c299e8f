"""One pooled session to one host: the only credentials it sends, and what its answers may be.

Retries and redirects are not its business: ``edge.patience`` is the only place that retries,
and a redirect would carry a credential to another host, so none is followed.

Source: RFC 9110, sections 8.4 (Content-Encoding), 10.2.3 (Retry-After), 14 (Range).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from adroit_publish.artifacts import remote_root
from adroit_publish.artifacts.arrival.stated import stated_by
from adroit_publish.artifacts.cache import THREADS
from adroit_publish.artifacts.remote_root import Body, TransientFault
from adroit_publish.bundle.listing import RemoteFile
from adroit_publish.edge.patience import retry_after_s
from adroit_publish.errors import SourceError


def pooled_session(credentials: Callable[[], Mapping[str, str]] = dict) -> requests.Session:
    """Returns a session that keeps a connection for each download thread.

    Args:
        credentials: Gives the headers that carry them, anew for each request.
    """

    def authenticate(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.update(credentials())
        return request

    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=THREADS, max_retries=0)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # Lengths are those of the file, not of a compressed form of it.
    session.headers["Accept-Encoding"] = "identity"
    # Also where there are no credentials: requests would look into ~/.netrc.
    session.auth = authenticate
    return session


@contextmanager
def answered(
    session: requests.Session,
    url: str,
    *,
    where: str,
    method: str = "GET",
    certificate_setting: str = "REQUESTS_CA_BUNDLE",
    timeout_s: float = remote_root.READ_TIMEOUT_S,
    **options: Any,
) -> Iterator[requests.Response]:
    """Gives the answer to one request while its body is read.

    Args:
        session: Made by ``pooled_session``.
        url: May be signed: no message shows it.
        where: The place as it may be shown.
        certificate_setting: The environment variable that names the server's certificate.
        timeout_s: How long the server may be silent.
        options: Of ``requests.Session.request``: headers, params, json, verify.

    Raises:
        SourceError: The certificate or the address cannot be used.
        TransientFault: Anything that may be gone the next time.
    """
    timeout = (remote_root.CONNECT_TIMEOUT_S, timeout_s)
    options |= {"stream": True, "allow_redirects": False, "timeout": timeout}
    # `from None`: the cause's text has the whole address in it, and a traceback shows causes.
    try:
        with session.request(method, url, **options) as answer:
            yield answer
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
    """Returns the error for a certificate that is not trusted, on either side."""
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
    """Returns what an answer other than 200, 206, 401 and 403 means for a download."""
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


def body_of(
    answer: requests.Response,
    file: RemoteFile,
    start: int,
    stop: int,
    where: str,
    *,
    etag_is_md5: bool = False,
) -> Body:
    """Returns the body of an answer, before any byte of it is believed.

    The answer is 206 for ``[start, stop)``, or 200 for the whole file; the ETag is an MD5 in S3.

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
        chunks = answer.raw.stream(remote_root.CHUNK_BYTES, decode_content=False)
        whole = (start, stop) == (0, file.size_bytes)
        return Body(start, chunks, stated_by(answer.headers, whole=whole, etag_is_md5=etag_is_md5))
    kind = answer.headers.get("Content-Type", "")
    raise SourceError(
        "The server's answer is not the file that it listed.",
        where=where,
        got=f"{answer.status_code}, {stated or 'no'} length, {kind[:100]!a} {placed[:100]}".strip(),
        wanted=f"bytes {start} to {stop} of {file.size_bytes}",
        next_step="check that nothing writes to the run any more, then run it again",
    )
