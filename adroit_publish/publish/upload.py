"""Layers on their way: hashed side by side, each sent as soon as its digest is known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from functools import partial

from adroit_publish.bundle.layer import Layer, LayerRecipe, hash_layer
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.places import Place
from adroit_publish.publish.release import LayerReceipt
from adroit_publish.stores.contract import Progress

HASHING_THREADS = 2
SENDING_THREADS = 4


class _Stopped(Exception):
    """Ends an upload because another one failed."""


def hash_and_upload(
    recipes: Sequence[LayerRecipe], places: Sequence[Place], progress_to: Callable[[str], Progress]
) -> tuple[tuple[Layer, ...], tuple[LayerReceipt, ...]]:
    """Hashes every layer once and puts it into every place that lacks it.

    Args:
        recipes: The layers, bottom up.
        places: Where to put them.
        progress_to: Gives what is told as bytes are accepted, by the place's location.

    Returns:
        The layers and their receipts, both in the order of ``recipes``.

    Raises:
        PublishError: Whatever a file or a place failed with; the rest is stopped.
    """
    stop = threading.Event()

    def until_stopped(progress: Progress) -> Progress:
        def heard(size_bytes: int) -> None:
            if stop.is_set():
                raise _Stopped
            progress(size_bytes)

        return heard

    hashed = until_stopped(lambda _size_bytes: None)
    heard = {place.location: until_stopped(progress_to(place.location)) for place in places}

    layers: list[Layer] = []
    puts: list[dict[str, Future[bool]]] = []
    with (
        ThreadPoolExecutor(HASHING_THREADS, "hash") as hashing,
        ThreadPoolExecutor(SENDING_THREADS * len(places), "send") as sending,
    ):
        try:
            for layer in hashing.map(partial(hash_layer, heard=hashed), recipes):
                layers.append(layer)
                _raise_failed(puts)
                puts.append(
                    {
                        place.location: sending.submit(
                            place.put_blob,
                            layer.descriptor,
                            layer.content,
                            heard[place.location],
                        )
                        for place in places
                    }
                )
            futures = [future for put in puts for future in put.values()]
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            receipts = tuple(
                receipt(layer, {where: future.result() for where, future in put.items()})
                for layer, put in zip(layers, puts, strict=True)
            )
        except BaseException:
            stop.set()
            hashing.shutdown(wait=False, cancel_futures=True)
            sending.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(layers), receipts


def _raise_failed(puts: Sequence[Mapping[str, Future[bool]]]) -> None:
    """Raises what a put that is over failed with, before more is hashed in vain."""
    for future in (future for put in puts for future in put.values()):
        if future.done():
            future.result()


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
