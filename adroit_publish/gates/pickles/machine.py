"""The machine that reads a pickle: what it would import, and what of that it would call.

The pickle machine is run with names in the place of objects: its stack, its marks and its memo are
followed, so that a name put together from the memo is known, and a call is told from a mention.
Nothing is imported and nothing is called. A reading ends at what no unpickler would get past: a
name that nothing can have, a call of a number. Long payloads are passed over; one that begins as a
pickle or an archive is handed on. What joblib writes between opcodes, the raw bytes of arrays, is
passed over by joblib's reader and read as opcodes by any other: the machine reads as either.

Source: Python library, ``pickletools`` (the opcodes) and ``pickle._Unpickler`` (what each does);
``_compat_pickle``; cloudpickle 3.1, ``cloudpickle.cloudpickle``; joblib 1.6,
``joblib.numpy_pickle.NumpyUnpickler.load_build``.
"""

from __future__ import annotations

from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from typing import Any

from adroit_publish.gates.pickles.allowed import is_plain_formula
from adroit_publish.gates.pickles.bytes_in import Bytes, Unreadable
from adroit_publish.gates.pickles.inventory import (
    CLASSES,
    CLOUDPICKLE,
    DATA,
    LOOKED_INTO,
    MAKERS,
    OTHER,
    SETTERS,
    Inventory,
    Module,
    Name,
    Value,
    is_by_value,
    is_name,
)
from adroit_publish.gates.pickles.joblib_arrays import WRAPPER, Layout, layout_of

_MAKE_TEXTS = ("builtins", "operator", "_operator", "functools", "_functools")


class Machine:
    """What a reader of one pickle has before it, and notes in an inventory.

    Args:
        nested: Takes a payload that may hold pickles itself.
        as_joblib: Whether to read as joblib does, past the raw bytes of arrays.
    """

    def __init__(
        self,
        source: Bytes,
        inventory: Inventory,
        nested: Callable[[bytes], bool],
        *,
        as_joblib: bool,
    ):
        self.source, self.inventory, self.nested = source, inventory, nested
        self.as_joblib, self.has_arrays = as_joblib, False
        self.unread_array: tuple[Value, list[Any], int] | None = None
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.protocol = self.frame_end = 0

    def import_name(self, module: Any, name: Any) -> Any:
        if _is_no_text(module) or _is_no_text(name):
            raise Unreadable("imports what is not a name")
        if not (isinstance(module, str) and isinstance(name, str)):
            self.inventory.problems.add("imports a name that it computes")
            return OTHER
        if self.protocol < 3:
            module, name = NAME_MAPPING.get((module, name), (module, name))
            module = IMPORT_MAPPING.get(module, module)
        if not is_name(f"{module}.{name}"):
            raise Unreadable(f"imports {module}.{name}, which is not a name")
        if name == "dtype" and not self.as_joblib and not _can_be_imported(module):
            raise Unreadable(f"imports {module}")  # by its memo, which joblib's arrays do not share
        imported = Name(module, name)
        self.inventory.named.add(imported)
        return imported

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def call(self, function: Any, args: Any, *, constructs: bool = True) -> Any:
        """Returns what a call would make; notes the call.

        Args:
            constructs: Whether a class is called, rather than its ``__new__`` alone.
        """
        args = args if isinstance(args, tuple) else (OTHER,)
        self._check_array()
        if isinstance(function, str) or _is_data(function):
            raise Unreadable("calls what is not a function")
        if isinstance(function, Value) and is_by_value(function.by, CLASSES):
            return Value(function.by)
        if not isinstance(function, Name):
            self.inventory.problems.add("calls what it computes")
            return OTHER
        self.inventory.called.add(function)
        if constructs:
            self.inventory.constructed.add(function)
        if function.module in CLOUDPICKLE:
            return self._by_value(function, args)
        if function == ("builtins", "getattr"):
            return self._attribute(*args)
        if function == ("_codecs", "encode"):
            return self._encode(*args)
        if function == ("torch.storage", "_load_from_bytes") and args != (LOOKED_INTO,):
            self.inventory.problems.add("unpickles bytes that are not pickles, or not in it")
        if args and function.module == "copyreg":  # which calls the constructor of a base
            plain = function.name != "_reconstructor" or _is_builtin(args[1:2])
            return self.call(args[0], (), constructs=not plain)
        if args and function.name == "reduce":
            self.call(args[0], ())
            return Value(function)
        return Value(function, args)

    def push_made(self, made: Any) -> None:
        """Puts what a call made on the stack."""
        self.stack.append(made)
        if self.as_joblib and isinstance(made, Value) and made.by == WRAPPER:
            self._check_array(made)
            self.unread_array = made, self.stack, len(self.stack) - 1

    def _check_array(self, made: Value | None = None) -> None:
        """Checks that an array's description lies where it was made, with nothing in its way."""
        if self.unread_array is None:
            return
        wrapper, stack, at = self.unread_array
        in_place = any(stack is other for other in (self.stack, *self.marks))
        if made or not in_place or len(stack) <= at or stack[at] is not wrapper:
            raise Unreadable("an array of joblib's is used before it is read")

    def again(self, value: Any) -> Any:
        """Returns what the pickle uses another time."""
        if self.as_joblib and isinstance(value, Value) and value.by == WRAPPER:
            raise Unreadable("an array of joblib's is used twice")
        return value

    def _by_value(self, function: Name, args: tuple[Any, ...]) -> Any:
        first = args[0] if args else None
        if function.name == "_builtin_type" and isinstance(first, str):
            return self.import_name("types", first)
        if function.name in ("subimport", "_builtin_type"):
            if not isinstance(first, str):
                self.inventory.problems.add("imports a name that it computes")
                return OTHER
            if not is_name(first):
                raise Unreadable(f"imports {first}, which is not a name")
            self.inventory.modules.add(first)
            return Module(first)
        if function.name in SETTERS:
            made_here = isinstance(first, Value) and first.by.module in CLOUDPICKLE
            if not made_here:
                self.inventory.problems.add(f"changes what {first} is")
        self.inventory.by_value |= is_by_value(function, MAKERS)
        return Value(function)

    def _encode(self, text: Any = None, encoding: Any = None, *_: Any) -> Any:
        """Returns bytes as protocols below 3 write them."""
        if encoding != "latin1" and text != "":
            self.inventory.problems.add("encodes a text in another way than pickle does")
        if not isinstance(text, str):
            return LOOKED_INTO if text is LOOKED_INTO else OTHER
        data = text.encode("latin-1")
        return (
            LOOKED_INTO
            if data[:1] and Bytes(BytesIO(data)).payload(len(data), self.nested)
            else DATA
        )

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

    def build(self, state: Any) -> Layout | None:
        """Notes that the last object gets a state; returns what follows it, if it is an array's."""
        made = self.stack[-1]
        self.change(made)
        self._check_array()
        if not isinstance(made, Value):
            return None
        made.state = state if made.state is None else OTHER
        if made.by.module.startswith("statsmodels.") and not is_plain_formula(state):
            self.inventory.problems.add("evaluates a formula that calls more than arithmetic")
        if not (self.unread_array and made is self.unread_array[0]):
            return None
        self.unread_array, self.has_arrays = None, True
        self.check_frame()
        return layout_of(made, state)

    def check_frame(self) -> None:
        """Checks that a reader which reads by frames is where the machine is."""
        if self.source.position < self.frame_end:
            raise Unreadable("a frame goes on where its reader has already left it")


def _can_be_imported(module: str) -> bool:
    """Whether a module may be there, so far as that is known without importing it."""
    return "." in module or find_spec(module) is not None


def _is_builtin(values: tuple[Any, ...]) -> bool:
    return all(isinstance(value, Name) and value.module == "builtins" for value in values)


def _is_no_text(value: Any) -> bool:
    """Whether a value is certainly not a text, which alone is taken for a name."""
    if isinstance(value, Value):
        return value.by.module not in _MAKE_TEXTS or value.by.name[:1].isupper()
    return isinstance(value, Name) or _is_data(value)


def _is_data(value: Any) -> bool:
    """Whether a value can be neither a name nor a function."""
    return value is None or value in (DATA, LOOKED_INTO) or type(value) in (int, bool, tuple, dict)
