"""How a Docker engine reaches the images of a target: under which name, with which login."""

from __future__ import annotations

from adroit_publish.config.targets import Target
from adroit_publish.pipeline.places import credentials_of
from adroit_publish.stores.registry import ImageRepository


def engine_name(images: ImageRepository) -> str:
    """Returns what an engine calls a repository: where it is reached, not what it is named.

    The two differ where the target has an ``images_endpoint``. An engine takes http from loopback
    alone, and so do targets.
    """
    return f"{images.registry.endpoint.authority}/{images.repository.name}"


def engine_auth(target: Target, images: ImageRepository) -> dict[str, str]:
    """Returns the login for a repository in Docker's words; empty where there is none.

    Raises:
        RefusedError: There ought to be one, and it cannot be had.
        StoreError: ECR could not be reached.
        ConfigError: The Docker config is malformed.
    """
    host = images.repository.host
    login = credentials_of(target, host).get(host)
    if login is None:
        return {}
    if not login.username:
        return {"identitytoken": login.secret}
    return {"username": login.username, "password": login.secret}
