"""Layers: which file goes into which tar, and the bytes of that tar.

A bundle's own files live under ``opt/adroit`` in the image:

    opt/adroit/model/...       one layer for each large file, one for all the others
    opt/adroit/runtime/...     what serves the model
    opt/adroit/source/...      the project's code
    opt/adroit/bundle.json     the bundle record

A tar is a function of paths, contents and the executable bit alone: entries sorted by path bytes,
mode 0644 or 0755, ids 0, no names, mtime 0, a PAX header only where a name or a size needs one,
two zero blocks at the end. Uncompressed: weights do not compress, and the bytes of a compressor
depend on its build.

Source: POSIX.1-2017 ``pax``, "ustar Interchange Format" and "pax Extended Header"; OCI image
specification, "Image Layer Filesystem Changeset".
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.content import PART_BYTES, Concatenation, Content, Readable
from adroit_publish.bundle.digest import Descriptor, Digest
from adroit_publish.errors import SourceError

LAYER_MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"
KIND_ANNOTATION = "adroit.layer"
ROOT = "opt/adroit"
LARGE_FILE_BYTES = 16 << 20
MAX_LARGE_LAYERS = 48
_BLOCK = 512
_USTAR_SIZE_LIMIT = 8**11


def layer_kind(layer: Descriptor) -> str:
    """Returns ``model``, ``runtime``, ``source`` or ``record``; ``env`` for a base image's."""
    return layer.annotations.get(KIND_ANNOTATION, "env")


@dataclass(frozen=True)
class PackedFile:
    """One file of a layer; its path is POSIX, in the image, without a leading slash.

    ``executable`` says whether its mode is 0755 and not 0644.
    """

    path: str
    content: Readable
    executable: bool = False


@dataclass(frozen=True)
class LayerRecipe:
    """A layer before it is hashed.

    Attributes:
        alone: Whether its one file is named by the layer's digest and hashed only once.
    """

    kind: str
    files: tuple[PackedFile, ...]
    alone: bool = False

    @property
    def size_bytes(self) -> int:
        """The bytes of its files, headers and padding aside."""
        return sum(file.content.size_bytes for file in self.files)


@dataclass(frozen=True)
class FileEntry:
    """One file as ``bundle.json`` lists it.

    Attributes:
        path: Below the directory of its kind.
        digest: Names its content: its own sha256 or, where it is ``alone``, its layer's digest
            (headers are deterministic, so that names the file just as well).
        alone: Whether it is the only file of its layer.
    """

    path: str
    size_bytes: int
    digest: Digest
    alone: bool = False
    executable: bool = False

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FileEntry:
        """Returns the entry that ``as_dict`` gave; raises KeyError where a key is missing."""
        alone = "layer" in value
        digest = Digest(value["layer"] if alone else "sha256:" + value["sha256"])
        return cls(
            value["path"], value["size"], digest, alone, bool(value.get("executable", False))
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        named = {"layer": str(self.digest)} if self.alone else {"sha256": self.digest.hex}
        executable = {"executable": True} if self.executable else {}
        return {"path": self.path, "size": self.size_bytes} | named | executable


@dataclass(frozen=True)
class Layer:
    """A layer whose digest is known.

    Attributes:
        descriptor: Names the tar; its annotation tells the kind.
        entries: What ``bundle.json`` says of its files, in the order of their path bytes.
        files: The files of the recipe, sorted by path bytes.
    """

    kind: str
    descriptor: Descriptor
    entries: tuple[FileEntry, ...]
    files: tuple[PackedFile, ...]
    content: Content


def model_recipes(files: Iterable[PackedFile]) -> tuple[LayerRecipe, ...]:
    """Returns the layers of a model: large files alone, all others in one.

    Files of at least ``LARGE_FILE_BYTES`` get a layer each, the largest ``MAX_LARGE_LAYERS`` of
    them (ties by path); so a changed tokenizer does not send the weights again. The shared layer
    comes last, because it changes most.
    """
    large = sorted(
        (file for file in files if file.content.size_bytes >= LARGE_FILE_BYTES),
        key=lambda file: (-file.content.size_bytes, file.path.encode()),
    )[:MAX_LARGE_LAYERS]
    alone = {file.path for file in large}
    rest = tuple(file for file in files if file.path not in alone)
    recipes = [
        LayerRecipe("model", (file,), alone=True)
        for file in sorted(large, key=lambda file: file.path.encode())
    ]
    return (*recipes, LayerRecipe("model", rest)) if rest else tuple(recipes)


def hash_layer(
    recipe: LayerRecipe, heard: Callable[[int], None] = lambda _size_bytes: None
) -> Layer:
    """Returns the layer of ``recipe``, having read each of its files once.

    ``heard`` is told how many more bytes of files were hashed; what it raises ends the hashing.

    Raises:
        SourceError: A path cannot stand in an image layer.
        VerificationError: A file changed its length while it was read.
    """
    files = _sorted_checked(recipe.files)
    whole = _PartwiseSha256() if recipe.size_bytes > PART_BYTES else hashlib.sha256()
    file_digests: dict[str, Digest] = {}
    parts: list[bytes | Readable] = []
    for piece in _tar_parts(files):
        if isinstance(piece, bytes):
            parts.append(piece)
            whole.update(piece)
            continue
        parts.append(piece.content)
        one = whole if recipe.alone else hashlib.sha256()
        for chunk in Concatenation((piece.content,)).chunks():
            whole.update(chunk)
            heard(len(chunk))
            if not recipe.alone:
                one.update(chunk)
        if not recipe.alone:
            file_digests[piece.path] = Digest("sha256:" + one.hexdigest())
    crc32s = whole.part_crc32s() if isinstance(whole, _PartwiseSha256) else None
    content = Concatenation(parts, crc32s)
    digest = Digest("sha256:" + whole.hexdigest())
    descriptor = Descriptor(
        LAYER_MEDIA_TYPE, digest, content.size_bytes, {KIND_ANNOTATION: recipe.kind}
    )
    entries = tuple(_entry(file, recipe.kind, digest, file_digests) for file in files)
    return Layer(recipe.kind, descriptor, entries, files, content)


def _entry(file: PackedFile, kind: str, layer: Digest, digests: Mapping[str, Digest]) -> FileEntry:
    return FileEntry(
        file.path.removeprefix(f"{ROOT}/{kind}/"),
        file.content.size_bytes,
        digests.get(file.path, layer),
        alone=file.path not in digests,
        executable=file.executable,
    )


class _PartwiseSha256:
    """A sha256 that keeps the CRC-32 of every ``PART_BYTES`` beside it; a tenth of its cost."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32s = [0]
        self._room = PART_BYTES

    def update(self, data: bytes | memoryview) -> None:
        self._sha256.update(data)
        rest = memoryview(data)
        while rest:
            if not self._room:
                self._crc32s.append(0)
                self._room = PART_BYTES
            piece, rest = rest[: self._room], rest[self._room :]
            self._crc32s[-1] = zlib.crc32(piece, self._crc32s[-1])
            self._room -= len(piece)

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()

    def part_crc32s(self) -> tuple[int, ...]:
        return tuple(self._crc32s)


def _sorted_checked(files: Iterable[PackedFile]) -> tuple[PackedFile, ...]:
    for file in files:
        names = file.path.split("/")
        if any(name.startswith(".wh.") for name in names):
            raise SourceError(
                "A file's name cannot stand in an image layer.",
                where=file.path,
                got=next(name for name in names if name.startswith(".wh.")),
                wanted="a name that does not start with .wh. (image layers read it as a deletion)",
                next_step="rename the file, or leave it out by source.exclude",
            )
        if file.path.startswith("/") or any(name in ("", ".", "..") for name in names):
            raise ValueError(f"not a plain relative path: {file.path!r}")
    return tuple(sorted(files, key=lambda file: file.path.encode()))


def _tar_parts(files: tuple[PackedFile, ...]) -> Iterator[bytes | PackedFile]:
    directories = {parent for file in files for parent in _parents(file.path)}
    entries: list[str | PackedFile] = [*directories, *files]
    entries.sort(key=lambda entry: (entry if isinstance(entry, str) else entry.path).encode())
    for entry in entries:
        if isinstance(entry, str):
            yield tar_header(entry + "/", size_bytes=0, directory=True, executable=True)
            continue
        size_bytes = entry.content.size_bytes
        yield tar_header(
            entry.path, size_bytes=size_bytes, directory=False, executable=entry.executable
        )
        yield entry
        if size_bytes % _BLOCK:
            yield bytes(_BLOCK - size_bytes % _BLOCK)
    yield bytes(2 * _BLOCK)


def _parents(path: str) -> Iterator[str]:
    # `opt` itself belongs to the base image, whose mode or link there must survive.
    while (path := path.rpartition("/")[0]) and path != ROOT.partition("/")[0]:
        yield path


def tar_header(name: str, *, size_bytes: int, directory: bool, executable: bool) -> bytes:
    """Returns the header of one entry, with its PAX header where it needs one.

    A directory's name ends in a slash.
    """
    mode = 0o755 if executable else 0o644
    typeflag = b"5" if directory else b"0"
    raw = name.encode()
    keywords = {}
    if len(raw) > 100 or not raw.isascii():
        keywords["path"] = name
    if size_bytes >= _USTAR_SIZE_LIMIT:
        keywords["size"] = str(size_bytes)
    extended = b""
    if keywords:
        body = b"".join(_pax_record(key, value) for key, value in sorted(keywords.items()))
        extended = _block(b"././@PaxHeader", len(body), 0o644, b"x") + body
        extended += bytes(-len(body) % _BLOCK)
    short = name.encode("ascii", "replace")[:100]
    stored_size = 0 if size_bytes >= _USTAR_SIZE_LIMIT else size_bytes
    return extended + _block(short, stored_size, mode, typeflag)


def _pax_record(key: str, value: str) -> bytes:
    # The record's length counts its own digits: grow it until it agrees.
    rest = b" " + key.encode() + b"=" + value.encode() + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _block(name: bytes, size_bytes: int, mode: int, typeflag: bytes) -> bytes:
    def octal(value: int, width: int) -> bytes:
        return b"%0*o\0" % (width - 1, value)

    fields = [
        name.ljust(100, b"\0"),
        octal(mode, 8) + octal(0, 8) + octal(0, 8),  # mode, uid, gid
        octal(size_bytes, 12) + octal(0, 12),  # size, mtime
        b" " * 8,  # the checksum counts itself as blanks
        typeflag + bytes(100),  # type, link name
        b"ustar\x0000" + bytes(64),  # magic and version, user and group names
        octal(0, 8) + octal(0, 8) + bytes(155 + 12),  # device numbers, prefix, filler
    ]
    block = b"".join(fields)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]
