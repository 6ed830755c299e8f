"""The command that says whether this machine can publish, and what to type where it cannot.

It chooses no target itself, as the other commands do: that none can be chosen is one of its rows.
"""

from __future__ import annotations

import logging
import os
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import click

from adroit_publish.cli.options import json_option, target_option
from adroit_publish.cli.render import print_json, print_table
from adroit_publish.doctor.checkout import Check
from adroit_publish.doctor.checks import examine, exit_code
from adroit_publish.doctor.places import MetaflowSettings
from adroit_publish.errors import ConfigError

_FOUND_WIDTH = 64


@click.command()
@target_option
@json_option
def doctor(target: str | None, as_json: bool) -> None:
    """Say whether this machine can publish, and what to type where it cannot.

    Reads only. Exit code 0: nothing stands in the way; else what a publish would end with.
    """
    logging.disable(logging.ERROR)  # of libraries: what they meet is said in the rows
    checks = examine(Path.cwd(), target, os.environ, read_metaflow())
    code = exit_code(checks)
    if as_json:
        names = ("name", "state", "found", "next_step")
        rows = [{name: getattr(check, name) for name in names} for check in checks]
        print_json({"ok": code == 0, "checks": rows})
    else:
        headers = ["check", "state", "found", "next"]
        print_table(headers, [line for check in checks for line in _lines(check)])
        print(f"\n{_verdict(checks)}")
    raise click.exceptions.Exit(code)


def read_metaflow() -> MetaflowSettings | ConfigError:
    """Returns Metaflow's configuration, or the reason for which Metaflow cannot read it."""
    home = Path(os.environ.get("METAFLOW_HOME", "~/.metaflowconfig")).expanduser()
    profile = os.environ.get("METAFLOW_PROFILE") or None
    file = home / (f"config_{profile}.json" if profile else "config.json")
    try:
        from metaflow import metaflow_config, util
    except Exception as error:  # noqa: BLE001 - it reads while it is imported, and raises anything
        return ConfigError(
            "Metaflow's configuration cannot be read.",
            where=file,
            got="not JSON" if isinstance(error, ValueError) else type(error).__name__,
            wanted="a configuration as `metaflow configure` writes it",
            next_step="mend that file, or choose another: METAFLOW_PROFILE, METAFLOW_HOME",
        )
    user = util.get_username()  # type: ignore[no-untyped-call]
    return MetaflowSettings(
        file=file,
        profile=profile,
        datastore=metaflow_config.DEFAULT_DATASTORE,
        bucket=metaflow_config.DATASTORE_SYSROOT_S3,
        s3_endpoint=metaflow_config.S3_ENDPOINT_URL,
        metadata=metaflow_config.DEFAULT_METADATA,
        user=user,
        user_is_set=user is not None and user == metaflow_config.USER,
        ui_url=metaflow_config.UI_URL,
    )


def _lines(check: Check) -> Iterator[Sequence[str]]:
    """Yields a check as lines of the table: what was found is wrapped, what is to be typed not."""
    findings = [part for line in check.found.splitlines() for part in _wrapped(line)]
    steps = (check.next_step or "").splitlines()
    cells = zip_longest([check.name], [check.state], findings, steps, fillvalue="")
    yield from cells


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, _FOUND_WIDTH, break_on_hyphens=False, break_long_words=False)


def _verdict(checks: Sequence[Check]) -> str:
    problems = [check.name for check in checks if check.state == "problem"]
    if not problems:
        return "This machine can publish."
    return f"This machine cannot publish: {', '.join(problems)}."
