"""What a message says to type next is a command that exists, with the options that it needs."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import adroit_publish
from adroit_publish.cli.commands import cli
from tests.support.checkouts import FLOW

ROOT = Path(adroit_publish.__file__).parent
BEGINS = re.compile(
    r"(?P<program>python -m adroit_publish|adroit-publish(?! looks)|"
    r"python publish_mlflow_model_flow\.py|python republish\.py) "
)
ENDS = re.compile(r"[;,()\n`]|, | or | once | heals| has | \.\.\.|$")
FLOWS = {
    "python publish_mlflow_model_flow.py": FLOW,
    "python republish.py": FLOW.parent / "republish.py",
}


def texts() -> Iterator[tuple[str, str]]:
    """Yields every text of the code that could be shown, with a word for each value in it."""
    for path in sorted([*ROOT.rglob("*.py"), *(ROOT.parent / "adroit").rglob("*.py")]):
        tree = ast.parse(path.read_text())
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        inner = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree):
            if id(node) in documented | inner:
                continue
            if isinstance(node, ast.JoinedStr):
                words = (p.value if isinstance(p, ast.Constant) else "x1" for p in node.values)
                yield f"{path.relative_to(ROOT.parent)}:{node.lineno}", "".join(map(str, words))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{path.relative_to(ROOT.parent)}:{node.lineno}", node.value


def commands() -> Iterator[tuple[str, str, str]]:
    for where, text in texts():
        for match in BEGINS.finditer(text):
            rest = text[match.end() :]
            end = ENDS.search(rest)
            assert end is not None
            yield where, match["program"], rest[: end.start()].rstrip(" .:")


COMMANDS = sorted(set(commands()))


def test_there_are_such_commands():
    assert len(COMMANDS) > 30


@pytest.mark.parametrize(("where", "program", "words"), COMMANDS, ids=lambda text: text[:60])
def test_what_is_said_to_be_typed_can_be_typed(where, program, words):
    arguments = shlex.split(words)
    if program in FLOWS:
        known = set(re.findall(r'Parameter\(\s*"([a-zA-Z_-]+)"', FLOWS[program].read_text()))
        known |= set(
            re.findall(r'Parameter\(\s*"([a-zA-Z_-]+)"', (ROOT / "cli/flow/base.py").read_text())
        )
        options = {word[2:].partition("=")[0] for word in arguments if word.startswith("--")}
        assert options <= known, where
        assert arguments[0] == "run" or program.endswith("republish.py"), where
        return
    command: click.Command = cli
    while isinstance(command, click.Group):
        if not arguments or arguments[0] == "x1":  # the verb is put in when it is known
            return
        assert arguments[0] in command.commands, where
        command = command.commands[arguments.pop(0)]
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    known = {name for parameter in command.params for name in parameter.opts}
    assert options <= known, where
    needed = [p for p in command.params if isinstance(p, click.Option) and p.required]
    assert all(set(p.opts) & options for p in needed), f"{where}: {words}"
    wanted = sum(isinstance(p, click.Argument) and p.required for p in command.params)
    values = sum(
        1
        for p in command.params
        if isinstance(p, click.Option) and not p.is_flag and set(p.opts) & options
    )
    assert len([w for w in arguments if not w.startswith("--")]) - values >= wanted, (
        f"{where}: {words}"
    )
