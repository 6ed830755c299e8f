"""One webhook that is told the news: what was published, failed, held, rolled back, or waits.

    ADROIT_WEBHOOK=https://hooks.slack.com/services/...      or, for a file that holds it,
    ADROIT_WEBHOOK_FILE=/run/secrets/webhook

Its address is a secret: it is in no message, record or error. What it is sent is ``{"text": ...}``,
which Slack and Mattermost take, and Discord at ``/slack``. News is sent aside of the work, tried
again for a few seconds, and never fails a command; a command waits ``WAIT_S`` for it at its end, no
longer.

Source: Slack documentation, "Sending messages using incoming webhooks".
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

WAIT_S = 10.0
"""How long a message is tried, and how long the end of a command waits for it."""
TIMEOUT_S = 3.0
_LONGEST = 3000  # characters; Slack cuts at 40,000, people long before


def post(text: str, environ: Mapping[str, str] = os.environ) -> None:
    """Sends a message aside; says so on standard error where it could not be sent.

    Args:
        text: What people read.
        environ: The environment's variables; nothing is sent where they name no webhook.
    """
    try:
        url = _address(environ)
    except OSError:
        _could_not("the file with its address cannot be read")
        return
    if not url:
        return
    give_up = time.monotonic() + WAIT_S
    thread = threading.Thread(target=_send, args=(url, text[:_LONGEST], give_up), daemon=True)
    thread.start()
    atexit.register(lambda: thread.join(max(0.0, give_up - time.monotonic())))


def _address(environ: Mapping[str, str]) -> str:
    file = environ.get("ADROIT_WEBHOOK_FILE")
    return Path(file).read_text().strip() if file else environ.get("ADROIT_WEBHOOK", "").strip()


def _send(url: str, text: str, give_up: float) -> None:
    import requests

    problem, pause_s = "", 0.25
    while True:
        try:
            answer = requests.post(
                url, data=json.dumps({"text": text}), timeout=TIMEOUT_S, allow_redirects=False,
                headers={"Content-Type": "application/json"},
            )  # fmt: skip
        except (requests.RequestException, ValueError) as error:
            problem = type(error).__name__  # its text has the address
        else:
            problem = f"it answers {answer.status_code}"
            if answer.ok:
                return
            if answer.status_code < 500 and answer.status_code != 429:
                break
        if time.monotonic() + pause_s + TIMEOUT_S > give_up:
            break  # while somebody still waits to hear it
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 1.0)
    _could_not(problem)


def _could_not(why: str) -> None:
    print(f"the webhook was not told: {why}", file=sys.stderr)
