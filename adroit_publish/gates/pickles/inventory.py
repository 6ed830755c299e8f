"""What is known of a pickle: the names that it imports, and the values that decide about them.

Source: cloudpickle 3.1, ``cloudpickle.cloudpickle``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Name(NamedTuple):
    """Something that is imported: a module's attribute."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Module(NamedTuple):
    """A module that cloudpickle imports by its name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(eq=False)
class Value:
    """What a call made: by what, from what, and its state as far as that is kept."""

    by: Name
    args: tuple[Any, ...] = ()
    state: Any = None


DATA = object()
"""A number, bytes, a list: what is neither called nor the name of anything."""
LOOKED_INTO = object()
"""Bytes, or a text that becomes bytes, that were read as pickles to their end."""
OTHER = object()
"""Any other value, of which nothing is known."""

CLOUDPICKLE = (
    "cloudpickle.cloudpickle",
    "cloudpickle.cloudpickle_fast",
    "joblib.externals.cloudpickle.cloudpickle",
)
MAKERS = {"_make_skeleton_class", "_make_skeleton_enum", "_make_function", "_make_skel_func"}
CLASSES = {"_make_skeleton_class", "_make_skeleton_enum"}
SETTERS = {"_function_setstate", "_class_setstate", "_fill_function", "_rehydrate_skeleton_class"}


@dataclass
class Inventory:
    """What pickles import.

    Attributes:
        called: Names that are called while the pickle is loaded.
        constructed: Names, of those, that are called with arguments, not just given a state.
        named: Names that are imported; those that are called are among them.
        modules: Modules that are imported as such.
        by_value: Whether functions or classes are made from their code.
        problems: What it does besides that no harmless pickle does, a sentence's end each.
    """

    called: set[Name] = field(default_factory=set)
    constructed: set[Name] = field(default_factory=set)
    named: set[Name] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    by_value: bool = False
    problems: set[str] = field(default_factory=set)


def is_name(dotted: str) -> bool:
    """Whether something can be imported by such a name, as by chance bytes or text it cannot."""
    return all(part.replace("-", "_").isidentifier() for part in dotted.split("."))


def is_by_value(name: Name, names: set[str]) -> bool:
    """Whether this is one of cloudpickle's functions for what it pickles by value."""
    return name.module in CLOUDPICKLE and name.name in names
