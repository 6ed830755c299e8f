"""What a server counts, as Prometheus reads it.

    adroit_invocations_total{...,status="200"}               requests to /invocations by HTTP status
    adroit_invocation_errors_total{...,error_code="..."}     those that failed, by MLflow's error
    adroit_invocation_faults_total{...,fault="client"}       the same by whose fault it was: client,
                                                             model or server
    adroit_probes_total{...,status="200"}                    probes by HTTP status; in no other line
    adroit_invocation_seconds_bucket{...,le="0.005"}         from the request's head to its answer
    adroit_queue_seconds_bucket{...,le="0.005"}              from its body to a worker
    adroit_batch_requests_bucket{...,le="8"}                 requests that were predicted together
    adroit_rows_total                                        rows that were predicted on
    adroit_invocations_in_flight, adroit_model_load_seconds, adroit_ready
    adroit_workers, adroit_workers_busy
    adroit_workers_ended_total{...,reason="timeout"}         those that had to be replaced
    adroit_feature_samples_total{...,outcome="sent"}         requests whose features were logged
    adroit_feature_rows{...,feature="age"}                   rows of the last hour that were counted
    adroit_feature_psi{...,feature="age"}                    how far they are from X_test

Every line carries ``model`` and ``bundle_id``, and ``flavor`` and ``version`` where the deployment
names them: those two are hearsay, a server cannot know them. What a handler of one's own registers
with prometheus_client is appended, from all workers by that package's own multi-process mode.

The text is made here, because a counter is a number and a line: the image needs no package for it.
The process that is asked counts: it sees every request, and no worker has to be asked.
Source: Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from adroit.serving.features.drift_window import Window

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class _Histogram:
    """How often a value was in which bucket."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Metrics:
    """Counts of one server; changed and read by its event loop alone.

    Args:
        labels: What every line carries.
        shared: Where prometheus_client keeps what workers count; None where it is not there.
    """

    def __init__(self, labels: Mapping[str, str], shared: Path | None = None) -> None:
        self.labels = dict(labels)
        self.in_flight = 0
        self.ready = False
        self.load_seconds = 0.0
        self.workers = self.busy = 0
        self.feature_samples: Counter[str] = Counter()
        self.drift: Window | None = None
        self._shared = shared
        self._statuses: Counter[int] = Counter()
        self._probes: Counter[int] = Counter()
        self._errors: Counter[str] = Counter()
        self._faults: Counter[str] = Counter(client=0, model=0, server=0)
        self._ended: Counter[str] = Counter()
        self._rows = 0
        self._seconds, self._queued = _Histogram(BUCKETS_S), _Histogram(BUCKETS_S)
        self._batches = _Histogram(_BATCHES)

    def invoked(
        self,
        status: int,
        error_code: str | None,
        seconds: float,
        fault: str | None = None,
        rows: int = 0,
    ) -> None:
        """Counts one answered request to /invocations."""
        self._statuses[status] += 1
        if error_code is not None:
            self._errors[error_code] += 1
        if fault is not None:
            self._faults[fault] += 1
        self._rows += rows
        self._seconds.add(seconds)

    def probed(self, status: int) -> None:
        """Counts one answered request to /invocations that was a probe."""
        self._probes[status] += 1

    def dispatched(self, waited_s: Sequence[float]) -> None:
        """Counts requests that went to a worker together, and how long each had waited."""
        self._batches.add(len(waited_s))
        for seconds in waited_s:
            self._queued.add(seconds)

    def drifted(self, counts: Mapping[str, list[int]]) -> None:
        """Counts rows by feature and bin, where there is something to hold them against."""
        if self.drift is not None:
            self.drift.add(counts)

    def worker_ended(self, reason: str) -> None:
        """Counts a worker that has to be replaced."""
        self._ended[reason] += 1

    def text(self, feature_samples: Mapping[str, int]) -> str:
        """Returns all of it in Prometheus' text format.

        Args:
            feature_samples: Requests chosen for feature logging, by outcome.
        """
        own = "".join(line + "\n" for line in self._lines(feature_samples))
        return own + _registered(self._shared)

    def _lines(self, feature_samples: Mapping[str, int]) -> Iterator[str]:
        yield from self._counter(
            "adroit_invocations_total", "Requests by HTTP status.", "status", self._statuses
        )
        yield from self._counter(
            "adroit_probes_total", "Probes by HTTP status.", "status", self._probes
        )
        yield from self._counter(
            "adroit_invocation_errors_total",
            "Failures by MLflow's error.",
            "error_code",
            self._errors,
        )
        yield from self._counter(
            "adroit_invocation_faults_total", "Failures by whose they are.", "fault", self._faults
        )
        yield from self._counter(
            "adroit_workers_ended_total", "Workers that were replaced.", "reason", self._ended
        )
        yield from self._histogram(
            "adroit_invocation_seconds", "From request to answer.", self._seconds
        )
        yield from self._histogram("adroit_queue_seconds", "Until a worker had it.", self._queued)
        yield from self._histogram("adroit_batch_requests", "Predicted together.", self._batches)
        yield from self._counter(
            "adroit_feature_samples_total",
            "Feature samples by outcome.",
            "outcome",
            feature_samples,
        )
        yield from self._drift_lines()
        yield from _head("adroit_rows_total", "counter", "Rows that were predicted on.")
        yield self._line("adroit_rows_total", self._rows)
        for name, value, help_text in (
            ("adroit_invocations_in_flight", self.in_flight, "Requests not yet answered."),
            ("adroit_model_load_seconds", self.load_seconds, "How long the model took to load."),
            ("adroit_ready", int(self.ready), "1 where /ping answers 200."),
            ("adroit_workers", self.workers, "Processes that can be asked."),
            ("adroit_workers_busy", self.busy, "Processes that predict."),
        ):
            yield from _head(name, "gauge", help_text)
            yield self._line(name, value)

    def _drift_lines(self) -> Iterator[str]:
        if self.drift is None:
            return
        features = list(self.drift.stability())
        yield from _head("adroit_feature_rows", "gauge", "Rows that were counted lately.")
        for name, rows, _ in features:
            yield self._line("adroit_feature_rows", rows, feature=name)
        yield from _head("adroit_feature_psi", "gauge", "Population stability index to X_test.")
        for name, _, index in features:
            if index is not None:
                yield self._line("adroit_feature_psi", index, feature=name)

    def _counter(
        self, name: str, help_text: str, label: str, counts: Mapping[Any, int]
    ) -> Iterator[str]:
        yield from _head(name, "counter", help_text)
        for value, count in sorted(counts.items()):
            yield self._line(name, count, **{label: str(value)})

    def _histogram(self, name: str, help_text: str, histogram: _Histogram) -> Iterator[str]:
        yield from _head(name, "histogram", help_text)
        total = 0
        for bound, count in zip(
            (*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True
        ):
            total += count
            yield self._line(f"{name}_bucket", total, le=bound)
        yield self._line(f"{name}_sum", histogram.sum)
        yield self._line(f"{name}_count", total)

    def _line(self, name: str, value: float, **labels: str) -> str:
        all_labels = {**self.labels, **labels}
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in all_labels.items())
        return f"{name}{{{shown}}} {value!r}"


def _head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _registered(shared: Path | None) -> str:
    """Returns what handlers registered with prometheus_client, in this process or in workers."""
    if shared is not None and any(shared.glob("*.db")):
        client = import_module("prometheus_client")
        multiprocess = import_module("prometheus_client.multiprocess")
        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, str(shared))
        return str(client.generate_latest(registry).decode())
    loaded = sys.modules.get("prometheus_client")
    return str(loaded.generate_latest().decode()) if loaded and shared is None else ""
