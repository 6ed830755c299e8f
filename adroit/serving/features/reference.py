"""What a model's features were like in X_test, and how far those of requests have moved from it.

``log_model`` keeps the reference beside MLmodel, as ``adroit_features.json``:

    {"schema": 1, "rows": 1000, "features": {
        "age":  {"edges": [21.0, 29.5, ...], "counts": [100, 98, ..., 3]},
        "city": {"values": ["Oslo", "Rome"], "counts": [610, 320, 67, 3]}}}

A number is counted between deciles of X_test, in ``len(edges) + 1`` bins, each from its lower edge
on. A text, boolean or category is counted by value, as far as X_test has it in one of a hundred
rows, and else as another. The last count is that of missing values. A value that few rows have may
tell of a person: it is not kept.

The population stability index of a feature is the sum over its bins of ``(a - e) ln(a / e)``, where
``a`` and ``e`` are the shares of requests and of X_test, each with half a row added to every bin so
that none is 0. Below 0.1 is commonly read as stable, above 0.25 as moved.

Source: Yurdakul, "Statistical Properties of Population Stability Index" (2018).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adroit.serving.features.feature_log import CATEGORY_CHARS, columns_of, numbers_and_categories

FILE = "adroit_features.json"
_SCHEMA = 1
_BINS, _VALUES, _LEAST_SHARE = 10, 20, 0.01
_FILE_BYTES = 4 << 20


@dataclass(frozen=True)
class Feature:
    """One feature in X_test.

    Attributes:
        counts: Rows by bin, the missing last.
        edges: Of a number: where a bin begins, ascending; None of a category.
        values: Of a category: those that have a bin of their own; None of a number.
    """

    counts: tuple[int, ...]
    edges: tuple[float, ...] | None = None
    values: tuple[str, ...] | None = None

    def counted(self, numbers: Sequence[float], categories: Sequence[str], rows: int) -> list[int]:
        """Returns rows by bin; what is of the other kind counts as missing."""
        if self.edges is not None:
            import numpy as np

            counts = [0] * (len(self.edges) + 1)
            for place in np.searchsorted(self.edges, numbers, side="right"):
                counts[place] += 1
        else:
            places = {value: place for place, value in enumerate(self.values or ())}
            counts = [0] * (len(places) + 1)
            for value, times in Counter(categories).items():
                counts[places.get(value, len(places))] += times
        return [*counts, rows - sum(counts)]

    def stability(self, counts: Sequence[int]) -> float:
        """Returns the population stability index of so many rows by bin."""
        pairs = zip(_shares(counts), _shares(self.counts), strict=True)
        return sum((actual - expected) * math.log(actual / expected) for actual, expected in pairs)


@dataclass(frozen=True)
class Reference:
    """The features of X_test by name."""

    rows: int
    features: Mapping[str, Feature]

    def count(self, inputs: Any, seed: int) -> dict[str, list[int]]:
        """Returns the rows of a request by feature and bin.

        Args:
            inputs: (rows, features): a DataFrame, an array, or a dict of arrays. At most
                ``feature_log.ROWS`` rows are drawn.
            seed: Of that draw.
        """
        return {
            name: self.features[name].counted(
                *numbers_and_categories(_as_asked(column)), len(column)
            )
            for name, column in columns_of(inputs, seed)
            if name in self.features
        }

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        features = {
            name: {key: list(value) for key, value in vars(feature).items() if value is not None}
            for name, feature in self.features.items()
        }
        return {"schema": _SCHEMA, "rows": self.rows, "features": features}


def reference_of(rows: Any) -> Reference | None:
    """Returns the features of X_test; None where it has no columns of numbers or categories.

    Args:
        rows: X_test, (rows, features): a DataFrame, Series, array, or dict of arrays.
    """
    if hasattr(rows, "to_frame"):  # a model gets a Series as a DataFrame of one column
        rows = rows.to_frame()
    features, count = {}, 0
    for name, column in columns_of(rows, None):
        numbers, categories = numbers_and_categories(_as_asked(column))
        count = len(column)
        if numbers:
            features[name] = _number(numbers, count)
        elif categories:
            features[name] = _category(categories, count)
    return Reference(count, features) if features else None


def write_reference(rows: Any, model: Path) -> None:
    """Keeps the features of X_test in a model directory, where it has any; see there."""
    if reference := reference_of(rows):
        (model / FILE).write_text(json.dumps(reference.as_dict()) + "\n")


def read_reference(model: Path) -> Reference | None:
    """Returns what a model directory holds; None where it holds none that can be read here."""
    try:
        if (model / FILE).stat().st_size > _FILE_BYTES:
            return None
        return reference_from(json.loads((model / FILE).read_bytes()))
    except (OSError, ValueError, RecursionError):
        return None


def reference_from(document: Any) -> Reference:
    """Returns what ``as_dict`` gave.

    Raises:
        ValueError: It is something else.
    """
    try:
        if document["schema"] != _SCHEMA:
            raise ValueError(f"schema {document['schema']!r}")
        return Reference(
            int(document["rows"]),
            {str(name): _feature(told) for name, told in document["features"].items()},
        )
    except (AttributeError, KeyError, OverflowError, TypeError) as error:
        raise ValueError("not a reference of features") from error


def _feature(told: Mapping[str, Any]) -> Feature:
    counts = tuple(int(count) for count in told["counts"])
    if "edges" in told:
        edges = tuple(float(edge) for edge in told["edges"])
        if not all(map(math.isfinite, edges)):
            raise ValueError("edges that are no numbers")
        feature = Feature(counts, edges=edges)
    else:
        feature = Feature(counts, values=tuple(str(value) for value in told["values"]))
    if len(counts) != len(feature.edges or feature.values or ()) + 2 or min(counts) < 0:
        raise ValueError("counts that fit no bins")
    return feature


def _as_asked(column: Any) -> Any:
    """Returns a column as a request brings it: categories that are numbers come as numbers."""
    categories = getattr(column.dtype, "categories", None)
    numeric = categories is not None and categories.dtype.kind in "iuf"
    return column.astype(float) if numeric else column


def _number(numbers: Sequence[float], rows: int) -> Feature:
    import numpy as np

    shares = [place / _BINS for place in range(1, _BINS)]
    with np.errstate(over="ignore", invalid="ignore"):  # between the largest numbers there are
        quantiles = np.quantile(numbers, shares)
    edges = tuple(float(edge) for edge in np.unique(quantiles[np.isfinite(quantiles)]))
    return Feature(tuple(Feature((), edges=edges).counted(numbers, (), rows)), edges=edges)


def _category(categories: Sequence[str], rows: int) -> Feature:
    least = max(2.0, _LEAST_SHARE * rows)
    values = tuple(
        value
        for value, times in Counter(categories).most_common(_VALUES)
        if times >= least and len(value) <= CATEGORY_CHARS
    )
    return Feature(tuple(Feature((), values=values).counted((), categories, rows)), values=values)


def _shares(counts: Sequence[int]) -> Iterator[float]:
    total = sum(counts) + 0.5 * len(counts)
    return ((count + 0.5) / total for count in counts)
