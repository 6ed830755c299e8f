"""adroit.serving.metrics: the text that Prometheus reads."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace

import pytest

from adroit.serving.metrics import BUCKETS_S, Metrics

LINE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} ([-+0-9.e]+)')


def parsed(text: str) -> dict[str, float]:
    """Every sample of the text; a line that is neither sample nor comment fails."""
    found = {}
    for line in text.splitlines():
        if not line.startswith("# "):
            match = LINE.fullmatch(line)
            assert match, line
            found[f"{match[1]}{{{match[2]}}}"] = float(match[3])
    return found


def test_requests_errors_and_seconds_are_counted_by_model_and_bundle() -> None:
    metrics = Metrics({"model": "tiny", "bundle_id": "sha256:ab", "flavor": "f"})
    metrics.invoked(200, None, 0.004)
    metrics.invoked(200, None, 0.005)
    metrics.invoked(400, "BAD_REQUEST", 100.0)
    samples = parsed(metrics.text({"sent": 3, "dropped": 1}))
    labels = 'model="tiny",bundle_id="sha256:ab",flavor="f"'
    assert samples[f'adroit_invocations_total{{{labels},status="200"}}'] == 2
    assert samples[f'adroit_invocation_errors_total{{{labels},error_code="BAD_REQUEST"}}'] == 1
    bucket = "adroit_invocation_seconds_bucket"
    counts = [samples[f'{bucket}{{{labels},le="{le}"}}'] for le in (*BUCKETS_S, "+Inf")]
    assert counts == [0, 0, *[2] * (len(BUCKETS_S) - 2), 3]  # a bound holds what equals it
    assert samples[f"adroit_invocation_seconds_count{{{labels}}}"] == 3
    assert samples[f"adroit_invocation_seconds_sum{{{labels}}}"] == pytest.approx(100.009)
    assert samples[f'adroit_feature_samples_total{{{labels},outcome="dropped"}}'] == 1


def test_a_label_cannot_break_out_of_its_line() -> None:
    text = Metrics({"model": 'a"b\\c\nd'}).text({})
    assert 'model="a\\"b\\\\c\\nd"' in text
    parsed(text)


def test_every_metric_is_declared_once_and_before_its_samples() -> None:
    metrics = Metrics({"model": "m"})
    metrics.invoked(200, None, 0.1)
    declared: list[str] = []
    for line in metrics.text({}).splitlines():
        if line.startswith("# TYPE "):
            assert line.split()[2] not in declared
            declared.append(line.split()[2])
        elif not line.startswith("#"):
            name = re.sub(r"_(bucket|sum|count)$", "", line.partition("{")[0])
            assert name == declared[-1]


def test_what_a_handler_registers_with_prometheus_client_is_appended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "prometheus_client", raising=False)
    assert "mine_total" not in Metrics({"model": "m"}).text({})
    client = SimpleNamespace(generate_latest=lambda: b"mine_total 1.0\n")
    monkeypatch.setitem(sys.modules, "prometheus_client", client)
    assert Metrics({"model": "m"}).text({}).endswith("\nmine_total 1.0\n")
