"""A change of outputs that somebody accepted is shown wherever a version is looked at."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from adroit_publish import publish, republish
from adroit_publish.cli.flow.card import components
from adroit_publish.cli.flow.steps import summarize
from tests.support.checkouts import FLOW, commit, make_checkout

HANDLER = """\
from adroit.serving.mlflow_handler import MlflowHandler


class Shifted(MlflowHandler):
    def predict(self, data, params=None):
        return super().predict(data, params) + 0.5
"""


@pytest.fixture(scope="module")
def moved(tmp_path_factory, trained):
    """A checkout, a version, and the one whose other outputs were accepted."""
    root = tmp_path_factory.mktemp("moved") / "repo"
    make_checkout(root, trained.tracking_uri, {"a": trained.good[0]})
    first = publish("a", root=root)
    (root / "projects/doubler/handler.py").write_text(HANDLER)
    config = root / "projects/doubler/config.yaml"
    ours, theirs = "projects.doubler.handler:Shifted", "adroit.serving.mlflow_handler:MlflowHandler"
    config.write_text(config.read_text().replace(theirs, ours))
    commit(root, "shift")
    return root, first, republish("a", root=root, accept_output_change=True)


def run(root, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *arguments],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of(first):
    return f"4 of 4 values differ from {first.version}, accepted by hand"


def test_the_closing_lines_say_so(moved, capsys):
    _, first, again = moved
    summarize([again])
    assert f"  outputs    {line_of(first)}" in capsys.readouterr().out
    summarize([first])
    assert "by hand" not in capsys.readouterr().out


def test_the_card_says_so(moved):
    _, first, again = moved
    shown = "\n".join(str(vars(part)) for part in components([again], "1", {}))
    assert line_of(first) in shown


def test_show_says_so(moved):
    root, first, again = moved
    (line,) = (text for text in run(root, "show", again.version).splitlines() if "by hand" in text)
    assert line_of(first) in line
    assert "by hand" not in run(root, "show", first.version)


@pytest.mark.parametrize("html", [False, True])
def test_the_top_of_a_diff_says_so(moved, tmp_path, html):
    root, first, again = moved
    page = tmp_path / "page.html"
    options = ["--html", str(page)] if html else []
    text = run(root, "diff", first.version, again.version, *options)
    text = page.read_text() if html else text
    assert f"B: {line_of(first)}" in text
    assert text.index("by hand") < text.index("manifest")
    assert "by hand" not in run(root, "diff", first.version, first.version)
