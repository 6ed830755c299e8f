"""Loads a saved model and predicts once, in a process that has nothing but what is installed.

    python -I load_once.py DIRECTORY [--sign]

Not imported: run by ``clean_process`` as a file of its own, with no path to the checkout. With
``--sign`` the model gets the signature of its input example and of what it answers to it, and
answers once more with that enforced. Exit codes: 0 well, 3 it does not load, 4 it does not predict;
the traceback is on standard error.

MLflow reads the model's own ``code/`` directory; everything else that it imports is installed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

DOES_NOT_LOAD = 3
DOES_NOT_PREDICT = 4


def main(directory: str, *, sign: bool) -> int:
    """Returns the exit code; see above."""
    import mlflow.pyfunc

    try:
        model = mlflow.pyfunc.load_model(directory)
    except Exception:  # noqa: BLE001 - a model's code raises what it likes
        traceback.print_exc()
        return DOES_NOT_LOAD
    try:
        example = model.input_example
        if example is not None:
            outputs = model.predict(example)
            if sign:
                _sign(model, Path(directory), example, outputs)
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return DOES_NOT_PREDICT
    return 0


def _sign(model: Any, directory: Path, example: Any, outputs: Any) -> None:
    from mlflow.models import infer_signature

    model.metadata.signature = infer_signature(example, outputs)
    model.predict(example)
    model.metadata.save(str(directory / "MLmodel"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sign="--sign" in sys.argv[2:]))
