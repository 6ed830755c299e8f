"""``publish`` and ``republish``: the two Metaflow flows, as commands beside the others.

Metaflow starts every step by the flow's file, so the command becomes the process of that file: the
checkout's own, or else the one that is installed beside this package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

import adroit_publish
from adroit_publish.checkout import find_root

INSTALLED = Path(adroit_publish.__file__).resolve().parents[1]
PUBLISH, REPUBLISH = "publish_mlflow_model_flow.py", "republish.py"


class FlowCommand(click.Command):
    """A command whose options are a flow's parameters; the flow reads them itself."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the flow's parameters, and where the rest of Metaflow's options are told."""
        file = _file_of({"publish": PUBLISH, "republish": REPUBLISH}[str(self.name)])
        rows = []
        for parameter in _parameters(file):
            parameter.init()  # Metaflow does so when it reads a command line
            value = "" if parameter.kwargs.get("is_flag") else " TEXT"
            rows.append((f"--{parameter.name}{value}", parameter.kwargs["help"]))
        with formatter.section("Options"):
            formatter.write_dl([*rows, ("-h, --help", "Show this message and exit.")])
        formatter.write_paragraph()
        formatter.write_text(f"Metaflow's own options: python {file.name} run --help")


def _parameters(file: Path) -> Iterator[Any]:
    from metaflow import FlowSpec

    sys.path.insert(0, str(file.parent))
    for flow in vars(import_module(file.stem)).values():
        if isinstance(flow, type) and issubclass(flow, FlowSpec) and flow.__module__ == file.stem:
            yield from (parameter for _, parameter in flow._get_parameters())  # type: ignore[no-untyped-call]


@click.command(cls=FlowCommand, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def publish(options: tuple[str, ...]) -> None:
    """Publish flavors: models of MLflow runs become versions, which flavors.yaml then names."""
    _become(PUBLISH, "run", *options)


@click.command(cls=FlowCommand, context_settings={"ignore_unknown_options": True})
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def republish(options: tuple[str, ...]) -> None:
    """Republish flavors: the same models, by digest, with the source of today."""
    _become(REPUBLISH, *options)


def _file_of(flow: str) -> Path:
    file = find_root(Path.cwd(), INSTALLED) / flow
    return file if file.is_file() else INSTALLED / flow


def _become(flow: str, *words: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(_file_of(flow)), *words])
