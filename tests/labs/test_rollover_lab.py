"""The lab itself: one way back of it under load, and that a request which fails shows."""

from __future__ import annotations

import time

import pytest

from tests.labs.balancer import ConstantLoad, balancer
from tests.labs.rollover_lab import ANSWER, BODY, opened, play
from tests.servers.object_servers import free_ports
from tests.servers.odd_servers import odd_server, saying


def test_a_way_back_under_load_fails_no_request_and_one_without_servers_shows(trained, capsys):
    with opened(containers=False, trained=trained) as lab:
        assert play(lab, ["pointed"], to_the_end=False) == []
        assert "back from pointed: rolled back" in capsys.readouterr().out
        assert sum(lab.load.requests.values()) > 50
        lab.at("no server")
        for fleet in lab.fleets.values():
            fleet.stop()
        while not lab.load.failed:
            time.sleep(0.1)
        (problem,) = play(lab, [], to_the_end=False)
    assert problem.startswith("no server: ")
    assert "502" in problem


@pytest.mark.parametrize(("living", "failed"), [(1, 0), (0, 1)])
def test_the_balancer_asks_the_next_replica_where_one_is_gone(living, failed):
    gone = [f"http://127.0.0.1:{port}" for port in free_ports(2)]
    with odd_server(saying(200, ANSWER)) as there:
        replicas = [*gone, *[there] * living]
        with balancer(lambda key: replicas) as url, ConstantLoad(url, BODY, ANSWER) as load:
            while load.requests[""] < 20:
                pass
    assert bool(load.failed) == bool(failed)


def test_another_answer_is_a_failed_request():
    with odd_server(saying(200, b"{}")) as url, ConstantLoad(url, BODY, ANSWER) as load:
        while not load.requests[""]:
            pass
    assert "it answered b'{}'" in load.failed[""]
