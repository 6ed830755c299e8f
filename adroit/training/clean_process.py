"""The check that a model loads and predicts where only installed packages and its own code are.

A model that was pickled in a notebook or a flow leans on that process: modules beside the flow,
a class that was patched, a variable of the environment. Here it is loaded by another process of
this interpreter, isolated (``-I``: no PYTHONPATH, no user packages, no current directory), in an
empty directory and without what names a user, a cloud or a tracking server.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from adroit.training import load_once
from adroit.training.errors import TrainingError

_KEPT_OUT = ("ADROIT_", "AWS_", "DATABRICKS_", "METAFLOW_", "MLFLOW_", "PYTHON")
_SAYS = {
    load_once.DOES_NOT_LOAD: "The model does not load in a clean process.",
    load_once.DOES_NOT_PREDICT: "The model loads in a clean process, but does not predict.",
}
_TAIL_LINES = 12


def load_in_clean_process(directory: Path) -> None:
    """Loads a saved model and predicts on its input example, if it has one.

    Args:
        directory: The model; a signature without outputs is given those that were seen.

    Raises:
        TrainingError: It does not load or does not predict; the end of the traceback is in it.
    """
    command = [sys.executable, "-I", "-B", load_once.__file__, str(directory)]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(_KEPT_OUT)}
    environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}
    with TemporaryDirectory() as empty:
        done = subprocess.run(
            command,
            cwd=empty,
            env=environ,
            capture_output=True,
            text=True,
            errors="replace",
        )
    if done.returncode:
        lines = done.stderr.rstrip().splitlines()[-_TAIL_LINES:]
        raise TrainingError(
            _SAYS.get(done.returncode, "The process that loads the model ended."),
            where="nothing was logged",
            got="\n".join(lines) or f"exit code {done.returncode}",
            wanted="a model that needs installed packages, artifacts= and code_path= alone",
            next_step="mend it; log_model(..., validate=False) logs it all the same",
        )
