"""X_test in the forms that it comes in: its signature, and the few rows that become the example.

| form | rows |
|---|---|
| DataFrame, ndarray, scipy sparse matrix, tensor | its first dimension |
| Series | its elements; a model gets them as a DataFrame of one column, as MLflow does it |
| list | its elements |
| dict of arrays or lists | theirs; a dict of anything else is one request |
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adroit.training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from pandas import DataFrame

EXAMPLE_ROWS = 3


def signature_of(rows: Any, answers: Any) -> ModelSignature:
    """Returns the signature of all rows and answers (None: of the rows), as MLflow infers it."""
    from mlflow.models import infer_signature, validate_schema

    signature = infer_signature(_as_array(rows), _as_array(answers))
    try:
        validate_schema(_as_array(rows), signature.inputs)
    except Exception as error:  # noqa: BLE001 - MLflow lets out what pandas raises
        reason = " ".join(str(error).split())[:300]
        message = f"MLflow refuses some of X_test by the signature that it infers from it: {reason}"
        warnings.warn(message, stacklevel=3)
    return signature


def example_of(rows: Any) -> Any:
    """Returns the first ``EXAMPLE_ROWS`` rows in a form that MLflow can save; None for None."""
    rows = _as_array(rows)
    if isinstance(rows, Mapping):
        return {name: _first_values(values) for name, values in rows.items()}
    if hasattr(rows, "iloc"):
        return _first_of_frame(rows if hasattr(rows, "columns") else rows.to_frame())
    return rows if _count(rows) is None else rows[:EXAMPLE_ROWS]


def check_rows(rows: Any, answers: Any) -> None:
    """Lets rows and their answers pass.

    Raises:
        TrainingError: There are no rows.
        ValueError: There are more of one than of the other.
    """
    count, answer_count = _count(rows), _count(answers)
    if count == 0:
        raise TrainingError(
            "X_test has no rows.",
            got=f"{type(rows).__name__}, shape {getattr(rows, 'shape', (0,))}",
            wanted="some rows for the input example and the signature",
            next_step="pass rows, or X_test=None for a model without a signature",
        )
    if count is not None and answer_count is not None and count != answer_count:
        raise ValueError(f"X_test has {count} rows, y_test {answer_count}")


def _first_of_frame(frame: DataFrame) -> DataFrame:
    # MLflow takes no NA in a column of integers or booleans, though it infers that it is optional.
    nullable = [dtype.kind in "iub" and hasattr(dtype, "na_value") for dtype in frame.dtypes]
    whole = frame[frame.loc[:, nullable].notna().all(axis=1)]
    return (whole if len(whole) else frame).iloc[:EXAMPLE_ROWS]


def _first_values(values: Any) -> Any:
    first = example_of(values)
    return first.iloc[:, 0].to_numpy() if hasattr(first, "iloc") else first


def _as_array(rows: Any) -> Any:
    """Returns rows as MLflow takes them: tensors as arrays, sparse ones by row."""
    if isinstance(rows, Mapping):
        return {name: _as_array(values) for name, values in rows.items()}
    if isinstance(rows, list) and rows and all(hasattr(row, "detach") for row in rows):
        return [_as_array(row) for row in rows]
    if hasattr(rows, "tocsr"):
        from scipy.sparse import csc_matrix, csr_matrix

        return rows if isinstance(rows, csr_matrix | csc_matrix) else csr_matrix(rows)
    if not hasattr(rows, "detach"):
        return rows
    try:
        return rows.detach().cpu().numpy()
    except TypeError as error:  # bfloat16, and other types that numpy has not
        raise TrainingError(
            "X_test has a type of number that MLflow cannot keep.",
            got=str(rows.dtype),
            next_step="pass X_test.float(), and let the model convert it",
        ) from error


def _count(rows: Any) -> int | None:
    if shape := getattr(rows, "shape", None):
        return int(shape[0])
    return len(rows) if isinstance(rows, list) else None
