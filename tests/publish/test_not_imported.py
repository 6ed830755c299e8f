"""An edit of a Python file that nothing imports changes no answer: told, and not published."""

from __future__ import annotations

from pathlib import Path

import pytest

from adroit_publish import publish, republish
from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.layer import LayerRecipe, PackedFile
from adroit_publish.checkout import Checkout, open_checkout
from adroit_publish.decide import State
from adroit_publish.errors import RefusedError
from adroit_publish.places import open_store
from adroit_publish.publish import source
from adroit_publish.publish.planning import Plan, plan
from adroit_publish.publish.prepare_republish import prepare_stale
from adroit_publish.publish.release import RepublishOptions
from adroit_publish.versions.inspect import status
from tests.support.checkouts import commit, make_checkout

ACCEPT = (
    'verify:\n  accept: ["unimported:projects"]   # edits of files that no model here imports\n'
)


@pytest.fixture
def checkout(tmp_path: Path, trained) -> Path:
    """a is published; config.yaml accepts nothing; then features.py changes."""
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    config = root / "projects/doubler/config.yaml"
    text = config.read_text()
    assert ACCEPT in text
    config.write_text(text.replace(ACCEPT, ""))
    commit(root, "accept nothing")
    publish("a", root=root, verify="none")
    edit(root, "projects/doubler/features.py", "SCALE = 3\n")
    return root


def edit(root: Path, path: str, text: str) -> None:
    (root / path).write_text(text)
    commit(root, "edit")


def planned(root: Path) -> Plan:
    (row,) = plan(open_checkout(root, {}))
    return row


def test_plan_and_status_say_so_and_it_is_nothing_to_do(checkout):
    row = planned(checkout)
    assert (row.state, row.to_do) == (State.NOT_IMPORTED, False)
    assert row.why == ("changed projects/doubler/features.py",)
    assert "verify: {accept: [unimported:projects.doubler.features]}" in "".join(row.notes)
    opened = Checkout(checkout, {})
    target = opened.target(None)
    assert [row.state for row in status(opened, target, open_store(target), {})] == ["not imported"]


def test_a_republish_is_refused_with_the_line_that_accepts_it(checkout):
    before = (checkout / "flavors.yaml").read_bytes()
    with pytest.raises(RefusedError, match="Nothing imports what changed") as error:
        republish("a", root=checkout, verify="none")
    assert error.value.got == "changed projects/doubler/features.py"
    line = "verify: {accept: [unimported:projects.doubler.features]}"
    assert line in str(error.value.next_step)
    assert (checkout / "flavors.yaml").read_bytes() == before
    assert publish("a", root=checkout, verify="none").news is False

    config = checkout / "projects/doubler/config.yaml"
    edit(checkout, "projects/doubler/config.yaml", config.read_text() + line + "\n")
    assert planned(checkout).state is State.REPUBLISH
    assert republish("a", root=checkout, verify="none").news


def test_stale_leaves_it_out_by_name(checkout):
    work, left_out = prepare_stale(Checkout(checkout, {}), RepublishOptions(verify="none"))
    assert work == ()
    (line,) = left_out
    assert line.startswith("a: Nothing imports what changed")


def test_a_file_that_is_imported_or_is_data_counts(checkout):
    edit(checkout, "projects/doubler/labels.json", "{}\n")
    assert planned(checkout).state is State.REPUBLISH
    assert republish("a", root=checkout, verify="none").news


def test_another_runtime_or_env_that_is_asked_for_is_a_reason(checkout, monkeypatch):
    (checkout / "environment.yml").write_text("dependencies: [python=3.11, left-pad]\n")
    commit(checkout, "env")
    moved = republish("a", root=checkout, verify="none", take_env=True)
    assert moved.changes[0] == "changed projects/doubler/features.py"
    assert moved.changes[1].startswith("changed the env plain to sha256:")

    edit(checkout, "projects/doubler/features.py", "SCALE = 4\n")
    real = source.runtime_recipe()
    extra = PackedFile("opt/adroit/runtime/adroit/serving/extra.py", InlineFile(b""))
    changed = LayerRecipe("runtime", (*real.files, extra))
    monkeypatch.setattr(source, "runtime_recipe", lambda: changed)
    with pytest.raises(RefusedError, match="Nothing imports what changed"):
        republish("a", root=checkout, verify="none")
    assert republish("a", root=checkout, verify="none", runtime=True).news
