"""MLflow's model registry: a logged model as a version of a registered one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from adroit.training.logged_run import LoggedRun

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def registered(client: MlflowClient, name: str, logged: LoggedRun, tags: Mapping[str, Any]) -> str:
    """Returns the new version of a registered model, which is made where there is none.

    Args:
        client: Of the store that has the logged model.
        name: The registered model's.
        logged: The logged model.
        tags: Of the version.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS"):
            raise
    version = client.create_model_version(
        name,
        logged.uri,
        logged.run_id,
        tags={key: str(value) for key, value in tags.items()},
        model_id=logged.model_id,
    )
    return str(version.version)
