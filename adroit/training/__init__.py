"""What a training flow imports: logging a run to MLflow so that it can be published, and asking.

``NextdoorMLFlowRunPublisher`` logs parameters, metrics and a model that was seen to load and
predict on its own; ``publish`` runs the publish flow on what it returns. ``docs/training.md`` is
the guide. Metaflow and MLflow are imported where they are needed: importing this costs nothing.
"""

from __future__ import annotations

from adroit.training.errors import TrainingError
from adroit.training.logged_run import LoggedRun
from adroit.training.publishing import publish
from adroit.training.run_publisher import NextdoorMLFlowRunPublisher

__all__ = ["LoggedRun", "NextdoorMLFlowRunPublisher", "TrainingError", "publish"]
