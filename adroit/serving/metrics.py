"""What a server counts, as Prometheus reads it.

    adroit_invocations_total{...,status="200"}               requests to /invocations by HTTP status
    adroit_invocation_errors_total{...,error_code="..."}     those that failed, by MLflow's error
    adroit_invocation_seconds_bucket{...,le="0.005"}         from the request's head to its answer
    adroit_invocations_in_flight, adroit_model_load_seconds, adroit_ready
    adroit_feature_samples_total{...,outcome="sent"}         requests whose features were logged

Every line carries ``model`` and ``bundle_id``, and ``flavor`` and ``version`` where the deployment
names them: those two are hearsay, a server cannot know them. What a handler of one's own registers
with prometheus_client is appended, where it imported that package.

The text is made here, because a counter is a number and a line: the image needs no package for it.
One process serves, so there is nothing to add up.
Source: Prometheus documentation, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts of one server; changed and read by its event loop alone.

    Args:
        labels: What every line carries.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = dict(labels)
        self.in_flight = 0
        self.ready = False
        self.load_seconds = 0.0
        self._statuses: Counter[int] = Counter()
        self._errors: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._seconds = 0.0

    def invoked(self, status: int, error_code: str | None, seconds: float) -> None:
        """Counts one answered request to /invocations."""
        self._statuses[status] += 1
        if error_code is not None:
            self._errors[error_code] += 1
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._seconds += seconds

    def text(self, feature_samples: Mapping[str, int]) -> str:
        """Returns all of it in Prometheus' text format.

        Args:
            feature_samples: Requests chosen for feature logging, by outcome.
        """
        own = "".join(line + "\n" for line in self._lines(feature_samples))
        client = sys.modules.get("prometheus_client")
        return own + (client.generate_latest().decode() if client else "")

    def _lines(self, feature_samples: Mapping[str, int]) -> Iterator[str]:
        yield from _head("adroit_invocations_total", "counter", "Requests by HTTP status.")
        for status, count in sorted(self._statuses.items()):
            yield self._line("adroit_invocations_total", count, status=str(status))
        yield from _head("adroit_invocation_errors_total", "counter", "Failures by MLflow's error.")
        for code, count in sorted(self._errors.items()):
            yield self._line("adroit_invocation_errors_total", count, error_code=code)
        yield from self._histogram("adroit_invocation_seconds", "From request to answer.")
        yield from _head("adroit_feature_samples_total", "counter", "Feature samples by outcome.")
        for outcome, count in feature_samples.items():
            yield self._line("adroit_feature_samples_total", count, outcome=outcome)
        for name, value, help_text in (
            ("adroit_invocations_in_flight", self.in_flight, "Requests not yet answered."),
            ("adroit_model_load_seconds", self.load_seconds, "How long the model took to load."),
            ("adroit_ready", int(self.ready), "1 where /ping answers 200."),
        ):
            yield from _head(name, "gauge", help_text)
            yield self._line(name, value)

    def _histogram(self, name: str, help_text: str) -> Iterator[str]:
        yield from _head(name, "histogram", help_text)
        total = 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets, strict=True):
            total += count
            yield self._line(f"{name}_bucket", total, le=bound)
        yield self._line(f"{name}_sum", self._seconds)
        yield self._line(f"{name}_count", total)

    def _line(self, name: str, value: float, **labels: str) -> str:
        all_labels = {**self.labels, **labels}
        shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in all_labels.items())
        return f"{name}{{{shown}}} {value!r}"


def _head(name: str, kind: str, help_text: str) -> tuple[str, str]:
    return f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
