"""What a check of a version found, and how it is noted, place by place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.custody.signature import NotSigned
from adroit_publish.errors import PublishError, RefusedError
from adroit_publish.stores.contract import Progress

ASKING_THREADS = 8


@dataclass(frozen=True)
class Damage:
    """One thing of a version that is missing or wrong in one place.

    Attributes:
        what: ``blob``, ``manifest`` (of a registry), ``tag`` or ``other``.
        descriptor: The blob or manifest that ought to be there; None of other things.
        entry: What names it among what refers to the version; None of the version's own.
        next_step: What to type next by the error itself, where it says so.
    """

    place: str
    what: str
    line: str
    descriptor: Descriptor | None = None
    entry: str | None = None
    next_step: str | None = None


@dataclass
class VerifyReport:
    """What a check of a version found, and how much was read to its end, or asked for.

    Attributes:
        strays: Where something lies among the version's referrers that is not ours; no damage.
    """

    version: str
    places: list[str] = field(default_factory=list)
    objects: int = 0
    size_bytes: int = 0
    damages: list[Damage] = field(default_factory=list)
    strays: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """One line for each object that is missing or wrong, naming it."""
        return [damage.line for damage in self.damages]

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON values; ``strays`` only where there are some."""
        facts = {name: value for name, value in vars(self).items() if name != "damages"}
        if not self.strays:
            del facts["strays"]
        return facts | {"problems": self.problems}


def is_of_the_place(error: PublishError) -> bool:
    """Tells whether the store is away or denies access, which says nothing of a version."""
    refused = isinstance(error, RefusedError) and not isinstance(error, NotSigned)
    return refused or getattr(error, "transient", False)


class PlaceCheck:
    """Notes what is damaged in one place."""

    def __init__(self, location: str, report: VerifyReport, progress: Progress) -> None:
        report.places.append(location)
        self.location = location
        self.report = report
        self.progress = progress

    def note(
        self,
        what: str,
        line: str,
        descriptor: Descriptor | None = None,
        entry: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.report.damages.append(Damage(self.location, what, line, descriptor, entry, next_step))

    @contextmanager
    def noted(
        self, what: str, descriptor: Descriptor | None = None, entry: str | None = None
    ) -> Iterator[None]:
        """Turns a PublishError into a damage, unless it is of the place itself."""
        try:
            yield
        except PublishError as error:
            if self.is_down(error):
                raise
            got = f", got {error.got}" if error.got is not None else ""
            line = f"{error.where}: {error.what.rstrip('.')}{got}"
            self.note(what, line, descriptor, entry, error.next_step)

    def is_down(self, error: PublishError) -> bool:
        """Tells whether an error is of the place as a whole."""
        return is_of_the_place(error)

    def counted(
        self, chunks: Iterator[memoryview | bytes], size_bytes: int
    ) -> Iterator[memoryview | bytes]:
        for chunk in chunks:
            self.progress(len(chunk))
            yield chunk
        self.report.objects += 1
        self.report.size_bytes += size_bytes

    def ask(
        self, has: Callable[[Descriptor], bool], blobs: Sequence[Descriptor], where: str
    ) -> None:
        """Notes every blob that the place does not have, by its own word."""
        with ThreadPoolExecutor(ASKING_THREADS, "ask") as pool:
            for blob, there in zip(blobs, pool.map(has, blobs), strict=True):
                if there:
                    self.report.objects += 1
                else:
                    path = f"{where}{blob.digest if where.endswith('@') else blob.digest.hex}"
                    self.note("blob", f"{path}: It is missing, or has another length", blob)
