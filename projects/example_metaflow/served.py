"""What MLflow runs to load the model: it is copied into each logged model, and so holds nothing."""

import mlflow

from projects.example_metaflow.model import TumourModel

mlflow.models.set_model(TumourModel())
