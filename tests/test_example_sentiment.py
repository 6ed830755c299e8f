"""The second example by the commands of docs/training.md: trained, published, served, asked."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from adroit_publish.config.flavors import parse_flavors
from tests.checkouts import FLOW, clone_as_it_is, git
from tests.live_servers import ask, started

ROOT = FLOW.parent


def commands() -> list[list[str]]:
    guide = (ROOT / "docs/training.md").read_text()
    lines = [line.strip() for line in guide.splitlines() if line.startswith("    python ")]
    return [[sys.executable, *shlex.split(line)[1:]] for line in lines]


def test_the_commands_of_the_guide_train_publish_serve_and_predict(tmp_path: Path) -> None:
    root = clone_as_it_is(tmp_path / "clone")
    train, serve, predict = commands()
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environ = kept | {"HOME": str(tmp_path), "METAFLOW_USER": "jane"}
    trained = subprocess.run(
        train, cwd=root, env=environ, capture_output=True, text=True, check=False
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    version = parse_flavors((root / "flavors.yaml").read_bytes())["example_sentiment"].version
    assert str(version).startswith("v")
    assert git(root, "status", "--porcelain") == "M flavors.yaml"
    assert "of 5 layers sent" in trained.stdout  # the weights are a layer of their own
    serve[serve.index("8080")] = "0"
    with started(serve, environ=environ, cwd=root) as server:
        body = '{"dataframe_records": [{"text": "What a lovely street fair, thank you all!"}]}'
        reply = ask(server.url + "/invocations", body, {"Content-Type": "application/json"})
        (answer,) = reply.json["predictions"]
        assert answer["sentiment"] == "positive"
        assert 0.6 < answer["score"] <= 1
        predict[predict.index("http://127.0.0.1:8080")] = server.url
        asked = subprocess.run(
            predict, cwd=root, env=environ, capture_output=True, text=True, check=False
        )
        assert asked.returncode == 0, asked.stderr
        assert "sentiment" in asked.stdout
