"""The tree of a YAML document: what stands where in the text, before anything is resolved.

Offsets are in characters of the text after a leading byte order mark; lines count LF, CRLF
and CR from 1, as editors do. The limits keep the worst file under a second and
100 MB; ruamel.yaml's scanner reads about 0.5 MB a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # about 2,500 flavors
MAX_DEPTH = 64
MAX_EXPANDED_NODES = 100_000

BOM = "\ufeff"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value in the text, from ``start`` to ``end``, its anchor and tag included.

    Attributes:
        height: Levels below and including this one, aliases followed.
        weight: Nodes in it, aliases written out.
    """

    start: int
    end: int
    line: int
    height: int
    weight: int


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(Node):
    """``text`` is the value with escapes and folding undone.

    ``style`` is how it was written. ``tagged`` says that a tag makes it a string.
    """

    text: str
    style: Literal["plain", "'", '"', "|", ">"]
    tagged: bool

    @property
    def is_string(self) -> bool:
        """Whether its form alone makes it a string, whatever it spells."""
        return self.tagged or self.style != "plain"


@dataclass(frozen=True, slots=True, eq=False)
class Sequence(Node):
    items: tuple[Node, ...]
    flow: bool


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One ``key: value``. ``name`` is the key's text; ``merges`` marks a merge key, ``<<``."""

    key: Node
    name: str
    merges: bool
    value: Node


@dataclass(frozen=True, slots=True, eq=False)
class Mapping(Node):
    entries: tuple[Entry, ...]
    flow: bool


@dataclass(frozen=True, slots=True, eq=False)
class Alias(Node):
    target: Node


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One file's text, decoded and without a leading byte order mark, and its tree.

    ``root`` is None for a file without content.
    """

    file: str
    text: str
    has_bom: bool
    root: Node | None

    def encode(self, text: str) -> bytes:
        """Returns ``text`` as this file's bytes, with the byte order mark it had."""
        return (BOM + text if self.has_bom else text).encode()


def deref(node: Node) -> Node:
    """Returns what the node stands for: an alias's target, any other node itself."""
    return node.target if isinstance(node, Alias) else node
