"""The blobs of one repository: asked for before they are sent, verified when they are read.

* A blob is sent in one piece, streamed; where that fails it is sent again in a fresh session, and
  where an answer was lost the registry is asked what it has.
* The registry's word is checked: length and digest of every blob after it was sent, whatever was
  read to its last byte.

Source: OCI distribution specification 1.1, "Pulling blobs", "Pushing blobs", "Mounting a blob
from another repository".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, urljoin

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Descriptor, document_of, verified
from adroit_publish.edge.patience import Patience
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.registry.client import Registry
from adroit_publish.registry.errors import failure, stays_damaged
from adroit_publish.registry.http import ANSWER_LIMIT_BYTES, Answer
from adroit_publish.registry.image_reference import Repository
from adroit_publish.registry.transfer import Upload, receive_blob, send_blob
from adroit_publish.stores.contract import Progress, unheard


class Blobs:
    """The blobs of one repository; safe to share between threads."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.registry = registry
        self.repository = Repository(registry.host, name)
        self.location = str(self.repository)
        self.url = f"/v2/{name}"
        self.push_scopes = (f"repository:{name}:pull,push",)
        self.pull_scopes = (f"repository:{name}:pull",)
        self._uploads_url = f"{self.url}/blobs/uploads/"

    def put_blob(
        self, descriptor: Descriptor, content: Content, progress: Progress = unheard
    ) -> bool:
        """Makes sure that the blob is there; returns whether it was sent.

        Raises:
            RefusedError, StoreError: As ``Registry.call``; there is no such repository, or no room
                left.
            VerificationError: ``content`` is not what ``descriptor`` says, or what the registry
                says it now has is not.
        """
        if self.has_blob(descriptor):
            return False
        self._send(descriptor, content.chunks, progress)
        return True

    def take_blob(
        self, descriptor: Descriptor, source: Blobs, progress: Progress = unheard
    ) -> bool:
        """Makes sure that a blob of another repository is here; returns whether bytes were sent.

        It is mounted where both are on one registry and that registry does it (of which
        ``progress`` is not told); otherwise it is read, verified and sent on. Raises as
        ``put_blob`` and ``read_blob``.
        """
        if self.has_blob(descriptor):
            return False
        session_url = ""
        if source.repository.host == self.repository.host:
            answer = self._ask_for_mount(descriptor, source)
            if answer is not None and answer.status == 201 and self.has_blob(descriptor):
                return False
            if answer is not None and answer.status == 202:
                # Refused: the registry opened an upload in its place, which is used at once.
                session_url = urljoin(self._uploads_url, answer.headers.get("Location", ""))
        self._send(descriptor, lambda: source.read_blob(descriptor), progress, session_url)
        return True

    def has_blob(self, descriptor: Descriptor, patience: Patience | None = None) -> bool:
        """Tells whether the registry says that it has the blob, with the right length.

        Raises as ``Registry.call`` does.
        """
        what = "The registry could not be asked for a blob"
        answer = self.registry.call(
            "HEAD", self._blob_url(descriptor), self.pull_scopes, what, patience=patience
        )
        if answer.status == 404:
            return False
        if answer.status != 200:
            raise failure(answer, what, f"{self.location}@{descriptor.digest}")
        length = answer.headers.get("Content-Length")
        digest = answer.headers.get("Docker-Content-Digest")
        return length in (None, str(descriptor.size_bytes)) and digest in (None, descriptor.digest)

    def read_blob(self, descriptor: Descriptor) -> Iterator[memoryview | bytes]:
        """Yields a blob's bytes; raises VerificationError at their end unless they are the blob's.

        A connection that breaks is taken up again at the byte it broke at. Raises as
        ``receive_blob``.
        """
        where = f"{self.location}@{descriptor.digest}"
        pieces = self._received(descriptor)
        yield from verified(pieces, descriptor.digest, descriptor.size_bytes, where)

    def read_range(
        self, descriptor: Descriptor, start: int, stop: int
    ) -> Iterator[memoryview | bytes]:
        """Yields the bytes ``[start, stop)`` of a blob, unverified; raises as ``read_blob``."""
        left = stop - start
        for piece in self._received(descriptor, start):
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                return

    def heal_blob(self, descriptor: Descriptor, content: Content) -> None:
        """Sends a blob that is missing or wrong, and reads it back.

        Raises:
            StaysDamaged: The registry took it, and still gives other bytes.
            PublishError: As ``put_blob``.
        """
        self._send(descriptor, content.chunks, unheard)
        try:
            for _ in self.read_blob(descriptor):
                pass
        except VerificationError as error:
            raise stays_damaged(f"{self.location}@{descriptor.digest}") from error

    def document(self, descriptor: Descriptor) -> bytes:
        """Returns a small blob, verified; raises as ``read_blob`` and ``document_of``."""
        where = f"{self.location}@{descriptor.digest}"
        return document_of(descriptor, self.read_blob(descriptor), ANSWER_LIMIT_BYTES, where)

    def _send(
        self,
        descriptor: Descriptor,
        pieces: Callable[[], Iterable[memoryview | bytes]],
        progress: Progress,
        session_url: str = "",
    ) -> None:
        send_blob(
            Upload(
                self.registry,
                self._uploads_url,
                self.push_scopes,
                descriptor,
                pieces,
                lambda patience: self.has_blob(descriptor, patience),
                progress,
                session_url,
            )
        )

    def _ask_for_mount(self, descriptor: Descriptor, source: Blobs) -> Answer | None:
        from_name = quote(source.repository.name, safe="")
        url = f"{self._uploads_url}?mount={quote(descriptor.digest, safe='')}&from={from_name}"
        try:
            return self.registry.call(
                "POST", url, (*self.push_scopes, *source.pull_scopes), "A mount failed"
            )
        except RefusedError:
            return None  # some registries refuse so; whether it is really denied, the copy tells

    def _received(self, descriptor: Descriptor, start: int = 0) -> Iterator[memoryview]:
        url, scopes = self._blob_url(descriptor), self.pull_scopes
        return receive_blob(self.registry, url, scopes, descriptor, start)

    def _blob_url(self, descriptor: Descriptor) -> str:
        return f"{self.url}/blobs/{descriptor.digest}"
