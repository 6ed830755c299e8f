"""What is installed in an image, read from the names of its files.

Nothing is unpacked and nothing is run: the layers are streamed from the registry, verified, and
only the names in their tars are looked at. Python distributions leave ``NAME-VERSION.dist-info``
in their site-packages, conda packages ``conda-meta/NAME-VERSION-BUILD.json``.

It costs a download of the whole image, so its result is worth keeping by the image's digest.

Source: Python packaging, "Recording installed projects" (PEP 376, 503, 627); OCI image
specification, "Image Layer Filesystem Changeset" (whiteouts).
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import RawIOBase

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.manifest import OCI_TWINS, BaseImage
from adroit_publish.errors import VerificationError
from adroit_publish.registry.blobs import Blobs

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."


@dataclass(frozen=True)
class InstalledPackages:
    """What an interpreter finds in its environment: versions by normalised name.

    ``python`` is its version, ``3.11.7``, or only ``3.11`` where nothing says more; None: no idea.
    """

    python: str | None
    versions: Mapping[str, str]


def installed_packages(blobs: Blobs, base: BaseImage, python: str) -> InstalledPackages | None:
    """Returns what is installed beside an interpreter of an image; None where a layer is of zstd.

    Args:
        python: Path of the interpreter in it: ``/opt/conda/envs/adroit/bin/python``.

    Raises:
        StoreError: The registry cannot be reached, or goes on failing.
        VerificationError: A layer is not what its digest says, or no tar.
    """
    prefix = python.strip("/").rpartition("/bin/")[0]
    paths: set[str] = set()
    for layer in base.layers:
        if OCI_TWINS.get(layer.media_type, "+zstd").endswith("+zstd"):
            return None
        paths = apply_layer(paths, _names(blobs, layer), prefix)
    return packages_of(paths, prefix)


def apply_layer(below: Iterable[str], names: Iterable[str], prefix: str) -> set[str]:
    """Returns the paths that tell of packages, after one more layer with these names in its tar.

    ``prefix`` is the environment's directory, without a leading slash.
    """
    kept, added = set(below), set()
    for name in names:
        path = name.removeprefix("./").strip("/")
        directory, _, last = path.rpartition("/")
        if last == _OPAQUE or last.startswith(_WHITEOUT):
            gone = directory if last == _OPAQUE else f"{directory}/{last[len(_WHITEOUT) :]}"
            gone = gone.strip("/")
            kept = {each for each in kept if each != gone and not each.startswith(f"{gone}/")}
        elif path.startswith(f"{prefix}/") and (
            path.endswith(".dist-info/METADATA") or "/conda-meta/python-" in path
        ):
            added.add(path)
    return kept | added


def packages_of(paths: Iterable[str], prefix: str) -> InstalledPackages:
    """Returns the packages that the paths below ``prefix`` tell of."""
    site = re.compile(
        re.escape(prefix) + r"/lib/python(?P<python>3\.\d+)/site-packages/"
        r"(?P<name>[^/]+)-(?P<version>[^/-]+)\.dist-info/METADATA"
    )
    conda = re.compile(re.escape(prefix) + r"/conda-meta/python-(?P<version>[0-9.]+)-[^/]+\.json")
    versions: dict[str, str] = {}
    python = exact = None
    for path in sorted(paths):
        if found := site.fullmatch(path):
            versions[normalised(found["name"])] = found["version"]
            python = found["python"]
        elif found := conda.fullmatch(path):
            exact = found["version"]
    return InstalledPackages(exact or python, versions)


def normalised(name: str) -> str:
    """Returns a distribution's name as PEP 503 compares it: ``scikit-learn``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _names(blobs: Blobs, layer: Descriptor) -> Iterator[str]:
    pieces = blobs.read_blob(layer)
    mode = "r|gz" if OCI_TWINS[layer.media_type].endswith("+gzip") else "r|"
    try:
        with tarfile.open(fileobj=_Stream(pieces), mode=mode) as tar:  # type: ignore[call-overload]
            for member in tar:
                yield member.name
                tar.members.clear()  # else all are kept in memory
        for _ in pieces:
            pass  # to the last byte, where the digest is checked
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise VerificationError(
            "A layer of the image is no tar.",
            where=f"{blobs.location}@{layer.digest}",
            got=str(error)[:200],
        ) from error


class _Stream(RawIOBase):
    """The pieces of a blob as a file that is read once."""

    def __init__(self, pieces: Iterator[memoryview | bytes]) -> None:
        self._pieces = pieces
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._left:
            self._left = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
