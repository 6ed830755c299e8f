"""Healing: what is damaged in one place is taken from another that has it right.

A blob of the store comes from the registry, one of the registry from the store or, of the base,
from the env's own repository; what was sent is read back before it is called healed. A tag that is
missing is given again; one that names another image is somebody's to explain, and never moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from adroit_publish.bundle.content import Content, Inline
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.custody.check import verify
from adroit_publish.custody.image import ImageCheck
from adroit_publish.custody.report import Damage, VerifyReport, is_of_the_place
from adroit_publish.errors import PublishError, VerificationError
from adroit_publish.places import Places
from adroit_publish.registry.blobs import Blobs
from adroit_publish.registry.errors import StaysDamaged, stays_damaged
from adroit_publish.registry.image_reference import Tag
from adroit_publish.stores.bundle_store import Published
from adroit_publish.stores.contract import unheard
from adroit_publish.stores.stored_blob import StoredBlob
from adroit_publish.version import Version

_ORDER = ("blob", "manifest", "tag", "other")


@dataclass
class Repair:
    """What a repair did: a line for each thing that is right again; and for the rest, why not."""

    healed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def repair(
    places: Places, published: Published, damages: Sequence[Damage], envs: Sequence[Blobs] = ()
) -> Repair:
    """Heals what can be healed of a version; ``envs`` may hold layers of its base too.

    Raises:
        RefusedError, StoreError: A place denies access, or cannot be reached.
    """
    done = Repair()
    for damage in sorted(damages, key=lambda damage: _ORDER.index(damage.what)):
        try:
            _heal(places, published, damage, envs)
        except PublishError as error:
            if is_of_the_place(error) and damage.what != "tag":
                raise
            done.left.append(f"{damage.line}\n  not healed: {error.what}")
        else:
            done.healed.append(damage.line)
    return done


def heal_or_refuse(
    places: Places, version: Version, target_name: str, *, reread_images: bool = False
) -> tuple[str, ...]:
    """Makes sure, by asking every place, that a version is whole before it is said to be published.

    Args:
        reread_images: Whether to read what the registry has, in place of asking for it.

    Returns:
        A line for each thing that was damaged, and is right again.

    Raises:
        VerificationError: Something is damaged and no other place has it right.
    """
    published, manifest = version.published, version.manifest
    if reread_images and places.images:
        report = VerifyReport(version.name)
        ImageCheck(places.images, report, unheard).check(published, manifest, shallow=False)
        # A publish gives its tag itself, and refuses one that was moved.
        report.damages = [damage for damage in report.damages if damage.what != "tag"]
    else:
        report = verify(places.store, published, places.images, shallow=True, manifest=manifest)
    done = repair(places, published, report.damages)
    if done.left:
        raise VerificationError(
            f"{version.name} is published, and not whole.",
            where=", ".join(place.location for place in places.all),
            got="\n".join(done.left),
            next_step=repair_command(version.name, target_name)
            if places.images
            else publish_again(version, target_name),
        )
    return tuple(f"healed: {line}" for line in done.healed)


def repair_command(version: str, target_name: str) -> str:
    """Returns what heals one of a target's two places from the other."""
    return f"python -m adroit_publish verify {version} --repair --target {target_name}"


def publish_again(version: Version, target_name: str, flavor: str = "FLAVOR") -> str:
    """Returns what makes again what no place has right."""
    return (
        f"python publish_mlflow_model_flow.py run --flavor={flavor} "
        f"--mlflow-run-id={_run_id(version) or 'RUN_ID'} --target={target_name}\n"
        "(that makes again what no place has right, or says what stands against it)"
    )


def _run_id(version: Version) -> str | None:
    """Returns the run that a version was made from, by whichever of its documents can be read."""
    with suppress(PublishError):
        return version.bundle.run_id
    with suppress(PublishError):
        return next((record.run_id for record in version.records if record.run_id), None)
    return None


def _heal(places: Places, published: Published, damage: Damage, envs: Sequence[Blobs]) -> None:
    """Heals one thing; raises where it cannot be."""
    store, images, descriptor = places.store, places.images, damage.descriptor
    if damage.what == "blob" and descriptor and damage.place == store.location:
        _take(descriptor, _from_images(places, descriptor), store.heal_blob)
    elif damage.what == "blob" and descriptor and images:
        stored: Content = StoredBlob(store, descriptor)
        sources = [stored, *(StoredBlob(env, descriptor) for env in envs)]
        _take(descriptor, sources, images.heal_blob)
    elif damage.what == "manifest" and descriptor and images:
        data = store.document(descriptor)
        try:
            images.put_manifest(descriptor, data)
        except VerificationError as error:
            raise stays_damaged(f"{images.location}@{descriptor.digest}") from error
    elif damage.what == "tag" and descriptor and images:
        images.tag(Tag(published.version), descriptor, store.document(descriptor))
    else:
        raise VerificationError("There is no other place to take it from.")


def _take(
    descriptor: Descriptor, sources: Iterable[Content], heal: Callable[[Descriptor, Content], None]
) -> None:
    """Sends a blob from the first source that has it right."""
    for content in sources:
        try:
            return heal(descriptor, content)
        except StaysDamaged:
            raise
        except PublishError as error:
            if is_of_the_place(error):
                raise
    raise VerificationError("There is no other place to take it from that has it right.")


def _from_images(places: Places, descriptor: Descriptor) -> Iterator[Content]:
    """Yields what the registry may have of a blob of the store: it keeps manifests apart."""
    if places.images:
        yield StoredBlob(places.images, descriptor)
        if stored := places.images.find(descriptor.digest):
            yield Inline(stored.data)
