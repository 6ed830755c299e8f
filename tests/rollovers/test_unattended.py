"""A rollover acts by itself: back when the new version is worse, and on when a person says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.rollovers.test_rollover_command import make_published, served
from tests.servers.live_servers import ask
from tests.servers.odd_servers import odd_server, saying
from tests.support.checkouts import Trained
from tests.support.rolling import BODY, JSON, advance_to, done, run, state


def send(url: str, good: int, bad: int) -> None:
    for body in [BODY] * good + ["{}"] * bad:
        ask(url + "/invocations", body, JSON)


def test_it_waits_for_a_person_and_goes_back_when_it_is_worse(
    tmp_path: Path, trained: Trained, monkeypatch: object
) -> None:
    root = make_published(tmp_path / "repo", trained, "file:.adroit/sitevars.json")
    news: list[str] = []

    def told(handler: Any) -> None:
        news.append(json.loads(handler.body)["text"])
        saying(200, b"ok")(handler)

    with odd_server(told) as hook:
        monkeypatch.setenv("ADROIT_WEBHOOK", f"{hook}/a-secret")  # type: ignore[attr-defined]
        with served(root) as servers:
            old, new = servers["old"].url, servers["new"].url
            done(root, "sitevar", "set", "doubler", "old", "--why", "the first one")
            both = (
                "--from",
                "old",
                "--to",
                "new",
                "--url",
                new,
                "--metrics",
                old,
                "--metrics",
                new,
            )
            sample = ("--min-requests", "20", "--bake", "1s", "--latency-margin", "1000")
            done(
                root,
                "rollover",
                "start",
                *both,
                *sample,
                "--steps",
                "10,100",
                "--approve-at",
                "100",
            )
            advance_to(root, "verified")
            send(old, 60, 3)  # callers that send bad rows to both
            advance_to(root, "pointed")
            send(new, 19, 1)
            code, output = run(root, "rollover", "advance", "doubler")
            code, output = run(root, "rollover", "advance", "doubler")
            assert (code, "waits for a person" in output) == (10, True), output
            code, output = run(root, "rollover", "approve", "doubler", "--why", "looked", "--json")
            assert (code, json.loads(output)["share"]) == (0, 100.0), output
            advance_to(root, "pointed")
            send(new, 0, 40)
            code, output = run(
                root, "rollover", "advance", "doubler", "--rollback-on", "unhealthy",
                "--until", "drained", "--every", "0.5",
            )  # fmt: skip
        assert code == 6, output
        assert "a-secret" not in output
    assert state(root) == "rolled back"
    assert done(root, "sitevar", "get", "doubler").split()[0] == "old"
    kept = json.loads(done(root, "rollover", "status", "doubler", "--json"))["rollover"]
    assert "4xx" in kept["history"][-1]["why"]
    assert kept["approvals"][0]["why"] == "looked"
    assert "a-secret" not in json.dumps(kept)
    heads = [text.removeprefix("doubler: old to new: ") for text in news]
    assert [head.split(":")[0].split(",")[0].split(" (")[0] for head in heads] == [
        "pointed", "100 % waits for a person", "pointed", "unhealthy", "rolled back",
    ]  # fmt: skip
    assert "rollover approve doubler --why TEXT" in news[1]
