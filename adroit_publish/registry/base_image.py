"""The conda env's image: from a reference to the digest of one platform's manifest.

    tag -> index -> the platform's manifest -> its layers and config

Docker's media types and OCI's are both read. What is returned is pinned: the digest is that of
the platform's manifest, never of an index, and everything was verified on the way.

Source: OCI image specification 1.1, "Image Index", "Image Manifest", "Image Configuration".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.document import parse_json_object
from adroit_publish.bundle.manifest import INDEX_MEDIA_TYPE, BaseImage, parse_manifest
from adroit_publish.errors import RefusedError, VerificationError
from adroit_publish.registry.image_reference import ImageReference
from adroit_publish.registry.repository import (
    DOCKER_INDEX_MEDIA_TYPE,
    ImageRepository,
    StoredManifest,
)

_INDEXES = frozenset({INDEX_MEDIA_TYPE, DOCKER_INDEX_MEDIA_TYPE})
_DEFAULT_VARIANTS = {"arm64": "v8", "arm": "v7"}


def resolve_base(
    repository: ImageRepository, reference: ImageReference, platform: str
) -> BaseImage:
    """Returns the image that ``reference`` names now, pinned to ``os/architecture[/variant]``.

    Raises:
        RefusedError: The image is gone, access is denied, it is not for that platform, or it has
            layers that its registry does not hold.
        StoreError: The registry cannot be reached, or goes on failing.
        VerificationError: Something is not what its digest says, or malformed.
    """
    where = str(reference)
    manifest = repository.resolve(reference.name)
    if _is_index(manifest, where):
        entry = _entry_for(manifest, platform, where)
        manifest = repository.resolve(Descriptor.from_dict(entry).digest)
        if _is_index(manifest, where):
            raise RefusedError("An image index holds another index.", where=where)
    _refuse_layers_elsewhere(manifest, where)
    parsed = parse_manifest(manifest.data, where)
    config = parse_json_object(repository.document(parsed.config), f"{where}, its config")
    _check_config(config, len(parsed.layers), platform, where)
    return BaseImage(where, manifest.descriptor.digest, parsed.layers, config)


def _is_index(manifest: StoredManifest, where: str) -> bool:
    declared = manifest.descriptor.media_type in _INDEXES
    holds_manifests = "manifests" in parse_json_object(manifest.data, where)
    if declared != holds_manifests:
        got = manifest.descriptor.media_type
        raise VerificationError(
            "A manifest is not of the kind it says it is.", where=where, got=got
        )
    return declared


def _entry_for(index: StoredManifest, platform: str, where: str) -> Mapping[str, Any]:
    entries: Any = parse_json_object(index.data, where)["manifests"]
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise VerificationError("An image index is malformed.", where=where)
    manifests: list[Mapping[str, Any]] = entries
    wanted = _canonical(platform)
    for entry in manifests:
        if _platform_of(entry) == wanted:
            return entry
    there = sorted({_platform_of(entry) for entry in manifests} - {"unknown/unknown"})
    raise RefusedError(
        "The image is not there for the platform that is wanted.",
        where=where,
        got=", ".join(there) or "no platform at all",
        wanted=wanted,
        next_step="name one of these as `platform` in conda_envs.yaml, or build the image for it",
    )


def _platform_of(entry: Mapping[str, Any]) -> str:
    platform = entry.get("platform")
    platform = platform if isinstance(platform, dict) else {}
    parts = (str(platform.get(key) or "") for key in ("os", "architecture", "variant"))
    return _canonical("/".join(parts))


def _canonical(platform: str) -> str:
    """``linux/arm64`` and ``linux/arm64/v8`` are one platform, as every engine has it."""
    os_name, architecture, variant = [*platform.split("/", 2), "", ""][:3]
    if variant == _DEFAULT_VARIANTS.get(architecture):
        variant = ""
    parts = (os_name or "unknown", architecture or "unknown", variant)
    return "/".join(filter(None, parts))


def _refuse_layers_elsewhere(manifest: StoredManifest, where: str) -> None:
    layers = parse_json_object(manifest.data, where).get("layers")
    for layer in layers if isinstance(layers, list) else []:
        if isinstance(layer, dict) and layer.get("urls"):
            raise RefusedError(
                "A layer of the conda env's image is fetched from elsewhere.",
                where=f"{where} {layer.get('digest')}",
                wanted="an image whose registry holds all of its layers",
                next_step="build the env's image without foreign layers",
            )


def _check_config(config: Mapping[str, Any], layers: int, platform: str, where: str) -> None:
    diff_ids = config.get("rootfs")
    diff_ids = diff_ids.get("diff_ids") if isinstance(diff_ids, dict) else None
    if not isinstance(diff_ids, list) or len(diff_ids) != layers:
        raise VerificationError(
            "An image's config does not go with its layers.",
            where=where,
            got=f"{len(diff_ids) if isinstance(diff_ids, list) else 'no'} diff ids",
            wanted=layers,
        )
    found, wanted = _platform_of({"platform": config}), _canonical(platform)
    if found != wanted:
        raise RefusedError(
            "The image is for another platform.",
            where=where,
            got=found,
            wanted=wanted,
            next_step="correct `platform` in conda_envs.yaml, or build the image for it",
        )
