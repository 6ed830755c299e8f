"""What is taken over from a published bundle gives the same bundle again, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adroit_publish.bundle import layer as layer_module
from adroit_publish.bundle.carried import carried_base, carried_layers, platform_of, serving_python
from adroit_publish.bundle.content import Inline, InlineFile
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import parse_bundle_record
from adroit_publish.bundle.layer import LayerRecipe, PackedFile, hash_layer, model_recipes
from adroit_publish.bundle.manifest import assemble, parse_manifest
from adroit_publish.errors import VerificationError
from tests.bundle.test_manifest import FACTS, base_image

MODEL = {"MLmodel": b"m", "weights": bytes(200), "more": bytes(300), "code/x.py": b"import y"}


@pytest.fixture(autouse=True)
def small_layers(monkeypatch):
    monkeypatch.setattr(layer_module, "LARGE_FILE_BYTES", 100)


def packed(kind, files):
    return tuple(
        PackedFile(f"opt/adroit/{kind}/{path}", InlineFile(data)) for path, data in files.items()
    )


def source(text=b"x = 1"):
    runtime = hash_layer(LayerRecipe("runtime", packed("runtime", {"adroit/__init__.py": b""})))
    return runtime, hash_layer(LayerRecipe("source", packed("source", {"p/handler.py": text})))


def published(base=None, model=MODEL):
    layers = [hash_layer(recipe) for recipe in model_recipes(packed("model", model))]
    return assemble(
        FACTS, [*layers, *source()], base=base, python="/env/python", platform="linux/arm64/v8"
    )


def unread(_descriptor):
    return Inline(b"nobody reads it")


def carried(bundle, record=None, **changed):
    manifest = parse_manifest(bundle.manifest_bytes, "here")
    config = json.loads(bundle.config_bytes)
    record = record or parse_bundle_record(bundle.document)
    return assemble(
        replace(record, **changed),
        [*carried_layers(manifest, record, unread), *source()],
        base=carried_base(manifest, config, record, "registry/m@x"),
        python=serving_python(config),
        platform=platform_of(config),
    )


@pytest.mark.parametrize("model", [MODEL, {"MLmodel": b"m"}, {"weights": bytes(500)}])
@pytest.mark.parametrize(
    "base", [None, base_image(), base_image(history=[{"empty_layer": True}] * 3)]
)
def test_carrying_over_everything_gives_the_very_same_bundle(model, base):
    bundle = published(
        base=base and replace(base, config={**base.config}),
        model=model,
    )
    if base:
        record = parse_bundle_record(bundle.document)
        named = replace(record, conda_env_digest=str(base.digest))
        manifest, config = (
            parse_manifest(bundle.manifest_bytes, "here"),
            json.loads(bundle.config_bytes),
        )
        again = assemble(
            record,
            [*carried_layers(manifest, named, unread), *source()],
            base=carried_base(manifest, config, named, "registry/m@x"),
            python=serving_python(config),
            platform=platform_of(config),
        )
    else:
        again = carried(bundle)
    assert again.document == bundle.document
    assert again.config_bytes == bundle.config_bytes
    assert again.manifest_bytes == bundle.manifest_bytes
    assert again.version == bundle.version


def test_a_changed_serve_section_moves_the_record_and_no_other_layer():
    bundle = published()
    again = carried(bundle, serve={"handler": {"class_path": "c:D", "kwargs": {}}})
    assert again.version != bundle.version
    before = [layer.descriptor for layer in bundle.layers]
    after = [layer.descriptor for layer in again.layers]
    assert before[:-1] == after[:-1]
    assert before[-1] != after[-1]


def test_a_bundle_json_that_names_another_layer_is_refused():
    bundle = published()
    record = parse_bundle_record(bundle.document)
    last = replace(record.files["model"][-1], alone=True, digest=Digest("sha256:" + "0" * 64))
    files = {**record.files, "model": (*record.files["model"][:-1], last)}
    with pytest.raises(VerificationError, match="other model layers"):
        carried(bundle, replace(record, files=files))


def test_a_bundle_json_that_lists_no_file_of_a_layer_is_refused():
    bundle = published()
    record = parse_bundle_record(bundle.document)
    files = {**record.files, "model": tuple(e for e in record.files["model"] if e.alone)}
    with pytest.raises(VerificationError, match="other model layers"):
        carried(bundle, replace(record, files=files))
