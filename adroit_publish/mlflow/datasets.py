"""The datasets that were logged with a run: the tracking store's word, made fit to be kept.

An address is kept without user, password and query, in which a signature may be; text is printable
and short.

Source: MLflow 3.17, ``mlflow.data.dataset_source_registry``; the sources' ``to_dict``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from adroit_publish.bundle.lineage import Dataset
from adroit_publish.edge.text import printable
from adroit_publish.edge.urls import without_credentials

if TYPE_CHECKING:
    from mlflow.entities import Dataset as LoggedDataset
    from mlflow.entities import Run

_MOST_DATASETS = 100
_MOST_CHARACTERS = 500
_ADDRESSES = ("uri", "url", "path", "table_name", "delta_table_name")
_CONTEXT = "mlflow.data.context"


def datasets_of(run: Run) -> tuple[Dataset, ...]:
    """Returns the datasets of a run, at most 100, each once."""
    logged = run.inputs.dataset_inputs if run.inputs else []
    datasets = (
        Dataset(
            name=_text(each.dataset.name),
            digest=_text(each.dataset.digest),
            source=_source(each.dataset),
            context=_text(next((tag.value for tag in each.tags if tag.key == _CONTEXT), "")),
        )
        for each in logged[:_MOST_DATASETS]
    )
    return tuple(dict.fromkeys(datasets))


def _source(dataset: LoggedDataset) -> str:
    try:
        source = json.loads(dataset.source)
    except (TypeError, ValueError, RecursionError):
        source = None
    facts = source if isinstance(source, dict) else {}
    for name in _ADDRESSES:
        if isinstance(facts.get(name), str) and facts[name]:
            return _text(re.sub(r"[?#].*", "", without_credentials(facts[name]), flags=re.DOTALL))
    return _text(dataset.source_type)


def _text(value: object) -> str:
    return printable(str(value or ""), _MOST_CHARACTERS)
