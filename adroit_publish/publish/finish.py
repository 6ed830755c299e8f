"""The last stages of a publish and of a republish: from stored layers to a version."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adroit_publish.attestations.demand import Demand
from adroit_publish.attestations.envelope import attest
from adroit_publish.bundle.document import canonical_json, parse_bundle_record
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.bundle.record import SCHEMA, Record, Verification
from adroit_publish.config.gates import (
    Gate,
    GateResult,
    accepted_before,
    judge_gates,
    measured_values,
    read_acceptances,
)
from adroit_publish.custody.admission import admit_gates
from adroit_publish.custody.repair import heal_or_refuse
from adroit_publish.custody.rolled_back import refuse_rolled_back, rolled_back
from adroit_publish.custody.signature import signed_by
from adroit_publish.edge.user import user_name
from adroit_publish.mlflow.trained_by import commit_page
from adroit_publish.places import Places
from adroit_publish.publish.release import Job, LayerReceipt, Release
from adroit_publish.publish.seen_here import is_ours, note_recorded, note_seen
from adroit_publish.publish.source import Source, SourceCheck
from adroit_publish.publish.stages import Stages
from adroit_publish.publish.verification import earlier_verification, verify_bundle
from adroit_publish.version import Versions


@dataclass(frozen=True)
class Made:
    """A bundle whose layers are stored, and what is to be said of it.

    Attributes:
        checked: What its text says.
        release: What is known of its release before it is verified.
        before: Records of the version it was republished from: what those of this machine accepted
            is carried on.
    """

    bundle: Bundle
    checked: SourceCheck
    gates: tuple[Gate, ...]
    release: Release
    before: tuple[Record, ...] = ()


def drafted(
    job: Job,
    bundle: Bundle,
    source: Source,
    layers: tuple[LayerReceipt, ...],
    places: Places,
    **of_the_run: Any,
) -> Release:
    """Returns what is known of a release before it is verified: of its run, by its attributes."""
    facts: dict[str, Any] = {"flavor": job.flavor.name} | of_the_run
    return Release(
        model_name=job.project.model_name,
        version=bundle.version,
        manifest_digest=str(bundle.manifest.digest),
        bundle_id=str(bundle.bundle_id),
        target=job.target.name,
        places=tuple(place.location for place in places.all),
        commit=source.commit,
        dirty=source.dirty,
        conda_env=job.env.env.name,
        conda_env_digest=job.env.digest and str(job.env.digest),
        went_past=job.options.went_past,
        layers=layers,
        commit_url=commit_page(source.remote_url or "", source.commit),
        **facts,
    )


def finish(
    job: Job,
    made: Made,
    places: Places,
    versions: Versions,
    stages: Stages,
    origin: Mapping[str, str],
    judge: Callable[[Verification], Verification] = lambda verification: verification,
) -> Release:
    """Verifies a bundle and gives it its version.

    Args:
        versions: Of the places' store, as they were before.
        origin: What started the publish, for the record.
        judge: Adds to the outcome of the verification, or raises where it is not good enough.

    Raises:
        PublishError: As ``publish``; nothing became visible.
    """
    model_name, bundle = job.project.model_name, made.bundle
    if not job.options.despite_hold:
        held = rolled_back(places.store, model_name, stages.warn)
        refuse_rolled_back(made.release.flavor, bundle.version, held)
    with stages("upload manifest"):
        places.put_documents(bundle)
    with stages("verify") as stage:
        earlier = earlier_verification(job, bundle, versions)
        verification = judge(
            earlier or verify_bundle(job, bundle, made.checked, places, stages, stage, made.before)
        )
        gates = _judge(job, made, verification, stages)
        stage.note = verification.how + (", before" if earlier else "")
    if places.images and (again := versions.find(model_name, bundle.version)):
        # A registry says of rotted bytes that it has them: here, nothing was sent in their place.
        with stages("read image"):
            for line in heal_or_refuse(places, again, job.target.name, reread_images=True):
                stages.warn(line)
    with stages("commit"):
        release = replace(
            made.release,
            seconds=dict(stages.seconds),
            verification=_in_short(verification),
            warnings=tuple(stages.warnings),
            gates=gates,
        )
        if not earlier or not _is_signed(job, release, versions):
            record = _record(release, verification, origin)
            vouched = _attest(job, bundle, record, verification)
            places.attach(model_name, bundle.version, bundle.manifest, record, vouched)
            note_seen(Path(job.root), bundle.manifest.digest, verification)
            note_recorded(Path(job.root), record)
        places.commit(model_name, bundle)
    return release


def _attest(
    job: Job, bundle: Bundle, record: bytes, verification: Verification
) -> tuple[bytes, ...]:
    """Returns the signed statements that vouch for a record; none where the target has no key."""
    if job.target.signing_key is None:
        return ()
    packed = parse_bundle_record(bundle.document)
    return attest(record, verification, packed, job.target.signing_key)


def _is_signed(job: Job, release: Release, versions: Versions) -> bool:
    """Whether a version that is there is signed by our key, as this flavor; or there is no key."""
    version, target = versions.find(release.model_name, release.version), job.target
    if version is None or target.signing_key is None:
        return True
    ours = Demand(target.name, (target.signing_key,), target.signature_max_age_s)
    return bool(signed_by(versions.store, ours, version.published, release.flavor))


def _judge(
    job: Job, made: Made, verification: Verification, stages: Stages
) -> tuple[GateResult, ...]:
    size_bytes = sum(layer.descriptor.size_bytes for layer in made.bundle.layers)
    values = {**made.release.metrics, **measured_values(verification, size_bytes)}
    accepted = read_acceptances(job.options.accept_gates)
    judged = judge_gates(made.gates, values, job.live, accepted)
    ours = [record for record in made.before if is_ours(record, Path(job.root))]
    results = tuple(carry_acceptance(result, ours) for result in judged)
    claimed = [result.gate for result in results if carry_acceptance(result, made.before).accepted]
    admit_gates(results, where=f"run {made.release.run_id}", unproven=claimed)
    for result in results:
        if result.accepted and result.gate not in accepted:
            stages.warn(f"gate accepted before: {result}")
    return results


def carry_acceptance(result: GateResult, before: Sequence[Record]) -> GateResult:
    """Returns a gate's result, accepted where a record accepted one that was no better."""
    if result.passed:
        return result
    kept = (accepted_before(result, gate) for record in before for gate in record.gates)
    return replace(result, accepted=next(filter(None, kept), None))


def _in_short(verification: Verification) -> dict[str, Any]:
    left_out = ("outputs", "packages", "env")
    return {key: seen for key, seen in verification.as_dict().items() if key not in left_out}


def _record(release: Release, verification: Verification, origin: Mapping[str, str]) -> bytes:
    """Returns the record of a publish that is about to be committed."""
    return canonical_json(
        release.as_dict()
        | {
            "schema": SCHEMA,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": user_name(),
            "host": platform.node(),
            "origin": dict(origin),
            "verification": verification.as_dict(),
        }
    )
