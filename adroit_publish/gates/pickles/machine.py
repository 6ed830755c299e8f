"""One pickle, read by its opcodes: what it would import, and what of that it would call.

The pickle machine is run with names in the place of objects: its stack, its marks and its memo are
followed, so that a name put together from the memo is known, and a call is told from a mention.
Nothing is imported and nothing is called. Long payloads are passed over; one that begins as a
pickle or an archive is handed on. What joblib writes between opcodes, the raw bytes of arrays, is
passed over as joblib reads it.

Source: Python library, ``pickletools`` (the opcodes) and ``pickle._Unpickler`` (what each does);
``_compat_pickle``; cloudpickle 3.1, ``cloudpickle.cloudpickle``; joblib 1.5,
``joblib.numpy_pickle.NumpyArrayWrapper.read_array``.
"""

from __future__ import annotations

import math
import pickletools
import re
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any

from adroit_publish.gates.pickles.bytes_in import Bytes, Unreadable
from adroit_publish.gates.pickles.inventory import (
    CLASSES,
    CLOUDPICKLE,
    MAKERS,
    OTHER,
    SETTERS,
    Inventory,
    Module,
    Name,
    Value,
    is_by_value,
    text_argument,
)

_TEXT_BYTES = 4096
_KEPT = 64
_MOST_OPCODES = 500_000_000
_OPCODES = {ord(op.code): op for op in pickletools.opcodes}
_LENGTHS = {-2: (1, False), -3: (4, True), -4: (4, False), -5: (8, False)}
"""By pickletools' code for an argument's length: how many bytes hold it, and whether signed."""


class Machine:
    """Runs one pickle over an inventory.

    Args:
        nested: Takes a payload that may hold pickles itself.
    """

    def __init__(self, source: Bytes, inventory: Inventory, nested: Callable[[bytes], None]):
        self.source, self.inventory, self.nested = source, inventory, nested
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.protocol = 0

    def run(self) -> None:
        """Reads up to and with STOP.

        Raises:
            Unreadable: It is cut off, or no unpickler would read it.
        """
        try:
            for _ in range(_MOST_OPCODES):
                code = self.source.read(1)[0]
                opcode = _OPCODES.get(code)
                if opcode is None:
                    raise Unreadable(f"byte {code:#04x} is not an opcode")
                if opcode.name == "STOP":
                    self.stack.pop()
                    return
                argument = self._argument(opcode.name, opcode.arg)
                step = _STEPS.get(opcode.name)
                if step is None:
                    self.stack.append(argument)
                else:
                    step(self, argument)
        except (IndexError, ValueError, KeyError, OverflowError) as error:
            raise Unreadable(f"{type(error).__name__} in its opcodes") from error
        raise Unreadable("it has too many opcodes")

    def _argument(self, name: str, kind: pickletools.ArgumentDescriptor | None) -> Any:
        if kind is None:
            return _CONSTANTS.get(name, OTHER)
        if kind.n == pickletools.UP_TO_NEWLINE:
            line = self.source.line()
            return (
                (line, self.source.line())
                if name in ("GLOBAL", "INST")
                else text_argument(name, line)
            )
        if kind.n >= 0:
            data = self.source.read(kind.n)
            return int.from_bytes(data, "little", signed=name == "BININT") if kind.n < 8 else OTHER
        width, signed = _LENGTHS[kind.n]
        size = int.from_bytes(self.source.read(width), "little", signed=signed)
        if size < 0:
            raise Unreadable("a length is negative")
        if name.startswith("LONG"):
            data = self.source.read(size) if size <= 8 else self.source.skip(size)
            return int.from_bytes(data, "little", signed=True) if data else OTHER
        if "BYTES" in name or "BYTEARRAY" in name:
            self.source.payload(size, self.nested)
            return OTHER
        if size > _TEXT_BYTES:
            self.source.skip(size)
            return OTHER
        return self.source.read(size).decode(
            "utf-8", "surrogatepass" if "UNI" in name else "replace"
        )

    def import_name(self, module: Any, name: Any) -> Any:
        if not (isinstance(module, str) and isinstance(name, str)):
            self.inventory.problems.add("imports a name that it computes")
            return OTHER
        if self.protocol < 3:
            module, name = NAME_MAPPING.get((module, name), (module, name))
            module = IMPORT_MAPPING.get(module, module)
        imported = Name(module, name)
        self.inventory.named.add(imported)
        return imported

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def call(self, function: Any, args: Any) -> Any:
        """Returns what a call would make; notes the call."""
        args = args if isinstance(args, tuple) else ()
        if isinstance(function, Value) and is_by_value(function.by, CLASSES):
            return Value(function.by)
        if not isinstance(function, Name):
            self.inventory.problems.add("calls what it computes")
            return OTHER
        self.inventory.called.add(function)
        if function.module in CLOUDPICKLE:
            return self._by_value(function, args)
        if function == ("builtins", "getattr"):
            return self._attribute(*args)
        if args and (function.module == "copyreg" or function.name == "reduce"):
            return self.call(args[0], ())  # which these call
        return Value(function, args)

    def _by_value(self, function: Name, args: tuple[Any, ...]) -> Any:
        first = args[0] if args else None
        if function.name == "_builtin_type" and isinstance(first, str):
            return self.import_name("types", first)
        if function.name in ("subimport", "_builtin_type"):
            if not isinstance(first, str):
                self.inventory.problems.add("imports a name that it computes")
                return OTHER
            self.inventory.modules.add(first)
            return Module(first)
        if function.name in SETTERS:
            made_here = isinstance(first, Value) and first.by.module in CLOUDPICKLE
            if not made_here:
                self.inventory.problems.add(f"changes what {first} is")
        self.inventory.by_value |= is_by_value(function, MAKERS)
        return Value(function)

    def _attribute(self, of: Any = None, name: Any = None, *_: Any) -> Any:
        public = isinstance(name, str) and not name.startswith("_")
        if isinstance(of, Name) and public:
            return self.import_name(of.module, f"{of.name}.{name}")
        if isinstance(of, Name) and of.module == "builtins" and name == "__new__":
            return OTHER  # of a named tuple
        if not (isinstance(of, Value) and public):
            self.inventory.problems.add(f"takes the attribute {name} of what it computes")
        return OTHER

    def change(self, what: Any) -> None:
        """Notes that something gets items, or a state."""
        if isinstance(what, Name | Module):
            self.inventory.problems.add(f"changes what {what} is")

    def build(self, state: Any) -> None:
        made = self.stack[-1]
        self.change(made)
        if isinstance(made, Value):
            made.state = state
            if made.by == ("joblib.numpy_pickle", "NumpyArrayWrapper"):
                self._pass_array(state)

    def _pass_array(self, state: Any) -> None:
        """Passes over an array that joblib wrote behind its description."""
        state = state if isinstance(state, dict) else {}
        dtype, shape = state.get("dtype"), state.get("shape")
        code = dtype.args[0] if isinstance(dtype, Value) and dtype.args else None
        match = re.fullmatch(r"[<>|=]?([a-zA-Z])(\d*)", code) if isinstance(code, str) else None
        if match is None or not (isinstance(shape, tuple) and all(type(n) is int for n in shape)):
            raise Unreadable("an array of joblib's has no dtype or shape")
        if match[1] == "O":
            Machine(self.source, self.inventory, self.nested).run()
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self.source.skip(self.source.read(1)[0])
        itemsize = int(match[2] or 1) * (4 if match[1] == "U" else 1)
        self.source.skip(math.prod(shape) * itemsize)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


def _mark(m: Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _protocol(m: Machine, number: int) -> None:
    m.protocol = number


def _put(m: Machine, index: int) -> None:
    m.memo[index] = m.stack[-1]


def _tuple(size: int) -> Callable[[Machine, Any], None]:
    def step(m: Machine, _: Any) -> None:
        if len(m.stack) < size:
            raise IndexError
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return step


def _set_items(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    m.change(target)
    if isinstance(target, dict) and len(target) < _KEPT:
        pairs = zip(items[::2], items[1::2], strict=False)
        target.update((key, value) for key, value in pairs if isinstance(key, str))


def _reduce(m: Machine, _: Any) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    made = m.call(function, args)
    m.stack.append(made)


def _new_object_with_names(m: Machine, _: Any) -> None:
    m.stack.pop()
    _reduce(m, _)


def _object(m: Machine, _: Any) -> None:
    function, *args = m.pop_mark()
    m.stack.append(m.call(function, tuple(args)))


def _instance(m: Machine, names: tuple[str, str]) -> None:
    args = m.pop_mark()
    m.stack.append(m.call(m.import_name(*names), tuple(args)))


def _stack_global(m: Machine, _: Any) -> None:
    name, module = m.stack.pop(), m.stack.pop()
    m.stack.append(m.import_name(module, name))


def _extension(m: Machine, code: int) -> None:
    m.inventory.problems.add(f"imports extension {code}, which the registry of its reader names")
    m.stack.append(OTHER)


def _pair(m: Machine, _: Any) -> None:
    value, key = m.stack.pop(), m.stack.pop()
    _set_items(m, [key, value])


def _append(m: Machine, _: Any) -> None:
    m.stack.pop()
    m.change(m.stack[-1])


def _appends(m: Machine, _: Any) -> None:
    m.pop_mark()
    m.change(m.stack[-1])


def _pop(m: Machine, _: Any) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _pop_mark(m: Machine, _: Any) -> None:
    m.pop_mark()


def _pushes(value: Callable[[Machine, Any], Any]) -> Callable[[Machine, Any], None]:
    def step(m: Machine, argument: Any) -> None:
        made = value(m, argument)  # it may take the stack's place
        m.stack.append(made)

    return step


_STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": lambda m, _: None,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _pushes(lambda m, _: m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _pushes(lambda m, index: m.memo[index])),
    "EMPTY_DICT": _pushes(lambda m, _: {}),
    "DICT": _pushes(lambda m, _: dict(_pairs(m.pop_mark()))),
    "TUPLE": _pushes(lambda m, _: tuple(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": _pushes(lambda m, _: m.pop_mark() and OTHER),
    "FROZENSET": _pushes(lambda m, _: m.pop_mark() and OTHER),
    "SETITEM": _pair,
    "SETITEMS": lambda m, _: _set_items(m, m.pop_mark()),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "GLOBAL": _pushes(lambda m, names: m.import_name(*names)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_with_names,
    "OBJ": _object,
    "INST": _instance,
    "BUILD": lambda m, _: m.build(m.stack.pop()),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    "BINPERSID": _pushes(lambda m, _: _persistent(m.stack.pop())),
    "NEXT_BUFFER": _pushes(lambda m, _: OTHER),
    "READONLY_BUFFER": lambda m, _: None,
}
"""What each opcode does to the machine; any other pushes its argument."""


def _persistent(of: Any) -> Any:
    """Returns what torch's old format has by its persistent id: ``("module", class, ...)``."""
    return of[1] if isinstance(of, tuple) and of[:1] == ("module",) and len(of) > 1 else OTHER


def _pairs(items: list[Any]) -> list[tuple[str, Any]]:
    pairs = zip(items[::2], items[1::2], strict=False)
    return [(key, value) for key, value in pairs if isinstance(key, str)][:_KEPT]
