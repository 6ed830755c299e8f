"""The model that is logged to MLflow: a scikit-learn pipeline that answers label and probability.

MLflow imports this class when it loads the model ("models from code"); the fitted pipeline lies
beside it as ``pipeline.skops``. So a logged model holds no pickle, loading it runs nothing but code
that can be read here, and a republish serves this code as it is by then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from projects.example_metaflow.data_prep import as_features


class TumourModel(PythonModel):
    """Says of each row which label is likeliest, and how likely it is.

    Args:
        pipeline: A fitted scikit-learn classifier; None where MLflow is going to load it.
    """

    def __init__(self, pipeline: Any = None) -> None:
        self.pipeline = pipeline

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the artifact ``pipeline``; MLflow calls this once, before any ``predict``.

        Raises:
            skops.io.exceptions.UntrustedTypesFoundException: The file wants to build anything
                but the plain scikit-learn and NumPy types that skops trusts.
        """
        from skops.io import load

        self.pipeline = load(Path(context.artifacts["pipeline"]))

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Returns one answer per row.

        Args:
            context: Not used; MLflow passes it.
            model_input: (rows, columns) DataFrame that has all of ``data_prep.FEATURES``.
            params: Not used; MLflow passes it.

        Returns:
            (rows, 2) DataFrame: ``label``, a string; ``probability`` of that label, float64.
        """
        likelihoods = self.pipeline.predict_proba(as_features(model_input))
        return pd.DataFrame(
            {
                "label": self.pipeline.classes_[likelihoods.argmax(axis=1)],
                "probability": likelihoods.max(axis=1),
            },
            index=model_input.index,
        )
