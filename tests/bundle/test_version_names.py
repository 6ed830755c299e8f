"""Run ids and published versions: text whose type says which of the two it is."""

from __future__ import annotations

import pickle

import pytest

from adroit_publish.bundle.version_names import PublishedVersion, RunId, parse_version

RUN = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"
VERSION = "v5f2b9c01-3f0c9a1b2c3d"


def test_run_ids_and_published_versions_are_told_apart() -> None:
    assert type(parse_version(RUN)) is RunId
    assert type(parse_version(VERSION)) is PublishedVersion
    for neither in ("", RUN + "\n", RUN.upper(), VERSION + "\n", "٣" * 32, "v" + RUN):
        assert not PublishedVersion.matches(neither)
        with pytest.raises(ValueError, match="not a version"):
            parse_version(neither)


def test_they_are_the_text_they_spell_also_when_they_were_pickled() -> None:
    for value in (RunId(RUN), PublishedVersion(VERSION)):
        again = pickle.loads(pickle.dumps(value))
        assert (again, type(again)) == (str(value), type(value))
    assert PublishedVersion(VERSION).run_id_start == "5f2b9c01"
    with pytest.raises(ValueError, match="not a run id"):
        RunId(VERSION)
