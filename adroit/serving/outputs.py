"""What a handler returned, as the JSON a server would send, and against the signature.

Two rules beside MLflow's own: not-a-number and the infinities become the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"``, because strict JSON has no such numbers; and the digest is over
compact JSON with sorted keys in ASCII, so it is equal wherever the values are equal.

Source: Protocol Buffers documentation, ProtoJSON format, float and double.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.types import Schema


class OutputError(Exception):
    """The outputs are no JSON, or do not fit the model's signature."""


def as_json(outputs: Any) -> Any:
    """Returns ``outputs`` as JSON values: what ``/invocations`` answers under ``predictions``.

    Raises:
        OutputError: MLflow's scoring server could not turn them into JSON.
    """
    from mlflow.pyfunc.scoring_server import predictions_to_json

    text = io.StringIO()
    try:
        predictions_to_json(outputs, text)  # type: ignore[no-untyped-call]
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(
            f"predict returned {type(outputs).__name__}, which cannot be made JSON: {error}"
        ) from error
    return _strict(json.loads(text.getvalue())["predictions"])


def canonical(value: Any) -> bytes:
    """Returns the one spelling of a JSON value that digests and limits are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def sha256(value: Any) -> str:
    """Returns the hex digest of ``canonical(value)``."""
    return hashlib.sha256(canonical(value)).hexdigest()


def bounded(value: Any, *, rows: int, size_bytes: int) -> Any:
    """Returns ``value``, or as many of its first rows as keep both limits; None where not one does.

    Args:
        value: JSON; only a list has rows.
        rows: Most rows.
        size_bytes: Most bytes of ``canonical``.
    """
    if isinstance(value, list):
        value = value[:rows]
    while len(canonical(value)) > size_bytes:
        if not isinstance(value, list) or len(value) <= 1:
            return None
        value = value[: len(value) // 2]
    return value


def check_signature(outputs: Any, schema: Schema) -> None:
    """Raises unless ``outputs`` fit the output schema by the rules MLflow has for inputs.

    Raises:
        OutputError: A column is missing, or a type or a shape is another.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.models import infer_signature, validate_schema

    with suppress(Exception):  # what MLflow cannot infer it may still be able to compare
        if infer_signature(model_output=outputs).outputs == schema:
            return
    try:
        validate_schema(outputs, schema)
    except (MlflowException, TypeError, ValueError, AttributeError) as error:
        said = str(error).replace("Model is missing inputs", "the outputs lack")
        raise OutputError(
            f"predict returned {type(outputs).__name__}, which does not fit the signature's "
            f"outputs {schema}: {said.replace('extra inputs', 'extra outputs')}"
        ) from error


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list):
        return [_strict(item) for item in value]
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    return value
