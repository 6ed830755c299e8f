"""Plain tables in JSON, straight into the DataFrame that MLflow would make of them.

MLflow parses a body twice, builds objects of every cell and casts column by column. Where a
request has ``dataframe_split`` or ``dataframe_records`` with exactly the signature's columns, and
every cell is plainly of its column's type, the same frame comes of one conversion. ``plain_frame``
gives None for all else, and MLflow's own code has the word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    Columns = Mapping[str, list[Any]]

try:
    from orjson import loads  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # not every env has it
    from json import loads

JSON = "application/json"
_EXACT = 1 << 53  # integers up to here are floats without loss
_TYPES: dict[str, tuple[frozenset[type], int]] = {
    "float64": (frozenset({float, int}), _EXACT),
    "float32": (frozenset({float, int}), _EXACT),
    "int64": (frozenset({int}), 1 << 63),
    "int32": (frozenset({int}), 1 << 31),
    "bool": (frozenset({bool}), 0),
}
_DTYPES = {
    "double": "float64",
    "float": "float32",
    "long": "int64",
    "integer": "int32",
    "boolean": "bool",
}


def plain_types(metadata: Any) -> dict[str, str] | None:
    """Returns the dtype of each column of a model's inputs, by name; None for other inputs.

    Args:
        metadata: MLflow's of the model.
    """
    schema = metadata.get_input_schema()
    hinted = getattr(metadata, "_is_signature_from_type_hint", lambda: False)()
    if schema is None or hinted or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    kinds = {
        column.name: getattr(column.type, "name", "") if column.required else ""
        for column in schema.inputs
    }
    if not kinds or len(kinds) != len(schema.inputs) or not set(kinds.values()) <= set(_DTYPES):
        return None
    return {name: _DTYPES[kind] for name, kind in kinds.items()}


def plain_frame(body: bytes, types: Mapping[str, str]) -> pd.DataFrame | None:
    """Returns the table in a body of JSON, or None where MLflow has to look at it.

    Args:
        body: The whole body.
        types: As ``plain_types`` gives them.

    Returns:
        (rows, columns): the columns in the request's order, the index from 0.
    """
    try:
        value = loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((form, table),) = value.items()
    if form == "dataframe_split":
        columns = _split(table)
    elif form == "dataframe_records":
        columns = _records(table)
    else:
        return None
    if columns is None or columns.keys() != types.keys():
        return None
    return _frame(columns, types)


def _split(table: Any) -> Columns | None:
    if not isinstance(table, dict) or table.keys() != {"columns", "data"}:
        return None
    names, rows = table["columns"], table["data"]
    if not _are(names, str) or not _are(rows, list) or len(set(names)) != len(names):
        return None
    if any(len(row) != len(names) for row in rows):
        return None
    return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))


def _records(table: Any) -> Columns | None:
    if not _are(table, dict):
        return None
    names = list(table[0])
    if any(list(row) != names for row in table):
        return None
    return {name: [row[name] for row in table] for name in names}


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and bool(values) and all(type(v) is kind for v in values)


def _frame(columns: Columns, types: Mapping[str, str]) -> pd.DataFrame | None:
    import numpy as np
    import pandas as pd

    if not all(_fits(values, types[name]) for name, values in columns.items()):
        return None
    dtypes = {types[name] for name in columns}
    if len(dtypes) == 1:  # one block, in the order in which pandas keeps it
        block = np.array(list(columns.values()), dtype=dtypes.pop())
        return pd.DataFrame(block.T, columns=list(columns))
    arrays = {name: np.array(values, dtype=types[name]) for name, values in columns.items()}
    return pd.DataFrame(arrays)


def _fits(values: Sequence[Any], dtype: str) -> bool:
    kinds, bound = _TYPES[dtype]
    if not kinds.issuperset(map(type, values)):
        return False
    return all(-bound < value < bound for value in values if type(value) is int)
