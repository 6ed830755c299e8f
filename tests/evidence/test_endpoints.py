"""evidence.endpoints, against real servers, and servers that are away, wrong or hostile."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from adroit_publish.errors import ConfigError
from adroit_publish.evidence.answers import check_address
from adroit_publish.evidence.endpoints import VISITS_PER_REPLICA, probe
from tests.servers.live_servers import ask, serving
from tests.servers.object_servers import free_ports
from tests.servers.odd_servers import balancer, odd_server, saying
from tests.support.serving_bundles import bundle, loader_model, predicting

GOLDEN = json.dumps({"dataframe_split": {"columns": ["x"], "data": [[1], [2]]}}).encode()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two replicas of one bundle and a server of another; their URLs."""
    root = tmp_path_factory.mktemp("bundles")
    two = bundle(root / "two", loader_model(predicting("return (model_input['x'] * 2).tolist()")))
    three = bundle(
        root / "three", loader_model(predicting("return (model_input['x'] * 3).tolist()"))
    )
    with ExitStack() as stack:
        running = [stack.enter_context(serving(each)) for each in (two, two, three)]
        yield [server.url for server in running]


def doubled(predictions):
    return None if predictions == [2, 4] else f"{predictions!r} is not [2, 4]"


def bundle_id(url):
    return ask(f"{url}/bundle").json["bundle_id"]


def test_a_server_of_the_version_that_answers_as_recorded_is_deployed_and_verified(servers):
    reading = probe([servers[0]], bundle_id(servers[0]), GOLDEN, doubled)
    assert (reading.deployed, reading.verified, reading.problems) == (True, True, ())
    assert reading.urls[0].replicas == 1
    assert json.loads(json.dumps(reading.as_dict()))["urls"][0]["url"] == servers[0]


def test_another_bundle_behind_one_of_the_urls_is_not_deployed(servers):
    reading = probe([servers[0], servers[2]], bundle_id(servers[0]), GOLDEN, doubled)
    assert not reading.deployed
    (problem,) = reading.problems
    assert problem.startswith(servers[2])
    assert bundle_id(servers[2]) in problem


def test_another_answer_to_the_golden_input_is_deployed_and_not_verified(servers):
    reading = probe([servers[2]], bundle_id(servers[2]), GOLDEN, doubled)
    assert (reading.deployed, reading.verified) == (True, False)
    assert "[3, 6] is not [2, 4]" in reading.problems[0]


def test_a_golden_input_that_is_refused_is_not_verified(servers):
    reading = probe([servers[0]], bundle_id(servers[0]), b'{"nonsense": 1}', doubled)
    assert (reading.deployed, reading.verified) == (True, False)
    assert "400" in reading.problems[0]


def test_without_a_golden_input_only_the_bundle_is_looked_at(servers):
    reading = probe([servers[2]], bundle_id(servers[2]), None, doubled)
    assert reading.verified


def test_all_replicas_are_met_behind_a_balancer_and_each_is_asked(servers):
    asked = []

    def noted(predictions):
        asked.append(predictions)

    with balancer([servers[0], servers[0], servers[1]]) as url:
        reading = probe([url], bundle_id(servers[0]), GOLDEN, noted, replicas=2)
        assert (reading.verified, reading.urls[0].replicas) == (True, 2)
        assert asked == [[2, 4], [2, 4]]


def test_asking_is_no_traffic(servers):
    def counted():
        lines = ask(f"{servers[0]}/metrics").body.decode().splitlines()
        return [line for line in lines if line.startswith("adroit_invocation")]

    before = counted()
    assert probe([servers[0]], bundle_id(servers[0]), GOLDEN, doubled, sampling=True).verified
    assert counted() == before


@pytest.mark.parametrize(("sampling", "asked"), [(False, 1), (True, 0)])
def test_a_server_that_would_count_it_is_not_asked_while_its_requests_are_a_sample(sampling, asked):
    invocations = []

    def respond(handler):  # as servers before 2026-11 answer
        invocations.extend([handler.path] if handler.path == "/invocations" else [])
        identity = {"bundle_id": "sha256:" + "1" * 64, "instance_id": "i-1"}
        saying(200, json.dumps(identity | {"predictions": [2, 4]}).encode())(handler)

    with odd_server(respond) as url:
        reading = probe([url], "sha256:" + "1" * 64, GOLDEN, doubled, sampling=sampling)
    assert (reading.verified, len(invocations)) == (True, asked)


def test_a_replica_that_is_never_met_is_missing(servers):
    reading = probe([servers[0]], bundle_id(servers[0]), GOLDEN, doubled, replicas=2)
    assert not reading.deployed
    assert f"1 of 2 replicas in {2 * VISITS_PER_REPLICA} tries" in reading.problems[0]


def test_an_old_replica_behind_the_balancer_is_found(servers):
    with balancer([servers[0], servers[2]]) as url:
        reading = probe([url], bundle_id(servers[0]), GOLDEN, doubled, replicas=2)
    assert not reading.deployed
    assert bundle_id(servers[2]) in reading.problems[0]


def test_a_server_that_is_away_is_a_problem_and_no_failure(servers):
    away = f"http://127.0.0.1:{free_ports(1)[0]}"
    reading = probe([away, servers[0]], bundle_id(servers[0]), GOLDEN, doubled)
    assert [bool(found.missing) for found in reading.urls] == [True, False]


def test_no_redirect_is_followed(servers):
    with odd_server(saying(307, b"", Location=f"{servers[0]}/bundle")) as url:
        reading = probe([url], bundle_id(servers[0]), GOLDEN, doubled)
    assert not reading.deployed
    assert "307" in reading.problems[0]


def test_what_a_stranger_answers_is_shortened_and_made_printable():
    with odd_server(saying(200, b"\x1b[31mred\x07\n" + b"x" * 10_000)) as url:
        (problem,) = probe([url], "sha256:" + "0" * 64, None, doubled).problems
    assert problem.isprintable()
    assert "red" in problem
    assert len(problem) < 500


def test_an_answer_without_end_is_cut_off():
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    with odd_server(endless) as url:
        (problem,) = probe([url], "sha256:" + "0" * 64, None, doubled).problems
    assert "too large" in problem


def test_an_answer_that_drips_is_given_up():
    def dripping(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.05)

    with odd_server(dripping) as url:
        began = time.monotonic()
        (problem,) = probe([url], "sha256:" + "0" * 64, None, doubled, timeout_s=0.3).problems
    assert "too long" in problem
    assert time.monotonic() - began < 5


def test_a_body_that_is_shorter_than_announced_is_no_answer():
    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b'{"bundle_id": "x"}')

    with odd_server(cut) as url:
        (problem,) = probe([url], "x", None, doubled).problems
    assert "does not answer" in problem


def test_json_nested_too_deeply_is_no_answer():
    with odd_server(saying(200, b"[" * 100_000)) as url:
        assert not probe([url], "sha256:" + "0" * 64, None, doubled).deployed


@pytest.mark.parametrize(
    "url",
    ["ftp://host", "http://", "http://host:0", "http://host:port", "host:80", "http://[::1", "",
     "http://host/?token=secret", "http://ho\nst"],
)  # fmt: skip
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ConfigError) as error:
        check_address(url)
    assert "secret" not in str(error.value)
    assert probe([url], "sha256:" + "0" * 64, None, doubled).problems


def test_credentials_in_an_address_are_neither_sent_nor_shown():
    seen = []

    def note(handler):
        seen.append(handler.path)

    with odd_server(note) as url:
        with_secret = url.replace("//", "//user:secret@")
        reading = probe([with_secret], "sha256:" + "0" * 64, None, doubled)
    assert seen == []
    assert not reading.deployed
    assert "secret" not in json.dumps(reading.as_dict())


def test_the_user_s_netrc_goes_to_nobody(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    seen = []

    def note(handler):
        seen.append(handler.headers.get("Authorization"))

    with odd_server(note) as url:
        probe([url], "sha256:" + "0" * 64, None, doubled)
    assert seen == [None]
