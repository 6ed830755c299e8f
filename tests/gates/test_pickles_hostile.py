"""Two hundred hostile pickles and more, in every form that a loader would read, are refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile
import zlib

import cloudpickle
import joblib
import numpy as np
import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.errors import RefusedError
from adroit_publish.gates.pickles.check import check_pickles


def refused(data: bytes, path: str = "model.pkl") -> str:
    with pytest.raises(RefusedError) as caught:
        check_pickles({f"model/{path}": InlineFile(data)}, (), ())
    assert f"model/{path}" in str(caught.value.got)
    return str(caught.value.got)


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


FUNCTIONS = {
    "os system": "id", "posix system": "id", "nt system": "id", "os popen": "id",
    "posix execv": "id", "posix spawnv": "id", "subprocess run": "id", "subprocess Popen": "id",
    "subprocess check_output": "id", "subprocess getoutput": "id", "builtins eval": "1",
    "builtins exec": "1", "builtins compile": "1", "builtins __import__": "os",
    "builtins open": "/etc/passwd", "builtins setattr": "x", "builtins delattr": "x",
    "builtins globals": "x", "builtins breakpoint": "x", "builtins map": "x",
    "pty spawn": "sh", "runpy run_path": "x", "code interact": "x", "pickle loads": "x",
    "_pickle loads": "x", "marshal loads": "x", "importlib import_module": "os",
    "ctypes CDLL": "libc.so.6", "socket create_connection": "x", "shutil rmtree": "/",
    "urllib.request urlopen": "http://x", "http.client HTTPSConnection": "x",
    "webbrowser open": "x", "timeit timeit": "x", "cProfile run": "x", "pdb run": "x",
    "bdb Bdb": "x", "trace Trace": "x", "pydoc locate": "os", "pkgutil resolve_name": "os:system",
    "operator attrgetter": "system", "operator methodcaller": "x",
    "asyncio run": "x", "multiprocessing Process": "x", "threading Thread": "x",
    "numpy load": "x", "numpy fromfile": "x", "numpy.f2py.crackfortran getlincoef": "x",
    "numpy.testing._private.utils runstring": "x", "pandas read_pickle": "x",
    "pandas HDFStore": "x", "pandas eval": "x", "joblib load": "x", "joblib.memory Memory": "x",
    "torch load": "x", "torch.hub load": "x", "torch.utils.collect_env run": "x",
    "torch.package PackageImporter": "x", "sklearn.datasets fetch_openml": "x",
    "mlflow.pyfunc load_model": "x", "mlflow.projects run": "x", "types FunctionType": "x",
    "shelve open": "x", "tempfile mktemp": "x", "logging FileHandler": "x", "venv create": "x",
    "pip main": "x", "distutils.spawn spawn": "x", "os.path expanduser": "x", "sys exit": "x",
    "no_such_module thing": "x", "sklearn.ensemble os.system": "x", "data_prep os.system": "x",
}  # fmt: skip


def by_global(name: str, argument: str) -> bytes:
    module, _, function = name.partition(" ")
    return f"c{module}\n{function}\n(S'{argument}'\ntR.".encode()


def by_stack_global(name: str, argument: str) -> bytes:
    texts = [name.partition(" ")[0], name.partition(" ")[2], argument]
    module, function, value = (b"\x8c" + bytes([len(t)]) + t.encode() for t in texts)
    return b"\x80\x04" + module + function + b"\x93" + value + b"\x85R."


def by_memo(name: str, argument: str) -> bytes:
    texts = [name.partition(" ")[0], name.partition(" ")[2], argument]
    module, function, value = (b"\x8c" + bytes([len(t)]) + t.encode() for t in texts)
    memo = module + b"\x940" + function + b"\x940"
    return b"\x80\x04" + memo + b"h\x00h\x01\x93" + value + b"\x85R."


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("form", [by_global, by_stack_global, by_memo])
def test_a_function_that_no_model_needs_is_refused(name, form):
    data = form(name, FUNCTIONS[name])
    pickletools.dis(data, io.StringIO())  # a pickle it is
    assert name.partition(" ")[2] in refused(data)


def test_what_python_2_called_it_is_known():
    assert "builtins.eval" in refused(b"c__builtin__\neval\n(S'1'\ntR.")
    assert "subprocess.getoutput" in refused(b"ccommands\ngetoutput\n(S'id'\ntR.")


S = b"\x8c\x02os\x8c\x06system\x93"
ARG = b"\x8c\x02id\x85"
ODD = {
    "inst": b"(S'id'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'id'\no.",
    "newobj": b"\x80\x02cos\nsystem\n(S'id'\nt\x81.",
    "newobj_ex": b"\x80\x04" + S + ARG + b"}\x92.",
    "build": b"\x80\x04" + S + b"}\x8c\x01a\x8c\x01bsb.",
    "named only": b"\x80\x04" + S + b".",
    "popped": b"\x80\x04" + S + ARG + b"R0N.",
    "in a list": b"\x80\x04](" + S + ARG + b"Re.",
    "in a dict": b"\x80\x04}\x8c\x01k" + S + ARG + b"Rs.",
    "duplicated": b"\x80\x04" + S + b"20" + ARG + b"R.",
    "memo by number": b"\x80\x04" + S + b"q\xff0h\xff" + ARG + b"R.",
    "memo by text": b"cos\nsystem\np99\n0g99\n(S'id'\ntR.",
    "long memo": b"\x80\x04" + S + b"r\xff\xff\x00\x000j\xff\xff\x00\x00" + ARG + b"R.",
    "ext": b"\x80\x02\x82\x07.",
    "ext1": b"\x80\x02\x82\x01.", "ext2": b"\x80\x02\x83\x01\x00.",
    "ext4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "text long": b"\x80\x04X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93" + ARG + b"R.",
    "text longer": b"\x80\x04\x8d" + struct.pack("<Q", 2) + b"os\x8c\x06system\x93" + ARG + b"R.",
    "text of python 2": b"\x80\x04U\x02osU\x06system\x93" + ARG + b"R.",
    "text in unicode": b"\x80\x04Vo\\u0073\nVsystem\n\x93" + ARG + b"R.",
    "text in a string": b"\x80\x04S'o\\x73'\nS'system'\n\x93" + ARG + b"R.",
    "module computed": b"\x80\x04cbuiltins\nstr\n\x8c\x02os\x85R\x8c\x06system\x93" + ARG + b"R.",
    "name computed": b"\x80\x04\x8c\x02oscbuiltins\nstr\n\x8c\x06system\x85R\x93" + ARG + b"R.",
    "names from a tuple": b"\x80\x04\x8c\x02os\x8c\x06system\x86\x93.",
    "getattr of a module": b"ccloudpickle.cloudpickle\nsubimport\n(S'os'\ntRp1\n0cbuiltins\ngetattr"
    b"\n(g1\nS'system'\ntR(S'id'\ntR.",
    "getattr of a private name": b"cbuiltins\ngetattr\n(cbuiltins\nlist\nS'__subclasses__'\ntR(tR.",
    "getattr by a computed name": b"cbuiltins\ngetattr\n(cbuiltins\nlist\ncbuiltins\nstr\n(tRtR.",
    "what getattr gave is called": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR(tR.",
    "computed import": b"ccloudpickle.cloudpickle\nsubimport\n(cbuiltins\nstr\n(tRtR.",
    "call of a by-value type": b"ccloudpickle.cloudpickle\n_builtin_type\n(S'FunctionType'\ntR(tR.",
    "reduce by reduce": b"cfunctools\nreduce\n(cos\nsystem\n(S'id'\nltR.",
    "copyreg": b"ccopyreg\n__newobj__\n(cos\nsystem\nS'id'\ntR.",
    "reconstructor": b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncbuiltins\nobject\nNtR.",
    "state of a class": b"csklearn.svm\nSVC\n}S'__setstate__'\ncos\nsystem\nsb.",
    "state of an allowed class": b"csklearn.svm\nSVC\n}S'a'\nS'b'\nsb.",
    "items of what is imported": b"cnumpy\nndarray\nS'a'\nS'b'\ns.",
    "setter of cloudpickle": b"ccloudpickle.cloudpickle\n_function_setstate\n(cnumpy\nlog\n(}}ttR.",
    "partial": b"cfunctools\npartial\n(cos\nsystem\nS'id'\ntR.",
    "default": b"ccollections\ndefaultdict\n(cos\nsystem\ntR.",
    "metaclass": b"ccloudpickle.cloudpickle\n_make_skeleton_class\n(cbuiltins\nexec\nS'x'\n"
    b"(t}NNtR.",
    "two protocols": b"\x80\x02\x80\x04" + S + ARG + b"R.",
    "behind a harmless one": b"\x80\x04N.\x80\x04" + S + ARG + b"R.",
    "behind three": pickle.dumps(1) * 3 + b"cos\nsystem\n(S'id'\ntR.",
    "cut off behind the call": b"\x80\x04" + S + ARG + b"R",
    "broken behind the call": b"\x80\x04" + S + ARG + b"R\xff\xff",
    "cut off": pickle.dumps(list(range(1000)))[:100],
    "not an opcode": b"\x80\x04\xff.",
    "empty stack": b"\x80\x04R.", "no memo": b"\x80\x04h\x05.", "no mark": b"\x80\x04t.",
    "a length that lies": b"\x80\x04B\xff\xff\xff\x7fabc.",
    "a length beyond all": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "a length beyond a file": b"\x80\x04\x8e" + b"\xff" * 8 + b".",
    "a line that does not end": b"cos",
    "not a pickle at all": b"\x00" * 100,
    "text": b"hello, world\n",
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_pickle_is_refused(kind):
    refused(ODD[kind])


EVIL = by_stack_global("os system", "id")


def zipped(name: str, data: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    place = io.BytesIO()
    with zipfile.ZipFile(place, "w", how) as archive:
        archive.writestr("harmless.txt", "x")
        archive.writestr(name, data)
    return place.getvalue()


def tarred(data: bytes, how: str, kind: int = tarfile.PAX_FORMAT) -> bytes:
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode=how, format=kind) as archive:
        member = tarfile.TarInfo("inner")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return place.getvalue()


def named_by_a_pickle() -> bytes:
    """A tar of one harmless file, whose name is a pickle to who reads the tar as one."""
    place = io.BytesIO()
    with tarfile.open(fileobj=place, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("cos\nsystem\n(S'id'\ntR."), io.BytesIO())
    return place.getvalue()


def array(*, npz: bool) -> bytes:
    place = io.BytesIO()
    values = np.array([Call(os.system, "id")], dtype=object)
    np.savez(place, a=np.zeros(2), b=values) if npz else np.save(place, values)
    return place.getvalue()


def joblibbed(**options) -> bytes:
    place = io.BytesIO()
    joblib.dump({"w": np.arange(9.0), "e": Call(os.system, "id")}, place, **options)
    return place.getvalue()


def joblib_objects() -> bytes:
    place = io.BytesIO()
    joblib.dump(np.array([Call(os.system, "id"), None], dtype=object), place)
    return place.getvalue()


def flag(data: bytes, bits: int) -> bytes:
    """Sets flags of the last member of a zip, in its own header and in the directory."""
    at, directory = data.rindex(b"PK\x03\x04"), data.rindex(b"PK\x01\x02")
    changed = bytearray(data)
    changed[at + 6] |= bits
    changed[directory + 8] |= bits
    return bytes(changed)


STORED = zipped("data.pkl", EVIL, zipfile.ZIP_STORED)
SCHEMA = b'{"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"}'
NESTED = {
    "zip": zipped("data.pkl", EVIL),
    "zip stored": STORED,
    "zip bzip2": zipped("data.pkl", EVIL, zipfile.ZIP_BZIP2),
    "zip lzma": zipped("data.pkl", EVIL, zipfile.ZIP_LZMA),
    "zip, another name": zipped("../odd\\name.txt", EVIL),
    "zip, no name": zipped("a", EVIL),
    "zip in zip": zipped("inner.zip", zipped("data.pkl", EVIL)),
    "zip behind other bytes": b"#!/bin/sh\n" + zipped("data.pkl", EVIL),
    "zip behind a pickle": pickle.dumps(1) + zipped("data.pkl", EVIL),
    "zip that says encrypted": flag(zipped("data.pkl", EVIL), 1),
    "zip with a wrong sum": STORED.replace(EVIL, EVIL[:-1] + b"N"),
    "zip cut off": zipped("data.pkl", EVIL)[:-30],
    "torch": zipped("archive/data.pkl", EVIL, zipfile.ZIP_STORED),
    "tar": tarred(EVIL, "w"), "tar.gz": tarred(EVIL, "w:gz"), "tar.bz2": tarred(EVIL, "w:bz2"),
    "tar.xz": tarred(EVIL, "w:xz"), "old tar": tarred(EVIL, "w", tarfile.USTAR_FORMAT),
    "gzip": gzip.compress(EVIL), "bzip2": bz2.compress(EVIL), "xz": lzma.compress(EVIL),
    "lzma": lzma.compress(EVIL, lzma.FORMAT_ALONE), "zlib": zlib.compress(EVIL),
    "zlib, fast": zlib.compress(EVIL, 1), "zlib, best": zlib.compress(EVIL, 9),
    "gzip twice": gzip.compress(gzip.compress(EVIL)),
    "gzip cut off": gzip.compress(EVIL)[:-12],
    "deeply": __import__("functools").reduce(lambda d, _: gzip.compress(d), range(12), EVIL),
    "lzma of another dictionary": lzma.compress(
        EVIL, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 0x1001FF}]
    ),
    "the name in a tar": named_by_a_pickle(),
    "zip behind a tar": tarred(b"x", "w") + zipped("data.pkl", EVIL),
    "broken pickle in a pickle": pickle.dumps({"payload": EVIL[:-1] + b"\xff"}),
    "pickles in pickles": __import__("functools").reduce(
        lambda data, _: pickle.dumps({"payload": data}), range(200), EVIL
    ),
    "lz4": b"\x04\x22\x4d\x18" + b"\0" * 50,
    "npy": array(npz=False), "npz": array(npz=True),
    "joblib": joblibbed(), "joblib zlib": joblibbed(compress=3),
    "joblib gzip": joblibbed(compress=("gzip", 3)), "joblib bz2": joblibbed(compress=("bz2", 3)),
    "joblib xz": joblibbed(compress=("xz", 3)), "joblib lzma": joblibbed(compress=("lzma", 3)),
    "joblib objects": joblib_objects(),
    "pickle in a pickle": pickle.dumps({"payload": EVIL}),
    "zip in a pickle": pickle.dumps({"payload": zipped("data.pkl", EVIL)}),
    "skops": zipped("schema.json", SCHEMA),
}  # fmt: skip


@pytest.mark.parametrize("kind", NESTED)
def test_what_is_nested_or_compressed_is_found(kind):
    refused(NESTED[kind])


@pytest.mark.parametrize("kind", sorted(set(NESTED) - {"zip cut off", "gzip cut off"}))
def test_whatever_the_file_is_called(kind):
    refused(NESTED[kind], "artifacts/anything.dat")


@pytest.mark.parametrize("kind", ["broken behind the call", "cut off behind the call", "ext"])
def test_what_was_called_before_the_end_counts_whatever_the_file_is_called(kind):
    refused(ODD[kind].removesuffix(b".") + b"(tR\xff", "artifacts/anything.dat")


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_by_pickle_in_every_protocol(protocol):
    data = pickle.dumps(Call(os.system, "id"), protocol)
    assert "posix.system" in refused(data)
    assert "posix.system" in refused(data, "weights.bin")


def test_pickled_by_cloudpickle():
    assert "posix.system" in refused(cloudpickle.dumps(Call(os.system, "id")))
    assert "builtins.eval" in refused(cloudpickle.dumps(Call(eval, "1")))


@pytest.mark.parametrize("path", ["MODEL.PKL", "a/model.Joblib"])
def test_names_in_capitals_are_names(path):
    refused(b"not a pickle", path)


def test_there_are_more_than_two_hundred():
    assert 3 * len(FUNCTIONS) + len(ODD) + 2 * len(NESTED) > 200


def test_each_file_is_named_in_one_message_and_nothing_has_run(tmp_path):
    marker = tmp_path / "ran"
    evil = pickle.dumps(Call(os.system, f"touch {marker}"))
    files = {f"model/{n}.pkl": InlineFile(evil) for n in "ab"}
    with pytest.raises(RefusedError) as caught:
        check_pickles(files, (), ())
    assert "model/a.pkl imports posix.system" in caught.value.got
    assert "model/b.pkl imports posix.system" in caught.value.got
    assert "allow_pickle_globals: [posix.system]" in caught.value.next_step
    assert not marker.exists()


def test_picklescan_finds_nothing_in_them_that_is_passed_here():
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes

    from adroit_publish.gates.pickles.allowed import is_allowed
    from adroit_publish.gates.pickles.inventory import Name

    for data in [
        form(name, FUNCTIONS[name]) for name in FUNCTIONS for form in (by_global, by_memo)
    ]:
        for found in scan_pickle_bytes(io.BytesIO(data), "x").globals:
            if found.safety == SafetyLevel.Dangerous:
                assert not is_allowed(Name(found.module, found.name)), found
