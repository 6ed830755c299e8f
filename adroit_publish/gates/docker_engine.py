"""A Docker engine: reached, told to pull or push or build, and its failures told as ours.

The SDK raises for what the engine refuses at once; what goes wrong while a pull, a push or a build
is on its way comes as an event in a stream that began with 200, and has to be looked for.
``events`` does that for all three.

Source: Docker Engine API, ``ImageCreate``, ``ImagePush``, ``ImageBuild``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adroit_publish.edge.text import printable
from adroit_publish.errors import PublishError, RefusedError, StoreError

if TYPE_CHECKING:
    from docker import DockerClient

_TIMEOUT_S = 600  # an engine that unpacks a large layer is silent for long
_DENIED = ("denied", "unauthorized", "authentication required", "no basic auth", "immutable")


@contextmanager
def connected(what_for: str, next_step: str) -> Iterator[DockerClient]:
    """Gives a client of the engine that DOCKER_HOST names, and turns what it raises into ours.

    Args:
        what_for: What cannot be done without it: "the image cannot be run before it is published".

    Raises:
        RefusedError: No engine answers.
        StoreError: It failed later on.
    """
    import docker
    import requests

    try:
        client = docker.from_env(timeout=_TIMEOUT_S)
        client.ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise RefusedError(
            f"No Docker engine answers; {what_for}.",
            where=os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock",
            got=words(error),
            next_step=f"start Docker, or point DOCKER_HOST to an engine; {next_step}",
        ) from error
    try:
        yield client
    except (docker.errors.DockerException, requests.RequestException) as error:
        raise StoreError(
            "The Docker engine failed.",
            where=client.api.base_url,
            got=words(error),
            next_step=f"run the same command again; {next_step}",
        ) from error
    finally:
        client.close()


def pull(
    client: DockerClient,
    reference: str,
    auth: Mapping[str, str],
    pulled: Callable[[int], None] = lambda size_bytes: None,
) -> None:
    """Has the engine pull an image, which it verifies against the digest; raises as ``failures``.

    Args:
        reference: ``host[:port]/repository@sha256:...``.
        auth: As for ``predict_in_image``; empty to be anonymous.
    """
    repository, _, digest = reference.partition("@")
    layers: dict[str, tuple[int, int]] = {}  # bytes that have arrived, and all there are
    what = "The Docker engine cannot pull an image"
    with failures(what, reference):
        stream = client.api.pull(
            repository, tag=digest, auth_config=dict(auth), stream=True, decode=True
        )
        for event in events(stream, what, reference):
            status, layer = event.get("status"), str(event.get("id"))
            before, total = layers.get(layer, (0, 0))
            if status == "Downloading":
                detail = event.get("progressDetail") or {}
                arrived, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
            elif status == "Download complete":
                arrived = max(before, total)  # the last pieces come too fast to be told one by one
            else:
                continue
            pulled(arrived - before)
            layers[layer] = (arrived, total)


def events(stream: Iterable[Any], what: str, where: str) -> Iterator[Mapping[str, Any]]:
    """Yields the events of a pull, a push or a build; raises as ``failures`` for a failure."""
    for event in stream:
        if "error" in event:
            raise _failed(what, where, str(event["error"]))
        yield event


@contextmanager
def failures(what: str, where: str) -> Iterator[None]:
    """Turns what the engine says into RefusedError where a registry denies it, else StoreError."""
    import docker

    try:
        yield
    except docker.errors.APIError as error:
        raise _failed(what, where, words(error)) from error


def words(error: Exception) -> str:
    """Returns what an error of the SDK says: the engine's own words where there are any."""
    return _one_line(str(getattr(error, "explanation", None) or error))


def _failed(what: str, where: str, message: str) -> PublishError:
    # The engine gives its words alone: 500 for a denied pull, and nothing but text in a stream.
    if any(word in message.lower() for word in _DENIED):
        return RefusedError(
            f"{what}: the registry denies it.",
            where=where,
            got=_one_line(message),
            next_step="log in to the registry (docker login, or the AWS profile of the target)",
        )
    return StoreError(
        f"{what}.", where=where, got=_one_line(message), next_step="run the same command again"
    )


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()), 500)
