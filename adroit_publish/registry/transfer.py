"""A blob on its way to a registry or from it, through whatever the network does meanwhile.

Sending: one session, one PUT of the whole blob with its length known; nothing but that is done
the same way by every registry. A PUT that failed is made again in a fresh session, because what
the old one holds is not known; one whose answer was lost may have worked, so the registry is
asked first. Receiving: from the byte that was reached, where the connection broke.

Source: OCI distribution specification 1.1, "Pushing a blob monolithically", "Pulling blobs".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urljoin

from adroit_publish.bundle.content import CHUNK_BYTES
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.edge.patience import COSTLY_ATTEMPTS, SILENCE_TIMEOUT_S, Patience
from adroit_publish.errors import PublishError, SourceError, StoreError, VerificationError
from adroit_publish.registry.client import Registry
from adroit_publish.registry.errors import (
    StaysDamaged,
    error_codes,
    failure,
    has_no_room,
    may_help_to_try_again,
    unreachable,
)
from adroit_publish.registry.http import Answer, read_answer
from adroit_publish.stores.contract import Progress

COMMIT_BYTES_PER_S = 32 << 20
"""A registry may copy the whole blob before it answers a PUT; slower than this it is given up."""
_SENT = "The blob could not be sent"
_READ = "The blob could not be read"
_SESSION_LOST = frozenset(
    {"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID"}
)


@dataclass(frozen=True)
class Upload:
    """What is to be sent where.

    Attributes:
        sessions_url: Where upload sessions are opened.
        pieces: Gives the blob's bytes, each time from the start.
        is_there: Asks the registry whether it has the blob.
        session_url: A session that is open already, to be used first; or empty.
    """

    registry: Registry
    sessions_url: str
    scopes: Sequence[str]
    descriptor: Descriptor
    pieces: Callable[[], Iterable[memoryview | bytes]]
    is_there: Callable[[Patience], bool]
    progress: Progress
    session_url: str = ""

    @property
    def where(self) -> str:
        """The blob, for messages."""
        return f"{self.registry.host}{self.sessions_url}{self.descriptor.digest}"


def send_blob(upload: Upload) -> None:
    """Sends a blob, and returns once the registry has said that it has all of it.

    Raises:
        RefusedError, StoreError: As ``Registry.call``; there is no such repository, or no room
            left.
        SourceError: The bytes cannot be read.
        VerificationError: The bytes are not the blob's, or the registry kept others.
    """
    patience = Patience(upload.registry.give_up_s)
    session_url = upload.session_url
    while True:
        session_url = session_url or _open_session(upload, patience.part())
        patience.heard()
        patience.begin()
        body = _Body(upload, patience)
        try:
            answer = _put(upload, session_url, body, patience)
        except OSError as error:
            if upload.is_there(patience.part()):
                upload.progress(upload.descriptor.size_bytes - body.sent_bytes)
                return
            failed: PublishError = unreachable(error, _SENT, upload.where)
            retry_after_s = None
        else:
            if answer.status in (201, 202, 204):
                break
            patience.heard()
            failed = _refused(upload, answer, patience.failures)
            retry_after_s = answer.retry_after_s
        body.take_back()
        session_url = ""
        patience.wait_or_raise(failed, retry_after_s)
    if not upload.is_there(Patience(upload.registry.give_up_s)):
        raise StaysDamaged(
            "The registry took a blob, keeps other bytes, and does not have it as it was sent.",
            where=upload.where,
            wanted=f"{upload.descriptor.size_bytes} bytes of that digest",
            next_step="run the same command again; if it stays so, the registry's storage rots",
        )


def receive_blob(
    registry: Registry, url: str, scopes: Sequence[str], descriptor: Descriptor, start: int = 0
) -> Iterator[memoryview]:
    """Yields the bytes that the registry gives for a blob from ``start`` on, unverified.

    A piece is only valid until the next one is asked for. Raises as ``Registry.call`` does, and
    StoreError where it has no such blob.
    """
    patience, at, where = Patience(registry.give_up_s), start, f"{registry.host}{url}"
    buffer = memoryview(bytearray(min(CHUNK_BYTES, descriptor.size_bytes + 1)))
    while True:
        patience.begin()
        headers = {"Range": f"bytes={at}-"} if at else {}
        try:
            with registry.open(
                "GET", url, scopes, _READ, headers=headers, patience=patience
            ) as response:
                if response.status not in (200, 206):
                    answer = read_answer(response)
                    patience.heard()
                    failed = failure(answer, _READ, where)
                    if not may_help_to_try_again(answer):
                        raise failed
                    patience.wait_or_raise(failed, answer.retry_after_s)
                    continue
                skip = at if response.status == 200 else 0
                while count := response.readinto(buffer):
                    patience.heard()
                    kept = buffer[min(skip, count) : count]
                    skip -= count - len(kept)
                    at += len(kept)
                    if kept:
                        yield kept
            if at >= descriptor.size_bytes:
                return
            raise ConnectionResetError(f"the body ended after {at} bytes")
        except OSError as error:
            if at >= descriptor.size_bytes:
                return  # all of it is here; who reads compares its digest
            patience.wait_or_raise(unreachable(error, _READ, where))


def _open_session(upload: Upload, patience: Patience) -> str:
    answer = upload.registry.call(
        "POST", upload.sessions_url, upload.scopes, _SENT, patience=patience
    )
    location = answer.headers.get("Location")
    if answer.status != 202:
        raise failure(answer, _SENT, upload.where)
    if not location:
        raise StoreError("The registry opened an upload without an address.", where=upload.where)
    return urljoin(upload.sessions_url, location)


def _put(upload: Upload, session_url: str, body: _Body, patience: Patience) -> Answer:
    size_bytes = upload.descriptor.size_bytes
    url = session_url + ("&" if "?" in session_url else "?")
    with upload.registry.open(
        "PUT",
        f"{url}digest={quote(upload.descriptor.digest, safe='')}",
        upload.scopes,
        _SENT,
        headers={
            "Content-Length": str(size_bytes),
            "Content-Type": "application/octet-stream",
        },
        body=body,
        patience=patience,
        answer_timeout_s=SILENCE_TIMEOUT_S + size_bytes / COMMIT_BYTES_PER_S,
    ) as response:
        return read_answer(response)


def _refused(upload: Upload, answer: Answer, failures: int) -> PublishError:
    """Returns the error to raise in the end; raises it where a fresh session is no help."""
    codes = error_codes(answer)
    failed = failure(answer, _SENT, upload.where)
    if codes & {"DIGEST_INVALID", "SIZE_INVALID"}:
        failed = VerificationError(
            "The registry got other bytes than were to be sent.",
            where=upload.where,
            got=failed.got,
            wanted=upload.descriptor.digest,
            next_step="run the same command again; if it stays so, the file changes while it is "
            "read, or something on the way changes it",
        )
    if has_no_room(answer):
        raise failed
    if codes & _SESSION_LOST or answer.status in (404, 408, 416):
        if failures + 1 >= COSTLY_ATTEMPTS:
            raise failed
    elif not may_help_to_try_again(answer):
        raise failed
    return failed


class _Body:
    """The body of one PUT; tells what was accepted, and takes it back where that was in vain."""

    def __init__(self, upload: Upload, patience: Patience) -> None:
        self._upload = upload
        self._patience = patience
        self.sent_bytes = 0

    def __call__(self) -> Iterator[memoryview | bytes]:
        self.take_back()
        for piece in self._pieces():
            yield piece
            self._patience.heard()
            self.sent_bytes += len(piece)
            self._upload.progress(len(piece))

    def take_back(self) -> None:
        if self.sent_bytes:
            sent_bytes, self.sent_bytes = self.sent_bytes, 0
            self._upload.progress(-sent_bytes)

    def _pieces(self) -> Iterator[memoryview | bytes]:
        try:
            yield from self._upload.pieces()
        except OSError as error:  # a disk's, not the network's: sending again is no help
            raise SourceError(
                "A file could not be read while it was sent.",
                where=error.filename or self._upload.where,
                got=error.strerror,
            ) from error
