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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from adroit_publish.bundle.document import BundleFacts
from adroit_publish.bundle.layer import ROOT, LayerRecipe, PackedFile, model_recipes
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE, BaseImage, Bundle, assemble
from adroit_publish.config.targets import Target
from adroit_publish.errors import SourceError
from adroit_publish.pipeline.places import Places, open_images, open_places
from adroit_publish.pipeline.record import publish_record
from adroit_publish.pipeline.release import Job, LayerReceipt, Release
from adroit_publish.pipeline.source import project_source, runtime_recipe, source_recipe
from adroit_publish.pipeline.stages import Listener, Silence, Stage, Stages
from adroit_publish.pipeline.upload import SENDING_THREADS, hash_and_upload, receipt
from adroit_publish.pipeline.verification import (
    check_source,
    earlier_verification,
    files_of,
    verify_bundle,
)
from adroit_publish.sources.artifacts import PulledModel, pull_model
from adroit_publish.sources.git_source import Snapshot
from adroit_publish.sources.mlmodel import read_mlmodel
from adroit_publish.stores.image_reference import parse_reference
from adroit_publish.stores.registry import ImageRepository


def publish(
    job: Job, listener: Listener | None = None, origin: Mapping[str, str] | None = None
) -> Release:
    """Publishes one flavor to its target; flavors.yaml is left to ``write_versions``.

    Args:
        job: What ``prepare`` found out.
        listener: Hears of stages and bytes; nobody by default.
        origin: What started the publish, for the record.

    Returns:
        What was published, or was already.

    Raises:
        SourceError: The model or the source is gone or not what it was.
        RefusedError: A policy stands against it; nothing became visible.
        StoreError: A place failed; the same call again goes on where this one stopped.
        VerificationError: The bundle does not load or predict; nothing became visible.
    """
    stages = Stages(job.flavor.name, listener or Silence())
    model_name = job.project.model_name
    places = open_places(job.target, model_name)
    with stages("pull model") as stage:
        model = _pull(job, stage)
    with stages("snapshot source"):
        source = project_source(
            Path(job.root), job.flavor, job.project, allow_dirty=job.options.allow_dirty
        )
        _check_commit(job, source)
    recipes = _recipes(model, source)
    with stages("static gates"):
        check_source(job, files_of(file for recipe in recipes for file in recipe.files))
    if places.images and job.env.base:
        with stages("take env") as stage:
            _take_env(job.env.base, job.target, places.images, stage)
    with stages("upload layers") as stage:
        bundle, receipts = _upload_layers(job, model, recipes, places, stage)
    with stages("upload manifest"):
        places.put_documents(bundle)
    with stages("verify") as stage:
        earlier = earlier_verification(job, bundle, places)
        verification = earlier or verify_bundle(job, bundle, places, stages, stage)
        stage.note = str(verification["how"]) + (", before" if earlier else "")
    with stages("commit"):
        release = _release(job, bundle, source, receipts, stages, verification, places)
        if not earlier:
            record = publish_record(release, verification, origin or {})
            places.attach(model_name, bundle, RECORD_MEDIA_TYPE, record)
        places.commit(model_name, bundle)
    return release


def _pull(job: Job, stage: Stage) -> PulledModel:
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


def _recipes(model: PulledModel, source: Snapshot) -> tuple[LayerRecipe, ...]:
    """Returns every layer of the bundle but its record, bottom up."""
    model_files = tuple(
        PackedFile(f"{ROOT}/model/{path}", content) for path, content in model.files.items()
    )
    return (*model_recipes(model_files), runtime_recipe(), source_recipe(source))


def _check_commit(job: Job, source: Snapshot) -> None:
    if source.commit != job.commit:
        raise SourceError(
            "HEAD moved while the publish was on its way.",
            where=job.root,
            got=source.commit,
            wanted=job.commit,
            next_step="run the same command again",
        )


def _take_env(base: BaseImage, target: Target, images: ImageRepository, stage: Stage) -> None:
    """Makes sure that the env's layers are in the model's repository: mounted, or else copied."""
    source = open_images(target, parse_reference(base.reference).repository)
    copied = stage.progress(sum(layer.size_bytes for layer in base.layers), images.location)
    with ThreadPoolExecutor(SENDING_THREADS, "env") as pool:
        sent = pool.map(lambda layer: images.take_blob(layer, source, copied), base.layers)
        stage.note = f"{sum(sent)} of {len(base.layers)} layers copied"


def _upload_layers(
    job: Job,
    model: PulledModel,
    recipes: Sequence[LayerRecipe],
    places: Places,
    stage: Stage,
) -> tuple[Bundle, tuple[LayerReceipt, ...]]:
    total_bytes = sum(recipe.size_bytes for recipe in recipes)
    layers, receipts = hash_and_upload(recipes, places.all, partial(stage.progress, total_bytes))
    bundle = assemble(
        _facts(job, model),
        layers,
        base=job.env.base,
        python=job.env.env.python,
        platform=job.env.env.platform,
    )
    record = bundle.layers[-1]
    sent = {
        place.location: place.put_blob(record.descriptor, record.content) for place in places.all
    }
    receipts = (*receipts, receipt(record, sent))
    stage.note = ", ".join(
        f"{sum(layer.sent[place.location] for layer in receipts)} of {len(receipts)} layers sent"
        + (f" to {place.location}" if places.images else "")
        for place in places.all
    )
    return bundle, receipts


def _facts(job: Job, model: PulledModel) -> BundleFacts:
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


def _release(
    job: Job,
    bundle: Bundle,
    source: Snapshot,
    receipts: tuple[LayerReceipt, ...],
    stages: Stages,
    verification: Mapping[str, Any],
    places: Places,
) -> Release:
    return Release(
        flavor=job.flavor.name,
        expected=job.flavor.version,
        model_name=job.project.model_name,
        run_id=job.model.run_id,
        run_url=job.model.run_url,
        version=bundle.version,
        manifest_digest=str(bundle.manifest.digest),
        bundle_id=str(bundle.bundle_id),
        target=job.target.name,
        places=tuple(place.location for place in places.all),
        commit=source.commit,
        dirty=source.dirty,
        conda_env=job.env.env.name,
        conda_env_digest=job.env.digest and str(job.env.digest),
        layers=receipts,
        seconds=dict(stages.seconds),
        verification={
            key: value
            for key, value in verification.items()
            if key not in ("outputs", "packages", "env")
        },
        # MLflow keeps NaN and infinities; JSON does not.
        metrics={k: v for k, v in job.model.metrics.items() if math.isfinite(v)},
        warnings=tuple(stages.warnings),
    )
