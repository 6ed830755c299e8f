"""Pickles that one reader takes for something else than another are refused."""

from __future__ import annotations

import os
import pickle
import pickletools
import struct

import joblib
import numpy as np
import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import RefusedError
from adroit_publish.gates.pickles.check import check_pickles
from tests.gates.test_pickles_hostile import refused
from tests.gates.test_pickles_of_models import dumps_joblib, imports

EVIL = b"cposix\nsystem\n(S'id'\ntR0"


def text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def dtype(code: str) -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x85R"


WRAPPER = name("joblib.numpy_pickle", "NumpyArrayWrapper")


def described(code: bytes, *shape: int, more: bytes = b"", wrapper: bytes = b"") -> bytes:
    """An array's description, up to the raw bytes that joblib reads behind it."""
    sizes = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in shape) + b"t"
    items = text("dtype") + code + text("shape") + sizes + more
    return (wrapper or WRAPPER + b")\x81") + b"}(" + items + b"ub"


def with_fields(code: str, size: int, flags: int) -> bytes:
    """A dtype of raw bytes that its state makes one of objects."""
    fields = b"}" + text("a") + dtype("O8") + b"K\x00\x86s"
    parts = b"K\x03" + text("|") + b"N" + text("a") + b"\x85" + fields
    return dtype(code) + b"(" + parts + b"K" + bytes([size]) + b"K\x01K" + bytes([flags]) + b"tb"


START, END = b"\x80\x04", b"0N."
LONG = b"B" + struct.pack("<I", len(EVIL))
"""What passes over the call behind it, to a reader that reads it."""

READ_IN_TWO_WAYS = {
    "what pickle reads and joblib does not": described(dtype("S1"), len(EVIL)) + EVIL,
    "the same, behind another": described(dtype("S1"), 1)
    + b"N0"
    + described(dtype("S1"), len(EVIL))
    + EVIL,
    "bytes that a state makes objects": described(with_fields("V8", 8, 63), 4) + EVIL,
    "bytes with the flag alone": described(dtype("V8") + b"(K\x03" + text("|") + b"NNNK\x08K\x01"
                                           b"K\x3ftb", 4) + EVIL,
    "a state twice": described(dtype("V1") + (b"(K\x03" + text("|") + b"NNNK\x01K\x01K\x00tb") * 2,
                               4) + EVIL,
    "another size than its code's": described(
        dtype("V1") + b"(K\x03" + text("|") + b"NNNK\x05K\x01K\x00tb", 1
    ) + LONG + EVIL,
    "a code without a size": described(dtype("d"), 1) + EVIL,
    "a dtype that is none": described(name("builtins", "str") + text("S5") + b"\x85R", 1) + EVIL,
    "a shape below nothing": described(dtype("S1"), -4) + EVIL,
    "a shape beyond all": described(dtype("S1"), *[2**31 - 1] * 5) + EVIL,
    "a key that it computes": described(
        dtype("S1"), 1, more=name("builtins", "str") + text("dtype") + b"\x85R" + dtype("S5")
    ) + LONG + EVIL,
    "a padding that it computes": described(
        dtype("S1"), 1,
        more=text("numpy_array_alignment_bytes") + name("builtins", "print") + b")R",
    ) + LONG + EVIL,
    "objects that may be mapped": described(dtype("O8"), 1, more=text("allow_mmap") + b"\x88")
    + b"N." + LONG + EVIL,
    "a description out of a list": name("_operator", "getitem") + b"(]" + WRAPPER + b")\x81aK\x00tR"
    + described(dtype("S5"), 1)[len(WRAPPER) + 2 :] + LONG + EVIL,
    "a description out of a tuple": b"(" + WRAPPER + b")\x81" + b"t0"
    + described(dtype("S5"), 1)[len(WRAPPER) + 2 :] + LONG + EVIL,
    "a description out of reduce": name("functools", "reduce") + name("numpy", "dtype") + b"]"
    + WRAPPER + b")\x81a\x86R" + described(dtype("S5"), 1)[len(WRAPPER) + 2 :] + LONG + EVIL,
    "none out of reduce": described(
        dtype("S1"), len(EVIL),
        wrapper=name("functools", "reduce") + b"(" + WRAPPER + b"]" + name("datetime", "date")
        + b")\x81tR",
    ) + EVIL,
    "a description made by computed values": described(
        dtype("S5"), 1, wrapper=WRAPPER + name("builtins", "tuple") + b"](NNNNe\x85RR"
    ) + LONG + EVIL,
    "a description from the memo": WRAPPER + b")\x81\x94" + b"0h\x00"
    + described(dtype("S5"), 1)[len(WRAPPER) + 2 :] + LONG + EVIL,
    "a description twice": WRAPPER + b")\x812" + described(dtype("S5"), 1)[len(WRAPPER) + 2 :]
    + LONG + EVIL,
    "a class of one's own": name("cloudpickle.cloudpickle", "_make_skeleton_class")
    + b"(" + name("builtins", "object") + text("X") + WRAPPER + b"\x85}NNtR)\x81}b" + LONG + EVIL,
    "a description by joblib before 0.10": name("joblib.numpy_pickle", "NDArrayWrapper")
    + b")\x81}b",
}  # fmt: skip


@pytest.mark.parametrize("kind", READ_IN_TWO_WAYS)
@pytest.mark.parametrize("path", ["model.pkl", "model.joblib", "anything.dat"])
def test_an_array_that_its_readers_read_in_two_ways_is_refused(kind, path):
    refused(START + READ_IN_TWO_WAYS[kind] + END, path)


def test_what_pickle_would_call_in_the_bytes_of_an_array_is_named(tmp_path):
    marker = tmp_path / "ran"
    call = f"cposix\nsystem\n(S'touch {marker}'\ntR0".encode()
    data = START + described(dtype("S1"), len(call)) + call + END
    assert "imports posix.system" in refused(data)
    pickle.loads(data)
    assert marker.exists()  # it is what it says


KINDS = {
    "dates": np.array(["2020-01-01"], dtype="M8[D]"), "structured": np.zeros(3, "i4,f8"),
    "aligned": np.zeros(3, np.dtype("i1,f8", align=True)), "flags": np.zeros(3, bool),
    "complex": np.zeros(3, complex), "raw": np.zeros(3, "V5"), "texts": np.array(["abc", "d"]),
    "empty": np.zeros((0, 3)), "one": np.array(3.0), "F": np.asfortranarray(np.zeros((3, 2))),
    "big endian": np.zeros(3, ">f8"),
    "parts": np.zeros(3, [("a", "f4", (2,))]), "long": np.zeros(2, np.longdouble),
    "masked": np.ma.array([1, 2], mask=[0, 1]), "matrix": np.matrix([[1, 2]]),
    "objects": np.array([{"a": 1}, None], dtype=object), "bytes": np.array([b"ab"]),
    "structured objects": np.array([({"a": 1}, 2.0)] * 50, [("a", "O"), ("b", "f8")]),
    "opcodes": np.full(100, ord("."), np.uint8), "names": np.frombuffer(b"cos\n" * 9, np.uint8),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
def test_every_array_that_joblib_writes_passes(kind, compress):
    array = KINDS[kind]
    assert imports(dumps_joblib([array, "between", array, np.ones(2)], compress=compress))


def test_arrays_without_padding_pass_as_joblib_wrote_them_before_1_2(monkeypatch):
    monkeypatch.setattr(joblib.numpy_pickle, "NUMPY_ARRAY_ALIGNMENT_BYTES", None)
    chance = np.random.default_rng(1)
    refusals = 0
    for _ in range(200):
        data = dumps_joblib({"a": chance.random(50), "b": chance.random(3)})
        try:
            check_pickles({"model/a.joblib": InlineFile(data)}, (), ())
        except RefusedError:
            refusals += 1
    assert refusals <= 8


UNLIKELY = b"0c1x\ny z\n."


@pytest.mark.parametrize("path", ["model.pkl", "python_model.bin", "MLmodel"])
@pytest.mark.parametrize("call", [
    b"cposix\nsystem\n(S'id'\ntR", b"(S'id'\niposix\nsystem\n", b"(cposix\nsystem\nS'id'\no",
    b"cos\nenviron\nS'PATH'\nS'.'\ns", b"csubprocess\nrun\n",
])  # fmt: skip
def test_a_name_that_nothing_has_behind_a_call_hides_nothing(call, path):
    refused(call + UNLIKELY, path)


def test_an_old_file_of_joblib_is_refused_whatever_it_is_called():
    refused(b"ZF0x10               " + os.urandom(40), "anything.dat")


def test_a_frame_that_goes_on_behind_an_array_is_refused():
    head = described(dtype("S1"), len(EVIL)) + EVIL
    framed = b"\x95" + struct.pack("<Q", len(head) + len(END)) + head + END
    first = described(dtype("S1"), 1, more=text("numpy_array_alignment_bytes") + b"K\x10")
    refused(START + first + b"\x00N0" + framed, "anything.dat")


def test_a_refusal_shows_no_character_that_a_terminal_acts_on():
    data = b"cevil\x1b[31m\nna\x07me\n."
    assert "\x1b" not in refused(data)
    assert "\x07" not in refused(data)


LOAD = name("torch.storage", "_load_from_bytes")
INNER = b"\x80\x02" + EVIL + b"N."
SPLIT = name("_operator", "add") + b"C\x01\x80C" + bytes([len(INNER) - 1]) + INNER[1:] + b"\x86R"
LATIN = INNER.decode("latin-1").encode()
ENCODE = b"c_codecs\nencode\n"
UNREAD = {
    "put together": b"\x80\x04" + LOAD + SPLIT + b"\x85R.",
    "of an older protocol": b"\x80\x04" + LOAD + b"C" + bytes([len(EVIL)]) + EVIL + b"\x85R.",
    "that may change": b"\x80\x05" + LOAD + b"\x96" + struct.pack("<Q", 4) + b"\x80\x02N.\x85R.",
    "in another encoding": b"\x80\x02ctorch.storage\n_load_from_bytes\n" + ENCODE
    + b"X\x03\0\0\0abcX\x05\0\0\0utf-7\x86R\x85R.",
    "as protocol 2 writes them": b"\x80\x02ctorch.storage\n_load_from_bytes\n" + ENCODE + b"X"
    + struct.pack("<I", len(LATIN)) + LATIN + b"X\x06\0\0\0latin1\x86R\x85R.",
    "as protocol 2 writes many": pickle.dumps({"payload": INNER + bytes(9000)}, 2),
    "as protocol 2 writes them for any": pickle.dumps({"payload": INNER}, 2),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREAD)
def test_bytes_that_are_unpickled_later_are_read_first(kind):
    refused(UNREAD[kind])


@pytest.mark.parametrize("elements", [1, 46, 128, 130, 131, 132, 149])
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_torch_pickles_of_a_storage_passes(protocol, elements):
    payload = b"".join(pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {}))
    payload += struct.pack("<Q", elements) + bytes(4 * elements)
    data = pickletools.optimize(pickle.dumps(payload, protocol))[2:-1]
    call = b"ctorch.storage\n_load_from_bytes\n" + data + b"\x85R."
    assert imports(b"\x80" + bytes([protocol]) + call)
