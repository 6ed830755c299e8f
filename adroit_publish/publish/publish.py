"""Publish one flavor: the whole way of a model, in the order that makes a crash harmless.

    pull model        the run's files, from the tracking server or its artifact store
    snapshot source   the project at the commit that was checked
    static gates      what can be refused by looking at the files
    take env          the conda env's layers, mounted from its repository (where there are images)
    upload layers     hashed once, sent where they are missing, to store and registry at once
    upload manifest   by digest, still without a name
    verify            exactly this bundle loads and predicts, in its image or in a sandbox
    commit            the record, the registry's tag, ``index.json``: from here on it is published

Until ``index.json`` is there, nobody sees anything; flavors.yaml is written after it, by
``write_back``. The same call again after a crash at any point does what is missing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from adroit_publish.artifacts.pull import PulledModel, losses, pull_model
from adroit_publish.bundle.document import BundleFacts
from adroit_publish.bundle.layer import ROOT, LayerRecipe, PackedFile, model_recipes
from adroit_publish.bundle.lineage import Lineage, columns_of
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.custody.admission import admit_lineage
from adroit_publish.custody.signature import check_signing_key
from adroit_publish.mlflow.mlmodel import read_mlmodel
from adroit_publish.places import Places, open_places
from adroit_publish.publish.env import take_env
from adroit_publish.publish.finish import Made, drafted, finish
from adroit_publish.publish.release import LayerReceipt, PublishJob, Release
from adroit_publish.publish.source import Source, check_source, files_of, source_of, source_recipe
from adroit_publish.publish.stages import Listener, Stage, Stages
from adroit_publish.publish.upload import assembled, hash_and_upload, sent_note, upload_record
from adroit_publish.stores.model_files import ModelFiles
from adroit_publish.version import Versions


def publish(
    job: PublishJob, listener: Listener | None = None, origin: Mapping[str, str] | None = None
) -> Release:
    """Publishes one flavor, or finds that it is; flavors.yaml is left to ``writeback``.

    Args:
        listener: Hears of stages and bytes; nobody by default.
        origin: What started the publish, for the record.

    Raises:
        ConfigError: The target's signing key cannot be read on this host.
        SourceError: The model or the source is gone or not what it was.
        RefusedError: A policy stands against it; nothing became visible.
        StoreError: A place failed; the same call again goes on where this one stopped.
        VerificationError: The bundle does not load or predict; nothing became visible.
    """
    stages = Stages(job.flavor.name, listener or Listener())
    model_name = job.project.model_name
    check_signing_key(job.target)  # on the host that will sign, before any work
    places = open_places(job.target, model_name)
    with stages("pull model") as stage:
        model = _pull(job, stage)
        for warning in losses(model):
            stages.warn(warning)
    with stages("snapshot source"):
        source = source_of(job)
    here = ModelFiles(Path(job.root))
    recipes = _recipes(model, source, here)
    with stages("static gates"):
        checked = check_source(job, files_of(file for recipe in recipes for file in recipe.files))
        lineage, accepted = _lineage(job, model)
        for line in accepted:
            stages.warn(f"accepted: {line}")
    if places.images and job.env.base:
        with stages("take env") as stage:
            take_env(job.env, job.target, places.images, stage)
    with stages("upload layers") as stage:
        bundle, receipts = _upload_layers(job, model, recipes, places, stage)
        here.remember(layer for layer in bundle.layers if layer.kind == "model")
    release = drafted(
        job,
        bundle,
        source,
        receipts,
        places,
        run_id=job.model.run_id,
        run_url=job.model.run_url,
        # MLflow keeps NaN and infinities; JSON does not.
        metrics={k: v for k, v in job.model.metrics.items() if math.isfinite(v)},
        trained_by=job.model.trained_by,
        datasets=job.model.datasets,
        vouched=dict(Counter(model.vouched.values())),
        lineage=lineage,
        accepted_lineage=accepted,
    )
    made = Made(bundle, checked, job.project.gates, release)
    return finish(job, made, places, Versions(places.store), stages, origin or {})


def _pull(job: PublishJob, stage: Stage) -> PulledModel:
    total_bytes = sum(file.size_bytes for file in job.model.files)
    cache = Path(job.root) / ".adroit" / "cache"
    model = pull_model(
        job.model,
        cache,
        progress=stage.progress(total_bytes),
        source_profile=job.target.source_profile,
    )
    stage.note = f"{len(model.files)} files, {total_bytes:,} bytes"
    return model


def _lineage(job: PublishJob, model: PulledModel) -> tuple[Lineage, tuple[str, ...]]:
    """Returns where the run comes from, now with its signature, and what of it is accepted."""
    columns = columns_of(read_mlmodel(model.files).signature)
    lineage = replace(job.model.lineage, columns=columns)
    where, accept = f"run {job.model.run_id}", job.options.accept_new_lineage
    return lineage, admit_lineage(lineage, job.lineages, where=where, accept=accept)


def _recipes(model: PulledModel, source: Source, here: ModelFiles) -> tuple[LayerRecipe, ...]:
    """Returns every layer of the bundle but its record, bottom up."""
    model_files = here.seen(
        PackedFile(f"{ROOT}/model/{path}", content, content.executable)
        for path, content in model.files.items()
    )
    return (*model_recipes(model_files), source.runtime, source_recipe(source))


def _upload_layers(
    job: PublishJob,
    model: PulledModel,
    recipes: Sequence[LayerRecipe],
    places: Places,
    stage: Stage,
) -> tuple[Bundle, tuple[LayerReceipt, ...]]:
    total_bytes = sum(recipe.size_bytes for recipe in recipes)
    layers, receipts = hash_and_upload(recipes, places.all, partial(stage.progress, total_bytes))
    bundle = assembled(_facts(job, model), layers, job.env)
    receipts = (*receipts, upload_record(bundle, places.all))
    stage.note = sent_note(receipts, places.all)
    return bundle, receipts


def _facts(job: PublishJob, model: PulledModel) -> BundleFacts:
    mlmodel = read_mlmodel(model.files)
    return BundleFacts(
        model_name=job.project.model_name,
        run_id=job.model.run_id,
        model_id=job.model.model_id,
        model_uuid=mlmodel.model_uuid,
        serve=job.project.serve,
        signature=mlmodel.signature,
        requirements=mlmodel.requirements,
        python_version=mlmodel.python_version,
        conda_env_name=job.env.env.name,
        conda_env_digest=job.env.digest,
    )
