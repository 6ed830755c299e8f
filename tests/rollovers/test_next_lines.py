"""What rollovers say to type next can be typed: ``run`` looks at every line of every test here."""

from __future__ import annotations

import re
import shutil

import click
import pytest

from adroit_publish.rollover.state import LIVE
from tests.rollovers.test_way_back import published, rolling, root  # noqa: F401
from tests.servers.object_servers import free_ports
from tests.support.checkouts import FLOW
from tests.support.rolling import check_typed, done, named_commands, run

PLACES = ("--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "command",
    ["rollover rollback doubler", "rollover rolback doubler --why TEXT", "unhold", "unhold a b",
     "rollover amend doubler --why TEXT --no-such 1", "nothing"],
)  # fmt: skip
def test_what_cannot_be_typed_is_found(command):
    said = f"Held.\n  next:   python -m adroit_publish {command}; or leave it"
    assert named_commands(said) == [command]
    with pytest.raises(click.UsageError):
        check_typed(command)


def test_what_can_be_typed_is_taken():
    check_typed("rollover amend doubler --why TEXT --check 'queue: max(q) <= 5'")
    check_typed("doctor")


def test_every_refusal_names_a_command_that_can_be_typed(root):  # noqa: F811
    start = ("rollover", "start", "--from", "old", "--to")
    where_to_begin = "rollover start --from FLAVOR --to FLAVOR --url URL --prometheus URL"
    for none in (("advance",), ("status", "doubler"), ("amend", "--why", "x", "--quiet", "9s")):
        code, said = run(root, "rollover", *none)
        assert (code, named_commands(said)) == (2, [where_to_begin]), said
    for wrong in ((*start, "nope", *PLACES), ("sitevar", "set", "doubler", "nope", "--why", "x")):
        code, said = run(root, *wrong)
        assert (code, "--flavor" in said) == (2, False), said
        assert "name one of these" in said
    done(root, *start, "new", *PLACES)
    for said in (
        run(root, *start, "new", *PLACES, "--quiet", "9s")[1],
        run(root, *start[:3], "new", "--to", "old", *PLACES)[1],
        run(root, "rollover", "rollback", "doubler", "--why", "x")[1],
        run(root, "rollover", "approve", "doubler", "--why", "x")[1],
        run(root, "rollover", "finish", "doubler")[1],
    ):
        assert "Traceback" not in said
    done(root, "rollover", "abandon", "doubler", "--why", "x")
    code, said = run(root, "rollover", "amend", "doubler", "--why", "x", "--quiet", "9s")
    assert (code, named_commands(said)) == (4, [where_to_begin]), said


def test_a_way_back_that_would_be_refused_is_not_offered_and_not_called_progress(root):  # noqa: F811
    (port,) = free_ports(1)
    rolling(root, "pointed", share=10.0, old_urls=[f"http://127.0.0.1:{port}"])
    said = done(root, "rollover", "status", "doubler")
    assert [line for line in said.splitlines() if line.startswith("next: ")] == [
        "next: python -m adroit_publish rollover advance doubler",
        "next: python -m adroit_publish rollover abandon doubler --why TEXT",
    ]
    code, said = run(root, "rollover", "rollback", "doubler", "--why", "x")
    assert code == 4
    assert said.splitlines()[0] == "doubler: refused; it stays pointed:"
    assert "python -m adroit_publish rollover rollback doubler --force --why TEXT" in said


def test_status_names_what_can_be_typed_in_every_state(root):  # noqa: F811
    for state in LIVE:
        rolling(root, state, share=10.0)
        said = done(root, "rollover", "status", "doubler")
        assert "rollover abandon doubler --why TEXT" in said
        assert "Traceback" not in run(root, "rollover", "finish", "doubler")[1]
        shutil.rmtree(root / ".adroit/bundles/rollovers")


def test_every_row_that_compares_us_with_others_names_a_test_that_is_there():
    tests = FLOW.parent / "tests"
    functions = {
        name
        for path in tests.rglob("*.py")
        for name in re.findall(r"^def (\w+)\(", path.read_text(), re.MULTILINE)
    }
    section = (FLOW.parent / "docs/rollover.md").read_text().partition("## 7. ")[2]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    notes = dict(re.findall(r"^(\d+)\. (.+)$", section, re.MULTILINE))
    assert [re.findall(r"\((\d+)\)", row.split("|")[2]) for row in rows] == [[n] for n in notes]
    for note in notes.values():
        named = re.findall(r"`(\w+)`", note)
        assert named
        assert set(named) <= functions
