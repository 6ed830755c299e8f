"""The three walks of docs/architecture.md are the code's: each function is there, and is called.

Every function of a walk but the first is called by one that is named before it: directly, or by way
of private functions of its module. A command may be called by the user.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.test_floors import FLOWS, ORDER

ROOT = Path(__file__).parents[1]
STARTS = "|".join([*ORDER, *(flow.removesuffix(".py") for flow in FLOWS)])
NAME = re.compile(rf"`((?:{STARTS})(?:\.\w+)+)`")


def lines_of(walk):
    """The functions that each line of a walk names."""
    text = (ROOT / "docs/architecture.md").read_text()
    section = text.partition(f"\n## The way of {walk}\n")[2].partition("\n## ")[0]
    return [NAME.findall(line) for line in re.split(r"^\d+\. ", section, flags=re.MULTILINE)[1:]]


@cache
def definition(name):
    """Where a name such as ``places.open_store`` is defined: its module, the tree, the node."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        for top in ("adroit_publish", "."):
            path = ROOT / top / Path(*parts[:cut]).with_suffix(".py")
            if path.is_file():
                tree = scope = ast.parse(path.read_text())
                for part in parts[cut:]:
                    scope = member(scope, part)
                return ".".join(parts[:cut]), tree, scope
    raise LookupError(f"there is no module of {name}")


def member(scope, name):
    for node in scope.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"there is no {name}")


@cache
def called_by(name):
    """What a function refers to, by dotted names; of a method ``.name`` alone is known."""
    module, tree, function = definition(name)
    imported = {
        alias.asname or alias.name: f"{node.module}.{alias.name}".removeprefix("adroit_publish.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    owner = name.rpartition(".")[0]
    called = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            called |= with_private(imported.get(node.id, f"{module}.{node.id}"), name)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            base = imported.get(node.value.id, node.value.id)
            called |= with_private(f"{owner if base == 'self' else base}.{node.attr}", name)
        if isinstance(node, ast.Attribute):
            called.add(f".{node.attr}")
    return called


def with_private(name, caller):
    """A name and, where it is a private function, all that this calls."""
    if not name.rpartition(".")[2].startswith("_") or name == caller:
        return {name}
    try:
        return {name, *called_by(name)}
    except (LookupError, RecursionError):
        return {name}


def is_called(name, callers):
    owner, _, last = name.rpartition(".")
    is_method = owner.rpartition(".")[2][:1].isupper()
    wanted = f".{last}" if is_method else name
    return any(wanted in called_by(caller) for caller in callers)


def is_command(name):
    """Whether a user calls it, by the command line."""
    decorators = map(ast.unparse, definition(name)[2].decorator_list)
    return any(decorator.endswith(".command()") for decorator in decorators)


@pytest.mark.parametrize("walk", ["a publish", "a republish", "a rollover"])
def test_the_functions_of_a_walk_are_there_and_call_each_other(walk):
    lines = lines_of(walk)
    assert 5 <= len(lines) <= 10
    assert all(lines)
    first, *others = [name for line in lines for name in line]
    passed = [first]
    for name in others:
        definition(name)
        assert is_command(name) or is_called(name, passed), f"{name} is called by none before it"
        passed.append(name)


def test_a_walk_that_is_wrong_is_seen():
    assert is_called("places.open_store", ["places.open_places"])
    assert not is_called("places.prove_access", ["places.open_places"])
    with pytest.raises(LookupError):
        definition("places.no_such_function")
