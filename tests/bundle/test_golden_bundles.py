"""Ten bundles of fixed bytes: their digests are those that they had when they were recorded.

A digest that moves makes every published version stale. ``ADROIT_UPDATE_GOLDENS=1`` records them
anew, which is right only together with a new ``schema`` of ``bundle.json``.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from adroit_publish.bundle import layer as layer_module
from adroit_publish.bundle.carried import carried_base, carried_layers, platform_of, serving_python
from adroit_publish.bundle.content import Inline, InlineFile
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import BundleFacts, parse_bundle_record
from adroit_publish.bundle.layer import LayerRecipe, PackedFile, hash_layer, model_recipes
from adroit_publish.bundle.manifest import BaseImage, Bundle, assemble, parse_manifest

GOLDEN = Path(__file__).parent / "samples" / "bundles.json"
MIB = 1 << 20
FACTS = BundleFacts(
    model_name="fraud",
    run_id="5f2b9c01d4e84a7c9b3f0a1b2c3d4e5f",
    model_id="m-0c4d2e8f",
    model_uuid="8f14e45fceea4e0e9c1a2b3c4d5e6f70",
    serve={"handler": {"class_path": "adroit.serving.mlflow_handler:MlflowHandler"}},
    signature=None,
    requirements=("mlflow==3.1.0", "numpy==2.0.1"),
    python_version="3.11.7",
    conda_env_name="sklearn",
    conda_env_digest=str(Digest.of(b"environment.yml")),
)
MODEL = {"MLmodel": b"flavors: {}\n", "model.pkl": bytes(range(256)) * 40, "empty": b""}
RUNTIME = {"adroit/__init__.py": b"", "adroit/serving/server.py": b"SERVE = True\n"}
SOURCE = {"projects/fraud/handler.py": b"class Handler: ...\n"}
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
BASE = BaseImage(
    "registry.example/adroit-env/sklearn:2026.11",
    Digest.of(b"the env's manifest"),
    tuple(Descriptor(GZIP, Digest.of(b"layer %d" % n), 1000 + n) for n in range(3)),
    {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-11-01T00:00:00Z",
        "config": {"Env": ["PATH=/opt/conda/bin:/usr/bin", "LANG=C.UTF-8"], "WorkingDir": "/srv"},
        "rootfs": {
            "type": "layers",
            "diff_ids": [str(Digest.of(b"diff %d" % n)) for n in b"abc"],
        },
        "history": [
            {"created_by": "a"},
            {"created_by": "ENV", "empty_layer": True},
            {"created_by": "b"},
            {"created_by": "c"},
        ],
    },
)


def packed(kind: str, files: dict[str, bytes], executable: tuple[str, ...] = ()):
    return tuple(
        PackedFile(f"opt/adroit/{kind}/{path}", InlineFile(data), path in executable)
        for path, data in files.items()
    )


def made(
    model=MODEL,
    source=SOURCE,
    *,
    facts=FACTS,
    base=None,
    executable=(),
    platform="linux/amd64",
) -> Bundle:
    recipes = (
        *model_recipes(packed("model", model, executable)),
        LayerRecipe("runtime", packed("runtime", RUNTIME)),
        LayerRecipe("source", packed("source", source, executable)),
    )
    return assemble(
        facts,
        [hash_layer(recipe) for recipe in recipes],
        base=base,
        python="/opt/conda/envs/adroit/bin/python",
        platform=platform,
    )


def republished(bundle: Bundle, source: dict[str, bytes]) -> Bundle:
    """The model and the env of ``bundle`` with other source; no byte of the model is read."""
    manifest = parse_manifest(bundle.manifest_bytes, "here")
    config = json.loads(bundle.config_bytes)
    record = parse_bundle_record(bundle.document)
    new = (
        LayerRecipe("runtime", packed("runtime", RUNTIME)),
        LayerRecipe("source", packed("source", source)),
    )
    return assemble(
        record,
        [
            *carried_layers(manifest, record, lambda _: Inline(b"nobody reads it")),
            *(hash_layer(recipe) for recipe in new),
        ],
        base=carried_base(manifest, config, record, "registry.example/fraud@sha256:0"),
        python=serving_python(config),
        platform=platform_of(config),
    )


def bundles(monkeypatch):
    """Yields name and bundle; the last but one is of 60 layers' worth of files."""
    with_base = replace(FACTS, conda_env_digest=str(BASE.digest))
    large = {**MODEL, "weights.bin": bytes(range(256)) * (16 * MIB // 256 + 1)}
    deep = "/".join(["a-directory-of-some-length"] * 5)
    yield "small", made()
    yield "on a base image", made(facts=with_base, base=BASE)
    yield "a large file alone", made(large)
    yield "names that need PAX", made({**MODEL, f"{deep}/weights": b"w", "x" * 101: b"y"})
    yield (
        "executables",
        made(
            {**MODEL, "bin/run": b"#!"}, {**SOURCE, "go.sh": b"#!"}, executable=("bin/run", "go.sh")
        ),
    )
    yield (
        "names beyond ASCII",
        made({**MODEL, "größe/模型.json": b"{}"}, {"projects/fraud/naïve.py": b"", "é☃.txt": b"s"}),
    )
    yield (
        "everything that may be missing is, for another platform",
        made(
            facts=replace(
                FACTS,
                model_id=None,
                model_uuid=None,
                requirements=(),
                python_version=None,
                conda_env_digest=None,
                signature={"inputs": '[{"name": "ä", "type": "double"}]', "outputs": None},
                serve={
                    "handler": {"class_path": "p.h:H", "kwargs": {"p": 0.1, "n": None}},
                    "workers": 2,
                },
            ),
            platform="linux/arm64/v8",
        ),
    )
    yield "a large model republished", republished(made(large), {"projects/fraud/handler.py": b"1"})
    yield (
        "republished on a base image",
        republished(made(facts=with_base, base=BASE), {"projects/fraud/handler.py": b"2"}),
    )
    monkeypatch.setattr(layer_module, "LARGE_FILE_BYTES", 100)
    yield (
        "more large files than layers",
        made({f"shard-{n:02}": bytes([n]) * (100 + n % 7) for n in range(60)}),
    )


def facts_of_bundle(bundle: Bundle):
    return {
        "version": bundle.version,
        "bundle_id": str(bundle.bundle_id),
        "manifest": str(bundle.manifest.digest),
        "config": str(bundle.config.digest),
        "layers": [str(layer.descriptor.digest) for layer in bundle.layers],
    }


def test_ten_bundles_have_the_digests_that_they_always_had(monkeypatch: pytest.MonkeyPatch):
    now = {name: facts_of_bundle(bundle) for name, bundle in bundles(monkeypatch)}
    if os.environ.get("ADROIT_UPDATE_GOLDENS") == "1":
        GOLDEN.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(GOLDEN.read_text())
    assert len({facts["version"] for facts in now.values()}) == 10


def test_a_republish_that_changes_nothing_is_the_same_bundle():
    bundle = made()
    assert facts_of_bundle(republished(bundle, SOURCE)) == facts_of_bundle(bundle)
