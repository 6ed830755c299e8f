"""What the opcodes of a pickle bring with them: numbers, texts, and payloads.

Source: Python library, ``pickletools``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from adroit_publish.gates.pickles.bytes_in import Bytes, Unreadable
from adroit_publish.gates.pickles.inventory import DATA, LOOKED_INTO, OTHER

_TEXT_BYTES = 4096
_LENGTHS = {-2: (1, False), -3: (4, True), -4: (4, False), -5: (8, False)}
"""By pickletools' code for an argument's length: how many bytes hold it, and whether signed."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def argument_of(
    opcode: pickletools.OpcodeInfo, source: Bytes, nested: Callable[[bytes], bool]
) -> Any:
    """Reads an opcode's argument; returns what is known of it.

    Args:
        nested: Takes a payload that may hold pickles; says whether it was one and was read.

    Raises:
        Unreadable: It is cut off, or has no length.
    """
    name, kind = opcode.name, opcode.arg
    if kind is None:
        return _CONSTANTS.get(name, DATA)
    if kind.n == pickletools.UP_TO_NEWLINE:
        line = source.line()
        return (line, source.line()) if name in ("GLOBAL", "INST") else _of_line(name, line)
    if kind.n >= 0:
        data = source.read(kind.n)
        is_number = name != "BINFLOAT"
        return int.from_bytes(data, "little", signed=name == "BININT") if is_number else DATA
    width, signed = _LENGTHS[kind.n]
    size = int.from_bytes(source.read(width), "little", signed=signed)
    if size < 0:
        raise Unreadable("a length is negative")
    if name.startswith("LONG"):
        data = source.read(size) if size <= 8 else source.skip(size)
        return int.from_bytes(data, "little", signed=True) if data else DATA
    if "BYTE" in name:
        was_read = source.payload(size, nested)
        return LOOKED_INTO if was_read and "BYTES" in name else DATA
    if size > _TEXT_BYTES:
        return LOOKED_INTO if source.text_payload(size, nested) else DATA
    return source.read(size).decode("utf-8", "surrogatepass" if "UNI" in name else "replace")


def _of_line(name: str, line: str) -> Any:
    """Returns the value of an argument that ends with its line."""
    if name in ("PUT", "GET"):
        return int(line)
    if name == "INT":
        return {"00": False, "01": True}.get(line) if line in ("00", "01") else int(line)
    if name == "STRING":
        quoted = len(line) >= 2 and line[0] == line[-1] and line[0] in "\"'"
        return line[1:-1].encode().decode("unicode_escape") if quoted else DATA
    if name == "UNICODE":
        return line.encode("latin-1", "replace").decode("raw_unicode_escape")
    return OTHER if name == "PERSID" else DATA
