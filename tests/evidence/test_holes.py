"""What nobody watched is no evidence: holes, restarts in them, relabelling; a real Prometheus."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.evidence.prometheus import PrometheusTraffic
from adroit_publish.evidence.samples import gaps, holes
from adroit_publish.evidence.sources import open_traffic
from adroit_publish.rollover.evidence import Counts
from tests.evidence.test_traffic import bundle_id, send, wait_for
from tests.servers.live_servers import serving
from tests.servers.prometheus_server import prometheus_server
from tests.support.serving_bundles import bundle, loader_model, predicting

HOLE_S = 6


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    model = loader_model(predicting("return model_input['x'] * 2"))
    return bundle(tmp_path_factory.mktemp("bundle"), model)


@contextmanager
def served_at(root, port="0"):
    with serving(root, "--port", port) as server:
        yield server.url


def watched(traffic, served, window_s=4):
    return wait_for(
        lambda: traffic.read([served], window_s),
        lambda got: not got.problems and got.window_s >= window_s and served in got.by_bundle,
    )


def test_requests_before_a_restart_in_a_hole_are_not_taken_for_quiet(root, tmp_path):
    """Fault 4: Prometheus away, 50 requests, a restart, Prometheus back: 0 requests were read."""
    with ExitStack() as stack:
        prometheus = stack.enter_context(prometheus_server(tmp_path / "p", []))
        traffic = PrometheusTraffic(prometheus.url)
        with served_at(root) as url:
            prometheus.scrape([url])
            served = bundle_id(url)
            watched(traffic, served, 6)
            began = time.monotonic()
            os.kill(prometheus.pid, signal.SIGSTOP)
            send(url, good=50)
        stack.enter_context(served_at(root, url.rpartition(":")[2]))
        time.sleep(max(0.0, began + HOLE_S - time.monotonic()))
        os.kill(prometheus.pid, signal.SIGCONT)
        hole_s = time.monotonic() - began
        reading = wait_for(
            lambda: traffic.read([served], hole_s + 2), lambda got: got.problems and got.window_s
        )
        assert reading.by_bundle[served] == Counts(0, 0)  # the 50 are on no record
        assert reading.window_s < hole_s
        assert "no samples from" in " ".join(reading.problems)
        after = watched(traffic, served, 3)  # it grows old again
        assert after.by_bundle[served] == Counts(0, 0)


def test_a_prometheus_that_was_ended_and_started_again_shows_its_hole(root, tmp_path):
    with served_at(root) as url:
        served = bundle_id(url)
        with prometheus_server(tmp_path / "p", [url]) as prometheus:
            watched(PrometheusTraffic(prometheus.url), served, 5)
        send(url, good=3)
        time.sleep(HOLE_S)
        with prometheus_server(tmp_path / "p", [url]) as prometheus:
            traffic = PrometheusTraffic(prometheus.url)
            reading = wait_for(lambda: traffic.read([served], HOLE_S + 4), lambda got: got.problems)
            assert "Prometheus has no samples from" in " ".join(reading.problems)
            assert reading.window_s < HOLE_S


@pytest.mark.parametrize("label", ["instance", "job"])
def test_a_relabelled_target_is_no_evidence_whether_it_is_up_or_down(root, tmp_path, label):
    """Fault 4: the join with ``up`` was empty, so a target that was down counted as quiet."""
    relabel = (
        "metric_relabel_configs: [{source_labels: [__address__], target_label: "
        f"{label}, replacement: rewritten}}]"
    )
    with ExitStack() as stack:
        server = stack.enter_context(serving(root))
        served = bundle_id(server.url)
        prometheus = stack.enter_context(
            prometheus_server(tmp_path / "p", [server.url], further=relabel)
        )
        traffic = PrometheusTraffic(prometheus.url)
        up = wait_for(lambda: traffic.read([served], 2), lambda got: served in got.by_bundle)
        assert up.window_s == 0
        assert "rewritten" in up.problems[0]
        server.process.kill()
        server.wait()
        time.sleep(4)
        down = traffic.read([served], 2)
        assert down.window_s == 0
        assert "rewritten" in down.problems[0]


def test_only_what_came_after_a_moment_of_its_own_clock_is_counted(root, tmp_path):
    with served_at(root) as url, prometheus_server(tmp_path / "p", [url]) as prometheus:
        served, traffic = bundle_id(url), PrometheusTraffic(prometheus.url)
        send(url, good=5)
        wait_for(
            lambda: traffic.read([served], 60), lambda got: got.by_bundle[served].requests == 5
        )
        since_s = traffic.read([served], 60).source_s
        send(url, good=2)
        reading = wait_for(
            lambda: traffic.read([served], 600, since_s),
            lambda got: served in got.by_bundle and got.by_bundle[served].requests >= 2,
        )
        assert reading.by_bundle[served] == Counts(2, 0)
        assert reading.window_s <= reading.source_s - since_s
        future = traffic.read([served], 600, reading.source_s + 3600)
        assert future.window_s <= 0
        assert future.problems


def test_several_regions_are_added_up_and_all_of_them_have_to_answer(root, tmp_path):
    with ExitStack() as stack:
        urls = [stack.enter_context(served_at(root)) for _ in range(2)]
        served = bundle_id(urls[0])
        regions = [
            stack.enter_context(prometheus_server(tmp_path / str(n), [url]))
            for n, url in enumerate(urls)
        ]
        traffic = open_traffic([f"prometheus:{region.url}" for region in regions])
        watched(traffic, served, 2)
        for url, good in zip(urls, (2, 3), strict=True):
            send(url, good=good)
        wait_for(
            lambda: traffic.read([served], 60), lambda got: got.by_bundle[served] == Counts(5, 0)
        )
        one_away = open_traffic([f"prometheus:{regions[0].url}", "prometheus:http://127.0.0.1:1"])
        with pytest.raises(Exception, match="does not answer"):
            one_away.read([served], 60)


# The rules of holes, by themselves.


@given(st.lists(st.floats(0.8, 1.2), min_size=3, max_size=50), st.floats(4, 1000), st.data())
def test_a_gap_is_found_where_it_was_made(steps, hole_s, data):
    at = data.draw(st.integers(1, len(steps) - 1))
    times = [0.0]
    for step in steps:
        times.append(times[-1] + step)
    assert gaps(times, 1.0) == []
    torn = times[:at] + [when + hole_s for when in times[at:]]
    assert gaps(torn, 1.0) == [(torn[at - 1], torn[at])]


@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(0, 39), st.integers(0, 9))
def test_a_restart_behind_failed_scrapes_is_never_taken_for_watched(ups, at, count):
    """The true count is known here: what no sample shows lies in a hole, whatever failed."""
    at %= len(ups)
    scrapes = [(float(n), float(up)) for n, up in enumerate(ups)]
    counter = [(when, (10.0 if when < at else count)) for when, up in scrapes if up]
    found = list(holes(scrapes, [counter]))
    good = [when for when, up in scrapes if up]
    for low, high in pairwise(good):
        fell = low < at <= high and count < 10
        if fell and high - low > 1:
            assert (low, high) in found
    if good and good[-1] < scrapes[-1][0]:
        assert found[-1] == (good[-1], scrapes[-1][0])
