"""What a republish takes over from a published bundle by digest: model layers and conda env.

A model layer that was hashed once is never read again to make a new bundle: its descriptor stands
in the old manifest, and what ``bundle.json`` says of its files stands in the old ``bundle.json``.
The env's image is in the old manifest and image config: the layers and diff ids at the bottom.
Carrying everything over and changing nothing gives the old manifest, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adroit_publish.bundle.content import Content
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import FileEntry, Layer
from adroit_publish.bundle.manifest import BaseImage, Manifest
from adroit_publish.errors import VerificationError


def carried_layers(
    manifest: Manifest, record: BundleRecord, content_of: Callable[[Descriptor], Content]
) -> tuple[Layer, ...]:
    """Returns the model layers of a published bundle, bottom up, without their files.

    ``content_of`` gives the bytes of a layer, where a place turns out to lack them.

    Raises:
        VerificationError: The manifest and ``bundle.json`` do not tell of the same layers.
    """
    by_layer: dict[Digest | None, list[FileEntry]] = {}
    for entry in record.files["model"]:
        by_layer.setdefault(entry.digest if entry.alone else None, []).append(entry)
    layers = []
    for descriptor in manifest.layers_of("model"):
        # The layer that is named by no file is the one that the other files share.
        entries = by_layer.pop(descriptor.digest, None) or by_layer.pop(None, [])
        layers.append(Layer("model", descriptor, tuple(entries), (), content_of(descriptor)))
    if by_layer or not all(layer.entries for layer in layers):
        raise VerificationError(
            "A bundle's manifest and its bundle.json name other model layers.",
            where=record.model_name,
            got=", ".join(str(name) for name in by_layer) or "a layer without files",
        )
    return tuple(layers)


def carried_base(
    manifest: Manifest, config: Mapping[str, Any], record: BundleRecord, reference: str
) -> BaseImage | None:
    """Returns the conda env's image as a published bundle refers to it; None where it has none.

    Args:
        manifest, config, record: The bundle's, parsed.
        reference: Where its layers can be read.
    """
    layers = manifest.base_layers
    if not layers:
        return None
    own = len(manifest.own_layers)
    beneath = {key: value for key, value in config.items() if key not in ("rootfs", "history")}
    beneath["rootfs"] = {"diff_ids": config["rootfs"]["diff_ids"][: len(layers)]}
    beneath["history"] = config["history"][: len(config["history"]) - own]
    return BaseImage(reference, Digest(record.conda_env_digest or ""), layers, beneath)


def serving_python(config: Mapping[str, Any]) -> str:
    """Returns the interpreter that serves a published bundle, a path in its image."""
    return str(config["config"]["Entrypoint"][0])


def platform_of(config: Mapping[str, Any]) -> str:
    """Returns ``os/architecture[/variant]`` of a published bundle."""
    parts = (config["os"], config["architecture"], config.get("variant"))
    return "/".join(part for part in parts if part)
