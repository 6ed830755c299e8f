"""The pickles of a file, in whatever it nests and compresses them.

A file is known by how it begins, never by its name alone: pickles of every protocol, one after the
other in one file (torch's old format), zip (torch, skops, npz), tar, gzip, bzip2, xz, zlib
(joblib), numpy's arrays of objects. A name that says pickle (``*.pkl``) makes it a fault that it
cannot be read; of any other file only what is a pickle for certain counts. Of a large file that is
none of them, its first bytes and its last 64 KiB are read.

Source: APPNOTE.TXT 6.3.10 (zip); POSIX.1-2001 pax (the magic at 257); numpy, ``numpy.lib.format``;
joblib, ``joblib.compressor``; skops 0.16, ``skops.io._general``.
"""

from __future__ import annotations

import ast
import bz2
import gzip
import json
import lzma
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any, BinaryIO

from adroit_publish.gates.pickles.allowed import is_never_allowed
from adroit_publish.gates.pickles.bytes_in import NESTED, Bytes, Hostile, Unreadable
from adroit_publish.gates.pickles.inventory import Inventory, Name
from adroit_publish.gates.pickles.joblib_arrays import WRAPPER
from adroit_publish.gates.pickles.machine import Machine
from adroit_publish.gates.pickles.steps import run

PICKLES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".pth", ".pt", ".skops")
"""How the names end of what is a pickle, or is refused."""

_HEAD_BYTES = 512
_DEEPEST = 8
_SCHEMA_BYTES = 64 << 20
_INFLATED_BYTES = 16 << 30
_LZMA = b"]\x00"
_COMPRESSIONS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    _LZMA: lzma.open,
}
_ZLIB = (b"x\x01", b"x^", b"x\x9c", b"x\xda")
_NOT_LOOKED_INTO = {b"\x04\x22\x4d\x18": "lz4", b"ZF0x": "joblib before 0.10"}
_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError,
    RuntimeError, NotImplementedError, ValueError, SyntaxError, RecursionError, struct.error,
    OverflowError, KeyError, IndexError, TypeError, AttributeError, MemoryError,
)  # fmt: skip


def inventory_of(stream: BinaryIO, path: str, size_bytes: int) -> Inventory | None:
    """Returns what the pickles in a file import; None where it holds none.

    Args:
        stream: The file; it can seek.
        path: Its name, which may say that it has to be a pickle.

    Raises:
        Unreadable: It is one, or is named as one, and cannot be read to its end.
    """
    looker, path = _Looker(0), path.lower()
    looker.look(stream, path, 0, top=True)
    if size_bytes and path.endswith(PICKLES) and not looker.seen:
        raise Unreadable("it is named as a pickle, and is none that is known")
    return looker.inventory if looker.seen else None


class _Looker:
    """Looks into one file, or into one payload of a pickle that is itself nested so deep."""

    def __init__(self, nested: int) -> None:
        self.inventory = Inventory()
        self.seen = False
        self._nested_in = nested

    def look(self, stream: Any, path: str, depth: int, *, top: bool = False) -> None:
        """Looks into one stream: a file, a member of an archive, a payload of a pickle."""
        if depth > _DEEPEST:
            raise Unreadable("archives are nested too deeply")
        head = stream.read(_HEAD_BYTES)
        try:
            if not self._archive(stream, head, path, depth):
                stream.seek(0)
                self._pickles(stream, head, path)
            if top and not head.startswith(b"PK") and zipfile.is_zipfile(stream):
                self._zip(stream, path, depth)  # behind something else
        except _ERRORS as error:
            raise Unreadable(f"{path.rpartition('/')[2]}: {type(error).__name__}") from error

    def _archive(self, stream: BinaryIO, head: bytes, path: str, depth: int) -> bool:
        stream.seek(0)
        for magic, opened in _COMPRESSIONS.items():
            if head.startswith(magic):
                return self._compressed(opened(stream), path, depth, sure=magic != _LZMA)
        if head.startswith(_ZLIB):
            return self._zlib(stream, path, depth)
        for magic, tool in _NOT_LOOKED_INTO.items():
            if head.startswith(magic):
                raise Unreadable(f"it is compressed by {tool}, which is not looked into")
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            self._zip(stream, path, depth)
        elif head[257:262] == b"ustar" or (len(head) == _HEAD_BYTES and _is_tar(head)):
            self._tar(stream, path, depth)
        elif head.startswith(b"\x93NUMPY"):
            self._array(stream, path)
        else:
            return False
        return True

    def _compressed(self, inner: Any, path: str, depth: int, *, sure: bool) -> bool:
        try:
            inner.read(1)
            inner.seek(0)
        except _ERRORS:
            if sure and path.endswith(PICKLES):
                raise
            return False
        self.look(inner, path.removesuffix(".gz").removesuffix(".bz2"), depth + 1)
        return True

    def _zlib(self, stream: BinaryIO, path: str, depth: int) -> bool:
        with tempfile.TemporaryFile() as inflated:
            try:
                for piece in _inflate(stream):
                    inflated.write(piece)
            except zlib.error:
                return False  # two bytes may begin anything
            inflated.seek(0)
            self.look(inflated, path, depth + 1)
        return True

    def _zip(self, stream: BinaryIO, path: str, depth: int) -> None:
        with zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                if member.flag_bits & 1:
                    raise Unreadable(f"{member.filename} says that it is encrypted")
                with archive.open(member) as content:
                    if member.filename == "schema.json":
                        self._skops(content.read(_SCHEMA_BYTES))
                        continue
                    name = f"{path}/{member.filename}".lower()
                    self.look(content, name, depth + 1)
        self.seen |= path.endswith(PICKLES)

    def _tar(self, stream: BinaryIO, path: str, depth: int) -> None:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for member in archive:
                if (content := archive.extractfile(member)) is not None:
                    self.look(content, f"{path}/{member.name}".lower(), depth + 1)
        stream.seek(0)
        self._pickles(stream, b"", "")  # the name of its first member may be one
        self.seen |= path.endswith(PICKLES)

    def _array(self, stream: BinaryIO, path: str) -> None:
        major = stream.read(8)[6]
        width = 2 if major == 1 else 4
        size = int.from_bytes(stream.read(width), "little")
        if size > _SCHEMA_BYTES:
            raise Unreadable("the header of an array is too large")
        header = ast.literal_eval(stream.read(size).decode("latin-1"))
        self.seen |= path.endswith(PICKLES)
        if _has_objects(header["descr"]):
            self._pickles(stream, b"", path + ".pkl")

    def _skops(self, data: bytes) -> None:
        if len(data) == _SCHEMA_BYTES:
            raise Unreadable("its schema is too large")
        for name in _skops_names(json.loads(data)):
            self.seen = True
            self.inventory.named.add(name)
            self.inventory.called.add(name)

    def _pickles(self, stream: BinaryIO, head: bytes, path: str) -> None:
        """Reads pickles, one after the other, up to something else, as every reader would."""
        start = stream.tell()
        if self._as_joblib(stream, head, path):
            stream.seek(start)
            self._as_pickle(stream)

    def _as_joblib(self, stream: BinaryIO, head: bytes, path: str) -> bool:
        """Returns whether there were raw bytes of arrays, which joblib alone passes over."""
        source, named, first = Bytes(stream), path.endswith((*PICKLES, ".pkl")), True
        certain = head[:1] == b"\x80" and head[1:2] <= b"\x05"
        has_arrays = False
        while source.peek(1):
            inventory = Inventory()
            machine = Machine(source, inventory, self._nested, as_joblib=True)
            try:
                run(machine)
            except Unreadable as error:
                if isinstance(error, Hostile) or (first and named):
                    raise
                # Whatever an unpickler has called by then, it has called.
                calls = inventory.called or any(map(is_never_allowed, inventory.named))
                if calls or (inventory.problems and ((first and certain) or inventory.named)):
                    raise Hostile(f"behind its calls, {error}") from error
                return has_arrays
            if first and not (named or certain or inventory.named):
                return False  # a text may be read as a pickle of a number
            self._keep(inventory)
            first, has_arrays = False, has_arrays or machine.has_arrays
        return has_arrays

    def _as_pickle(self, stream: BinaryIO) -> None:
        """Notes what it is to a reader that takes the raw bytes of arrays for opcodes."""
        source = Bytes(stream)
        while source.peek(1):
            inventory = Inventory()
            try:
                run(Machine(source, inventory, self._nested, as_joblib=False))
            except Hostile:
                raise
            except Unreadable:
                self._keep(inventory)
                return
            self._keep(inventory)

    def _nested(self, payload: bytes) -> bool:
        """Looks into a payload; returns whether it is pickles, and was read."""
        if self._nested_in >= _DEEPEST:
            raise Hostile("pickles are nested too deeply")
        inner = _Looker(self._nested_in + 1)
        try:
            inner.look(BytesIO(payload), "", 1)
        except Unreadable as error:
            if isinstance(error, Hostile) or payload.startswith(NESTED) or inner.seen:
                raise
            return False  # two bytes may begin anything
        if inner.seen:
            self._keep(inner.inventory)
        return inner.seen and payload[:1] == b"\x80"

    def _keep(self, more: Inventory) -> None:
        self.seen = True
        self.inventory.called |= more.called
        self.inventory.constructed |= more.constructed
        self.inventory.named |= more.named
        self.inventory.modules |= more.modules
        self.inventory.problems |= more.problems
        self.inventory.by_value |= more.by_value
        if self.inventory.by_value and WRAPPER in self.inventory.named:
            self.inventory.problems.add("makes classes next to arrays that joblib wrote")


def _inflate(stream: BinaryIO) -> Iterator[bytes]:
    inflater, size = zlib.decompressobj(), 0
    while not inflater.eof and (data := inflater.unconsumed_tail or stream.read(1 << 20)):
        piece = inflater.decompress(data, 1 << 20)
        size += len(piece)
        if size > _INFLATED_BYTES:
            raise Unreadable("it is too large once it is inflated")
        yield piece


def _is_tar(head: bytes) -> bool:
    """Whether a header of 512 bytes has the checksum of an old tar's."""
    try:
        return tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape").size >= 0
    except tarfile.HeaderError:
        return False


def _has_objects(descr: Any) -> bool:
    if isinstance(descr, str):
        return descr.lstrip("|<>=").startswith("O")
    return any(_has_objects(part) for part in descr if not isinstance(part, int))


def _skops_names(node: Any) -> Iterator[Name]:
    """Yields every type and function that a schema of skops names."""
    if isinstance(node, list):
        for part in node:
            yield from _skops_names(part)
    if not isinstance(node, dict):
        return
    for module, name in (("__module__", "__class__"), ("module_path", "function")):
        if isinstance(node.get(module), str) and isinstance(node.get(name), str):
            yield Name(node[module], node[name])
    for part in node.values():
        yield from _skops_names(part)
