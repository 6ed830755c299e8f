"""Versions out of a store: as a directory that can be served, or as a complete OCI layout.

Both are made beside their destination and renamed into place once every byte is verified, so that
what is there is whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.manifest import OCI_LAYOUT, index_bytes
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.custody.signature import admit_signed
from adroit_publish.errors import RefusedError, StoreError
from adroit_publish.places import Places
from adroit_publish.stores.blobs import blob_key
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.contract import Progress, unheard


def pull(
    store: BundleStore,
    published: Published,
    directory: Path,
    progress: Progress = unheard,
    *,
    flavor: str | None = None,
) -> None:
    """Makes ``directory`` hold a version, as ``unpack`` does, if it is signed as is demanded.

    Args:
        flavor: What it has to be published as, where one is named.

    Raises:
        RefusedError: Its target demands a signature that it has not.
        PublishError: As ``unpack``.
    """
    admit_signed(store, published, flavor)
    unpack(store, published, directory, progress)


def unpack(
    store: BundleStore, published: Published, directory: Path, progress: Progress = unheard
) -> None:
    """Makes ``directory`` hold a version the way an image has it under ``/opt/adroit``.

    Raises:
        RefusedError: Something is in ``directory`` already.
        StoreError: The store, or the disk, failed.
        VerificationError: The version's bytes are not what they should be; nothing was written.
    """
    with _made_beside(directory) as scratch:
        for layer in store.manifest(published).own_layers:
            _unpack(store, layer, scratch, progress)


def pull_oci(
    places: Places,
    published: Published,
    directory: Path,
    progress: Progress = unheard,
    *,
    flavor: str | None = None,
) -> None:
    """Makes ``directory`` a complete OCI layout, with the env's layers from the registry.

    Raises:
        PublishError: As ``pull``.
        RefusedError: The version has an env's layers, and the target no registry.
    """
    store, images = places.store, places.images
    admit_signed(store, published, flavor)
    manifest = store.manifest(published)
    if manifest.base_layers and images is None:
        raise RefusedError(
            "The conda env's layers are in a registry, and the target names none.",
            where=f"{published.version} in {store.location}",
            got=f"{len(manifest.base_layers)} layers of the env's image",
            wanted="a target with `images`",
        )
    with _made_beside(directory) as scratch:
        blobs = scratch / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for descriptor in (published.manifest, manifest.config, *manifest.own_layers):
            _write(store.read_blob(descriptor), blobs / descriptor.digest.hex, progress)
        for descriptor in manifest.base_layers:
            assert images  # or it was refused above
            _write(images.read_blob(descriptor), blobs / descriptor.digest.hex, progress)
        (scratch / "oci-layout").write_bytes(OCI_LAYOUT)
        (scratch / "index.json").write_bytes(index_bytes(published.manifest, published.version))


def _unpack(store: BundleStore, layer: Descriptor, scratch: Path, progress: Progress) -> None:
    where = f"{store.location}/{blob_key(layer.digest)}"
    reader = TarReader(store.read_blob(layer), where)
    for member in reader.members():
        path = scratch / member.path.removeprefix(ROOT).lstrip("/")
        if member.directory:
            path.mkdir(exist_ok=True)
            continue
        _write(reader.content(), path, progress)
        path.chmod(0o755 if member.executable else 0o644)


def _write(chunks: Iterator[memoryview | bytes], path: Path, progress: Progress) -> None:
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
            progress(len(chunk))


@contextmanager
def _made_beside(directory: Path) -> Iterator[Path]:
    if directory.is_symlink() or directory.resolve() == Path.cwd():
        raise RefusedError(
            "The destination cannot be put in place as a whole.",
            where=directory,
            wanted="a new directory, or an empty one other than the working directory",
            next_step="name a new directory",
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise RefusedError(
            "There is something at the destination already.",
            where=directory,
            wanted="a directory that is empty or does not exist",
            next_step="name another directory",
        )
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            scratch.chmod(0o755)
            yield scratch
            scratch.rename(directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            "The destination cannot be written.",
            where=error.filename or directory,
            got=error.strerror,
            next_step="make room or mend its permissions, and run the same command again",
        ) from error
