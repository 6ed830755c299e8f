"""Both examples by the commands of docs/training.md: trained, published, served, asked."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish.cli.commands import cli
from adroit_publish.config.flavors import parse_flavors
from tests.servers.live_servers import ask, started
from tests.support.checkouts import FLOW, clone_as_it_is, git

ROOT = FLOW.parent


def commands() -> list[list[str]]:
    guide = (ROOT / "docs/training.md").read_text()
    lines = [line.strip() for line in guide.splitlines() if line.startswith("    python ")]
    return [[sys.executable, *shlex.split(line)[1:]] for line in lines]


SENTENCE = '{"dataframe_records": [{"text": "What a lovely street fair, thank you all!"}]}'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone_as_it_is(tmp_path_factory.mktemp("guide") / "clone")


@pytest.mark.parametrize("number", [0, 1])
def test_the_commands_of_the_guide_train_publish_serve_and_predict(
    root: Path, tmp_path: Path, number: int
) -> None:
    train, serve, predict = commands()[3 * number : 3 * number + 3]
    name = serve[4]
    kept = {each: os.environ[each] for each in ("PATH", "LANG") if each in os.environ}
    environ = kept | {"HOME": str(tmp_path), "METAFLOW_USER": "jane"}
    trained = subprocess.run(
        train, cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    version = parse_flavors((root / "flavors.yaml").read_bytes())[name].version
    assert str(version).startswith("v")
    assert git(root, "status", "--porcelain") == "M flavors.yaml"
    serve[serve.index("8080")] = "0"
    with started(serve, environ=environ, cwd=root) as server:
        if name == "example_sentiment":
            assert "of 5 layers sent" in trained.stdout  # the weights are a layer of their own
            reply = ask(server.url + "/invocations", SENTENCE, {"Content-Type": "application/json"})
            (answer,) = reply.json["predictions"]
            assert answer["sentiment"] == "positive"
            assert 0.6 < answer["score"] <= 1
        predict[predict.index("http://127.0.0.1:8080")] = server.url
        asked = subprocess.run(
            predict, cwd=root, env=environ, capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        assert {"example_metaflow": "label", "example_sentiment": "sentiment"}[name] in asked.stdout


def test_the_flow_of_the_guide_runs_as_it_is_written(root: Path, tmp_path: Path) -> None:
    """From another directory, as root or nobody, with nothing on the path."""
    guide = (ROOT / "docs/training.md").read_text()
    code = guide.partition("```python\n")[2].partition("```")[0]
    (root / "projects/my_model").mkdir()
    (root / "projects/my_model/flow.py").write_text(code)
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    trained = subprocess.run(
        [sys.executable, root / "projects/my_model/flow.py", "run"],
        cwd=tmp_path,
        env=kept | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "--flavor=my_model --mlflow-run-id=" in trained.stdout


def test_the_commands_of_a_project_of_ones_own_are_commands() -> None:
    guide = (ROOT / "docs/training.md").read_text()
    ours = [line.split() for line in guide.splitlines() if line.startswith("    adroit-publish ")]
    assert [line[1] for line in ours] == ["new", "check"]
    for line in ours:
        cli.commands[line[1]].make_context(line[1], line[2 : line.index("#")])
