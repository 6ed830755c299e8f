from __future__ import annotations

import io
import subprocess
import tarfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.artifacts.pull import LocalFile
from adroit_publish.bundle import layer as layer_module
from adroit_publish.bundle.content import Concatenation, InlineFile
from adroit_publish.bundle.digest import Digest, sha256_of
from adroit_publish.bundle.layer import LayerRecipe, PackedFile, hash_layer, model_recipes
from adroit_publish.errors import SourceError, VerificationError

NAMES = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/"),
    min_size=1,
    max_size=120,
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))


def packed(files):
    return tuple(
        PackedFile(f"opt/adroit/model/{path}", InlineFile(data), path.endswith(".sh"))
        for path, data in files.items()
    )


def tar_bytes(layer):
    return b"".join(bytes(chunk) for chunk in layer.content.chunks())


def hashed(files):
    return hash_layer(LayerRecipe("model", packed(files)))


def test_a_layer_is_the_tar_that_tarfile_and_gnu_tar_read(tmp_path):
    long_name = "d" * 90 + "/" + "f" * 120 + ".txt"
    files = {"a/b.txt": b"hello", "run.sh": b"#!", "ü.bin": bytes(1000), long_name: b"x" * 512}
    data = tar_bytes(hashed(files))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        read = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
        assert read == {f"opt/adroit/model/{path}": body for path, body in files.items()}
        for member in tar:
            assert (member.uid, member.gid, member.mtime, member.uname) == (0, 0, 0, "")
            executable = member.isdir() or member.name.endswith(".sh")
            assert member.mode == (0o755 if executable else 0o644)
    (tmp_path / "layer.tar").write_bytes(data)
    subprocess.run(["tar", "xf", "layer.tar"], cwd=tmp_path, check=True)
    assert (tmp_path / "opt/adroit/model/ü.bin").read_bytes() == bytes(1000)


def test_the_bytes_are_fixed_for_ever():
    """Changing this digest would change every version: it needs a new bundle schema."""
    files = {"MLmodel": b"flavors: {}\n", "data/ü.bin": bytes(range(256)), "run.sh": b"#!/bin/sh\n"}
    assert hashed(files).descriptor.digest == (
        "sha256:f892110b4a3ffd5af152fb76b192d4479470a8edfe3b45e598317006c811d308"
    )


def test_opt_itself_is_left_to_the_base_image():
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(hashed({"x": b""})))) as tar:
        assert tar.getnames() == ["opt/adroit", "opt/adroit/model", "opt/adroit/model/x"]


@given(st.dictionaries(NAMES, st.binary(max_size=2000), min_size=1, max_size=8))
def test_any_names_come_back_from_the_tar(files):
    layer = hashed(files)
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(layer))) as tar:
        read = {
            m.name[len("opt/adroit/model/") :]: tar.extractfile(m).read() for m in tar if m.isfile()
        }
    assert read == files
    assert layer.descriptor.digest == sha256_of(layer.content)
    entries = {entry.path: entry.as_dict() for entry in layer.entries}
    assert {path: entry["sha256"] for path, entry in entries.items()} == {
        path: Digest.of(data).hex for path, data in files.items()
    }


def test_the_order_of_files_does_not_matter():
    files = {"b": b"1", "a/c": b"2", "a-b": b"3", "a": b""}
    del files["a"]
    one, two = hashed(files), hashed(dict(reversed(files.items())))
    assert one.descriptor == two.descriptor


def test_a_range_of_a_layer_is_that_range_of_its_bytes():
    layer = hashed({f"f{i}": bytes([i]) * (i * 300) for i in range(20)})
    whole = tar_bytes(layer)
    for start, stop in [(0, 1), (511, 513), (700, 5000), (len(whole) - 3, len(whole)), (9, 9)]:
        assert b"".join(bytes(c) for c in layer.content.chunks(start, stop)) == whole[start:stop]


def test_a_large_layer_knows_the_crc_of_each_of_its_parts(monkeypatch):
    monkeypatch.setattr(layer_module, "PART_BYTES", 3000)
    layer = hashed({"w": bytes(range(256)) * 40, "x": b"y"})
    data = tar_bytes(layer)
    wanted = [zlib.crc32(data[at : at + 3000]) for at in range(0, len(data), 3000)]
    assert list(layer.content.part_crc32s) == wanted
    assert layer.descriptor.digest == Digest.of(data)
    assert hashed({"w": b"small"}).content.part_crc32s is None


def test_large_files_stand_alone_and_all_others_share(monkeypatch):
    monkeypatch.setattr(layer_module, "LARGE_FILE_BYTES", 100)
    monkeypatch.setattr(layer_module, "MAX_LARGE_LAYERS", 3)
    sizes = {"w1": 100, "w2": 400, "w3": 300, "w4": 200, "small": 99}
    recipes = model_recipes(packed({name: bytes(size) for name, size in sizes.items()}))
    names = [[file.path.rpartition("/")[2] for file in recipe.files] for recipe in recipes]
    assert names == [["w2"], ["w3"], ["w4"], ["w1", "small"]]
    assert [recipe.alone for recipe in recipes] == [True, True, True, False]
    alone = hash_layer(recipes[0])
    (entry,) = alone.entries
    assert entry.as_dict() == {"path": "w2", "size": 400, "layer": str(alone.descriptor.digest)}


def test_a_size_beyond_ustar_goes_into_a_pax_header():
    huge = 8**11 + 5
    header = layer_module.tar_header(
        "opt/adroit/model/w", size_bytes=huge, directory=False, executable=False
    )
    member = tarfile.TarFile(fileobj=io.BytesIO(header + bytes(1024))).next()
    assert member is not None
    assert member.size == huge


def test_a_whiteout_name_is_refused():
    with pytest.raises(SourceError, match=r"\.wh\.secret"):
        hashed({"a/.wh.secret": b""})


@pytest.mark.parametrize("body", [b"short", b"much longer than before"])
def test_a_file_that_changed_its_length_is_noticed(tmp_path, body):
    path = tmp_path / "f"
    path.write_bytes(b"ten  bytes")
    content = Concatenation((LocalFile(str(path), 10),))
    assert sha256_of(content) == Digest.of(b"ten  bytes")
    path.write_bytes(body)
    with pytest.raises(VerificationError, match="changed its length"):
        sha256_of(content)
