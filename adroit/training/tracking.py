"""The edge to MLflow: one client for the length of a call, its errors told in our words.

MLflow's fluent functions read the tracking address from the process, which threads share; a client
has its own. Nothing of a client outlives the block, so nothing of it is pickled.
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
_NOT_TAKEN = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
_DENIED = {"PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED"}


@contextmanager
def store(tracking_uri: str, *, patient: bool = True) -> Iterator[MlflowClient]:
    """Gives a client of the store; what ``mlflow``'s own functions talk to is left alone.

    Args:
        tracking_uri: The store.
        patient: Whether a server that does not answer is waited for as long as MLflow likes.

    Raises:
        TrainingError: The store refuses us, cannot be reached or cannot be understood.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    if not patient:
        _forget_stale_address()
    changed = {} if patient else {k: v for k, v in _IMPATIENT.items() if k not in os.environ}
    os.environ |= changed
    try:
        with translated(tracking_uri):
            yield mlflow.MlflowClient(tracking_uri)
    finally:
        for name in changed:
            os.environ.pop(name, None)


def _forget_stale_address() -> None:
    """Lets the environment decide where MLflow's own copy of the address differs from it."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    if mlflow.get_tracking_uri() != before:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # it documents None for unset
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


def shown(text: object) -> str:
    """Returns text as it may be shown: without the user, password and query of any address."""
    plain = re.sub(r"(?<=://)[^/\s@]*@", "", str(text))
    return re.sub(r"(?<=\w)\?\S+", "?...", plain)


@contextmanager
def translated(tracking_uri: str) -> Iterator[None]:
    """Tells MLflow's errors in our words and in its own.

    Args:
        tracking_uri: The store that is asked.

    Raises:
        TrainingError: Whatever MLflow raised, with its reason.
    """
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except (MlflowException, RequestException, TypeError, ValueError) as error:
        unreached = isinstance(error, RequestException) or isinstance(
            error.__context__, RequestException
        )
        what, next_step = _reading(error, unreached, tracking_uri)
        lines = shown(error).strip().splitlines() or [type(error).__name__]
        got = type(error.__context__).__name__ if unreached and error.__context__ else lines[0]
        # `from None`: the cause's text may hold an address with a signature in it.
        raise TrainingError(
            what, where=shown(tracking_uri), got=got[:300], next_step=next_step
        ) from None


def _reading(error: Exception, unreached: bool, tracking_uri: str) -> tuple[str, str]:
    """Returns what an error of MLflow's means, and what to do."""
    from mlflow.exceptions import MlflowException, RestException

    code = getattr(error, "error_code", "")
    if code in _DENIED:
        login = (
            "export MLFLOW_TRACKING_USERNAME=... and MLFLOW_TRACKING_PASSWORD=..., or "
            "MLFLOW_TRACKING_TOKEN=..."
        )
        refused = "The tracking server refuses us."
        return refused, EXPORTS if is_databricks(tracking_uri) else login
    if unreached:
        away = "The tracking server cannot be reached."
        return away, "check the address (MLFLOW_TRACKING_URI), the network and the VPN"
    answered = isinstance(error, RestException) or "API request" in str(error)
    if code in _NOT_TAKEN or not isinstance(error, MlflowException) or not answered:
        not_taken = "MLflow does not take what was logged."
        return not_taken, "change it as MLflow says, then run the step again"
    return (
        "The tracking server did not do what was asked.",
        "check the address: MLFLOW_TRACKING_URI",
    )
