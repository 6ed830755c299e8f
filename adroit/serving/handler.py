"""What a handler is: the class between a request and a model.

``serve.handler.class_path`` in config.yaml names one, as ``module:Class``. The ready-made one is
``adroit.serving.mlflow_handler:MlflowHandler``; one's own lives beside the model's code:

    # projects/my_model/handler.py, named as projects.my_model.handler:MyHandler
    class MyHandler:
        def __init__(self, model_name, threshold=0.5):      # serve.handler.kwargs
            self.threshold = threshold

        def load(self, bundle):
            import mlflow.pyfunc
            self.model = mlflow.pyfunc.load_model(str(bundle.model_dir))

        def predict(self, inputs, params=None):
            return self.model.predict(inputs) > self.threshold

There is nothing to inherit from: any class with these two methods is a handler. One that has an
attribute ``log_features_percent`` gets its requests' features logged (see ``drift``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from adroit.serving.bundle import Bundle


class Handler(Protocol):
    """Constructed once per process as ``Class(**kwargs)``, loaded once, then asked many times.

    The constructor keeps its arguments and does no work, so that a wrong ``kwargs`` is told
    apart from a model that does not load.
    """

    def load(self, bundle: Bundle) -> None:
        """Makes ready to predict; called once, before the first ``predict``.

        Args:
            bundle: Where the model is (``bundle.model_dir``) and what is known of it. The
                bundle's directories are read-only.
        """
        ...

    def predict(self, inputs: Any, params: Mapping[str, Any] | None = None) -> Any:
        """Answers one request; the server calls it from several threads at once.

        Args:
            inputs: What the request holds: a pandas DataFrame where the model's signature has
                columns, else a numpy array, a dict of arrays, or a list.
            params: Inference parameters of the request, by name; None where it has none.

        Returns:
            Anything MLflow's scoring server turns into JSON: DataFrame, Series, array, or
            lists, dicts, strings and numbers. One row per row of ``inputs``, in their order.
        """
        ...
