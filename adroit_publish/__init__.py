"""Adroit Publish: a model of an MLflow run becomes an immutable, verified, servable version.

    from adroit_publish import publish
    release = publish("my_flavor")

does what ``python publish_mlflow_model_flow.py run --flavor=my_flavor`` does, without Metaflow;
``republish("my_flavor")`` does what ``python republish.py --flavor my_flavor`` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import adroit_publish.publish  # noqa: F401  loaded later, the room would hide the function below

if TYPE_CHECKING:
    from adroit_publish.publish.release import Release

__all__ = ["publish", "republish"]


def publish(
    flavor: str,
    *,
    root: Path | str = ".",
    target: str | None = None,
    run_id: str | None = None,
    allow_dirty: bool = False,
    verify: str | None = None,
    accept_env_mismatch: Sequence[str] = (),
    accept_new_lineage: bool = False,
    accept_gates: Sequence[str] = (),
) -> Release:
    """Publishes one flavor and writes its new version into flavors.yaml.

    Args:
        flavor: Its name.
        root: The checkout, or a directory below it.
        target: A target of adroit.toml; by default what the environment means.
        run_id: Publish this MLflow run, whatever the flavor's ``version`` says.
        allow_dirty: Pack uncommitted files, and record it.
        verify: ``image`` (a container of the published image), ``process`` (a sandbox here) or
            ``none``; by default the image, where the target has images.
        accept_env_mismatch: Packages (or ``python``) whose mismatch with the env is waived.
        accept_new_lineage: Publish a run of another experiment, flow or signature than the model's
            versions.
        accept_gates: ``NAME=REASON`` of each gate of config.yaml that may be passed by.

    Returns:
        What was published; ``news`` is False where nothing had to be done.

    Raises:
        PublishError: As ``adroit_publish.errors`` lists them; flavors.yaml is as it was.
    """
    from adroit_publish.checkout import find_root, open_checkout
    from adroit_publish.publish.prepare import prepare
    from adroit_publish.publish.publish import publish as publish_job
    from adroit_publish.publish.release import Failure, PublishOptions, Release
    from adroit_publish.writeback.releases import write_releases

    checkout = open_checkout(find_root(Path(root).absolute()))
    options = PublishOptions(
        target=target,
        run_id=run_id,
        allow_dirty=allow_dirty,
        verify=verify,
        accept_env_mismatch=tuple(accept_env_mismatch),
        accept_new_lineage=accept_new_lineage,
        accept_gates=tuple(accept_gates),
    )
    (prepared,) = prepare(checkout, [flavor], options)
    if isinstance(prepared, Failure):
        raise prepared.error
    if isinstance(prepared, Release):
        return prepared
    release = publish_job(prepared)
    write_releases(checkout, [release])
    return release


def republish(
    flavor: str,
    *,
    root: Path | str = ".",
    target: str | None = None,
    new_flavor: str | None = None,
    runtime: bool = False,
    take_env: bool = False,
    allow_dirty: bool = False,
    verify: str | None = None,
    accept_env_mismatch: Sequence[str] = (),
    accept_output_change: bool = False,
    accept_gates: Sequence[str] = (),
) -> Release:
    """Publishes the model of a flavor's version with the source of today, and writes it back.

    Args:
        flavor: Its name.
        root: The checkout, or a directory below it.
        target: A target of adroit.toml; by default what the environment means.
        new_flavor: Write the new version into a copy of the flavor, of this name.
        runtime: Take another runtime (``adroit/``) alone for a change.
        take_env: Take over what the conda env's name stands for now.
        allow_dirty: Pack uncommitted files, and record it.
        verify: As for ``publish``.
        accept_env_mismatch: As for ``publish``.
        accept_output_change: Go on where the model's golden outputs moved; the record keeps it.
        accept_gates: As for ``publish``.

    Returns:
        What was published; ``news`` is False where nothing changed.

    Raises:
        PublishError: As ``adroit_publish.errors`` lists them; flavors.yaml is as it was.
    """
    from adroit_publish.checkout import find_root, open_checkout
    from adroit_publish.publish.prepare_republish import prepare_republish
    from adroit_publish.publish.release import Failure, Release, RepublishOptions
    from adroit_publish.publish.republish import republish as republish_job
    from adroit_publish.writeback.releases import write_releases

    checkout = open_checkout(find_root(Path(root).absolute()))
    options = RepublishOptions(
        target=target,
        allow_dirty=allow_dirty,
        verify=verify,
        accept_env_mismatch=tuple(accept_env_mismatch),
        new_flavor=new_flavor,
        runtime=runtime,
        take_env=take_env,
        accept_output_change=accept_output_change,
        accept_gates=tuple(accept_gates),
    )
    (prepared,) = prepare_republish(checkout, [flavor], options)
    if isinstance(prepared, Failure):
        raise prepared.error
    if isinstance(prepared, Release):
        return prepared
    release = republish_job(prepared)
    write_releases(checkout, [release])
    return release
