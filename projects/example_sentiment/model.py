"""The model that is logged: WordLlama's sentence embedding, and a logistic head trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from projects.common.text import clean
from projects.example_sentiment.embedding import SentenceEmbedding


class SentimentModel(PythonModel):
    """Says how positive a text is, from 0 to 1."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the artifacts ``network``, a directory, and ``head``; none of them is a pickle."""
        self.embedding = SentenceEmbedding(Path(context.artifacts["network"]))
        with np.load(context.artifacts["head"], allow_pickle=False) as head:
            self.weights, self.bias = head["weights"], float(head["bias"])

    def predict(
        self,
        context: PythonModelContext | None,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Returns one score per row.

        Args:
            context: Not used; MLflow passes it.
            model_input: (rows, columns) DataFrame with the column ``text``.
            params: Not used; MLflow passes it.

        Returns:
            (rows, 1) DataFrame: ``score``, float64 from 0 (negative) to 1 (positive).
        """
        vectors = self.embedding([clean(text) for text in model_input["text"]])
        scores = 1.0 / (1.0 + np.exp(-(vectors.astype(np.float64) @ self.weights + self.bias)))
        return pd.DataFrame({"score": scores}, index=model_input.index)
