"""Whether a version is signed as its target demands: asked before it is used for anything."""

from __future__ import annotations

from datetime import UTC, datetime

from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import ENVELOPE_MEDIA_TYPE, Attestation
from adroit_publish.attestations.keys import signer_at
from adroit_publish.attestations.statement import PROVENANCE
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.config.targets import Target
from adroit_publish.errors import RefusedError
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.records import accepted, subject_of


class NotSigned(RefusedError):
    """The version is not signed as its target demands."""


def admit_signed(
    store: BundleStore, published: Published, flavor: str | None = None
) -> Attestation | None:
    """Lets a version pass that is signed as its store's target demands.

    The statement binds the whole digest of the manifest, of which the version's name has 48 bits,
    and the record of the publish, which has to be there.

    Args:
        flavor: What it has to be published as; None where nobody names one.

    Returns:
        Its last provenance that counts; None where nothing is demanded.

    Raises:
        NotSigned: It is unsigned, or signed by others, for something else, or too long ago.
    """
    if store.demand is None:
        return None
    if counting := signed_by(store, store.demand, published, flavor):
        return counting[-1]
    without_record = _provenances(store, store.demand, published, flavor)
    if not without_record:
        raise _refused(store.demand, store, published, flavor)
    raise NotSigned(
        "The record that a version was signed with is missing.",
        where=f"{published.version} in {store.location}",
        got=", ".join(map(str, _record_digests(store, published))) or "no record",
        wanted=without_record[-1].statement.record,
        next_step=_again(store.demand, published),
    )


def signed_by(
    store: BundleStore, demand: Demand, published: Published, flavor: str | None = None
) -> list[Attestation]:
    """Returns the provenances of a version that meet a demand, oldest first.

    One whose record is missing does not count: its publish was killed between the two, and the
    record of an earlier one vouches as before.
    """
    meeting = _provenances(store, demand, published, flavor)
    records = _record_digests(store, published) if meeting else []
    return [one for one in meeting if one.statement.record in records]


def _provenances(
    store: BundleStore, demand: Demand, published: Published, flavor: str | None
) -> list[Attestation]:
    good = accepted(store, demand, published, flavor)
    return [one for one in good if one.statement.kind == PROVENANCE]


def _record_digests(store: BundleStore, published: Published) -> list[Digest]:
    return [Digest.of(data) for data in store.attached(published, RECORD_MEDIA_TYPE)]


def check_signing_key(target: Target) -> None:
    """Makes sure that what is made at a target will be accepted there.

    Raises:
        ConfigError: The signing key cannot be read.
        RefusedError: The target demands signatures, and its own would not be one of them.
        StoreError: AWS could not be reached.
    """
    listed = Demand(target.name, target.require_signature).keys
    if target.signing_key is None and not listed:
        return
    key = signer_at(target.signing_key).public_key if target.signing_key else None
    if listed and key not in listed.values():
        raise RefusedError(
            "What is published here would be refused here.",
            where=f"target {target.name} in adroit.toml",
            got=f"signing_key {target.signing_key}" if key else "no signing_key",
            wanted=f"a key of require_signature: {', '.join(listed)}",
            next_step="add `signing_key`, or publish elsewhere and promote the version",
        )


def _refused(
    demand: Demand, store: BundleStore, published: Published, flavor: str | None
) -> NotSigned:
    subject, now = subject_of(published, flavor), datetime.now(UTC)
    there = demand.read(store.attached(published, ENVELOPE_MEDIA_TYPE), str(published.version))
    problems = [
        demand.problem(one, subject, now) or "" for one in there if one.statement.kind == PROVENANCE
    ]
    return NotSigned(
        "The version is not signed as its target demands.",
        where=f"{published.version} in {store.location}, "
        f"{published.manifest.digest}{f', as flavor {flavor}' if flavor else ''}",
        got="\n".join(problems) or "no signature",
        wanted=f"a provenance signed by one of: {', '.join(demand.addresses)}",
        next_step=_again(demand, published),
    )


def _again(demand: Demand, published: Published) -> str:
    return (
        f"publish its run again, which signs it: python publish_mlflow_model_flow.py run "
        f"--flavor=FLAVOR --mlflow-run-id=RUN_ID --target={demand.target} (python -m "
        f"adroit_publish show {published.version} --target {demand.target} has the run id)"
    )
