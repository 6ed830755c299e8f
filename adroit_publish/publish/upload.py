"""Layers on their way: hashed side by side, each sent as soon as its digest is known.

As many are hashed at once as there are cores, and no more: hashing is what they are busy with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future

from adroit.serving.workers.native import cores
from adroit_publish.bundle.document import BundleFacts
from adroit_publish.bundle.layer import Layer, LayerRecipe, hash_layer
from adroit_publish.bundle.manifest import Bundle, assemble
from adroit_publish.edge.threads import Together
from adroit_publish.places import Place
from adroit_publish.publish.release import EnvReference, LayerReceipt
from adroit_publish.stores.contract import Progress

SENDING_THREADS = 4
"""To one place, where what is sent waits for the other side more than it computes."""
_HASHING_THREADS = (2, 16)
"""At least, for one reads while the other hashes; at most, for more wait for the memory."""


def hash_and_upload(
    recipes: Sequence[LayerRecipe], places: Sequence[Place], progress_to: Callable[[str], Progress]
) -> tuple[tuple[Layer, ...], tuple[LayerReceipt, ...]]:
    """Hashes every layer once and puts it into every place that lacks it.

    Args:
        progress_to: Gives what is told as bytes are accepted, by the place's location.

    Returns:
        The layers and their receipts, both in the order of ``recipes``, which is bottom up.

    Raises:
        PublishError: Whatever a file or a place failed with; the rest is stopped.
    """
    hashing_threads = sorted((*_HASHING_THREADS, cores()))[1]
    sending_threads = max(SENDING_THREADS, hashing_threads) * len(places)
    layers: list[Layer] = []
    puts: list[dict[str, Future[bool]]] = []
    with (
        Together(hashing_threads, "hash") as hashing,
        Together(sending_threads, "send", hashing) as sending,
    ):
        hashed = hashing.heeding(lambda _size_bytes: None)
        heard = {place.location: sending.heeding(progress_to(place.location)) for place in places}
        for layer in [hashing.start(hash_layer, recipe, hashed) for recipe in recipes]:
            layers.append(layer.result())
            puts.append(
                {
                    place.location: sending.start(
                        place.put_blob,
                        layers[-1].descriptor,
                        layers[-1].content,
                        heard[place.location],
                    )
                    for place in places
                }
            )
    receipts = (
        receipt(layer, {where: sent.result() for where, sent in put.items()})
        for layer, put in zip(layers, puts, strict=True)
    )
    return tuple(layers), tuple(receipts)


def assembled(facts: BundleFacts, layers: Sequence[Layer], env: EnvReference) -> Bundle:
    """Returns the bundle of layers of our own on an env; raises as ``assemble``."""
    return assemble(facts, layers, base=env.base, python=env.env.python, platform=env.env.platform)


def upload_record(bundle: Bundle, places: Sequence[Place]) -> LayerReceipt:
    """Puts the last layer, the bundle record, into every place that lacks it."""
    record = bundle.layers[-1]
    sent = {place.location: place.put_blob(record.descriptor, record.content) for place in places}
    return receipt(record, sent)


def sent_note(receipts: Sequence[LayerReceipt], places: Sequence[Place]) -> str:
    """Returns how many layers each place had to be sent, for the line of a stage."""
    return ", ".join(
        f"{sum(layer.sent[place.location] for layer in receipts)} of {len(receipts)} layers sent"
        + (f" to {place.location}" if len(places) > 1 else "")
        for place in places
    )


def receipt(layer: Layer, sent: dict[str, bool]) -> LayerReceipt:
    """Returns what became of one layer."""
    return LayerReceipt(
        layer.kind,
        str(layer.descriptor.digest),
        layer.descriptor.size_bytes,
        len(layer.files),
        sent,
    )
