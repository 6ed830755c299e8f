"""A PyTorch model as it is saved: a graph that ``torch.export`` traces, or else a pickle.

A graph needs neither the model's class nor a pickle where it is served. It can be traced where
``X_test`` is an array or a tensor, and where the model's code does not branch on its input's
values. Everything else is MLflow's pickle, whose modules have to be in ``code_path``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def pickle_options(signature: ModelSignature | None) -> Mapping[str, Any]:
    """Returns the arguments with which MLflow pickles a module.

    Without a signature nothing says of which type an example's numbers are once they are JSON, and
    a module takes no other type than its own: there is no example then.
    """
    example = {} if signature else {"input_example": None}
    return {"serialization_format": "pickle"} | example


def graph_options(
    model: Any, example: Any, signature: ModelSignature | None
) -> Mapping[str, Any] | None:
    """Returns the arguments with which MLflow saves a graph; None where it cannot.

    Args:
        model: The module.
        example: (rows, ...) array of an input.
        signature: Of all rows.
    """
    import numpy as np
    import torch

    traceable = isinstance(example, np.ndarray) and not isinstance(model, torch.jit.ScriptModule)
    if not traceable or signature is None or not signature.inputs.is_tensor_spec():
        return None
    # A dimension of one would be traced as a constant: the served model would take one row only.
    rows = np.repeat(example, 2, axis=0) if len(example) == 1 else example
    return {"serialization_format": "pt2", "input_example": rows}


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Has a module as it predicts, without dropout, and puts each part back as it was trained."""
    parts = {part: part.training for part in model.modules()} if hasattr(model, "modules") else {}
    if parts:
        model.eval()
    try:
        yield
    finally:
        for part, training in parts.items():
            part.training = training
