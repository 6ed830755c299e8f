"""The real server over a loaded handler, asked once: is this a bundle that answers over HTTP?

For ``predict_once --server``: a container without a network still has its own loopback, so the
server that an image starts is started there, asked for /ping and for a prediction of the model's
input example. It stays up; whoever asked ends the process.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from typing import TYPE_CHECKING

from adroit.serving.bundle import Bundle
from adroit.serving.handler import Handler

if TYPE_CHECKING:
    from mlflow.models import Model

TIMEOUT_S = 600
_SHOWN_CHARS = 2000


class ServerError(Exception):
    """The server does not start, or does not answer as MLflow's scoring contract says."""


def serve_once(bundle: Bundle, handler: Handler, model: Model) -> None:
    """Starts the server on a free port of loopback and asks it once.

    Args:
        bundle: What is served.
        handler: Its handler, loaded.
        model: Its MLmodel, whose input example is posted as MLflow kept it for this purpose; a
            model without one is asked for /ping alone.

    Raises:
        ServerError: The server ended, or an answer is not 200, or holds no predictions.
    """
    port = _start(bundle, handler)
    _ask(port, "GET", "/ping")
    example = _serving_example(bundle, model)
    if example is None:
        return
    answer = _ask(port, "POST", "/invocations", example)
    try:
        held = json.loads(answer).keys()
    except (ValueError, AttributeError):
        held = ()
    if "predictions" not in held:
        raise ServerError(f"POST /invocations: no predictions in {_shown(answer)}")


def _start(bundle: Bundle, handler: Handler) -> int:
    """Returns the port on which the server listens, in a thread of its own."""
    from adroit.serving.__main__ import limits_of
    from adroit.serving.metrics import Metrics
    from adroit.serving.scoring import Scorer
    from adroit.serving.server import Application, serve

    labels = {"model": bundle.model_name, "bundle_id": bundle.bundle_id}
    scorer = Scorer(handler, bundle)
    application = Application(bundle, scorer, None, Metrics(labels), limits_of(os.environ))
    listener = socket.create_server(("127.0.0.1", 0))  # it listens: who connects early waits
    port: int = listener.getsockname()[1]

    def run() -> None:
        with listener:  # closed if the server ends, so that nobody waits for its answer
            serve(application, listener, {"host": "127.0.0.1", "port": port})

    threading.Thread(target=run, name="adroit-server", daemon=True).start()
    return port


def _serving_example(bundle: Bundle, model: Model) -> str | None:
    from mlflow.models.utils import convert_input_example_to_serving_input

    directory = str(bundle.model_dir)
    kept = model.get_serving_input(directory)
    example = None if kept else model.load_input_example(directory)
    if example is None:
        return kept
    # Logged before MLflow 2.15, which kept no request beside the example.
    params = model.load_input_example_params(directory)
    return convert_input_example_to_serving_input((example, params) if params else example)


def _ask(port: int, method: str, path: str, body: str | None = None) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"{method} {path}: no answer ({error!r})") from error
    finally:
        connection.close()
    if response.status != 200:
        raise ServerError(f"{method} {path}: {response.status} {_shown(answer)}")
    return answer


def _shown(answer: bytes) -> str:
    return answer[:_SHOWN_CHARS].decode(errors="replace")
