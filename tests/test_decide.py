"""The one decision about a flavor: every row of its table, from values alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.document import BundleRecord
from adroit_publish.bundle.layer import FileEntry
from adroit_publish.bundle.version_names import PublishedVersion, RunId
from adroit_publish.config.flavors import Flavor
from adroit_publish.decide import (
    Cannot,
    EnvMoved,
    Facts,
    InOtherTarget,
    InRollover,
    NotImported,
    NoVersion,
    OfAnotherTarget,
    OnHold,
    Publish,
    Republish,
    State,
    UpToDate,
    decide,
    moved_to,
)
from adroit_publish.errors import StoreError

OLD, NEW = Digest.of(b"old"), Digest.of(b"new")
RUN = RunId("0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c")
FLAVOR = Flavor(
    "f", "projects/m/config.yaml", "sklearn", PublishedVersion("v0b5c5b2f-3f0c9a1b2c3d"), None,
    None, 1,
)  # fmt: skip
ENTRY = FileEntry("projects/m/model.py", 3, OLD)
PUBLISHED = BundleRecord(
    model_name="m",
    run_id=RUN,
    model_id=None,
    model_uuid=None,
    serve={"workers": 1},
    signature=None,
    requirements=(),
    python_version=None,
    conda_env_name="sklearn",
    conda_env_digest=OLD,
    files={
        "model": (),
        "runtime": (replace(ENTRY, path="adroit/x.py"),),
        "source": (ENTRY,),
    },
    bundle_id=OLD,
)
SAME = Facts(
    source={ENTRY.path: (OLD, False)},
    runtime={"adroit/x.py": (OLD, False)},
    serve={"workers": 1},
    conda_env="sklearn",
    env_now=OLD,
    published=PUBLISHED,
)


@pytest.mark.parametrize(
    ("flavor", "decision"),
    [
        (replace(FLAVOR, hold="p99 is up"), OnHold("p99 is up")),
        (replace(FLAVOR, hold="held", version=RUN), OnHold("held")),
        (replace(FLAVOR, version=None), NoVersion()),
        (replace(FLAVOR, version=RUN), Publish(RUN)),
    ],
)
def test_what_flavors_yaml_alone_decides(flavor, decision):
    assert decide(flavor, None) == decision


def test_what_cannot_be_found_out_is_a_decision_as_well():
    error, elsewhere = StoreError("away"), OfAnotherTarget("not here")
    assert decide(FLAVOR, error) == Cannot(error)
    assert decide(FLAVOR, elsewhere) == InOtherTarget(elsewhere)


def test_nothing_differs():
    assert isinstance(decide(FLAVOR, SAME), UpToDate)
    assert isinstance(decide(FLAVOR, replace(SAME, env_now=None)), UpToDate)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"source": {ENTRY.path: (NEW, False)}}, "changed projects/m/model.py"),
        ({"source": {ENTRY.path: (OLD, True)}}, "changed projects/m/model.py"),
        ({"source": {}}, "removed projects/m/model.py"),
        ({"source": SAME.source | {"projects/m/a.py": (NEW, False)}}, "added projects/m/a.py"),
        ({"serve": {"workers": 2}}, "changed the serve section of config.yaml"),
        ({"conda_env": "torch"}, "changed the conda env, which was sklearn"),
    ],
)
def test_what_makes_a_flavor_stale(change, line):
    decision = decide(FLAVOR, replace(SAME, **change))
    assert isinstance(decision, Republish)
    assert decision.changes.lines() == [line]
    assert decision.env_now is None


def test_another_runtime_alone_makes_nothing_stale_and_is_told():
    decision = decide(FLAVOR, replace(SAME, runtime={"adroit/x.py": (NEW, False)}))
    assert isinstance(decision, UpToDate)
    assert decision.changes.runtime_line() == "the runtime (adroit/) differs in 1 files"


def test_an_env_that_moved_is_told_and_makes_nothing_stale():
    moved = decide(FLAVOR, replace(SAME, env_now=NEW))
    assert isinstance(moved, EnvMoved)
    assert moved.env_now == NEW
    both = decide(FLAVOR, replace(SAME, env_now=NEW, serve={}))
    assert isinstance(both, Republish)
    assert both.env_now == NEW
    # The flavor names another env: that the old one's name moved is nothing to it.
    other = decide(FLAVOR, replace(SAME, env_now=NEW, conda_env="torch"))
    assert isinstance(other, Republish)
    assert other.env_now is None


def test_an_env_moves_only_from_what_is_pinned_to_what_is_known():
    assert moved_to(OLD, NEW) == NEW
    assert moved_to(OLD, OLD) is None
    assert moved_to(OLD, None) is None
    assert moved_to(None, NEW) is None


IMPORTED = {ENTRY.path}
OTHER = {"projects/m/unused.py": (NEW, False)}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"source": SAME.source | OTHER}, NotImported),
        ({"source": SAME.source | OTHER, "imported": None}, Republish),
        ({"source": {ENTRY.path: (NEW, False)} | OTHER}, Republish),
        ({"source": {}}, Republish),
        ({"source": SAME.source | OTHER | {"projects/m/labels.json": (NEW, False)}}, Republish),
        ({"source": SAME.source | OTHER, "serve": {}}, Republish),
        ({"source": SAME.source | OTHER, "conda_env": "torch"}, Republish),
        ({"serve": {}}, Republish),
    ],
)
def test_what_differs_and_is_not_imported_can_change_no_answer(change, kind):
    decision = decide(FLAVOR, replace(SAME, **({"imported": IMPORTED} | change)))
    assert type(decision) is kind
    assert decision.changes.stale


def test_each_state_has_one_decision():
    kinds = (
        NoVersion,
        OnHold,
        InRollover,
        Publish,
        InOtherTarget,
        Cannot,
        UpToDate,
        EnvMoved,
        Republish,
        NotImported,
    )
    assert sorted(kind.state for kind in kinds) == sorted(State)
