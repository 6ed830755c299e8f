"""A new project trains and publishes as it was written; a rehearsal finds what would be refused."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.support.checkouts import clone_as_it_is, commit, git

KINDS = {"sklearn": "sklearn", "pyfunc": "pandas", "lightgbm": "lightgbm", "torch": "torch"}


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Runs a Python program in a checkout; returns its exit code and output."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=kept | {"HOME": str(root.parent)},  # as root, with nothing set up
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def command(root: Path, *arguments: str) -> tuple[int, str]:
    return run(root, "-m", "adroit_publish", *arguments)


@pytest.fixture
def root(tmp_path):
    return clone_as_it_is(tmp_path / "clone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_project_trains_and_publishes_as_it_is(root, kind):
    if importlib.util.find_spec(KINDS[kind]) is None:
        pytest.skip(f"{kind} is not installed")
    before = (root / "flavors.yaml").read_bytes()
    code, output = command(root, "new", "my_model", "--from", kind)
    assert code == 0, output
    assert (root / "flavors.yaml").read_bytes().startswith(before)
    for tool in (("check",), ("format", "--check")):
        code, output = run(root, "-m", "ruff", *tool, "projects/my_model")
        assert code == 0, output
    code, output = run(root, "-m", "pytest", "-q", "projects/my_model", "-p", "no:cacheprovider")
    assert code == 0, output
    commit(root, "a new model")
    code, output = run(root, "projects/my_model/flow.py", "run", "--publish")
    assert code == 0, output
    version = parse_flavors((root / "flavors.yaml").read_bytes())["my_model"].version
    assert str(version).startswith("v")
    assert git(root, "status", "--porcelain") == "M flavors.yaml"
    assert git(root, "diff", "--shortstat") == "1 file changed, 1 insertion(+), 1 deletion(-)"


def test_a_rehearsal_keeps_nothing_and_names_what_has_to_be_committed(root):
    assert command(root, "new", "my_model", "--from", "pyfunc")[0] == 0
    (root / "projects/my_model/config.yaml").write_text(
        (root / "projects/my_model/config.yaml").read_text()
        + "gates:\n  test_accuracy: {min: 2}\n  latency_ms_per_row: {max: 0.0001}\n"
    )
    code, output = command(root, "check", "my_model")
    assert code == 0, output
    assert "trained on 100 rows, loads and predicts" in output
    assert "commit these before a publish" in output
    assert "projects/my_model/model.py" in output
    assert not (root / ".adroit/bundles").exists()
    assert not (root / ".adroit/mlflow.db").exists()
    assert not (root / ".metaflow").exists()


FAULTS = {
    "a module that no code path has": (
        "model.py",
        "import json\n",
        "import json\n\nfrom projects.common import text as _\n",
        "projects.common",
    ),
    "a metric that is not logged": (
        "config.yaml",
        "serve:\n",
        "gates:\n  auc: {min: 0.5}\nserve:\n",
        "auc",
    ),
    "a directory that is not there": (
        "config.yaml",
        "serve:\n",
        "source:\n  include: [projects/nowhere]\nserve:\n",
        "projects/nowhere",
    ),
    "a handler that is not there": (
        "config.yaml",
        "adroit.serving.mlflow_handler:MlflowHandler",
        "projects.my_model.handler:Handler",
        "projects.my_model.handler",
    ),
    "a package that the env lacks": (
        "model.py",
        '("mlflow-skinny", "numpy", "pandas")',
        '("mlflow-skinny", "numpy", "pandas", "rich")',
        "rich",
    ),
    "a flow that takes no rows": ("flow.py", "rows", "lines", "rows"),
    "a flow that fails": ("model.py", "def fit(", "1 / 0\n\n\ndef fit(", "ZeroDivisionError"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rehearsal_refuses_what_a_publish_would(root, fault):
    file, old, new, named = FAULTS[fault]
    assert command(root, "new", "my_model", "--from", "pyfunc")[0] == 0
    path = root / "projects/my_model" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    code, output = command(root, "check", "my_model")
    assert code in (2, 3, 4, 6), output
    assert named in output
    assert "Traceback" not in output or "ZeroDivisionError" in output
    assert "Nothing of it was kept" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["new", "my-model"], 2, "my_model"),
        (["new", "../evil"], 2, "my_model"),
        (["new", "class"], 2, "my_model"),
        (["new", "example_sentiment"], 4, "flavors.yaml"),
        (["new", "common"], 4, "projects/common"),
        (["new", "mine", "--env", "sklaern"], 2, "sklearn"),
        (["new", "mine", "--from", "torch"], 2, "torch"),
        (["check", "my_modle"], 2, "new my_modle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_refused_and_nothing_is_written(root, arguments, code, named):
    got, output = command(root, *arguments)
    assert got == code, output
    assert named in output
    assert git(root, "status", "--porcelain") == ""
