"""What a handler returned, as the JSON that a server sends."""

from __future__ import annotations

import io
import json
from typing import Any


class OutputError(Exception):
    """The outputs cannot be written as JSON."""


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
    return json.loads(text.getvalue())["predictions"]
