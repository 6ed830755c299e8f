"""What runs behind a URL: which bundle, whether it answers as recorded, and on how many replicas.

Each visit to a URL is a connection of its own, on which ``/bundle`` says which bundle and which
process answers, and each process that was not met before is asked for the golden input. Where a
number of replicas is given, visits go on until as many processes were met, ``VISITS_PER_REPLICA``
times that number at most: a balancer that spreads connections shows all of them long before.

A golden input is no traffic: it carries the header that the server's ``/bundle`` names, and is
counted apart. A server that names none (its runtime is older) would count it, so it is not asked
while its requests are a sample: which bundle it serves has to do then.

A server that is away, or wrong, is a reading with problems; nothing is raised for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from adroit_publish.edge.text import printable
from adroit_publish.errors import ConfigError, PublishError, VerificationError
from adroit_publish.evidence.access import access_to
from adroit_publish.evidence.answers import SHOWN_CHARS, Visit
from adroit_publish.gates.reporter import outputs_in

TIMEOUT_S = 30.0
VISITS_PER_REPLICA = 20
PROBE_HEADER = "adroit-probe"
_PREDICTIONS_LIMIT_BYTES = 32 << 20

Matches = Callable[[Any], str | None]
"""Told the predictions of a server; returns what differs from the recorded ones, or None."""


@dataclass(frozen=True)
class UrlReading:
    """What was found at one URL.

    Attributes:
        url: As it was given; what may be shown of it where it is no plain address.
        replicas: Processes met that serve the right bundle.
        missing: Why the version is not deployed there, a line each; empty where it is.
        differing: How answers to the golden input differ from the recorded ones, a line each.
    """

    url: str
    replicas: int
    missing: tuple[str, ...]
    differing: tuple[str, ...]


@dataclass(frozen=True)
class EndpointReading:
    """What was found at every URL, in the order they were given."""

    utc: datetime
    bundle_id: str
    urls: tuple[UrlReading, ...]

    @property
    def deployed(self) -> bool:
        """Whether every URL serves the version, on all replicas that were asked for."""
        return not any(found.missing for found in self.urls)

    @property
    def verified(self) -> bool:
        """Whether it is deployed, and every process met answered as recorded, if it was asked."""
        return not self.problems

    @property
    def problems(self) -> tuple[str, ...]:
        """What stands against it, each line after its URL."""
        return tuple(
            f"{found.url}: {line}"
            for found in self.urls
            for line in (*found.missing, *found.differing)
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return asdict(self) | {"utc": self.utc.isoformat()}


def probe(
    urls: Sequence[str],
    bundle_id: str,
    request: bytes | None,
    matches: Matches,
    *,
    replicas: int | None = None,
    sampling: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> EndpointReading:
    """Returns what runs behind each of ``urls``.

    Args:
        request: The golden input as JSON, sent to ``/invocations``; None where the model has none.
        matches: Compares the predictions with the recorded outputs.
        replicas: How many processes have to be met behind each URL; None for any one.
        sampling: Whether the servers' requests are a sample that nobody else may add to.
    """
    if not urls:
        raise ValueError("nowhere to look")
    utc = datetime.now(UTC)
    wanted = _Wanted(bundle_id, request, matches, replicas, sampling, timeout_s)
    found = tuple(_read(url, wanted) for url in urls)
    return EndpointReading(utc, bundle_id, found)


@dataclass(frozen=True)
class _Wanted:
    bundle_id: str
    request: bytes | None
    matches: Matches
    replicas: int | None
    sampling: bool
    timeout_s: float


def _read(url: str, wanted: _Wanted) -> UrlReading:
    met: dict[str, str | None] = {}
    needed = wanted.replicas or 1
    tries = VISITS_PER_REPLICA * needed
    missing = None
    try:
        for _ in range(tries):
            with Visit(url, wanted.timeout_s, access_to(url)) as visit:
                _meet(visit, wanted, met)
            if len(met) >= needed:
                break
        else:
            missing = f"met {len(met)} of {needed} replicas in {tries} tries"
    except ConfigError as error:
        url, missing = str(error.where or error.got), error.what
    except PublishError as error:
        missing = _line(error)
    differing = dict.fromkeys(line for line in met.values() if line is not None)
    return UrlReading(url, len(met), () if missing is None else (missing,), tuple(differing))


def _meet(visit: Visit, wanted: _Wanted, met: dict[str, str | None]) -> None:
    """Adds who answers to ``met``, with how its answer to the golden input differs, if it does."""
    said = visit.ask("/bundle").json()
    bundle_id, instance = said.get("bundle_id"), said.get("instance_id")
    if bundle_id != wanted.bundle_id:
        got = printable(str(bundle_id), SHOWN_CHARS)
        raise VerificationError(f"It serves bundle {got}, not {wanted.bundle_id}.")
    if not (isinstance(instance, str) and instance):
        raise VerificationError("It does not say which process answers: /bundle, instance_id.")
    if instance not in met:
        counts = said.get("probe_header") != PROBE_HEADER
        unasked = wanted.request is None or (counts and wanted.sampling)
        met[instance] = None if unasked else _difference(visit, wanted)


def _difference(visit: Visit, wanted: _Wanted) -> str | None:
    try:
        answer = visit.ask(
            "/invocations",
            wanted.request,
            {PROBE_HEADER: "1"},
            limit_bytes=_PREDICTIONS_LIMIT_BYTES,
        )
        answered = answer.json()
    except PublishError as error:
        return f"The golden input: {_line(error)}"
    differs = wanted.matches(outputs_in(answered))
    if differs is None:
        return None
    return f"The golden input is answered differently: {printable(differs, SHOWN_CHARS)}"


def _line(error: PublishError) -> str:
    return error.what + (f" ({error.got})" if error.got else "")
