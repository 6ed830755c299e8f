"""From the bytes of a request to the bytes of its answer, by MLflow's scoring contract.

Parsing, errors and JSON are MLflow's own (``mlflow.pyfunc.scoring_server.invocations``), so a
client of ``mlflow models serve`` sees no difference; between them stands the bundle's handler. Two
things differ on purpose. An answer never carries a stack trace: the exception's own words come in
its place, and the trace goes to the log. And an answer is always one of MLflow's errors as JSON,
where MLflow's server would end with a bare 500 (outputs that are no JSON, ``sys.exit`` in a model).

Everything here blocks and is called from worker threads.
Source: MLflow documentation, "Local Inference Server Specification".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adroit.serving.bundle import Bundle
from adroit.serving.handler import Handler
from adroit.serving.logs import words_of

JSON = "application/json"


@dataclass(frozen=True)
class Reply:
    """What a request is answered with.

    Attributes:
        status: The HTTP status.
        body: The bytes of the answer.
        media_type: Their media type.
        error_code: MLflow's name of the error, such as ``BAD_REQUEST``; None where all went well.
        error: The exception behind it, for the log; its message may hold feature values.
    """

    status: int
    body: bytes
    media_type: str = JSON
    error_code: str | None = None
    error: BaseException | None = None


def failure(
    status: int, error_code: str, message: str, error: BaseException | None = None
) -> Reply:
    """Returns an error in the form that MLflow's scoring server gives its own."""
    body = json.dumps({"error_code": error_code, "message": message}).encode()
    return Reply(status, body, JSON, error_code, error)


class Scorer:
    """A loaded handler that answers requests.

    Args:
        handler: Loaded.
        bundle: The bundle it was loaded from, whose MLmodel says how inputs are parsed.
        observe: Told of every request's parsed inputs before they are predicted on.
    """

    def __init__(
        self, handler: Handler, bundle: Bundle, observe: Callable[[Any], None] | None = None
    ) -> None:
        from mlflow.models import Model

        # As MLflow's server does: it decides how MLflow checks inputs against type hints.
        os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
        self._bundle = bundle
        self._metadata = Model.load(str(bundle.model_dir))
        self._input_schema = self._metadata.get_input_schema()  # type: ignore[no-untyped-call]
        self._model = _Predictor(self._metadata, handler, observe)

    def predict_example(self) -> bool:
        """Predicts on the model's input example, and makes the outputs JSON as an answer would be.

        Returns:
            Whether it did; False where the model was logged without one.

        Raises:
            adroit.serving.outputs.OutputError: The outputs cannot be written as JSON.
            Exception: Whatever the handler raises.
        """
        from adroit.serving.outputs import as_json

        directory = str(self._bundle.model_dir)
        example = self._metadata.load_input_example(directory)
        if example is None:
            return False
        params = self._metadata.load_input_example_params(directory)
        as_json(self._model.handler.predict(example, params))
        return True

    def answer(self, body: bytes, content_type: str | None) -> Reply:
        """Returns the answer to one request; every failure is an answer too.

        Args:
            body: JSON, CSV or Parquet, as ``content_type`` says.
            content_type: The request's header, parameters included; None where it had none.
        """
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc.scoring_server import invocations

        try:
            result = invocations(  # type: ignore[no-untyped-call]
                body, content_type or "none", self._model, self._input_schema
            )
        except MlflowException as error:
            return _refused(error)
        except BaseException as error:  # noqa: BLE001  sys.exit in a model must not end the server
            message = f"The model's answer could not be made. {_words(error)}"
            return failure(500, "INTERNAL_ERROR", message, error)
        code = None if result.status == 200 else "UNSUPPORTED_MEDIA_TYPE"
        return Reply(result.status, result.response.encode(), result.mimetype, code)


class _Predictor:
    """The handler in the shape in which MLflow's scoring code expects a model."""

    def __init__(
        self, metadata: Any, handler: Handler, observe: Callable[[Any], None] | None
    ) -> None:
        self.metadata = metadata
        self.handler = handler
        self._observe = observe

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        if self._observe is not None:
            self._observe(data)
        return self.handler.predict(data, params)


def _refused(error: Any) -> Reply:
    trace = error.json_kwargs.pop("stack_trace", None)
    cause = error.__context__
    if trace is not None and cause is not None:
        words = _words(cause)
        if words.partition(": ")[2] not in error.message:
            error.message = f"{error.message} {words}"
    return Reply(
        error.get_http_status_code(),
        error.serialize_as_json().encode(),
        JSON,
        error.error_code,
        cause or error,
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {words_of(error)}"
