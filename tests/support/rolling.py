"""Rollovers by the command line, with a load that never stops.

The load asks the sitevar by ``adroit.sitevars`` which flavor each request goes to, as a service
does, so that a request which fails while a rollover goes on is seen.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from adroit.sitevars import Sitevar
from adroit_publish.cli.commands import cli
from tests.servers.live_servers import ask
from tests.support.checkouts import FLOW

PYTHON = [sys.executable, "-m", "adroit_publish"]
PLACE = {"PYTHONPATH": str(FLOW.parent)}
BODY = json.dumps({"dataframe_records": [{"x": 1.0, "y": 2.0}]})
JSON = {"Content-Type": "application/json"}
PATIENCE_S = 300
SMALL = ("--min-requests", "3", "--bake", "1s")  # the sample of a test


def run(root: Path, *arguments: str) -> tuple[int, str]:
    """Runs a command; whatever it says to type next has to be a command that click takes."""
    done = subprocess.run(
        [*PYTHON, *arguments],
        cwd=root,
        env=os.environ | PLACE,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    for command in named_commands(output):
        check_typed(command)
    return done.returncode, output


def named_commands(output: str) -> list[str]:
    """Returns the commands of ours that an output names, up to where its sentence goes on."""
    return re.findall(r"python -m adroit_publish ([a-z][^\n`;,()\"\\]*)", output)


def check_typed(command: str) -> None:
    """Lets a command pass that click takes as it is typed; nothing is run.

    Raises:
        click.UsageError: There is no such command or option, or an argument is missing.
    """
    words, context = shlex.split(command), None
    at: click.Command = cli
    while True:
        context = at.make_context(at.name, list(words), parent=context)
        if not isinstance(at, click.Group):
            return
        _, found, words = at.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, command
        at = found


def done(root: Path, *arguments: str) -> str:
    code, output = run(root, *arguments)
    assert code == 0, output
    return output


class Load:
    """Requests without end, each to the flavor that the sitevar says; counts what came of them."""

    def __init__(self, address: str, urls: Mapping[str, str]) -> None:
        self.answered: Counter[str] = Counter()
        self.failed: list[str] = []
        self._live = Sitevar(address, refresh_s=0.2)
        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            try:
                flavor = self._live.flavor("doubler", f"user-{number}")
                reply = ask(self._urls[flavor] + "/invocations", BODY, JSON)
                assert reply.json == {"predictions": [{"x": 2.0, "y": 4.0}]}, reply.body
                self.answered[flavor] += 1
            except Exception as error:  # noqa: BLE001  whatever a request failed with counts
                self.failed.append(repr(error))


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.1)


def advance_to(root: Path, state: str) -> None:
    """Calls ``advance`` as cron would, until the rollover is there."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        code, output = run(root, "rollover", "advance", "doubler", "--json")
        assert code in (0, 4, 10), output
        found = json.loads(output)
        if found["rollover"]["state"] == state:
            return
        assert time.monotonic() < give_up, output


def state(root: Path) -> str:
    return json.loads(done(root, "rollover", "status", "doubler", "--json"))["rollover"]["state"]
