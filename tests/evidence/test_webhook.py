"""evidence.webhook: news is told once it can be, never blocks, and never shows where it went."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from adroit_publish.evidence.webhook import WAIT_S
from tests.servers.odd_servers import odd_server, saying

SECRET = "T000/B000/a-secret-path"
PROGRAM = "import sys; from adroit_publish.evidence.webhook import post; post(sys.argv[1])"


def told(text, **environ):
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, text],
        env={k: v for k, v in os.environ.items() if not k.startswith("ADROIT_WEBHOOK")} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout + done.stderr, time.monotonic() - began


class Hook:
    """Answers with each of some statuses in turn, then 200; keeps what it was sent."""

    def __init__(self, *statuses):
        self.statuses, self.bodies = list(statuses), []

    def __call__(self, handler):
        self.bodies.append((handler.path, handler.headers.get("Content-Type")))
        saying(self.statuses.pop(0) if self.statuses else 200, b"ok")(handler)


@pytest.mark.parametrize("statuses", [(), (500, 429, 503)])
def test_a_message_is_sent_and_tried_again(statuses, tmp_path):
    hook = Hook(*statuses)
    with odd_server(hook) as url:
        output, _ = told("m: a to b: pointed", ADROIT_WEBHOOK=f"{url}/{SECRET}")
        assert output == ""
        assert hook.bodies == [(f"/{SECRET}", "application/json")] * (len(statuses) + 1)
        (tmp_path / "hook").write_text(f"{url}/{SECRET}\n")
        told("again", ADROIT_WEBHOOK_FILE=str(tmp_path / "hook"))
        assert len(hook.bodies) == len(statuses) + 2


def test_what_is_sent_is_what_slack_takes():
    sent = []

    def respond(handler):
        sent.append(json.loads(handler.body))
        saying(200, b"ok")(handler)

    with odd_server(respond) as url:
        told('"quoted" & <all>', ADROIT_WEBHOOK=url)
    assert sent == [{"text": '"quoted" & <all>'}]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://no such host/", "nonsense", "https://127.0.0.1:1/"]
)
def test_a_webhook_that_fails_fails_nothing_and_shows_no_secret(url):
    output, seconds = told("news", ADROIT_WEBHOOK=url + SECRET)
    assert "the webhook was not told" in output
    assert "secret" not in output
    assert seconds < WAIT_S + 15


def test_a_webhook_that_refuses_is_not_asked_again():
    hook = Hook(404, 404)
    with odd_server(hook) as url:
        output, _ = told("news", ADROIT_WEBHOOK=f"{url}/{SECRET}")
    assert len(hook.bodies) == 1
    assert "404" in output
    assert "secret" not in output


def test_a_webhook_that_hangs_is_waited_for_a_little():
    with odd_server(lambda handler: time.sleep(60)) as url:
        _, seconds = told("news", ADROIT_WEBHOOK=url)
    assert seconds < WAIT_S + 15


def test_without_a_webhook_nothing_is_sent():
    assert told("news")[0] == ""
