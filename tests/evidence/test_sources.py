"""evidence.sources: where traffic is counted, chosen by the scheme of its addresses."""

import pytest

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.prometheus import PrometheusTraffic
from adroit_publish.evidence.server_metrics import MetricsTraffic
from adroit_publish.evidence.sources import open_traffic
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.state import Rollover, Side, parse_rollover

PROMETHEUS, OLD, NEW = "http://prometheus:9090", "http://old:8080", "http://new:8080"


def test_a_scheme_chooses_the_source():
    assert isinstance(open_traffic([f"prometheus:{PROMETHEUS}"]), PrometheusTraffic)
    watched = open_traffic([f"metrics:{OLD}", f"metrics:{NEW}"], {"servers": {}, "totals": [1]})
    assert isinstance(watched, MetricsTraffic)
    assert watched.state == {"servers": {}, "totals": [1]}


@pytest.mark.parametrize(
    ("addresses", "got"),
    [
        ([], "no place"),
        ([PROMETHEUS], PROMETHEUS),
        (["graphite:http://g"], "graphite:http://g"),
        ([f"prometheus:{PROMETHEUS}", f"metrics:{OLD}"], "metrics:"),
        (["prometheus:http://user:secret@host"], ""),
        (["metrics:file:/etc/passwd"], "file:/etc/passwd"),
    ],
)
def test_what_no_source_counts_at_is_refused(addresses, got):
    with pytest.raises(ConfigError) as caught:
        open_traffic(addresses)
    assert got in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("prometheus", "metrics", "traffic"),
    [
        (PROMETHEUS, [], (f"prometheus:{PROMETHEUS}",)),
        (None, [OLD, NEW], (f"metrics:{OLD}", f"metrics:{NEW}")),
    ],
)
def test_a_rollover_kept_with_two_fields_for_them_is_read(prometheus, metrics, traffic):
    sides = Side("a", "v1", "sha256:1"), Side("b", "v2", "sha256:2")
    checks = Checks((NEW,), 2, traffic, 60.0, 0.01, 1e-6, 120.0)
    rollover = Rollover("0001", "model", *sides, (100.0,), checks)
    now = rollover.as_dict()
    assert (now["checks"]["prometheus"], now["checks"]["metrics"]) == (prometheus, metrics)
    assert parse_rollover(now, "here") == rollover
    before = {
        **now,
        "checks": {key: now["checks"][key] for key in now["checks"].keys() - {"traffic"}},
    }
    assert parse_rollover(before, "here") == rollover
