"""What comes of logging a model: everything that publishing it needs, small enough to keep."""

from __future__ import annotations

from dataclasses import dataclass

FILE_VARIABLE = "ADROIT_LOGGED_FILE"
"""Names a file that is given the id of the run that a model was last logged to."""


@dataclass(frozen=True)
class LoggedRun:
    """A finished MLflow run with a model in it. Kept on ``self``, it leads from Metaflow to MLflow.

    Attributes:
        run_id: 32 hex digits; what a flavor's ``version`` is set to.
        model_id: ``m-...``, the logged model.
        name: The model's name in the run.
        uri: ``models:/m-...``, which MLflow loads.
        experiment: The experiment's name.
        tracking_uri: The store that holds all of it.
    """

    run_id: str
    model_id: str
    name: str
    uri: str
    experiment: str
    tracking_uri: str

    @property
    def flavor_line(self) -> str:
        """The line of flavors.yaml that asks for this run to be published."""
        return f"version: {self.run_id}"

    def publish_command(self, flavor: str) -> str:
        """Returns the command that publishes this run, whatever flavors.yaml says.

        Args:
            flavor: A flavor of flavors.yaml.
        """
        return (
            "python publish_mlflow_model_flow.py run"
            f" --flavor={flavor} --mlflow-run-id={self.run_id}"
        )
