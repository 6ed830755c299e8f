"""The handler for any MLflow model: its python_function flavor, signature enforced.

What goes in is checked and cast by the model's signature before it reaches the model; what comes
out is the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import PyFuncModel

    from adroit.serving.bundle import Bundle


class MlflowHandler:
    """Serves the bundle's model through ``mlflow.pyfunc``.

    Args:
        model_name: The model's name, as in config.yaml.
        log_features_percent: Share of requests whose features are logged, in percent: 0.1 is
            one request in a thousand. From 0 to 100.

    Raises:
        ValueError: ``log_features_percent`` is no number from 0 to 100.
    """

    def __init__(self, model_name: str, log_features_percent: float = 0.0) -> None:
        percent = log_features_percent
        is_number = isinstance(percent, int | float) and not isinstance(percent, bool)
        if not is_number or math.isnan(percent) or not 0 <= percent <= 100:
            raise ValueError(
                f"log_features_percent is {percent!r}; it is a percentage, a number from 0 to 100 "
                "(0.1 is one request in a thousand)"
            )
        self.model_name = model_name
        self.log_features_percent = float(percent)
        self._model: PyFuncModel | None = None

    def load(self, bundle: Bundle) -> None:
        """Loads ``bundle.model_dir``; MLflow puts the model's own ``code/`` on ``sys.path``."""
        import mlflow.pyfunc

        self._model = mlflow.pyfunc.load_model(str(bundle.model_dir))

    def predict(self, inputs: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Returns the model's prediction for ``inputs``.

        Args:
            inputs: (rows, features) as the signature says; columns are matched by name.
            params: Inference parameters that the signature names; None for their defaults.

        Raises:
            mlflow.exceptions.MlflowException: ``inputs`` or ``params`` do not fit the signature.
        """
        return self._loaded.predict(inputs, params=cast(Any, params))

    @property
    def signature(self) -> ModelSignature | None:
        """The model's signature; None where it was logged without one."""
        signature: ModelSignature | None = self._loaded.metadata.signature
        return signature

    @property
    def input_example(self) -> Any:
        """The model's input example as ``predict`` takes it; None where it has none."""
        return self._loaded.input_example

    @property
    def _loaded(self) -> PyFuncModel:
        if self._model is None:
            raise RuntimeError("load(bundle) comes before predict")
        return self._model
