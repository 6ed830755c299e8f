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
from adroit_publish.stores.records import last_publish
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


def publish_again(version: Version, target_name: str, named_by: str | None = None) -> str:
    """Returns what makes again what no place has right: its publish, at the commit it was from.

    Args:
        named_by: The flavor that names the version now, for where no record can be read.
    """
    record, run_id, flavor = None, None, named_by
    with suppress(PublishError):
        run_id = version.bundle.run_id
    with suppress(PublishError):
        if record := last_publish(version.records):
            run_id, flavor = record.run_id or run_id, record.document.get("flavor") or flavor
    if not (run_id and flavor):
        run = f"run {run_id}" if run_id else f"the run whose id begins with {version.name[1:9]}"
        return (
            f"publish {run} to target {target_name} again, as {flavor or 'the flavor it was'}, at "
            "the commit that it was published from: no document that can be read says more"
        )
    again = (
        f"python publish_mlflow_model_flow.py run --flavor={flavor} "
        f"--mlflow-run-id={run_id} --target={target_name}"
    )
    if not (record and record.commit):
        return (
            f"{again}\n(at the commit that {version.name} was published from, which no record that "
            "can be read says: other files make another version)"
        )
    if record.dirty:
        again += f" --allow-dirty\n(with {', '.join(record.dirty)} as then, not committed)"
    return (
        f"git checkout {record.commit} && {again}\n"
        f"(that makes {version.name} again, or says what stands against it; then put flavors.yaml "
        "as it was, and: git checkout -)"
    )


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
