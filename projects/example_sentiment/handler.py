"""Serves the sentiment model: a word in place of a number, and none where the model is unsure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from adroit.serving import Bundle


class SentimentHandler:
    """Answers ``positive``, ``negative`` or ``unsure``, with the score.

    Args:
        model_name: The model's name, as in config.yaml.
        unsure_within: How near to 0.5 a score may be and still be called either.
    """

    def __init__(self, model_name: str, unsure_within: float = 0.0) -> None:
        self.model_name = model_name
        self.unsure_within = unsure_within

    def load(self, bundle: Bundle) -> None:
        """Loads the MLflow model; its classes come from the bundle's source."""
        import mlflow.pyfunc

        self.model = mlflow.pyfunc.load_model(str(bundle.model_dir))

    def predict(
        self, inputs: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Returns one answer per row.

        Args:
            inputs: (rows, columns) with the column ``text``.
            params: Not used.
        """
        scores = self.model.predict(inputs)["score"]
        return [{"sentiment": self._word(score), "score": float(score)} for score in scores]

    def _word(self, score: float) -> str:
        if abs(score - 0.5) <= self.unsure_within:
            return "unsure"
        return "positive" if score > 0.5 else "negative"
