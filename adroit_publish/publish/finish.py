"""The last stages of a publish and of a republish: from stored layers to a version.

upload manifest   by digest, still without a name
verify            exactly this bundle loads and predicts, in its image or in a sandbox
commit            the record, the registry's tag, ``index.json``: from here on it is published
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.lineage import Lineage
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, Bundle
from adroit_publish.bundle.record import SCHEMA, Verification
from adroit_publish.config.gates import (
    Gate,
    GateResult,
    judge_gates,
    measured_values,
    read_acceptances,
)
from adroit_publish.custody.admission import admit_gates
from adroit_publish.custody.repair import heal_or_refuse
from adroit_publish.edge.user import user_name
from adroit_publish.mlflow.trained_by import commit_page
from adroit_publish.places import Places
from adroit_publish.publish.release import Job, LayerReceipt, Release
from adroit_publish.publish.seen_here import note_seen
from adroit_publish.publish.source import Source, SourceCheck
from adroit_publish.publish.stages import Stages
from adroit_publish.publish.verification import earlier_verification, verify_bundle
from adroit_publish.version import Versions

_RECORDED = (
    "flavor", "model_name", "run_id", "run_url", "version", "manifest_digest", "bundle_id",
    "target", "places", "commit", "dirty", "conda_env", "conda_env_digest", "layers", "seconds",
    "metrics", "trained_by", "vouched", "commit_url", "warnings", "republished_from", "changes",
    "copied_from", "lineage", "accepted_lineage", "gates",
)  # fmt: skip
"""What a record takes over from the release; what else a release holds is not of the publish."""


@dataclass(frozen=True)
class Made:
    """A bundle whose layers are stored, and what its release is to say.

    Attributes:
        receipts: Of its layers, bottom up.
        checked: What the bundle's text says.
        metrics: The run's metrics, finite ones.
        trained_by: What made the run, as ``mlflow.trained_by`` has it.
        vouched: How many of the model's files are vouched for how (``artifacts.arrival.seal``).
        lineage: Where the run comes from; None where that is not known.
        accepted_lineage: How that differs from the model's versions, where it was accepted.
        gates: The gates that the run and its bundle have to pass.
        republished_from: The version whose model it is, where it was republished.
        changes: What differs from that version, a line each.
        new_flavor: The copy of the flavor that gets the version; None for the flavor itself.
    """

    bundle: Bundle
    receipts: tuple[LayerReceipt, ...]
    source: Source
    checked: SourceCheck
    run_id: str
    run_url: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained_by: Mapping[str, str] = field(default_factory=dict)
    vouched: Mapping[str, int] = field(default_factory=dict)
    lineage: Lineage | None = None
    accepted_lineage: tuple[str, ...] = ()
    gates: tuple[Gate, ...] = ()
    republished_from: str | None = None
    changes: tuple[str, ...] = ()
    new_flavor: str | None = None


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
        made: The bundle; its layers are in every place.
        versions: Of the places' store, as they were before.
        origin: What started the publish, for the record.
        judge: Adds to the outcome of the verification, or raises where it is not good enough.

    Raises:
        PublishError: As ``publish``; nothing became visible.
    """
    model_name, bundle = job.project.model_name, made.bundle
    with stages("upload manifest"):
        places.put_documents(bundle)
    with stages("verify") as stage:
        earlier = earlier_verification(job, bundle, versions)
        verification = judge(
            earlier or verify_bundle(job, bundle, made.checked, places, stages, stage)
        )
        gates = _judge(job, made, verification)
        admit_gates(gates, where=f"run {made.run_id}")
        stage.note = verification.how + (", before" if earlier else "")
    if places.images and (again := versions.find(model_name, bundle.version)):
        # A registry says of rotted bytes that it has them: here, nothing was sent in their place.
        with stages("read image"):
            for line in heal_or_refuse(places, again, job.target.name, reread_images=True):
                stages.warn(line)
    with stages("commit"):
        release = _release(job, made, stages, verification, gates, places)
        if not earlier:
            record = _record(release, verification, origin)
            places.attach(model_name, bundle, RECORD_MEDIA_TYPE, record)
            note_seen(Path(job.root), bundle.manifest.digest, verification)
        places.commit(model_name, bundle)
    return release


def _judge(job: Job, made: Made, verification: Verification) -> tuple[GateResult, ...]:
    size_bytes = sum(layer.descriptor.size_bytes for layer in made.bundle.layers)
    values = {**made.metrics, **measured_values(verification, size_bytes)}
    return judge_gates(made.gates, values, job.live, read_acceptances(job.options.accept_gates))


def _release(
    job: Job,
    made: Made,
    stages: Stages,
    verification: Verification,
    gates: tuple[GateResult, ...],
    places: Places,
) -> Release:
    bundle = made.bundle
    return Release(
        flavor=made.new_flavor or job.flavor.name,
        model_name=job.project.model_name,
        run_id=made.run_id,
        run_url=made.run_url,
        version=bundle.version,
        manifest_digest=str(bundle.manifest.digest),
        bundle_id=str(bundle.bundle_id),
        target=job.target.name,
        places=tuple(place.location for place in places.all),
        commit=made.source.commit,
        dirty=made.source.dirty,
        conda_env=job.env.env.name,
        conda_env_digest=job.env.digest and str(job.env.digest),
        layers=made.receipts,
        seconds=dict(stages.seconds),
        verification={
            key: value
            for key, value in verification.as_dict().items()
            if key not in ("outputs", "packages", "env")
        },
        metrics=made.metrics,
        trained_by=made.trained_by,
        vouched=made.vouched,
        commit_url=commit_page(made.source.remote_url or "", made.source.commit),
        warnings=tuple(stages.warnings),
        republished_from=made.republished_from,
        changes=made.changes,
        lineage=made.lineage,
        accepted_lineage=made.accepted_lineage,
        gates=gates,
        copied_from=job.flavor.name if made.new_flavor else None,
    )


def _record(release: Release, verification: Verification, origin: Mapping[str, str]) -> bytes:
    """Returns the record of a publish that is about to be committed."""
    facts = release.as_dict()
    return canonical_json(
        {name: facts[name] for name in _RECORDED}
        | {
            "schema": SCHEMA,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": user_name(),
            "host": platform.node(),
            "origin": dict(origin),
            "verification": verification.as_dict(),
        }
    )
