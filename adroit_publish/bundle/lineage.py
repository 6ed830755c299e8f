"""Where a model's run comes from, held against where the model's published versions come from.

A run id that was pasted from another project looks like any other. What gives it away is its MLflow
experiment, the Metaflow flow that trained it, and its model's signature. A run differs where none
of the versions has what it has; what is not known, of the run or of every version, differs not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHOWN_COLUMNS = 10


@dataclass(frozen=True)
class Lineage:
    """Where a run comes from; None, or empty, for what is not known.

    ``columns`` is its model's signature, a line for each column: ``inputs size: double``.
    """

    experiment: str | None = None
    experiment_id: str | None = None
    flow: str | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What a run was trained or tested on, as it was logged with the run.

    Attributes:
        name: Its name, for people.
        digest: Of its rows, as MLflow or the modeler reckoned it.
        source: Where it is from: an address without credentials, or a kind such as ``code``.
        context: What it was used for, such as ``training``.
    """

    name: str
    digest: str
    source: str
    context: str

    def __str__(self) -> str:
        used = f"{self.context}: " if self.context else ""
        return f"{used}{self.name} {self.digest}, from {self.source}"


@dataclass(frozen=True)
class LineageDifference:
    """What a run has that no version of its model has: of its experiment, flow or signature."""

    what: str
    got: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.what}: {self.got}; the model's versions have: {self.wanted}"


def flow_of(trained_by: Mapping[str, str]) -> str | None:
    """Returns the Metaflow flow that ``mlflow.trained_by`` names, or None."""
    return trained_by.get("metaflow_run", "").partition("/")[0] or None


def columns_of(signature: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Returns a line for each input and output of a signature, as ``bundle.json`` has it.

    Whether a column is required follows from the rows that the signature was inferred from; it is
    left out.
    """
    lines = []
    for part in ("inputs", "outputs"):
        columns = (signature or {}).get(part) or []
        try:
            lines += [f"{part} {column.get('name', '')}: {_kind(column)}" for column in columns]
        except (LookupError, TypeError, AttributeError):
            lines.append(f"{part} {json.dumps(columns, sort_keys=True)}")
    return tuple(lines)


def differences(run: Lineage, versions: Mapping[str, Lineage]) -> tuple[LineageDifference, ...]:
    """Returns how a run differs from every version of its model; lineages stand by version."""
    found = []
    experiments = [known for known in versions.values() if known.experiment_id is not None]
    is_elsewhere = not any(_same_experiment(run, known) for known in experiments)
    if run.experiment_id is not None and experiments and is_elsewhere:
        names = sorted({_experiment(known) for known in experiments})
        found.append(LineageDifference("experiment", _experiment(run), ", ".join(names)))
    flows = {known.flow for known in versions.values() if known.flow}
    if run.flow and flows and run.flow not in flows:
        found.append(LineageDifference("flow", run.flow, ", ".join(sorted(flows))))
    signatures = [known.columns for known in versions.values() if known.columns]
    if run.columns and signatures and run.columns not in signatures:
        nearest = min(signatures, key=lambda columns: len({*columns} ^ {*run.columns}))
        found.append(
            LineageDifference("signature", _only(run.columns, nearest), _only(nearest, run.columns))
        )
    return tuple(found)


def _same_experiment(run: Lineage, known: Lineage) -> bool:
    # Another tracking server has other ids; an experiment that was renamed has another name.
    return run.experiment_id == known.experiment_id or (
        run.experiment is not None and run.experiment == known.experiment
    )


def _experiment(lineage: Lineage) -> str:
    return f"{lineage.experiment or 'without a name'} (id {lineage.experiment_id})"


def _kind(column: Mapping[str, Any]) -> str:
    kind = column["type"]
    return kind if kind in _SIMPLE else json.dumps(_plain(column), sort_keys=True)


_SIMPLE = {
    "boolean", "integer", "long", "float", "double", "string", "binary", "datetime", "any",
}  # fmt: skip


def _plain(value: Any) -> Any:
    """Returns the type that a column's JSON describes, without its name and its obligation."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        left_out = ("required", "optional") if "type" in value else ()
        return {key: _plain(inner) for key, inner in value.items() if key not in left_out}
    return value


def _only(columns: tuple[str, ...], others: tuple[str, ...]) -> str:
    own = [column for column in columns if column not in others]
    if {*columns} == {*others}:
        return "the same columns in another order"
    more = f" and {len(own) - SHOWN_COLUMNS} more" if len(own) > SHOWN_COLUMNS else ""
    return ", ".join(own[:SHOWN_COLUMNS]) + more or "no other column"
