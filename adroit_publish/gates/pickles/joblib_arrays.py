"""How joblib's reader reads the raw bytes of an array that follow its description in a pickle.

Only a description whose every part is known gives a layout. Any other is refused: a gate that
passes over other bytes than the reader does would not see the opcodes between them.

Source: joblib 1.6, ``joblib.numpy_pickle.NumpyArrayWrapper``; numpy 2.4, ``dtype.__setstate__``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from adroit_publish.gates.pickles.bytes_in import Unreadable
from adroit_publish.gates.pickles.inventory import Name, Value

WRAPPER = Name("joblib.numpy_pickle", "NumpyArrayWrapper")

_DTYPE = Name("numpy", "dtype")
_STATE = {"subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"}
_CODE = re.compile(r"[<>|=]?(?:O[0-9]?|([biufcmMSUV])([0-9]+))")
_HOLDS_OBJECTS = 1
"""The flag of a dtype by which numpy and joblib know that it holds objects."""


@dataclass(frozen=True)
class Layout:
    """What follows the description of an array: ``size_bytes`` of it, or a pickle."""

    size_bytes: int
    is_padded: bool
    is_pickle: bool


def layout_of(wrapper: Value, state: Any) -> Layout:
    """Returns how an array is laid out whose description gets this state.

    Raises:
        Unreadable: What joblib would read is not known for certain.
    """
    if wrapper.args or not (isinstance(state, dict) and set(state) <= _STATE):
        raise Unreadable("an array of joblib's has a description that joblib does not write")
    dtype, shape = state.get("dtype"), state.get("shape")
    padded = state.get("numpy_array_alignment_bytes")
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise Unreadable("an array of joblib's has no shape")
    if padded is not None and type(padded) is not int:
        raise Unreadable("an array of joblib's is padded by what the pickle computes")
    item_bytes, has_objects = _item(dtype)
    if has_objects and state.get("allow_mmap") is not False:
        raise Unreadable("an array of joblib's holds objects and may be mapped")
    return Layout(math.prod(shape) * item_bytes, padded is not None, has_objects)


def _item(dtype: Any) -> tuple[int, bool]:
    """Returns an item's size, and whether it holds objects."""
    code = dtype.args[0] if isinstance(dtype, Value) and dtype.args else None
    match = _CODE.fullmatch(code) if isinstance(code, str) and dtype.by == _DTYPE else None
    if match is None:
        raise Unreadable("an array of joblib's has no dtype that is known")
    kind = match[1] or "O"
    item_bytes = int(match[2] or 1) * (4 if kind == "U" else 1)
    if dtype.state is None:
        return item_bytes, kind == "O"
    if not (isinstance(dtype.state, tuple) and len(dtype.state) >= 8):
        raise Unreadable("an array of joblib's has a dtype whose state is not known")
    version, size, flags = dtype.state[0], dtype.state[5], dtype.state[7]
    known = version in (3, 4) and type(flags) is int
    if not known or (kind in "SUV" and size not in (-1, item_bytes)):
        raise Unreadable("an array of joblib's has a dtype of another size than it says")
    has_objects = bool(flags & _HOLDS_OBJECTS)
    if (kind == "O") > has_objects or (has_objects and kind not in "OV"):
        raise Unreadable("an array of joblib's has a dtype that hides objects")
    return item_bytes, has_objects
