"""The data of the example: what is learned from, and what the columns have to look like.

Training and serving both go through ``as_features``, so a column that is missing or out of order
is caught in one place. Nothing here reads a file or the network: scikit-learn ships the data
(569 breast tumours, 30 measurements each, benign or malignant).
"""

from __future__ import annotations

from typing import Any

import pandas as pd

FEATURES = (
    "mean_radius",
    "mean_texture",
    "mean_smoothness",
    "mean_concavity",
    "mean_symmetry",
    "worst_radius",
    "worst_texture",
    "worst_smoothness",
    "worst_concavity",
    "worst_symmetry",
)
LABELS = ("benign", "malignant")


def load_tumours() -> tuple[pd.DataFrame, pd.Series[Any]]:
    """Returns the whole data set, the same rows in the same order every time.

    Returns:
        The features, (569, 10) float64 with the columns ``FEATURES``; and the labels, (569,)
        strings out of ``LABELS``.
    """
    from sklearn.datasets import load_breast_cancer

    tumours = load_breast_cancer(as_frame=True)
    features = tumours.data.rename(columns=lambda name: name.replace(" ", "_"))
    labels = tumours.target.map({0: "malignant", 1: "benign"}).rename("label")
    return as_features(features), labels


def as_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Returns the columns that the model was trained on, in its order, as float64.

    Args:
        rows: (rows, columns); columns beyond ``FEATURES`` are left out.

    Returns:
        (rows, 10) float64.

    Raises:
        ValueError: A column is missing; all missing ones are named.
    """
    missing = [name for name in FEATURES if name not in rows.columns]
    if missing:
        raise ValueError(f"missing columns: {', '.join(missing)}")
    return rows[list(FEATURES)].astype("float64")
