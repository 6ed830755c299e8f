"""What is sent of requests' features, how much of it, and what sending never does."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adroit.serving.features import feature_log
from adroit.serving.features.dogstatsd import DATAGRAM_BYTES, Agent, Sender, packed, tag_list
from adroit.serving.features.feature_log import FeatureLines, FeatureLog

TAGS = {"model": "tiny", "bundle_id": "sha256:ab"}
OF = "|#model:tiny,bundle_id:sha256:ab,feature:"


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A real UDP socket, as Datadog's agent has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        agent.bind(("127.0.0.1", 0))
        agent.settimeout(10)
        yield agent


def agent_of(listening: socket.socket) -> Agent:
    return Agent("127.0.0.1", listening.getsockname()[1])


def lines(inputs: Any) -> list[str]:
    return list(FeatureLines(TAGS, random.Random(1)).of(inputs))


def test_features_of_a_request_arrive_at_the_agent(listening: socket.socket) -> None:
    log = FeatureLog(100, TAGS, agent_of(listening))
    log.offer(pd.DataFrame({"age": [30, 41], "city": ["Bonn", "Bonn"]}))
    assert listening.recv(65536).decode().splitlines() == [
        f"adroit.feature.value:30:41|d{OF}age",
        f"adroit.feature.category:2|c{OF}city,value:Bonn",
    ]
    log.close()
    assert log.outcomes == {"sent": 1, "dropped": 0}


@pytest.mark.parametrize(
    ("inputs", "wanted"),
    [
        (pd.DataFrame({"a": [1.5, np.nan, np.inf]}), ["value:1.5|d{}a", "missing:1|c{}a"]),
        (
            pd.DataFrame({"a": [True, False, True]}),
            ["category:2|c{}a,value:true", "category:1|c{}a,value:false"],
        ),
        (pd.DataFrame({"a": pd.Categorical([7, 7])}), ["category:2|c{}a,value:7"]),
        (pd.DataFrame({"a": ["x", None]}), ["category:1|c{}a,value:x", "missing:1|c{}a"]),
        (
            pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}),
            ["value:1|d{}a", "missing:1|c{}a"],
        ),
        (pd.DataFrame({"a|b\n,c": [1]}), ["value:1|d{}a_b__c"]),
        (np.array([[1, 2], [3, 4]]), ["value:1:3|d{}0", "value:2:4|d{}1"]),
        ({"a": np.array([1, 2]), "image": np.zeros((2, 3, 3))}, ["value:1:2|d{}a"]),
        (pd.DataFrame({"a": ["y" * 65]}), ["category:1|c{}a,value:other"]),
        (pd.DataFrame({"a": pd.to_datetime(["2026-01-01"])}), []),
        (pd.DataFrame({"a": [[1, 2]]}), []),
        ({"messages": [{"role": "user", "content": "hello"}]}, []),
        ("text", []),
        (np.zeros((2, 3, 3)), []),
        (pd.DataFrame({"a": []}), []),
    ],
)
def test_each_kind_of_feature_has_its_metric(inputs: Any, wanted: list[str]) -> None:
    assert lines(inputs) == [f"adroit.feature.{line}".format(OF) for line in wanted]


def test_the_values_that_become_tags_are_bounded_for_the_life_of_the_process() -> None:
    made = FeatureLines(TAGS, random.Random(1))
    seen = set()
    for start in range(0, 1000, 10):
        frame = pd.DataFrame({"a": [f"user{number}" for number in range(start, start + 10)]})
        seen |= {line.rpartition("value:")[2] for line in made.of(frame)}
    assert len(seen) == feature_log.CATEGORIES + 1
    assert "other" in seen


def test_many_rows_are_drawn_from_evenly_and_without_numpys_generator() -> None:
    frame = pd.DataFrame({"a": range(10_000), "b": range(10_000)})
    np.random.seed(3)
    before = np.random.get_state()[1].tolist()
    found = lines(frame)
    assert np.random.get_state()[1].tolist() == before
    values = [
        int(value)
        for line in found
        if line.endswith(":a")
        for value in line.partition("|")[0].split(":")[1:]
    ]
    assert len(values) == feature_log.ROWS
    assert 4_500 < sum(values) / len(values) < 5_500


def test_datagrams_hold_whole_lines_and_fit_a_frame() -> None:
    found = lines(pd.DataFrame(np.random.default_rng(1).normal(size=(1000, 30))))
    datagrams = list(packed(found))
    assert max(map(len, datagrams)) <= DATAGRAM_BYTES
    assert b"\n".join(datagrams).decode().splitlines() == found
    values = sum(line.split("|")[0].count(":") for line in found)
    assert values == 30_000


def test_the_share_of_requests_is_what_was_asked_for_whatever_they_hold() -> None:
    """Counted over many: within four standard deviations of a fair draw, for both kinds."""
    drawn: Counter[str] = Counter()

    log = FeatureLog(2.0, TAGS, Agent("127.0.0.1", 9), random.Random(20261123))
    log._queue.put(None)  # its thread ends; the queue is read here
    log._thread.join(10)
    for number in range(100_000):
        kind = "even" if number % 2 == 0 else "odd"
        random.seed(0)  # a model that seeds the module's generator changes nothing
        log.offer({"kind": kind})
        if not log._queue.empty():
            drawn[log._queue.get()["kind"]] += 1
    for kind in ("even", "odd"):
        assert abs(drawn[kind] - 1000) < 4 * (50_000 * 0.02 * 0.98) ** 0.5


@pytest.mark.parametrize(("percent", "wanted"), [(0.0, 0), (100.0, 500)])
def test_nothing_and_everything_are_exact(
    listening: socket.socket, percent: float, wanted: int
) -> None:
    log = FeatureLog(percent, TAGS, agent_of(listening))
    log._queue.maxsize = 0
    for _ in range(500):
        log.offer(pd.DataFrame({"a": [1]}))
    log.close()
    assert log.outcomes["sent"] == wanted


@pytest.mark.parametrize(
    "agent",
    [Agent("127.0.0.1", 9), Agent("no-such-host.invalid"), Agent(path="/nowhere/dsd.socket")],
)
def test_an_agent_that_is_not_there_costs_a_request_nothing(agent: Agent) -> None:
    log = FeatureLog(100, TAGS, agent)
    frame = pd.DataFrame({"a": [1.0]})
    started = time.monotonic()
    for _ in range(1000):
        log.offer(frame)
    assert time.monotonic() - started < 2.0  # a lookup that blocked would take as long by itself
    log.close()


def test_a_full_queue_drops_samples_and_counts_them() -> None:
    log = FeatureLog(100, TAGS, Agent("127.0.0.1", 9))
    stuck, started = threading.Event(), threading.Event()

    def of(inputs: Any) -> Iterator[str]:
        started.set()
        stuck.wait(10)
        return iter(())

    log._lines.of = of  # type: ignore[method-assign]
    log.offer(pd.DataFrame({"a": [1]}))
    assert started.wait(10)
    for _ in range(100):
        log.offer(pd.DataFrame({"a": [1]}))
    assert log.outcomes["dropped"] == 100 - 64
    stuck.set()
    log.close()
    assert log.outcomes["sent"] == 65


class Odd:
    ndim = 2

    def copy(self) -> Any:
        raise RuntimeError("cannot be copied")


def test_inputs_that_break_the_log_break_neither_request_nor_thread(
    listening: socket.socket,
) -> None:
    log = FeatureLog(100, TAGS, agent_of(listening))
    log.offer(Odd())
    log.offer({"a": type("Strange", (), {"ndim": 1, "copy": lambda self: self})()})
    log.offer(pd.DataFrame({"a": [2]}))
    assert listening.recv(65536) == f"adroit.feature.value:2|d{OF}a".encode()
    log.close()


def test_inputs_are_logged_as_they_came_though_the_model_changes_them(
    listening: socket.socket,
) -> None:
    log = FeatureLog(100, TAGS, agent_of(listening))
    changed, lines_of = threading.Event(), log._lines.of

    def of(inputs: Any) -> Iterator[str]:
        changed.wait(10)
        return lines_of(inputs)

    log._lines.of = of  # type: ignore[method-assign]
    frame = pd.DataFrame({"a": [1.0]})
    log.offer(frame)
    frame.loc[0, "a"] = 99.0
    changed.set()
    assert b"value:1|d" in listening.recv(65536)
    log.close()


def test_a_unix_socket_is_reached_and_found_again_after_the_agent_restarts(tmp_path: Path) -> None:
    sender = Sender(Agent(path=str(tmp_path / "dsd")))
    assert not sender.send(["a:1|c|#"])
    for _ in range(2):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
            agent.bind(str(tmp_path / "dsd"))
            agent.settimeout(10)
            sent = sender.send(["b:1|c|#"]) or sender.send(["b:1|c|#"])
            assert sent
            assert agent.recv(100) == b"b:1|c|#"
        (tmp_path / "dsd").unlink()
    sender.close()


@pytest.mark.parametrize(
    ("environ", "agent"),
    [
        ({}, Agent("localhost", 8125)),
        ({"DD_AGENT_HOST": "10.0.0.7", "DD_DOGSTATSD_PORT": "9125"}, Agent("10.0.0.7", 9125)),
        ({"DD_DOGSTATSD_URL": "udp://agent"}, Agent("agent", 8125)),
        ({"DD_DOGSTATSD_URL": "unix:///var/run/dsd.socket"}, Agent(path="/var/run/dsd.socket")),
    ],
)
def test_datadogs_own_variables_name_the_agent(environ: dict[str, str], agent: Agent) -> None:
    found = Agent.of(environ)
    assert found.path == agent.path
    assert agent.path or found == agent


def test_an_agents_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="DD_DOGSTATSD_URL"):
        Agent.of({"DD_DOGSTATSD_URL": "http://agent:8125"})


def test_tags_cannot_break_out_of_their_place() -> None:
    assert tag_list({"a": "x,y|c\n#z"}) == "a:x_y_c__z"
    assert len(tag_list({"a": "x" * 500})) == 200
