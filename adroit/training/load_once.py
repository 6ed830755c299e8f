"""Loads a saved model and predicts once, in a process that has nothing but what is installed.

    python -I load_once.py DIRECTORY

Not imported: run by ``clean_process`` as a file of its own, with no path to the checkout. The model
answers its input example, with the signature's inputs enforced. A signature without outputs gets
those of the answer. Exit codes: 0 well, 3 it does not load, 4 it does not predict; the traceback is
on standard error.

MLflow reads the model's own ``code/`` directory; everything else that it imports is installed.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

DOES_NOT_LOAD = 3
DOES_NOT_PREDICT = 4


def main(directory: str) -> int:
    """Returns the exit code; see above."""
    import mlflow.pyfunc

    try:
        model = mlflow.pyfunc.load_model(directory)
    except Exception:  # noqa: BLE001 - a model's code raises what it likes
        traceback.print_exc()
        return DOES_NOT_LOAD
    try:
        # Not model.input_example: it is None where the example does not fit the signature.
        example = model.metadata.load_input_example(directory)
        if example is not None:
            _sign_outputs(model, Path(directory), model.predict(example))
    except Exception:  # noqa: BLE001
        traceback.print_exc()
        return DOES_NOT_PREDICT
    return 0


def _sign_outputs(model: Any, directory: Path, answer: Any) -> None:
    from mlflow.models import infer_signature

    signature = model.metadata.signature
    if signature is not None and signature.outputs is None:
        signature.outputs = infer_signature(None, answer).outputs
        model.metadata.save(str(directory / "MLmodel"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
