"""Whole rollovers by the command line: real servers, a real Prometheus, a load that never stops.

No request may fail, whatever the rollover does.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.config.flavors import parse_flavors
from tests.servers.live_servers import LiveServer, ask, started
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_moto
from tests.servers.prometheus_server import prometheus_server
from tests.support.checkouts import FLOW, Trained, make_checkout
from tests.support.rolling import (
    BODY,
    JSON,
    PATIENCE_S,
    PLACE,
    PYTHON,
    SMALL,
    Load,
    advance_to,
    done,
    run,
    state,
    until,
)


def make_published(root: Path, trained: Trained, sitevars: str) -> Path:
    """A checkout whose flavors ``old`` and ``new`` are published versions of one model."""
    flavors = {"old": trained.good[0], "new": trained.good[1]}
    make_checkout(root, trained.tracking_uri, flavors)
    config = (root / "adroit.toml").read_text()
    (root / "adroit.toml").write_text(config.replace("file:.adroit/sitevars.json", sitevars))
    for flavor in flavors:
        publish(flavor, root=root)
    return root


@contextmanager
def served(root: Path) -> Iterator[dict[str, LiveServer]]:
    with ExitStack() as stack:
        servers = {}
        for flavor in ("old", "new"):
            command = [*PYTHON, "serve", flavor, "--port", "0"]
            servers[flavor] = stack.enter_context(started(command, environ=PLACE, cwd=root))
        yield servers


def start(root: Path, servers: Mapping[str, LiveServer], prometheus: str) -> None:
    done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
    evidence = ("--url", servers["new"].url, "--prometheus", prometheus)
    options = ("--steps", "10,100", "--quiet", "4", "--margin", "0.01", *SMALL)
    both = ("--from", "old", "--to", "new")
    output = done(root, "rollover", "start", *both, *evidence, *options)
    assert "[x] new flavor published: new" in output


def test_from_start_to_retired_without_a_failed_request(tmp_path: Path, trained: Trained) -> None:
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    before = (root / "flavors.yaml").read_text()
    with served(root) as servers:
        urls = {flavor: server.url for flavor, server in servers.items()}
        with prometheus_server(tmp_path / "prometheus", list(urls.values())) as prometheus:
            start(root, servers, prometheus.url)
            start_again = ("--from", "old", "--to", "new", "--url", "http://127.0.0.1:1")
            code, output = run(
                root, "rollover", "start", *start_again, "--prometheus", prometheus.url
            )
            assert (code, "Another rollover of doubler is live" in output) == (4, True)
            with Load(f"file:{root}/.adroit/sitevars.json", urls) as load:
                until(lambda: load.answered["old"] > 5)
                advance_to(root, "pointed")  # to a tenth
                until(lambda: load.answered["new"] > 5)
                assert load.answered["old"] > load.answered["new"]
                advance_to(root, "draining")
                code, output = run(root, "rollover", "finish", "doubler")
                assert code == 10, output  # not drained: nothing is deleted
                assert "old" in parse_flavors((root / "flavors.yaml").read_bytes())
                advance_to(root, "drained")
                drained = dict(load.answered)
                done(root, "rollover", "finish", "doubler")
            assert load.failed == []
            assert load.answered["old"] == drained["old"]
            assert load.answered["new"] > drained["new"]
    assert state(root) == "retired"
    block = before[before.index("old:") : before.index("new:")]
    left = (root / "flavors.yaml").read_text()
    assert left.startswith("# Flavors.\n")
    assert "old:" not in left
    assert list(parse_flavors(left.encode())) == ["new"]
    assert len(left) < len(before) - len(block) + 70  # the run id has become a version
    checklist = tmp_path / "body.md"
    markdown = done(
        root, "rollover", "status", "doubler", "--markdown", "--open-pr-body", str(checklist)
    )
    assert markdown.count("- [x] ") == 5
    assert checklist.read_text() == markdown
    history = done(root, "history", "doubler")
    assert "retired" in history or "deleted" in history


def test_rolled_back_in_the_middle_and_held(
    tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_moto() as moto:
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("ADROIT_TARGET", "local")
        root = make_published(tmp_path / "repo", trained, "ssm:/adroit/versions")
        with served(root) as servers:
            urls = {flavor: server.url for flavor, server in servers.items()}
            with prometheus_server(tmp_path / "prometheus", list(urls.values())) as prometheus:
                start(root, servers, prometheus.url)
                with Load("ssm:/adroit/versions", urls) as load:
                    advance_to(root, "pointed")
                    until(lambda: load.answered["new"] > 3)
                    done(root, "rollover", "rollback", "doubler", "--why", "p99 is up")
                    assert state(root) == "rolled back"
                    assert done(root, "sitevar", "get", "doubler").split()[0] == "old"
                    late = load.answered["old"]
                    until(lambda: load.answered["old"] > late + 20)
                    new = load.answered["new"]
                    until(lambda: load.answered["old"] > late + 60)
                    assert load.answered["new"] == new
                assert load.failed == []
        flavors = parse_flavors((root / "flavors.yaml").read_bytes())
        assert "p99 is up" in str(flavors["new"].hold)
        assert flavors["old"].hold is None
        code, output = run(root, "plan", "--flavor=new")
        assert (code, "held" in output) == (0, True), output


def test_what_others_change_and_what_cannot_be_read_holds_it(
    tmp_path: Path, trained: Trained
) -> None:
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    with served(root) as servers:
        new = servers["new"].url
        done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
        counted = ("--metrics", servers["old"].url, "--metrics", new)
        both = ("--from", "old", "--to", "new", "--url", new, "--quiet", "2", *SMALL)
        done(root, "rollover", "start", *both, *counted)
        advance_to(root, "verified")
        # Somebody else moves the pointer: the rollover holds, and goes on once it is undone.
        done(root, "sitevar", "set", "doubler", "old=50", "new=50", "--why", "not the rollover")
        advance_to(root, "held")
        assert "draining" not in done(root, "rollover", "status", "doubler")
        done(root, "sitevar", "set", "doubler", "old", "--why", "back")
        advance_to(root, "pointed")
        # Two operators at once: one moves it on, and none of them breaks it.
        for _ in range(6):
            ask(new + "/invocations", BODY, JSON)
        command = [*PYTHON, "rollover", "advance", "doubler"]
        pair = [
            subprocess.Popen(command, cwd=root, env=os.environ | PLACE, stderr=subprocess.DEVNULL)
            for _ in range(2)
        ]
        assert {each.wait() for each in pair} <= {0, 4, 10}
        assert state(root) in ("pointed", "draining", "drained")  # both may have taken a step
        advance_to(root, "drained")
        # Traffic comes back while it is drained: nothing is deleted.
        ask(servers["old"].url + "/invocations", BODY, JSON)
        code, output = run(root, "rollover", "finish", "doubler")
        assert code in (0, 10), output
        assert state(root) == "draining"
        assert "old" in parse_flavors((root / "flavors.yaml").read_bytes())
    # The servers are away: no reading is no evidence.
    code, output = run(root, "rollover", "advance", "doubler")
    assert code == 10, output
    back = ("rollover", "rollback", "doubler", "--why", "enough")
    code, output = run(root, *back)  # the servers are stopped by now
    assert (code, "no server of old" in output) == (4, True), output
    done(root, *back, "--force")
    assert done(root, "sitevar", "get", "doubler").split()[0] == "old"


def test_killed_again_and_again_it_ends_where_it_would_have(
    tmp_path: Path, trained: Trained
) -> None:
    """SIGKILL to ``advance`` and ``finish`` at ever later moments, between some that may end."""
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    with served(root) as servers:
        urls = {flavor: server.url for flavor, server in servers.items()}
        done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
        counted = ("--metrics", urls["old"], "--metrics", urls["new"], "--quiet", "2")
        steps = ("--from", "old", "--to", "new", "--url", urls["new"], "--steps", "50,100", *SMALL)
        done(root, "rollover", "start", *steps, *counted)
        killed, give_up = 0, time.monotonic() + PATIENCE_S
        with Load(f"file:{root}/.adroit/sitevars.json", urls) as load:
            for patience_s in cycle((0.1, 0.2, 0.25, 0.3, 0.4, None)):
                command = "finish" if state(root) in ("drained", "retiring") else "advance"
                process = subprocess.Popen(
                    [*PYTHON, "rollover", command, "doubler"],
                    cwd=root, env=os.environ | PLACE, stdout=subprocess.DEVNULL,
                )  # fmt: skip
                try:
                    assert process.wait(patience_s) in (0, 10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed += 1
                now = state(root)
                there = parse_flavors((root / "flavors.yaml").read_bytes())
                assert "new" in there
                assert ("old" in there) or now in ("retiring", "retired")
                if now == "retired":
                    break
                assert time.monotonic() < give_up, now
        assert load.failed == []
    assert killed >= 3
    assert done(root, "sitevar", "get", "doubler").split()[0] == "new"
    found = json.loads(done(root, "rollover", "status", "doubler", "--json"))["rollover"]
    assert found["history"][-1]["after"] == "retired"


def test_a_prometheus_that_is_away_is_no_evidence(tmp_path: Path, trained: Trained) -> None:
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    with served(root) as servers:
        urls = {flavor: server.url for flavor, server in servers.items()}
        with prometheus_server(tmp_path / "prometheus", list(urls.values())) as prometheus:
            start(root, servers, prometheus.url)
            advance_to(root, "pointed")
        code, output = run(root, "rollover", "advance", "doubler")
        assert code == 10, output
        assert state(root) == "pointed"
        assert done(root, "sitevar", "get", "doubler").strip() != "new"


def test_the_guide_is_followed_to_the_letter(tmp_path: Path, trained: Trained) -> None:
    """Every command of docs/rollover.md in its order; only the example's addresses are replaced."""
    guide = (FLOW.parent / "docs/rollover.md").read_text()
    prefix = "    python -m adroit_publish "
    commands = [line.removeprefix(prefix) for line in guide.splitlines() if line.startswith(prefix)]
    assert len(commands) == 9
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    with served(root) as servers:
        urls = {flavor: server.url for flavor, server in servers.items()}
        with prometheus_server(tmp_path / "prometheus", list(urls.values())) as prometheus:
            places = (("http://new.example", urls["new"]),)
            places += (("http://prometheus.example", prometheus.url),)
            with ExitStack() as stack:
                for number, command in enumerate(commands[:-1]):
                    for example, real in places:
                        command = command.replace(example, real)
                    done(root, *shlex.split(command))
                    if number == 0:
                        load = Load(f"file:{root}/.adroit/sitevars.json", urls)
                        stack.enter_context(load)
                assert load.failed == []
    assert state(root) == "retired"
    code, output = run(root, *shlex.split(commands[-1]))  # there is no way back from retired
    assert code == 4, output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["start", "--from", "old", "--to", "new"], 2, "--url"),
        (["start", "--from", "old", "--to", "nope", "--url", "http://127.0.0.1:1"], 2, ""),
        (["start", "--steps", "ten", "--url", "http://127.0.0.1:1"], 2, "--steps"),
        (["advance"], 2, "No rollover is live"),
        (["status", "doubler"], 2, "rollover start"),
    ],
)
def test_what_cannot_be_says_what_to_type(
    tmp_path: Path, trained: Trained, arguments: list[str], code: int, said: str
) -> None:
    flavors = {"old": trained.good[0], "new": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    got, output = run(root, "rollover", *arguments)
    assert got == code, output
    assert said in output
    assert "Traceback" not in output
