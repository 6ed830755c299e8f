"""The dashboards ask for what servers have."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pandas as pd

from adroit.serving.features.drift_window import LEAST_ROWS, Window
from adroit.serving.features.feature_log import FeatureLines
from adroit.serving.features.reference import reference_of
from adroit.serving.metrics import Metrics

DASHBOARDS = Path(__file__).resolve().parents[2] / "docs/dashboards"


def test_grafana_asks_for_metrics_and_labels_that_a_server_has():
    metrics = Metrics({"model": "m", "bundle_id": "b", "flavor": "f", "version": "v"})
    rows = pd.DataFrame({"x": range(LEAST_ROWS)})
    reference = reference_of(rows)
    metrics.drift = Window(reference, 3600)
    metrics.drifted(reference.count(rows, 1))
    metrics.invoked(200, None, 0.1)
    metrics.worker_ended("timeout")
    text = metrics.text({"sent": 1})
    dashboard = json.loads((DASHBOARDS / "grafana.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(expressions) >= 8
    for expression in expressions:
        (name,) = set(re.findall(r"adroit_\w+", expression))
        line = next(line for line in text.splitlines() if line.startswith(f"{name}{{"))
        labels = set(re.findall(r"(\w+)=", line))
        (by,) = re.findall(r"by \((.*?)\)", expression)
        assert set(by.split(", ")) <= labels, expression
        assert set(re.findall(r"(\w+)=~", expression)) <= labels


def test_datadog_asks_for_what_is_sent():
    inputs = pd.DataFrame({"n": [1.0, None], "c": ["a", "b"]})
    sent = {line.partition(":")[0] for line in FeatureLines({}, random.Random(1)).of(inputs)}
    asked = set(re.findall(r"adroit\.[a-z.]+(?=\{)", (DASHBOARDS / "datadog.json").read_text()))
    assert asked == sent
