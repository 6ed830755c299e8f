"""The edge to MLflow: one client for the length of a call, its errors told in our words.

MLflow's fluent functions read the tracking address from the process; it is set for as long as a
block runs and put back. Nothing of a client outlives the block, so nothing of it is pickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adroit.training.databricks import EXPORTS, is_databricks
from adroit.training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

# Before any work, a dead server is told in seconds. After hours of it, MLflow's patience is right.
_IMPATIENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
}
_ADDRESS = "MLFLOW_TRACKING_URI"
_NOT_TAKEN = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


@contextmanager
def store(tracking_uri: str, *, patient: bool = True) -> Iterator[MlflowClient]:
    """Gives a client of the store, which is also the one that ``mlflow``'s functions talk to.

    Args:
        tracking_uri: The store.
        patient: Whether a server that does not answer is waited for as long as MLflow likes.

    Raises:
        TrainingError: The store refuses us, cannot be reached or cannot be understood.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    changed = {} if patient else {k: v for k, v in _IMPATIENT.items() if k not in os.environ}
    os.environ |= changed
    before = os.environ.get(_ADDRESS)  # MLflow puts there whatever it is told
    mlflow.set_tracking_uri(tracking_uri)
    try:
        with _translated(tracking_uri):
            yield mlflow.MlflowClient(tracking_uri)
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # it documents None for unset
        if before is not None:
            os.environ[_ADDRESS] = before
        for name in changed:
            os.environ.pop(name, None)


def shown(text: object) -> str:
    """Returns text as it may be shown: without the user, password and query of any address."""
    plain = re.sub(r"(?<=://)[^/\s@]*@", "", str(text))
    return re.sub(r"(?<=\w)\?\S+", "?...", plain)


@contextmanager
def _translated(tracking_uri: str) -> Iterator[None]:
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException) as error:
        code = getattr(error, "error_code", "")
        unreached = isinstance(error, RequestException) or isinstance(
            error.__context__, RequestException
        )
        what = "The tracking server did not do what was asked."
        next_step = "check the address: MLFLOW_TRACKING_URI"
        if code in _NOT_TAKEN:
            what = "MLflow does not take what was logged."
            next_step = "change it as MLflow says, then run the step again"
        elif code in _DENIED:
            what = "The tracking server refuses us."
            next_step = (
                EXPORTS
                if is_databricks(tracking_uri)
                else "export MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD=..., or "
                "MLFLOW_TRACKING_TOKEN=..."
            )
        elif unreached:
            what = "The tracking server cannot be reached."
            next_step = "check the address (MLFLOW_TRACKING_URI), the network and the VPN"
        lines = shown(error).strip().splitlines() or [type(error).__name__]
        got = type(error.__context__).__name__ if unreached and error.__context__ else lines[0]
        # `from None`: the cause's text may hold an address with a signature in it.
        raise TrainingError(
            what, where=shown(tracking_uri), got=got[:300], next_step=next_step
        ) from None
