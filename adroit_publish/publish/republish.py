"""Republish one flavor: the model of a published version with the project's source of today.

    read version      its manifest and bundle.json, from the store
    snapshot source   the project at the commit that was checked
    static gates      what can be refused by looking at the files
    take env          the layers of the version's own conda env, or with ``--env`` of today's
    carry model       its layers are in every place, by digest; not one byte of them is read
    upload layers     what is new: source, runtime where it changed, the bundle record
    upload manifest, verify, commit, as a publish does

Golden replay: what the version predicted on the model's input example when it was published has
to come again, within ``verify.rtol`` of config.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from adroit_publish.bundle.carried import carried_layers
from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import ROOT, Layer, PackedFile, hash_layer
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.bundle.record import Verification
from adroit_publish.config.project import Project
from adroit_publish.custody.signature import admit_signed, check_signing_key
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.gates.replay import compare_outputs
from adroit_publish.places import Places, open_places
from adroit_publish.publish.env import take_env
from adroit_publish.publish.finish import Made, drafted, finish
from adroit_publish.publish.release import EnvReference, LayerReceipt, Release, RepublishJob
from adroit_publish.publish.source import (
    Source,
    check_source,
    files_of,
    source_of,
    source_recipe,
)
from adroit_publish.publish.stages import Listener, Stage, Stages
from adroit_publish.publish.upload import (
    SENDING_THREADS,
    assembled,
    hash_and_upload,
    receipt,
    sent_note,
    upload_record,
)
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.model_files import ModelFiles
from adroit_publish.stores.stored_blob import StoredBlob
from adroit_publish.version import Version, Versions


def model_layers(version: Version) -> tuple[Layer, ...]:
    """Returns a version's model layers, without their files; raises as ``Version`` does."""
    return carried_layers(version.manifest, version.bundle, partial(StoredBlob, version.store))


def republish(
    job: RepublishJob, listener: Listener | None = None, origin: Mapping[str, str] | None = None
) -> Release:
    """Republishes one flavor, or finds that it is; flavors.yaml is left to ``writeback``.

    Args:
        listener: Hears of stages and bytes; nobody by default.

    Raises:
        SourceError: The source is gone or not what it was.
        RefusedError: A policy stands against it, the version is not signed as the target demands,
            or its conda env is gone; nothing became visible.
        StoreError: A place failed, or the model's layers are gone from the store.
        VerificationError: The bundle does not load or predict, or predicts something else than
            the version did; nothing became visible.
    """
    stages = Stages(job.flavor.name, listener or Listener())
    check_signing_key(job.target)  # on the host that will sign, before any work
    places = open_places(job.target, job.project.model_name)
    versions = Versions(places.store)
    with stages("read version"):
        admit_signed(places.store, job.published, job.flavor.name or None)
        version = versions.open(job.published)
        model = model_layers(version)
    with stages("snapshot source"):
        source = source_of(job)
    with stages("find model") as stage:
        model = _with_files(job, model, places.store, stage)
    with stages("static gates"):
        model_files = [file for layer in model for file in _known_files(layer)]
        project_files = [*source.runtime.files, *source_recipe(source).files]
        checked = check_source(job, files_of([*model_files, *project_files]))
    if places.images and job.env.base:
        with stages("take env") as stage:
            take_env(job.env, job.target, places.images, stage)
    with stages("carry model") as stage:
        carried = _carry(job, version, model, places, stage)
    with stages("upload layers") as stage:
        new = (source.runtime, source_recipe(source))
        total_bytes = sum(recipe.size_bytes for recipe in new)
        layers, sent = hash_and_upload(new, places.all, partial(stage.progress, total_bytes))
        bundle = remake(version, (*model, *layers), job.project, job.env)
        receipts = (*carried, *sent, upload_record(bundle, places.all))
        stage.note = sent_note(receipts, places.all)
    release = drafted(job, bundle, source, receipts, places, **_facts(job, version))
    made = Made(bundle, checked, job.project.measured_gates, release, version.records)
    judge = partial(_replayed, job, versions, stages)
    return finish(job, made, places, versions, stages, origin or {}, judge)


def _facts(job: RepublishJob, version: Version) -> dict[str, Any]:
    """Returns what a release says of its flavor, its run and its version before."""
    new_flavor = job.options.new_flavor
    # By the version's first record.
    of_the_run = ("run_url", "metrics", "trained_by", "datasets", "lineage")
    return {name: getattr(one, name) for one in version.records[:1] for name in of_the_run} | {
        "flavor": new_flavor or job.flavor.name,
        "copied_from": job.flavor.name if new_flavor else None,
        "run_id": version.bundle.run_id,
        "republished_from": job.published.version,
        "changes": job.changes,
    }


def bundle_to_be(version: Version, source: Source, project: Project, env: EnvReference) -> Bundle:
    """Returns the bundle that a republish of a version would make; raises as ``Version``."""
    recipes = (source.runtime, source_recipe(source))
    return remake(version, (*model_layers(version), *map(hash_layer, recipes)), project, env)


def remake(
    version: Version, layers: Sequence[Layer], project: Project, env: EnvReference
) -> Bundle:
    """Returns the bundle of a version's model with other runtime and source layers."""
    facts = replace(
        version.bundle,
        serve=project.serve,
        conda_env_name=env.env.name,
        conda_env_digest=env.digest,
    )
    return assembled(facts, layers, env)


def _with_files(
    job: RepublishJob, model: Sequence[Layer], store: BundleStore, stage: Stage
) -> tuple[Layer, ...]:
    """Returns the layers, with files as far as they will be looked at: by a sandbox here, all."""
    here = ModelFiles(Path(job.root))
    layers, pulled_bytes = [], 0
    total_bytes = sum(layer.descriptor.size_bytes for layer in model)
    progress = stage.progress(total_bytes)
    for layer in model:
        small = not any(entry.alone for entry in layer.entries)
        wanted = job.verify == "process" or (job.verify == "image" and small)
        with_files = here.find(layer)
        if with_files is None and wanted:
            with_files = here.pull(layer, store, progress)
            pulled_bytes += layer.descriptor.size_bytes
        layers.append(with_files or layer)
    stage.note = f"{pulled_bytes:,} of {total_bytes:,} bytes pulled"
    return tuple(layers)


def _known_files(layer: Layer) -> tuple[PackedFile, ...]:
    """Returns a layer's files; of one whose files are not here, their names have to do."""
    if layer.files:
        return layer.files
    names = (f"{ROOT}/model/{entry.path}" for entry in layer.entries)
    return tuple(PackedFile(name, InlineFile(b"")) for name in names)


def _carry(
    job: RepublishJob, version: Version, model: tuple[Layer, ...], places: Places, stage: Stage
) -> tuple[LayerReceipt, ...]:
    """Makes sure that every place has the model's layers; sends the registry what it lacks."""

    def sent_to(layer: Layer) -> dict[str, bool]:
        named, store, images = layer.descriptor, places.store, places.images
        if not store.has_blob(named, at_a_glance=store.objects.checksum_reads):
            raise _gone(job, version.bundle.run_id, store, named)
        sent = {store.location: False}
        if images:
            sent[images.location] = images.put_blob(named, layer.content)
        return sent

    with ThreadPoolExecutor(SENDING_THREADS, "carry") as pool:
        sent = list(pool.map(sent_to, model))
    total_bytes = sum(layer.descriptor.size_bytes for layer in model)
    stage.note = f"{len(model)} layers, {total_bytes:,} bytes, the same digests"
    receipts = (receipt(layer, where) for layer, where in zip(model, sent, strict=True))
    return tuple(replace(one, carried=True) for one in receipts)


def _gone(job: RepublishJob, run_id: str, store: BundleStore, layer: Descriptor) -> StoreError:
    return StoreError(
        "A layer of the model is gone from the store, or damaged.",
        where=f"{job.published.version} in {store.location}",
        got=f"no {layer.digest} of {layer.size_bytes:,} bytes",
        next_step=(
            "publish its run once more: python publish_mlflow_model_flow.py run "
            f"--flavor={job.flavor.name} --target={job.target.name} --mlflow-run-id={run_id}"
        ),
    )


def _replayed(
    job: RepublishJob, versions: Versions, stages: Stages, seen: Verification
) -> Verification:
    """Returns a verification with the outcome of the golden replay; raises where outputs moved."""
    golden = versions.golden_outputs(versions.open(job.published))
    skipped = None
    if not seen.looked:
        skipped = "not verified"
    elif golden is None:
        skipped = f"no outputs are on record for {job.published.version}"
    elif not seen.predicted:
        skipped = "the model has no input example"
    if golden is None or skipped:
        if skipped != "not verified":
            stages.warn(f"golden replay skipped: {skipped}")
        return replace(seen, replay={"skipped": skipped})
    if seen.outputs_sha256 == golden.sha256:
        return replace(seen, replay={"against": golden.version, "identical": True})
    replay = compare_outputs(
        golden.outputs,
        seen.outputs,
        job.project.rtol,
        truncated=golden.truncated or seen.outputs_truncated,
    )
    nothing_kept = golden.outputs is None or seen.outputs is None
    if (nothing_kept or not replay.same) and not job.options.accept_output_change:
        raise VerificationError(
            "The model predicts something else than it did when its version was published.",
            where=f"outputs on the input example, against {golden.version}",
            got="outputs too large to keep, of another digest"
            if nothing_kept
            else "\n".join(replay.lines()),
            wanted=f"outputs within {job.project.rtol:g}, relative (verify.rtol in config.yaml)",
            next_step=(
                "correct the source, or add --accept-output-change if the change is meant; "
                "the record keeps it"
            ),
        )
    facts = replay.as_dict() | {"against": golden.version, "identical": False}
    accepted = nothing_kept or not replay.same
    return replace(seen, replay=facts | {"accepted": accepted})
