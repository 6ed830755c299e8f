"""The gate over a model's pickles: what they import is on the list, is the bundle's own, or waived.

A pickle that makes functions or classes from their code (cloudpickle) is everyday for a
PythonModel: what that code mentions is the model's business, as what is in ``code/`` is; what the
pickle itself calls while it is loaded is held to the list like any other's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.edge.text import printable
from adroit_publish.errors import RefusedError
from adroit_publish.gates.pickles.allowed import (
    is_allowed,
    is_known,
    is_never_allowed,
    may_be_constructed,
)
from adroit_publish.gates.pickles.archives import inventory_of
from adroit_publish.gates.pickles.bytes_in import Unreadable
from adroit_publish.gates.pickles.inventory import Inventory, Module, Name, is_name

_SHOWN = 20
_LINE_CHARS = 300
_SUFFIXES = (".py", ".so", ".pyd")


def check_pickles(
    files: Mapping[str, Readable], own: Collection[str], allowed: Collection[str]
) -> tuple[dict[str, tuple[str, ...]], tuple[BundleFinding, ...]]:
    """Returns what each pickle of the model imports, by its path, and what of that is waived.

    Args:
        files: The bundle's files by path below ``opt/adroit``; one of no bytes is not here.
        own: Modules of the bundle itself.
        allowed: Names that are waived, ``module.name``.

    Raises:
        RefusedError: A pickle imports what is not allowed, or cannot be read; names each file.
    """
    imported: dict[str, tuple[str, ...]] = {}
    refused: dict[str, list[str]] = {}
    waived: dict[Name | Module, str] = {}
    for path, content in files.items():
        if not path.startswith("model/") or not content.size_bytes:
            continue
        name = path.removeprefix("model/")
        try:
            with content.open() as stream:
                inventory = inventory_of(stream, path, content.size_bytes)
        except Unreadable as error:
            refused[name] = [f"cannot be read: {error}"]
            continue
        if inventory is None:
            continue
        imported[name] = _lines(inventory)
        names: list[Name | Module] = [
            *(one for one in sorted(inventory.named) if not _passes(one, inventory, own)),
            *(one for one in _modules(inventory) if not _module_passes(one, inventory, own)),
        ]
        waived |= {one: name for one in names if str(one) in allowed}
        bad = [f"imports {one}" for one in names if str(one) not in allowed]
        if bad or inventory.problems:
            refused[name] = [*bad, *sorted(inventory.problems)]
    if refused:
        raise _refusal(refused)
    return imported, tuple(
        BundleFinding(f"pickle:{one}", f"waived: model/{path} imports {one}")
        for one, path in waived.items()
    )


def modules_of(paths: Collection[str]) -> frozenset[str]:
    """Returns the modules that files of Python are, by their paths below a root of imports."""
    stems = (path.partition(".")[0] for path in paths if path.endswith(_SUFFIXES))
    return frozenset(stem.removesuffix("/__init__").replace("/", ".") for stem in stems)


def _lines(inventory: Inventory) -> tuple[str, ...]:
    modules = (f"module {module}" for module in inventory.modules)
    names = (*sorted(map(str, inventory.named)), *sorted(modules))
    return tuple(printable(name, _LINE_CHARS) for name in names)


def _passes(name: Name, inventory: Inventory, own: Collection[str]) -> bool:
    if is_never_allowed(name):
        return False
    if name.module in own and "." not in name.name:
        return True
    if is_allowed(name):
        return may_be_constructed(name) or name not in inventory.constructed
    return inventory.by_value and name not in inventory.called


def _modules(inventory: Inventory) -> list[Module]:
    return [Module(name) for name in sorted(inventory.modules)]


def _module_passes(module: Module, inventory: Inventory, own: Collection[str]) -> bool:
    if is_never_allowed(Name(module.name, "")):
        return False
    return inventory.by_value or module.name in own or is_known(module.name)


def _refusal(refused: Mapping[str, list[str]]) -> RefusedError:
    lines = [
        printable(f"model/{path} {line}", _LINE_CHARS)
        for path, lines in refused.items()
        for line in lines
    ]
    more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    names = dict.fromkeys(
        line.removeprefix("imports ")
        for lines in refused.values()
        for line in lines
        if line.startswith("imports ") and is_name(line.removeprefix("imports "))
    )
    waive = (
        "; if this model needs them: "
        f'"security: {{allow_pickle_globals: [{", ".join(names)}]}}" in config.yaml'
    )
    return RefusedError(
        "A pickle of the model would import what no model needs, or cannot be read.",
        got="\n".join([*lines[:_SHOWN], *more]),
        wanted="names of the frameworks that adroit_publish/gates/pickles/allowed.py lists, or of "
        "the bundle's own modules",
        next_step="log the model again without it, in its framework's own format where it has one"
        + (waive if names else ""),
    )
