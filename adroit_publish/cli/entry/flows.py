"""``publish`` and ``republish``: the two Metaflow flows, as commands beside the others.

Metaflow starts every step by the flow's file, so the command becomes the process of that file: the
checkout's own, or else the one that is installed beside this package.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

import adroit_publish
from adroit_publish.checkout import find_root

INSTALLED = Path(adroit_publish.__file__).resolve().parents[1]
PUBLISH, REPUBLISH = "publish_mlflow_model_flow.py", "republish.py"
AS_TYPED = {"ignore_unknown_options": True, "help_option_names": []}


@click.command(context_settings=AS_TYPED, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def publish(options: tuple[str, ...]) -> None:
    """Publish flavors: as publish_mlflow_model_flow.py run."""
    _become(PUBLISH, "run", *options)


@click.command(context_settings=AS_TYPED, add_help_option=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def republish(options: tuple[str, ...]) -> None:
    """Publish models again with the source of today: as republish.py."""
    _become(REPUBLISH, *options)


def _become(flow: str, *words: str) -> NoReturn:
    file = find_root(Path.cwd(), INSTALLED) / flow
    if not file.is_file():
        file = INSTALLED / flow
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(file), *words])
