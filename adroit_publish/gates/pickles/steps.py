"""One pickle, read opcode by opcode: what each does to the machine that reads it.

Source: Python library, ``pickle._Unpickler``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

from adroit_publish.gates.pickles.arguments import argument_of
from adroit_publish.gates.pickles.bytes_in import Unreadable
from adroit_publish.gates.pickles.inventory import DATA, OTHER
from adroit_publish.gates.pickles.machine import Machine

_KEPT = 256
_MOST_OPCODES = 500_000_000
_OPCODES = {ord(op.code): op for op in pickletools.opcodes}


def run(m: Machine) -> None:
    """Reads one pickle, up to and with STOP.

    Raises:
        Unreadable: It is cut off, or no unpickler would read it.
    """
    try:
        for _ in range(_MOST_OPCODES):
            code = m.source.read(1)[0]
            opcode = _OPCODES.get(code)
            if opcode is None:
                raise Unreadable(f"byte {code:#04x} is not an opcode")
            if opcode.name == "STOP":
                m.check_frame()
                m.stack.pop()
                return
            argument = argument_of(opcode, m.source, m.nested)
            step = STEPS.get(opcode.name)
            if step is None:
                m.stack.append(argument)
            else:
                step(m, argument)
    except (IndexError, ValueError, KeyError, OverflowError) as error:
        raise Unreadable(f"{type(error).__name__} in its opcodes") from error
    raise Unreadable("it has too many opcodes")


def _mark(m: Machine, _: Any) -> None:
    m.marks.append(m.stack)
    m.stack = []


def _protocol(m: Machine, number: int) -> None:
    m.protocol = number


def _build(m: Machine, _: Any) -> None:
    layout = m.build(m.stack.pop())
    if layout is None:
        return
    if layout.is_pickle:
        run(Machine(m.source, m.inventory, m.nested, as_joblib=False))
        return
    if layout.is_padded:
        m.source.skip(m.source.read(1)[0])
    m.source.skip(layout.size_bytes)


def _frame(m: Machine, size: int) -> None:
    m.frame_end = m.source.position + size


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
    if isinstance(target, dict):
        _keep_items(target, items)


def _reduce(m: Machine, _: Any) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.push_made(m.call(function, args))


def _new_object(m: Machine, _: Any) -> None:
    args, function = m.stack.pop(), m.stack.pop()
    m.push_made(m.call(function, args, constructs=False))


def _new_object_with_names(m: Machine, _: Any) -> None:
    m.stack.pop()
    _new_object(m, _)


def _object(m: Machine, _: Any) -> None:
    function, *args = m.pop_mark()
    m.push_made(m.call(function, tuple(args), constructs=bool(args)))


def _instance(m: Machine, names: tuple[str, str]) -> None:
    args = m.pop_mark()
    m.push_made(m.call(m.import_name(*names), tuple(args), constructs=bool(args)))


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


STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": _protocol,
    "FRAME": _frame,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _pushes(lambda m, _: m.again(m.stack[-1])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    "MEMOIZE": lambda m, _: _put(m, len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _pushes(lambda m, at: m.again(m.memo[at]))),
    "EMPTY_DICT": _pushes(lambda m, _: {}),
    "DICT": _pushes(lambda m, _: _keep_items({}, m.pop_mark())),
    "TUPLE": _pushes(lambda m, _: tuple(m.pop_mark())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "LIST": _pushes(lambda m, _: m.pop_mark() and DATA),
    "FROZENSET": _pushes(lambda m, _: m.pop_mark() and DATA),
    "SETITEM": _pair,
    "SETITEMS": lambda m, _: _set_items(m, m.pop_mark()),
    "APPEND": _append,
    "APPENDS": _appends,
    "ADDITEMS": _appends,
    "GLOBAL": _pushes(lambda m, names: m.import_name(*names)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _new_object,
    "NEWOBJ_EX": _new_object_with_names,
    "OBJ": _object,
    "INST": _instance,
    "BUILD": _build,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
    "BINPERSID": _pushes(lambda m, _: _persistent(m.stack.pop())),
    "NEXT_BUFFER": _pushes(lambda m, _: DATA),
    "READONLY_BUFFER": lambda m, _: None,
}
"""What each opcode does to the machine; any other pushes its argument."""


def _persistent(of: Any) -> Any:
    """Returns what torch's old format has by its persistent id: ``("module", class, ...)``."""
    return of[1] if isinstance(of, tuple) and of[:1] == ("module",) and len(of) > 1 else OTHER


def _keep_items(target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
    """Sets what is known of items; ``OTHER`` is a key where there are others."""
    for key, value in zip(items[::2], items[1::2], strict=False):
        known = isinstance(key, str) and len(target) < _KEPT
        target[key if known else OTHER] = value
    return target
