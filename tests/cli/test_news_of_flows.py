"""What a webhook is told by the flows and the commands of a rollover: a real server listens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.rollovers.test_way_back import answering, published, rolling, root, sides  # noqa: F401
from tests.servers.odd_servers import odd_server, saying
from tests.support.checkouts import FLOW, commit, make_checkout
from tests.support.rolling import done, run

SECRET = "T000/B000/a-secret-path"


class Hook:
    """Answers with each of some statuses in turn, then 200; keeps the texts that it took."""

    def __init__(self, *statuses):
        self.statuses, self.texts, self.asked = list(statuses), [], 0

    def __call__(self, handler):
        self.asked += 1
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 200:
            assert handler.path == f"/{SECRET}"
            self.texts.append(json.loads(handler.body)["text"])
        saying(status, b"ok")(handler)


@contextmanager
def listening(monkeypatch, *statuses):
    hook = Hook(*statuses)
    with odd_server(hook) as url:
        monkeypatch.setenv("ADROIT_WEBHOOK", f"{url}/{SECRET}")
        yield hook


def flow(root, *arguments):  # noqa: F811
    finished = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=root, env=os.environ | {"HOME": str(root)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return finished.returncode, finished.stdout + finished.stderr


def files_with_the_secret(root):  # noqa: F811
    secret = SECRET.encode()
    return [path for path in root.rglob("*") if path.is_file() and secret in path.read_bytes()]


def version_of(root, flavor):  # noqa: F811
    return parse_flavors((root / "flavors.yaml").read_bytes())[flavor].version


def test_a_publish_and_a_republish_tell_what_came_of_each_flavor_once(
    tmp_path, trained, monkeypatch
):
    flavors = {"a": trained.good[0], "b": "e" * 32}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)  # noqa: F811
    with listening(monkeypatch, 500, 429) as hook:
        code, output = flow(root, FLOW, "run", "--pending")
    assert code == 3, output
    first = version_of(root, "a")
    (text,) = hook.texts  # though it was asked three times
    assert hook.asked == 3
    good, bad = text.splitlines()
    assert good == f"a: published as {first} to local"
    assert bad.startswith("b: not published: ")
    (root / "projects/doubler/features.py").write_text("SCALE = 3\n")
    commit(root, "a change")
    with listening(monkeypatch) as hook:
        code, more = flow(root, FLOW.with_name("republish.py"), "--flavor", "a")
        assert code == 0, more
        assert hook.texts == [f"a: republished from {first} as {version_of(root, 'a')} to local"]
        code, again = flow(root, FLOW.with_name("republish.py"), "--flavor", "a")
        assert (code, len(hook.texts)) == (0, 1), again  # nothing was done: nothing is told
    assert "a-secret" not in output + more + again
    assert files_with_the_secret(root) == []


@pytest.mark.parametrize("trouble", ["hangs", "refuses", "is away"])
def test_a_webhook_that_fails_stands_in_the_way_of_no_publish(
    tmp_path, trained, monkeypatch, trouble
):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})  # noqa: F811
    answers = {"hangs": lambda handler: time.sleep(60), "refuses": saying(403, b"no")}
    with odd_server(answers.get(trouble, saying(500, b""))) as url:
        there = "http://127.0.0.1:1" if trouble == "is away" else url
        monkeypatch.setenv("ADROIT_WEBHOOK", f"{there}/{SECRET}")
        code, output = flow(root, FLOW, "run", "--flavor=a")
    assert code == 0, output
    assert str(version_of(root, "a")).startswith("v")
    assert "the webhook was not told" in output
    assert "a-secret" not in output
    assert files_with_the_secret(root) == []


def test_a_hold_and_a_way_back_are_told_once_each(root, monkeypatch):  # noqa: F811
    old, _ = sides(root)
    with listening(monkeypatch, 503) as hook, answering(old) as url:
        rolling(root, "pointed", old_urls=[url], share=10.0)
        (root / ".adroit/sitevars.json").write_text('{"doubler": {"old": 40, "new": 60}}')
        for _ in range(2):  # cron comes again
            assert run(root, "rollover", "advance", "doubler")[0] == 4
        output = done(root, "rollover", "rollback", "doubler", "--why", "p99 is up")
    assert [text.partition(" (")[0] for text in hook.texts] == [
        "doubler: old to new: held", "doubler: old to new: rolled back",
    ]  # fmt: skip
    assert "the sitevar says new=60, old=40" in hook.texts[0]
    assert "p99 is up" in hook.texts[1]
    assert "a-secret" not in output
    assert files_with_the_secret(root) == []
