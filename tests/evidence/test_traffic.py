"""evidence.traffic: a real Prometheus scraping real servers, and the servers' own /metrics."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.evidence.prometheus import PrometheusTraffic, increase
from adroit_publish.evidence.server_metrics import KEPT, MetricsTraffic
from adroit_publish.evidence.traffic import REQUESTS
from adroit_publish.rollover.evidence import Counts
from tests.servers.live_servers import ask, serving
from tests.servers.object_servers import free_ports
from tests.servers.odd_servers import odd_server, saying
from tests.servers.prometheus_server import prometheus_server
from tests.support.serving_bundles import bundle, loader_model, predicting

JSON = {"content-type": "application/json"}
GOOD = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1]]}})
NOBODY = "sha256:" + "0" * 64
PATIENCE_S = 60


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Two bundles that differ."""
    root = tmp_path_factory.mktemp("bundles")
    return [
        bundle(root / f"times{n}", loader_model(predicting(f"return model_input['x'] * {n}")))
        for n in (2, 3)
    ]


@contextmanager
def both(roots):
    """A server of each bundle: their URLs and bundle ids."""
    with ExitStack() as stack:
        running = [stack.enter_context(serving(root)) for root in roots]
        yield [(server.url, bundle_id(server.url)) for server in running]


def bundle_id(url):
    return ask(f"{url}/bundle").json["bundle_id"]


def send(url, good=0, bad=0):
    for body in [GOOD] * good + ["{}"] * bad:
        ask(f"{url}/invocations", body, JSON)


def wait_for(what, condition):
    """Returns the first value of ``what()`` that meets the condition; a StoreError meets none."""
    end = time.monotonic() + PATIENCE_S
    value = None
    while time.monotonic() < end:
        try:
            value = what()
        except StoreError as error:
            value = error
        else:
            if condition(value):
                return value
        time.sleep(0.1)
    raise AssertionError(value)


def servers_in(prometheus_url, bundle_id):
    """How many servers of a bundle Prometheus counts now: those whose series is not stale."""
    query = urllib.parse.urlencode({"query": f'{REQUESTS}{{bundle_id="{bundle_id}"}}'})
    with urllib.request.urlopen(f"{prometheus_url}/api/v1/query?{query}") as answer:
        return len(json.load(answer)["data"]["result"])


def servers_of(state):
    """How many servers of each bundle the watch knows."""
    return Counter(server["bundle_id"] for server in state["servers"].values())


def failure(traffic, served):
    """Returns what a reading fails with, or None."""
    try:
        traffic.read([served], 1)
    except StoreError as error:
        return error
    return None


@pytest.fixture(scope="module")
def watched(roots, tmp_path_factory):
    """An old and a new server, the new one with traffic, and the Prometheus that scrapes them."""
    with both(roots) as ((old, old_id), (new, new_id)):
        send(new, good=3, bad=1)  # before the first scrape: increase() would miss all of it
        with prometheus_server(tmp_path_factory.mktemp("prometheus"), [old, new]) as prometheus:
            traffic = PrometheusTraffic(prometheus.url)
            wait_for(
                lambda: traffic.read([old_id, new_id], 60), lambda got: len(got.by_bundle) == 2
            )
            yield traffic, old_id, new_id, new, prometheus.url


def test_prometheus_tells_requests_and_failures_of_each_bundle(watched):
    traffic, old_id, new_id, _, url = watched
    reading = traffic.read([old_id, new_id, NOBODY], 600)
    assert reading.by_bundle == {old_id: Counts(0, 0), new_id: Counts(4, 1, caller_errors=1)}
    assert [servers_in(url, each) for each in (old_id, new_id, NOBODY)] == [1, 1, 0]
    assert abs(datetime.now(UTC) - reading.utc) < timedelta(seconds=10)
    assert json.loads(json.dumps(reading.as_dict()))["by_bundle"][new_id]["requests"] == 4


def test_a_window_from_before_the_first_scrape_is_not_proven(watched):
    traffic, old_id, *_ = watched
    assert "less than the 600s" in traffic.read([old_id], 600).problems[0]


def test_a_window_that_was_watched_has_no_problems_and_only_its_own_requests(watched):
    traffic, old_id, new_id, new, url = watched
    quiet = wait_for(
        lambda: traffic.read([old_id, new_id], 3),
        lambda got: not got.problems and got.by_bundle[new_id].requests == 0,
    )
    assert quiet.by_bundle == {old_id: Counts(0, 0), new_id: Counts(0, 0)}
    send(new, good=2)
    wait_for(lambda: traffic.read([new_id], 3), lambda got: got.by_bundle[new_id] == Counts(2, 0))
    assert [servers_in(url, each) for each in (old_id, new_id)] == [1, 1]


def test_a_server_that_died_is_a_problem_until_its_target_is_gone(roots, tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(serving(roots[0]))
        other = stack.enter_context(serving(roots[1]))
        dying = bundle_id(server.url)
        send(server.url, good=5)
        urls = [server.url, other.url]
        prometheus = stack.enter_context(prometheus_server(tmp_path / "p", urls))
        traffic = PrometheusTraffic(prometheus.url)
        wait_for(
            lambda: traffic.read([dying], 2),
            lambda got: not got.problems and dying in got.by_bundle,
        )
        assert servers_in(prometheus.url, dying) == 1
        server.process.kill()
        down = wait_for(lambda: traffic.read([dying], 2), lambda got: got.problems)
        assert server.url.removeprefix("http://") in down.problems[0]
        assert "not counted" in down.problems[0]
        prometheus.scrape([other.url])
        gone = wait_for(lambda: traffic.read([dying], 2), lambda got: not got.problems)
        assert dying in gone.by_bundle  # known, and gone
        assert servers_in(prometheus.url, dying) == 0
        wait_for(lambda: traffic.read([dying], 2), lambda got: got.by_bundle[dying] == Counts(0, 0))


def test_a_prometheus_that_scrapes_no_more_gives_an_old_reading_and_then_none(roots, tmp_path):
    with serving(roots[0]) as server:
        url, served = server.url, bundle_id(server.url)
        with prometheus_server(tmp_path / "p", [url]) as prometheus:
            traffic = PrometheusTraffic(prometheus.url)
            wait_for(lambda: traffic.read([served], 1), lambda got: served in got.by_bundle)
        stopped = datetime.now(UTC)
        with prometheus_server(tmp_path / "p", []) as prometheus:
            first = PrometheusTraffic(prometheus.url).read([served], 1)
            assert first.utc < stopped
            assert served in first.by_bundle
            assert servers_in(prometheus.url, served) == 1
            later = PrometheusTraffic(prometheus.url).read([served], 1)
            assert abs(later.utc - first.utc) < timedelta(seconds=1)  # asked again, no younger
        with prometheus_server(tmp_path / "p", [], look_back_s=1) as prometheus:
            error = wait_for(
                lambda: failure(PrometheusTraffic(prometheus.url), served),
                lambda got: got is not None,
            )
        assert "scrapes nothing" in error.what


def test_a_prometheus_that_is_away_can_be_asked_again(tmp_path):
    traffic = PrometheusTraffic(f"http://127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(StoreError) as error:
        traffic.read([NOBODY], 60)
    assert error.value.transient


@pytest.mark.parametrize(
    ("status", "body", "transient"),
    [
        (200, b"<html>log in</html>", False),
        (200, b'{"status": "success"}', False),
        (200, b'{"data": {"result": [{"metric": {}, "value": [1, "NaN"]}]}}', False),
        (200, b'{"data": {"result": [{"metric": 5, "value": [1, "1"]}]}}', False),
        (200, b'{"data": {"result": 5}}', False),
        (400, b'{"status": "error"}', False),
        (302, b"", False),
        (503, b"starting", True),
    ],
)
def test_what_is_no_answer_of_prometheus_is_no_reading(status, body, transient):
    with odd_server(saying(status, body)) as url, pytest.raises(StoreError) as error:
        PrometheusTraffic(url).read([NOBODY], 60)
    assert error.value.transient == transient


def test_credentials_in_an_address_are_refused():
    with pytest.raises(ConfigError) as error:
        PrometheusTraffic("http://user:secret@host")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("bundle_ids", "window_s"), [(['x"} or up{a="'], 60), ([], 60), ([NOBODY], 0)]
)
def test_a_question_that_makes_no_sense_is_a_misuse(bundle_ids, window_s):
    with pytest.raises(ValueError, match=r"bundle ids|window"):
        PrometheusTraffic("http://host").read(bundle_ids, window_s)


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), min_size=1, max_size=5), st.data())
def test_increase_is_the_sum_of_what_successive_processes_counted(lives, data):
    samples, grown, when, last = [], [], 0, 0
    for steps in lives:
        # A restart shows where the counter falls; from 0 it cannot, and need not.
        first = data.draw(st.integers(0, last - 1 if last else 50))
        count = 0
        for step in [first, *steps]:
            when, count = when + 1, count + step
            samples.append((float(when), float(count)))
            grown.append((when, step))
        last = count
    start = data.draw(st.integers(-1, when))
    assert increase(samples, start) == sum(step for at, step in grown if at > start)


# The servers' own /metrics.


class Clock:
    """A clock that is set by hand, and moves a minute each time it is asked."""

    def __init__(self):
        self.now = datetime(2026, 11, 24, tzinfo=UTC)

    def __call__(self):
        self.now += timedelta(seconds=60)
        return self.now


def test_servers_tell_their_traffic_once_they_were_watched_for_the_window(roots):
    clock, state = Clock(), None

    def read(bundle_ids, window_s):
        """As commands do that run one after another: the state is all that is left of the last."""
        nonlocal state
        traffic = MetricsTraffic([old, new], state, clock=clock)
        reading = traffic.read(bundle_ids, window_s)
        state = json.loads(json.dumps(traffic.state))
        return reading

    with both(roots) as ((old, old_id), (new, new_id)):
        send(new, good=7)  # before the watch began
        first = read([old_id, new_id], 60)
        assert "watched for 0 s of the 60 s" in first.problems[0]
        send(new, good=2, bad=1)
        second = read([old_id, new_id, NOBODY], 60)
        assert second.problems == ()
        assert second.by_bundle == {old_id: Counts(0, 0), new_id: Counts(3, 1, caller_errors=1)}
        assert second.utc == clock.now
        assert servers_of(state) == {old_id: 1, new_id: 1}
        send(old, good=1)
        assert read([old_id, new_id], 60).by_bundle == {
            old_id: Counts(1, 0), new_id: Counts(0, 0)
        }  # fmt: skip
        assert read([old_id, new_id], 120).by_bundle[old_id] == Counts(1, 0)
        assert read([old_id, new_id], 240).by_bundle[new_id] == Counts(3, 1, caller_errors=1)
        assert read([old_id, new_id], 3600).problems
        assert servers_of(state) == {old_id: 1, new_id: 1}


def test_a_restart_may_have_lost_counts_so_the_watch_begins_anew(roots):
    clock = Clock()
    with serving(roots[0]) as server:
        url, served = server.url, bundle_id(server.url)
        port = url.rpartition(":")[2]
        traffic = MetricsTraffic([url], clock=clock)
        traffic.read([served], 60)
        assert traffic.read([served], 60).problems == ()
        send(url, good=1)
    with pytest.raises(StoreError) as error:
        traffic.read([served], 60)
    assert error.value.transient
    with serving(roots[0], "--port", port) as server:
        assert server.url == url
        again = traffic.read([served], 60)
        assert "watched for 0 s" in again.problems[0]
        assert traffic.read([served], 60).problems == ()


def test_one_server_that_is_away_is_a_problem_and_counts_on_when_it_is_back(roots):
    with both(roots) as ((old, old_id), (new, new_id)):
        clock = Clock()
        away = f"http://127.0.0.1:{free_ports(1)[0]}"
        traffic = MetricsTraffic([old, new], clock=clock)
        traffic.read([old_id], 60)
        without = MetricsTraffic([away, new], traffic.state, clock=clock)
        reading = without.read([old_id, new_id], 60)
        assert away in reading.problems[0]
        assert old_id not in reading.by_bundle  # no evidence, not zero
        assert list(reading.by_bundle) == [new_id]
        assert reading.window_s == 0  # nothing was watched of all of them
        send(old, good=2)
        again = MetricsTraffic([old, new], without.state, clock=clock)
        back = again.read([old_id], 120)
        assert back.by_bundle == {old_id: Counts(2, 0)}
        assert back.problems == ()
        assert servers_of(again.state) == {old_id: 1, new_id: 1}


def test_a_long_watch_is_kept_in_little_room_and_loses_no_request(roots):
    with serving(roots[0]) as server:
        url, served = server.url, bundle_id(server.url)
        traffic = MetricsTraffic([url], clock=Clock())
        traffic.read([served], 60)
        send(url, good=3)
        for _ in range(KEPT + 10):
            reading = traffic.read([served], 60)
        assert len(traffic.state["totals"]) <= KEPT
        assert reading.by_bundle[served].requests == 0
        since = traffic.read([served], 60 * (KEPT + 11))
        assert (since.problems, since.by_bundle[served].requests) == ((), 3)


def test_a_clock_that_went_back_begins_the_watch_anew(roots):
    with serving(roots[0]) as server:
        clock = Clock()
        traffic = MetricsTraffic([server.url], clock=clock)
        served = bundle_id(server.url)
        traffic.read([served], 60)
        clock.now -= timedelta(days=1)
        assert "watched for 0 s" in traffic.read([served], 60).problems[0]


def test_what_is_no_server_of_ours_is_no_reading():
    with odd_server(saying(200, b"{}")) as url, pytest.raises(StoreError):
        MetricsTraffic([url]).read([NOBODY], 60)
