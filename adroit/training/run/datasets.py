"""Datasets as MLflow keeps them with a run: name, digest, source and schema, and none of the rows.

| form | digest |
|---|---|
| a dataset of ``mlflow.data`` | its own |
| DataFrame | of its rows |
| ndarray, tensor, list of numbers | of its elements |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adroit.training.errors import TrainingError

if TYPE_CHECKING:
    from mlflow.entities import Dataset as DatasetEntity


def dataset_of(rows: Any, name: str | None, source: str | None) -> DatasetEntity:
    """Returns what MLflow logs of a dataset.

    Args:
        rows: See the module's table.
        name: Its name; None for MLflow's ``dataset``.
        source: An address or a path; None for the code that logs it.

    Raises:
        TrainingError: It is of no such kind.
    """
    import numpy as np
    from mlflow.data.dataset import Dataset
    from mlflow.data.numpy_dataset import from_numpy
    from mlflow.data.pandas_dataset import from_pandas
    from pandas import DataFrame, Series

    if hasattr(rows, "detach"):
        rows = rows.detach().cpu().numpy()
    rows = rows.to_frame() if isinstance(rows, Series) else rows
    rows = np.asarray(rows) if isinstance(rows, list) else rows
    where: dict[str, Any] = {"source": source} if source else {}
    if isinstance(rows, DataFrame):
        rows = from_pandas(rows, name=name, **where)
    elif isinstance(rows, np.ndarray):
        rows = from_numpy(rows, name=name, **where)
    if isinstance(rows, Dataset):
        entity: DatasetEntity = rows._to_mlflow_entity()
        return entity
    raise TrainingError(
        "A dataset of this kind cannot be logged.",
        got=f"{type(rows).__module__}.{type(rows).__qualname__}",
        wanted="a DataFrame, an array, or a dataset of mlflow.data",
        next_step="publisher.log_input(mlflow.data.from_pandas(frame, source=...))",
    )
