"""The image manifest, its config, the version it gives, and referrers of it.

One OCI image manifest is the bundle: the same bytes, so the same digest, in the store and in the
registry. Bottom up it names the conda env image's layers (where there is an image), the model
layers, the runtime layer, the source layer and the bundle record.

Source: OCI image specification 1.1, "Image Manifest", "Image Configuration", "Image Layout".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import (
    BUNDLE_PATH,
    BundleFacts,
    bundle_document,
    canonical_json,
    parse_json_object,
)
from adroit_publish.bundle.layer import (
    LAYER_MEDIA_TYPE,
    Layer,
    LayerRecipe,
    PackedFile,
    hash_layer,
    layer_kind,
)
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.errors import RefusedError, VerificationError

MANIFEST_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_MEDIA_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_MEDIA_TYPE = "application/vnd.oci.image.config.v1+json"
EMPTY_MEDIA_TYPE = "application/vnd.oci.empty.v1+json"
RECORD_MEDIA_TYPE = "application/vnd.adroit.record.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"
EMPTY_BLOB = b"{}"
EMPTY = Descriptor.of(EMPTY_MEDIA_TYPE, EMPTY_BLOB)
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_LAYERS = 120
PORT = 8080
OCI_TWINS = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_MEDIA_TYPE + "+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": LAYER_MEDIA_TYPE + "+zstd",
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_MEDIA_TYPE,
    LAYER_MEDIA_TYPE: LAYER_MEDIA_TYPE,
    LAYER_MEDIA_TYPE + "+gzip": LAYER_MEDIA_TYPE + "+gzip",
    LAYER_MEDIA_TYPE + "+zstd": LAYER_MEDIA_TYPE + "+zstd",
}


@dataclass(frozen=True)
class BaseImage:
    """The conda env's image, as far as a bundle refers to it.

    Attributes:
        reference: What the user wrote, for messages.
        digest: Digest of the platform's manifest (never of an index or a tag).
        layers: Its layers, bottom up, in their own media types.
    """

    reference: str
    digest: Digest
    layers: tuple[Descriptor, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """A parsed image manifest; its layers bottom up."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    def layers_of(self, kind: str) -> tuple[Descriptor, ...]:
        """Returns the layers of one kind, as ``layer_kind`` tells them."""
        return tuple(layer for layer in self.layers if layer_kind(layer) == kind)

    @property
    def base_layers(self) -> tuple[Descriptor, ...]:
        """The layers that belong to the conda env image; no store holds these."""
        return self.layers_of("env")

    @property
    def own_layers(self) -> tuple[Descriptor, ...]:
        """The layers that a publish makes: model, runtime, source, record."""
        return tuple(layer for layer in self.layers if layer_kind(layer) != "env")


@dataclass(frozen=True)
class Bundle:
    """A bundle, complete and not yet stored anywhere.

    Attributes:
        bundle_id: Digest of ``bundle.json``.
        layers: The layers of our own, the bundle record last.
        base: The env image, or None.
        document: The bytes of ``bundle.json``.
    """

    version: PublishedVersion
    bundle_id: Digest
    layers: tuple[Layer, ...]
    base: BaseImage | None
    config: Descriptor
    manifest: Descriptor
    config_bytes: bytes = field(repr=False)
    manifest_bytes: bytes = field(repr=False)
    document: bytes = field(repr=False)


def assemble(
    facts: BundleFacts,
    layers: Sequence[Layer],
    *,
    base: BaseImage | None,
    python: str,
    platform: str,
) -> Bundle:
    """Returns the bundle of ``layers``, with the bundle record on top.

    Args:
        layers: Model, runtime and source layers, bottom up.
        base: The conda env image, or None where the target has none.
        python: Path in the image of the interpreter that serves.
        platform: ``os/architecture[/variant]`` of an image without a base.

    Raises:
        RefusedError: The image would have more than ``MAX_LAYERS`` layers, or the base has a
            layer that is fetched from elsewhere or is of an unknown kind.
    """
    document = bundle_document(facts, layers)
    record = hash_layer(LayerRecipe("record", (PackedFile(BUNDLE_PATH, InlineFile(document)),)))
    own = (*layers, record)
    base_layers = _as_oci(base) if base else ()
    if len(base_layers) + len(own) > MAX_LAYERS:
        raise RefusedError(
            "The image would have too many layers.",
            where=base.reference if base else facts.model_name,
            got=f"{len(base_layers)} of the env and {len(own)} of the bundle",
            wanted=f"at most {MAX_LAYERS} in all (container engines stop near 127)",
            next_step="squash the env's image, or save the model in fewer large files",
        )
    config_bytes = canonical_json(_image_config(facts, own, base, python, platform, document))
    config = Descriptor.of(CONFIG_MEDIA_TYPE, config_bytes)
    manifest_bytes = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": config.as_dict(),
            "layers": [
                *(layer.as_dict() for layer in base_layers),
                *(layer.descriptor.as_dict() for layer in own),
            ],
        }
    )
    manifest = Descriptor.of(MANIFEST_MEDIA_TYPE, manifest_bytes)
    return Bundle(
        version=version_of(facts.run_id, manifest.digest),
        bundle_id=Digest.of(document),
        layers=own,
        base=base,
        config=config,
        config_bytes=config_bytes,
        manifest=manifest,
        manifest_bytes=manifest_bytes,
        document=document,
    )


def version_of(run_id: str, manifest: Digest) -> PublishedVersion:
    """Returns the version: a function of content alone, and no YAML parser's number."""
    return PublishedVersion(f"v{run_id[:8]}-{manifest.hex[:12]}")


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Returns the manifest in ``data``; raises VerificationError where it is malformed."""
    value = parse_json_object(data, where)
    layers = value.get("layers")
    if value.get("schemaVersion") != 2 or not isinstance(layers, list) or "config" not in value:
        raise VerificationError("A manifest is malformed.", where=where, got=repr(data[:80]))
    return Manifest(
        Descriptor.from_dict(value["config"], where),
        tuple(Descriptor.from_dict(layer, where) for layer in layers),
    )


def index_bytes(manifest: Descriptor, version: str) -> bytes:
    """Returns ``index.json``: the manifest under the version's name, and nothing else."""
    named = Descriptor(
        manifest.media_type, manifest.digest, manifest.size_bytes, {REF_NAME: version}
    )
    return index_document([named.as_dict()])


def index_document(entries: Sequence[Mapping[str, Any]]) -> bytes:
    """Returns the image index of descriptors in OCI's spelling."""
    value = {"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": entries}
    return canonical_json(value)


def parse_index(data: bytes, version: str, where: str) -> Descriptor:
    """Returns the manifest's descriptor that ``index.json`` holds for ``version``.

    Raises:
        VerificationError: It is no index of exactly that version, or names a manifest whose digest
            does not give the version's hex digits.
    """
    manifests = parse_json_object(data, where).get("manifests")
    if not isinstance(manifests, list) or len(manifests) != 1:
        raise VerificationError("An index is malformed.", where=where, got=repr(data[:80]))
    descriptor = Descriptor.from_dict(manifests[0], where)
    named = descriptor.annotations.get(REF_NAME)
    if named != version or descriptor.digest.hex[:12] != version.rpartition("-")[2]:
        raise VerificationError(
            "An index names something else than its version.",
            where=where,
            got=f"{named} = {descriptor.digest}",
            wanted=version,
        )
    return descriptor


def referrer_manifest(subject: Descriptor, blob: Descriptor) -> bytes:
    """Returns the manifest that attaches ``blob`` to ``subject`` without changing its digest.

    Source: OCI image specification 1.1, "Guidelines for Artifact Usage".
    """
    bare_subject = Descriptor(subject.media_type, subject.digest, subject.size_bytes)
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "artifactType": blob.media_type,
            "config": EMPTY.as_dict(),
            "layers": [blob.as_dict()],
            "subject": bare_subject.as_dict(),
        }
    )


def parse_referrer(data: bytes, subject: Digest, where: str) -> Manifest:
    """Returns the manifest in ``data``, which has to refer to ``subject``.

    Raises:
        VerificationError: It is malformed, or refers to another manifest: what it says, a record
            say, was said of another version.
    """
    named = parse_json_object(data, where).get("subject")
    if not isinstance(named, dict) or Descriptor.from_dict(named, where).digest != subject:
        raise VerificationError(
            "What is attached to this version was made for another version.",
            where=where,
            got=named,
            wanted=subject,
            next_step="find out who copied it there, and remove that file",
        )
    return parse_manifest(data, where)


def _as_oci(base: BaseImage) -> tuple[Descriptor, ...]:
    twins = []
    for layer in base.layers:
        if layer.media_type not in OCI_TWINS:
            raise RefusedError(
                "A layer of the conda env's image cannot be part of a bundle.",
                where=f"{base.reference} {layer.digest}",
                got=layer.media_type,
                wanted="a tar layer that the registry itself holds",
                next_step="build the env's image without foreign or encrypted layers",
            )
        twins.append(Descriptor(OCI_TWINS[layer.media_type], layer.digest, layer.size_bytes))
    return tuple(twins)


def _image_config(
    facts: BundleFacts,
    own: Sequence[Layer],
    base: BaseImage | None,
    python: str,
    platform: str,
    document: bytes,
) -> dict[str, Any]:
    beneath: Mapping[str, Any] = base.config if base else {}
    os_name, architecture, *variant = platform.split("/")
    image: dict[str, Any] = {
        "os": beneath.get("os", os_name),
        "architecture": beneath.get("architecture", architecture),
    }
    if found := beneath.get("variant", variant[0] if variant else None):
        image["variant"] = found
    run = dict(beneath.get("config") or {})
    run["Env"] = _environment(run.get("Env") or [])
    run["Entrypoint"] = [python, "-m", "adroit.serving"]
    run["Cmd"] = []
    run["WorkingDir"] = "/"
    run["ExposedPorts"] = {f"{PORT}/tcp": {}}
    run["Labels"] = (run.get("Labels") or {}) | {
        "adroit.model_name": facts.model_name,
        "adroit.run_id": facts.run_id,
        "adroit.bundle_id": str(Digest.of(document)),
    }
    image["config"] = run
    beneath_ids = (beneath.get("rootfs") or {}).get("diff_ids") or []
    image["rootfs"] = {
        "type": "layers",
        # An uncompressed layer's diff id is its digest.
        "diff_ids": [*beneath_ids, *(str(layer.descriptor.digest) for layer in own)],
    }
    # Engines count the non-empty entries against diff_ids, so each layer gets one.
    history = list(beneath.get("history") or [{"created_by": "base"} for _ in beneath_ids])
    image["history"] = history + [{"created_by": f"adroit {layer.kind} layer"} for layer in own]
    return image


def _environment(env: Sequence[str]) -> list[str]:
    ours = {
        "PYTHONPATH": "/opt/adroit/runtime",
        "PYTHONDONTWRITEBYTECODE": "1",  # the root may be read-only
        "PYTHONUNBUFFERED": "1",
    }
    return [item for item in env if item.partition("=")[0] not in ours] + [
        f"{name}={value}" for name, value in ours.items()
    ]
