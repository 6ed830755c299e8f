"""evidence.sitevars: what the first release wrote of pointers and their history is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from adroit_publish.config.sitevars import Pointer
from adroit_publish.errors import VerificationError
from adroit_publish.evidence.sitevar_file import FileDocuments
from adroit_publish.evidence.sitevars import Sitevars
from adroit_publish.rollovers.sitevars import StoredDocuments
from adroit_publish.stores.directory import DirectoryObjects

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def sitevars(tmp_path):
    shutil.copy(SAMPLES / "sitevars.json", tmp_path)
    shutil.copytree(SAMPLES / "history", tmp_path / "store")
    kept = StoredDocuments(DirectoryObjects(tmp_path / "store"))
    return Sitevars(FileDocuments(tmp_path), "sitevars.json", kept)


def test_pointers_and_their_history_are_read(sitevars):
    a, both = Pointer.of("a"), Pointer.of({"a": 90, "b": 10})
    assert sitevars.pointers() == {"m": both, "other": Pointer.of("x")}
    first, second = sitevars.history("m")
    assert (first.who, first.why, first.before, first.after) == ("ada", "first", None, a)
    assert (second.before, second.after) == (a, both)


@pytest.mark.parametrize(
    ("change", "what"),
    [({"schema": 2}, "newer version"), ({"after": 7}, "damaged"), ({"utc": None}, "damaged")],
)
def test_a_change_that_cannot_be_understood_is_an_error_that_says_why(
    sitevars, tmp_path, change, what
):
    path = min((tmp_path / "store/sitevars/m/history").iterdir())
    path.chmod(0o644)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(VerificationError, match=what):
        sitevars.history("m")
