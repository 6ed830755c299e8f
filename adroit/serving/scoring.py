"""From the bytes of a request to the bytes of its answer, by MLflow's scoring contract.

Parsing, errors and JSON are MLflow's own (``mlflow.pyfunc.scoring_server.invocations``), so a
client of ``mlflow models serve`` sees no difference; between them stands the bundle's handler. A
plain table takes a shorter way to the same frame (see ``workers.columns``). Three things differ on
purpose. An answer never carries a stack trace: the exception's own words come in its place, and the
trace goes to the log. An answer is always one of MLflow's errors as JSON, where MLflow's server
would end with a bare 500 (outputs that are no JSON, ``sys.exit`` in a model). And JSON that nobody
can parse, for its depth or its digits, is the client's 400.

Everything here blocks and runs in a worker's process.
Source: MLflow documentation, "Local Inference Server Specification".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from adroit.serving.bundle import Bundle
from adroit.serving.handler import Handler
from adroit.serving.logs import words_of
from adroit.serving.workers.columns import JSON, plain_frame, plain_types

Fault = Literal["client", "model", "server"]
_PLAIN = {JSON, f"{JSON}; charset=utf-8", f"{JSON};charset=utf-8"}
_CHECKING_INPUTS = {"_validate_prediction_input", "_enforce_schema", "_enforce_params_schema"}


@dataclass(frozen=True)
class Reply:
    """What a request is answered with.

    Attributes:
        status: The HTTP status.
        body: The bytes of the answer.
        media_type: Their media type.
        error_code: MLflow's name of the error, such as ``BAD_REQUEST``; None where all went well.
        error: The exception behind it, for the log; its message may hold feature values.
        fault: Whose the error is; None where all went well.
        rows: How many were predicted on; 0 where that is not known.
        retry_after_s: When it is worth asking again; None where that is not the question.
        error_type: The exception's class, where it was raised in another process.
        frames: Where it came through there.
    """

    status: int
    body: bytes
    media_type: str = JSON
    error_code: str | None = None
    error: BaseException | None = None
    fault: Fault | None = None
    rows: int = 0
    retry_after_s: int | None = None
    error_type: str | None = None
    frames: Sequence[str] | None = None


def failure(
    status: int,
    error_code: str,
    message: str,
    error: BaseException | None = None,
    fault: Fault = "server",
    retry_after_s: int | None = None,
) -> Reply:
    """Returns an error in the form that MLflow's scoring server gives its own."""
    body = json.dumps({"error_code": error_code, "message": message}).encode()
    return Reply(status, body, JSON, error_code, error, fault, retry_after_s=retry_after_s)


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
        self.metadata = Model.load(str(bundle.model_dir))
        self._input_schema = self.metadata.get_input_schema()  # type: ignore[no-untyped-call]
        self._types = plain_types(self.metadata)
        self._handler = handler
        self.observe = observe

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
        example = self.metadata.load_input_example(directory)
        if example is None:
            return False
        params = self.metadata.load_input_example_params(directory)
        as_json(self._handler.predict(example, params))
        return True

    def answer(self, body: bytes, content_type: str | None, observed: bool = True) -> Reply:
        """Returns the answer to one request; every failure is an answer too.

        Args:
            body: JSON, CSV or Parquet, as ``content_type`` says.
            content_type: The request's header, parameters included; None where it had none.
            observed: Whether ``observe`` is told of its inputs.
        """
        observe = self.observe if observed else None
        frame = self._frame(body, content_type)
        if frame is None:
            return self._by_mlflow(body, content_type, _Asking(self._handler.predict, observe))
        if observe is not None:
            observe(frame)
        try:
            outputs = self._handler.predict(frame, None)
        except BaseException as error:  # noqa: BLE001  sys.exit in a model must not end the server
            return self._by_mlflow(body, content_type, _Asking(_raising(error)))
        return _answered(outputs, len(frame))

    def answers(
        self, requests: Sequence[tuple[bytes, str | None, bool]], most_rows: int
    ) -> list[Reply]:
        """Returns the answers to requests that waited together, predicted together where possible.

        Plain tables of the same columns go to the handler as one, and its outputs are taken apart
        by their rows. Where that fails in any way, each request is answered on its own.

        Args:
            requests: Body, content type and whether it is observed, of each.
            most_rows: Most rows of one prediction of several requests.
        """
        frames = [self._frame(body, content_type) for body, content_type, _ in requests]
        observed = {index for index, request in enumerate(requests) if request[2]}
        replies: dict[int, Reply] = {}
        for group in _groups(frames, most_rows):
            if len(group) > 1:
                replies |= self._together({index: frames[index] for index in group}, observed)
        return [
            replies[index] if index in replies else self.answer(*request)
            for index, request in enumerate(requests)
        ]

    def _together(self, frames: Mapping[int, Any], observed: set[int]) -> dict[int, Reply]:
        import pandas as pd

        counts = [len(frame) for frame in frames.values()]
        try:
            outputs = self._handler.predict(pd.concat(frames.values(), ignore_index=True), None)
            parts = _taken_apart(outputs, counts)
        except BaseException:  # noqa: BLE001  whose fault it is shows when each is asked alone
            return {}
        if parts is None:
            return {}
        for index in observed & frames.keys():
            if self.observe is not None:
                self.observe(frames[index])
        return {
            index: _answered(part, count)
            for index, part, count in zip(frames, parts, counts, strict=True)
        }

    def _frame(self, body: bytes, content_type: str | None) -> Any:
        if self._types is None or (content_type or "").lower() not in _PLAIN:
            return None
        return plain_frame(body, self._types)

    def _by_mlflow(self, body: bytes, content_type: str | None, asking: _Asking) -> Reply:
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc.scoring_server import invocations

        asking.metadata = self.metadata
        try:
            result = invocations(  # type: ignore[no-untyped-call]
                body, content_type or "none", asking, self._input_schema
            )
        except MlflowException as error:
            fault = asking.fault(error)
            return replace(_refused(error), fault=fault, rows=asking.rows)
        except BaseException as error:  # noqa: BLE001  sys.exit in a model must not end the server
            if not asking.asked and not isinstance(error, MemoryError):
                message = f"The request cannot be parsed. {_words(error)}"
                return failure(400, "BAD_REQUEST", message, error, "client")
            message = f"The model's answer could not be made. {_words(error)}"
            return failure(500, "INTERNAL_ERROR", message, error, "model")
        if result.status != 200:
            code = "UNSUPPORTED_MEDIA_TYPE"
            body = result.response.encode()
            return Reply(result.status, body, result.mimetype, code, fault="client")
        return Reply(200, result.response.encode(), result.mimetype, rows=asking.rows)


class _Asking:
    """One prediction, in the shape in which MLflow's scoring code expects a model.

    Args:
        predict: The handler's.
        observe: Told of the inputs first.
    """

    def __init__(
        self, predict: Callable[..., Any], observe: Callable[[Any], None] | None = None
    ) -> None:
        self.metadata: Any = None
        self.asked, self.rows = False, 0
        self._predict, self._observe = predict, observe

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> Any:
        self.asked = True
        self.rows = (
            len(data) if hasattr(data, "__len__") and not isinstance(data, dict | str) else 1
        )
        if self._observe is not None:
            self._observe(data)
        return self._predict(data, params)

    def fault(self, error: BaseException) -> Fault:
        """Returns whose an error is: the client's up to the model's own code."""
        if not self.asked:
            return "client"
        trace, inside = (error.__context__ or error).__traceback__, set()
        while trace is not None:
            inside.add(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        return "client" if inside & _CHECKING_INPUTS else "model"


def _raising(error: BaseException) -> Callable[..., Any]:
    def predict(*_: Any) -> Any:
        raise error

    return predict


def _answered(outputs: Any, rows: int) -> Reply:
    from mlflow.utils.proto_json_utils import NumpyEncoder, _get_jsonable_obj

    try:
        values = _get_jsonable_obj(outputs, pandas_orient="records")  # type: ignore[no-untyped-call]
        # In one piece: what MLflow writes bit by bit, by C code and not by Python's.
        body = json.dumps({"predictions": values}, cls=NumpyEncoder).encode()
    except BaseException as error:  # noqa: BLE001  as above
        message = f"The model's answer could not be made. {_words(error)}"
        return failure(500, "INTERNAL_ERROR", message, error, "model")
    return Reply(200, body, rows=rows)


def _groups(frames: Sequence[Any], most_rows: int) -> Iterator[list[int]]:
    """Yields the indices of frames of the same columns, as many together as there may be rows."""
    waiting: dict[tuple[Any, ...], tuple[list[int], int]] = {}
    for index, frame in enumerate(frames):
        if frame is None:
            continue
        columns = tuple(frame.columns)
        group, rows = waiting.get(columns, ([], 0))
        if group and rows + len(frame) > most_rows:
            yield group
            group, rows = [], 0
        waiting[columns] = ([*group, index], rows + len(frame))
    yield from (group for group, _ in waiting.values())


def _taken_apart(outputs: Any, counts: Sequence[int]) -> list[Any] | None:
    """Returns the outputs of each request; None where they do not come row by row."""
    if not hasattr(outputs, "__len__") or isinstance(outputs, dict | str | bytes):
        return None
    if len(outputs) != sum(counts):
        return None
    table, parts, start = hasattr(outputs, "iloc"), [], 0
    for count in counts:
        part = outputs.iloc[start : start + count] if table else outputs[start : start + count]
        parts.append(part.reset_index(drop=True) if table else part)
        start += count
    return parts


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
