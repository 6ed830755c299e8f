"""What a target demands of signatures, and which attestations meet it.

A statement is believed for its signer's key, for what it is about (the manifest by its whole
digest, and the model), and for its age. What it is called or where it is kept counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING

from adroit_publish.attestations.envelope import Attestation, read_envelope
from adroit_publish.attestations.keys import public_key_at
from adroit_publish.attestations.statement import PROVENANCE
from adroit_publish.bundle.digest import Digest
from adroit_publish.config.targets import Target
from adroit_publish.edge.text import printable
from adroit_publish.errors import VerificationError

if TYPE_CHECKING:
    from securesystemslib.signer import Key


MAX_SHOWN_CHARS = 300


@dataclass(frozen=True)
class Subject:
    """What an attestation has to be about.

    Attributes:
        flavor: What it was published as; None where nobody names one.
    """

    model_name: str
    version: str
    manifest: Digest
    flavor: str | None = None


@dataclass(frozen=True)
class Demand:
    """Whose signature counts, and for how long.

    Attributes:
        target: Name of the target that demands it.
        addresses: Of the keys, as ``keys`` has it.
        max_age_s: None: for ever.
    """

    target: str
    addresses: tuple[str, ...]
    max_age_s: float | None = None

    @cached_property
    def keys(self) -> Mapping[str, Key]:
        """The public keys by address; raises as ``public_key_at``."""
        return {address: public_key_at(address) for address in self.addresses}

    def read(self, envelopes: Iterable[bytes], where: str) -> tuple[Attestation, ...]:
        """Returns what envelopes hold; those of other tools, or damaged, count for nothing."""
        return tuple(_readable(envelopes, self.keys, where))

    def problem(self, attestation: Attestation, subject: Subject, now: datetime) -> str | None:
        """Returns why an attestation does not count for a subject, to be shown; None: it does."""
        problem = self._problem(attestation, subject, now)
        return problem and printable(problem, MAX_SHOWN_CHARS)

    def _problem(self, attestation: Attestation, subject: Subject, now: datetime) -> str | None:
        statement = attestation.statement
        by_whom = attestation.key or f"key {', '.join(key[:12] for key in attestation.key_ids)}"
        made = f"a {'provenance' if statement.kind == PROVENANCE else 'verification'} by {by_whom}"
        if attestation.key is None:
            return f"{made}, which is not listed or did not sign this"
        if statement.manifest != subject.manifest:
            return f"{made} of another manifest, {statement.manifest}"
        if (statement.model_name, statement.version) != (subject.model_name, subject.version):
            return f"{made} of {statement.model_name}/{statement.version}"
        if subject.flavor and statement.kind == PROVENANCE and statement.flavor != subject.flavor:
            return f"{made} of flavor {statement.flavor}, not of {subject.flavor}"
        age_s = (now - statement.created_utc).total_seconds()
        if self.max_age_s is not None and age_s > self.max_age_s:
            return f"{made} of {statement.created_utc:%Y-%m-%d}, {age_s / 86400:.1f} days ago"
        return None


NONE = Demand("", ())
"""Reads what is signed, and believes nothing of it."""


def demand_of(target: Target) -> Demand | None:
    """Returns what a target demands; None: nothing."""
    if not target.require_signature:
        return None
    return Demand(target.name, target.require_signature, target.signature_max_age_s)


def _readable(
    envelopes: Iterable[bytes], keys: Mapping[str, Key], where: str
) -> Iterator[Attestation]:
    for data in envelopes:
        with suppress(VerificationError):
            yield read_envelope(data, keys, where)
