from __future__ import annotations

import json
from dataclasses import replace

import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import BundleFacts, canonical_json, parse_bundle_record
from adroit_publish.bundle.layer import LayerRecipe, PackedFile, hash_layer
from adroit_publish.bundle.manifest import (
    BaseImage,
    assemble,
    index_bytes,
    parse_index,
    parse_manifest,
)
from adroit_publish.errors import RefusedError, VerificationError

FACTS = BundleFacts(
    model_name="m",
    run_id="5f2b9c01" + "0" * 24,
    model_id="m-1",
    model_uuid=None,
    serve={"handler": {"class_path": "a:B", "kwargs": {}}},
    signature=None,
    requirements=("numpy==2.0",),
    python_version="3.11.7",
    conda_env_name="sklearn",
    conda_env_digest=None,
)
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def layer(kind, **files):
    return hash_layer(
        LayerRecipe(
            kind,
            tuple(
                PackedFile(f"opt/adroit/{kind}/{name}", InlineFile(data))
                for name, data in files.items()
            ),
        )
    )


LAYERS = (layer("model", MLmodel=b"m"), layer("runtime", a=b"r"), layer("source", s=b"s"))


def bundle(facts=FACTS, layers=LAYERS, base=None):
    return assemble(facts, layers, base=base, python="/env/python", platform="linux/amd64")


def base_image(count=2, media_type=GZIP, **config):
    digests = [Digest.of(b"%d" % number) for number in range(count)]
    return BaseImage(
        "registry/env:1",
        Digest.of(b"manifest"),
        tuple(Descriptor(media_type, digest, 10) for digest in digests),
        {
            "os": "linux",
            "architecture": "arm64",
            "variant": "v8",
            "config": {"Env": ["PATH=/x", "PYTHONPATH=/shadow"], "Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": [str(digest) for digest in digests]},
        }
        | config,
    )


def test_the_version_is_the_runs_and_the_manifests_first_digits():
    made = bundle()
    assert made.version == f"v5f2b9c01-{made.manifest.digest.hex[:12]}"
    assert made.manifest.digest == Digest.of(made.manifest_bytes)
    assert made.bundle_id == Digest.of(made.document)


def test_the_same_content_is_the_same_bundle_and_other_content_is_not():
    assert bundle().manifest_bytes == bundle().manifest_bytes
    others = [
        bundle(replace(FACTS, serve={})),
        bundle(replace(FACTS, conda_env_digest="sha256:" + "0" * 64)),
        bundle(layers=(layer("model", MLmodel=b"M"), *LAYERS[1:])),
        bundle(base=base_image()),
    ]
    assert len({made.version for made in [bundle(), *others]}) == 5


def test_the_bundle_record_is_the_last_layer_and_lists_every_file():
    made = bundle()
    record = parse_bundle_record(made.document)
    assert made.layers[-1].kind == "record"
    assert record.as_dict()["files"]["source"] == [
        {"path": "s", "size": 1, "sha256": Digest.of(b"s").hex}
    ]
    assert parse_manifest(made.manifest_bytes, "here").own_layers == tuple(
        one.descriptor for one in made.layers
    )


def test_a_base_images_layers_come_first_in_oci_types_and_its_config_is_kept():
    made = bundle(base=base_image())
    manifest = parse_manifest(made.manifest_bytes, "here")
    assert [one.media_type for one in manifest.base_layers] == [
        "application/vnd.oci.image.layer.v1.tar+gzip"
    ] * 2
    config = json.loads(made.config_bytes)
    assert (config["architecture"], config["variant"]) == ("arm64", "v8")
    assert config["config"]["Env"][:2] == ["PATH=/x", "PYTHONPATH=/opt/adroit/runtime"]
    assert config["config"]["Labels"]["a"] == "b"
    assert config["config"]["Entrypoint"] == ["/env/python", "-m", "adroit.serving"]
    assert len(config["rootfs"]["diff_ids"]) == len(manifest.layers) == 2 + 4
    assert len(config["history"]) == 6


def test_a_layer_that_is_fetched_from_elsewhere_is_refused():
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    with pytest.raises(RefusedError, match="foreign"):
        bundle(base=base_image(media_type=foreign))


def test_more_layers_than_engines_take_are_refused():
    bundle(base=base_image(count=116))
    with pytest.raises(RefusedError, match="too many layers"):
        bundle(base=base_image(count=117))


def test_an_index_names_its_version_and_nothing_else():
    made = bundle()
    data = index_bytes(made.manifest, made.version)
    assert parse_index(data, made.version, "here") == made.manifest
    with pytest.raises(VerificationError):
        parse_index(data, "v00000000-000000000000", "here")
    lying = data.replace(made.manifest.digest.encode(), b"sha256:" + b"0" * 64)
    with pytest.raises(VerificationError):
        parse_index(lying, made.version, "here")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"\xff", b'{"schemaVersion":2,"layers":[],"config":7}', b"[" * 100_000],
)
def test_a_malformed_manifest_is_an_error_and_not_a_crash(data):
    with pytest.raises(VerificationError):
        parse_manifest(data, "here")


def test_a_bundle_record_says_what_was_parsed_and_of_what_bytes():
    made = bundle()
    record = parse_bundle_record(made.document)
    assert record.bundle_id == made.bundle_id
    assert canonical_json(record.as_dict()) == made.document


@pytest.mark.parametrize(
    "change",
    [
        {"requirements": 7},
        {"conda_env": None},
        {"files": {"model": []}},
        {"files": {"model": [{}], "runtime": [], "source": []}},
        {
            "files": {
                "model": [{"path": "p", "size": 1, "sha256": "x"}],
                "runtime": [],
                "source": [],
            }
        },
    ],
)
def test_a_damaged_bundle_record_is_an_error_and_not_a_crash(change):
    value = json.loads(bundle().document)
    with pytest.raises(VerificationError):
        parse_bundle_record(canonical_json(value | change))


def test_a_bundle_that_says_more_than_this_program_knows_is_not_read_as_if_it_did_not():
    value = json.loads(bundle().document)
    with pytest.raises(VerificationError, match=r"(?s)entrypoint.*update this checkout"):
        parse_bundle_record(canonical_json(value | {"entrypoint": "x"}))


def test_a_bundle_of_a_newer_schema_says_what_to_do():
    with pytest.raises(VerificationError, match="update this checkout"):
        parse_bundle_record(canonical_json({"schema": 2}))
