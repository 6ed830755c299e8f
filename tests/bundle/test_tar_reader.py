from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.bundle.layer import LayerRecipe, hash_layer
from adroit_publish.bundle.tar_reader import TarReader
from adroit_publish.errors import VerificationError
from tests.bundle.test_layer import NAMES, hashed, packed, tar_bytes


def read(data, piece_bytes=1000):
    pieces = (data[at : at + piece_bytes] for at in range(0, len(data), piece_bytes))
    reader = TarReader(pieces, "layer")
    return {
        member.path: b"".join(bytes(piece) for piece in reader.content())
        for member in reader.members()
        if not member.directory
    }


@given(st.dictionaries(NAMES, st.binary(max_size=2000), max_size=6), st.integers(1, 5000))
def test_what_was_packed_is_read_back(files, piece_bytes):
    expected = {f"opt/adroit/model/{path}": data for path, data in files.items()}
    assert read(tar_bytes(hashed(files)), piece_bytes) == expected


def test_content_that_nobody_reads_is_skipped():
    reader = TarReader(iter([tar_bytes(hashed({"a": bytes(5000), "b": b"x"}))]), "layer")
    assert [member.path.rpartition("/")[2] for member in reader.members()][-2:] == ["a", "b"]


@pytest.mark.parametrize("cut", [1, 511, 512, 1024, 1025, 2000])
def test_a_tar_that_is_cut_is_noticed(cut):
    data = tar_bytes(hashed({"a": bytes(3000)}))
    with pytest.raises(VerificationError, match="its end"):
        read(data[:-cut])


def test_bytes_after_the_end_are_noticed():
    with pytest.raises(VerificationError, match="after its end"):
        read(tar_bytes(hashed({"a": b"x"})) + b"\0")


def foreign(name="opt/adroit/model/x", **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(b"x" * info.size))
    return stream.getvalue()


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "/etc/passwd"},
        {"name": "etc/passwd"},
        {"name": "opt/adroit/../../etc/passwd"},
        {"name": "opt/adroit/model//x"},
        {"name": "opt/adroit2/x"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "opt/adroit/bundle.json"},
        {"type": tarfile.CHRTYPE},
        {"type": tarfile.FIFOTYPE},
        {"mode": 0o4755},
        {"mode": 0o600},
        {"uid": 1},
        {"uname": "root"},
        {"mtime": 1},
        {"mtime": 1.5},
        {"pax_headers": {"path": "opt/adroit/model/short"}},
        {"pax_headers": {"SCHILY.xattr.security.capability": "x"}},
        {"name": "opt/adroit/x", "type": tarfile.GNUTYPE_SPARSE},
    ],
)
def test_what_this_program_would_not_write_is_refused(fields):
    with pytest.raises(VerificationError):
        read(foreign(**fields))


def test_every_flipped_header_byte_is_noticed_or_harmless():
    data = tar_bytes(hash_layer(LayerRecipe("model", packed({"a": b"x" * 600}))))
    names = {"opt/adroit/model/a": b"x" * 600}
    for at in range(0, 512 * 3):
        broken = bytearray(data)
        broken[at] ^= 1
        try:
            assert read(bytes(broken)) == names
        except VerificationError:
            continue
        pytest.fail(f"byte {at} was flipped and nobody noticed")
