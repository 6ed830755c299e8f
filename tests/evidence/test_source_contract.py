"""One suite over every source: a real Prometheus, real servers, moto, and Datadog as documented."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager

import pytest

from adroit_publish.errors import ConfigError, PublishError, StoreError
from adroit_publish.evidence.access import VARIABLE, access_to
from adroit_publish.evidence.endpoints import probe
from adroit_publish.evidence.old_servers import ask_servers
from adroit_publish.evidence.services.datadog import DatadogTraffic
from adroit_publish.evidence.sources import SOURCES, open_traffic
from adroit_publish.evidence.traffic import BUCKETS, BY_STATUS, FAULTS, REQUESTS
from adroit_publish.rollover.checks import Checks
from adroit_publish.rollover.state import Rollover, Side
from adroit_publish.rollovers.probes import probe_addresses
from tests.evidence.test_traffic import JSON, bundle_id, send, wait_for
from tests.servers.fake_datadog import KEYS, fake_datadog
from tests.servers.live_servers import ask, serving
from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, boto3_session, running_moto
from tests.servers.odd_servers import odd_server, saying
from tests.servers.prometheus_server import prometheus_server
from tests.support.serving_bundles import bundle, loader_model, predicting
from tests.support.traffic_contract import NOBODY, PROMISES

SERVED = "sha256:" + "a" * 64
NOWHERE = "http://127.0.0.1:1"
NO_X = json.dumps({"dataframe_split": {"columns": ["y"], "data": [[1]]}})  # the model wants an x


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    model = loader_model(predicting("return model_input['x'] * 2"))
    return bundle(tmp_path_factory.mktemp("bundle"), model)


class Served:
    """A real server that a source counts."""

    def __init__(self, scheme, url, address):
        self.served, self._url = bundle_id(url), url
        self._scheme, self._address, self._last = scheme, address, None

    def source(self):
        self._last = open_traffic(
            [f"{self._scheme}:{self._address}"], self._last and self._last.state
        )
        return self._last

    def away(self):
        return open_traffic([f"{self._scheme}:{NOWHERE}"])

    def ask(self, good, bad):
        send(self._url, good, bad)

    def fail(self, callers, model):
        send(self._url, 0, callers)
        for _ in range(model):
            assert ask(f"{self._url}/invocations", NO_X, JSON).status == 400


class Pointed:
    """A service that keeps points, of a server that answers on paper: a minute for each ``ask``."""

    def __init__(self, address, away, submit, served=SERVED):
        self.served = served
        self._address, self._away, self._submit = address, away, submit
        self._minute = time.time() // 60 * 60 - 660
        for _ in range(8):
            self.ask(0, 0)

    def source(self):
        return open_traffic([self._address])

    def away(self):
        return self._away()

    def ask(self, good, bad):
        """The minutes between are watched: points of 0 come from a server that nobody asks."""
        at, self._minute = self._minute, self._minute + 60
        self._submit(at, REQUESTS, good + bad)
        self._submit(at, BY_STATUS, good, status="200")
        self._submit(at, BY_STATUS, bad, status="400")
        for bound, count in (("0.01", good), ("+Inf", good + bad)):
            self._submit(at, BUCKETS, count, le=bound)

    def fail(self, callers, model):
        at = self._minute
        self.ask(0, callers + model)
        self._submit(at, FAULTS, callers, fault="client")
        self._submit(at, FAULTS, model, fault="model")


@contextmanager
def of_metrics(root, _directory, _monkeypatch):
    with serving(root) as server:
        yield Served("metrics", server.url, server.url)


@contextmanager
def of_prometheus(root, directory, _monkeypatch):
    with serving(root) as server, prometheus_server(directory, [server.url]) as prometheus:
        served = Served("prometheus", server.url, prometheus.url)
        source = served.source()
        wait_for(
            lambda: source.read([served.served], 1), lambda got: served.served in got.by_bundle
        )
        yield served


@contextmanager
def of_datadog(_root, _directory, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    names = {
        REQUESTS: "adroit.adroit_invocation_seconds.count",
        BY_STATUS: "adroit.adroit_invocations.count",
        BUCKETS: "adroit.adroit_invocation_seconds.bucket",
        FAULTS: "adroit.adroit_invocation_faults.count",
    }
    with fake_datadog() as fake:

        def submit(at, metric, value, le=None, **tags):
            tags |= {"upper_bound": le} if le else {}
            fake.submit(names[metric], at, value, bundle_id=SERVED, host="h1", **tags)

        away = lambda: open_traffic([f"datadog:{NOWHERE}"])  # noqa: E731
        yield Pointed(f"datadog:{fake.url}", away, submit)


@contextmanager
def of_cloudwatch(_root, _directory, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with running_moto() as moto:
        monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint)
        client = boto3_session().client("cloudwatch", region_name="us-east-1")
        served = f"sha256:{time.time_ns():064x}"  # moto keeps what an earlier one was told

        def submit(at, metric, value, **tags):
            dimensions = {"bundle_id": served, "instance": "i-1", **tags}
            client.put_metric_data(
                Namespace="Adroit",
                MetricData=[
                    {
                        "MetricName": metric,
                        "Dimensions": [{"Name": n, "Value": v} for n, v in dimensions.items()],
                        "Timestamp": at,
                        "Value": value,
                    }
                ],
            )

        def away():
            monkeypatch.setenv("AWS_ENDPOINT_URL", NOWHERE)
            return open_traffic(["cloudwatch:us-east-1/Adroit"])

        yield Pointed("cloudwatch:us-east-1/Adroit", away, submit, served)


KINDS = {
    "metrics": of_metrics,
    "prometheus": of_prometheus,
    "datadog": of_datadog,
    "cloudwatch": of_cloudwatch,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_every_source_keeps_its_promise(promise, kind, root, tmp_path, monkeypatch):
    with KINDS[kind](root, tmp_path / "p", monkeypatch) as counted:
        promise(counted)


def test_the_suite_covers_every_source():
    assert KINDS.keys() == SOURCES.keys()


# What keeps points, by itself.


def test_points_that_stop_or_are_missing_are_a_hole(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    now = time.time() // 60 * 60 - 60
    with fake_datadog() as fake:

        def submit(host, *minutes_ago):
            for ago in minutes_ago:
                metric = "adroit.adroit_invocation_seconds.count"
                fake.submit(metric, now - 60 * ago, 1, bundle_id=SERVED, host=host)

        submit("h1", *range(30))
        source = open_traffic([f"datadog:{fake.url}"])
        whole = source.read([SERVED], 1200)
        assert (whole.problems, whole.window_s >= 1100) == ((), True)
        submit("h2", *range(20, 30), *range(10))  # none for ten minutes
        torn = source.read([SERVED], 1800)
        assert torn.window_s <= 600
        assert "no points of a server from" in torn.problems[0]
        submit("h3", *range(5, 30))  # none for the last five
        lost = source.read([SERVED], 1800)
        assert lost.window_s <= 300


def test_datadogs_keys_are_needed_and_go_to_datadog_alone(monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="keys") as error:
        open_traffic(["datadog:https://api.datadoghq.eu"]).read([SERVED], 60)
    assert "DD_API_KEY" in str(error.value)
    with pytest.raises(ConfigError, match="Datadog alone"):
        open_traffic(["datadog:https://api.datadoghq.com.evil.example"])
    with pytest.raises(ConfigError, match="Datadog alone"):
        open_traffic(["datadog:http://api.datadoghq.com"])
    wrong = {"DD_API_KEY": "a-wrong-one", "DD_APP_KEY": "another"}
    with fake_datadog() as fake, pytest.raises(StoreError) as refused:
        DatadogTraffic(fake.url, wrong).read([SERVED], 60)
    assert "403" in str(refused.value)
    assert "a-wrong-one" not in str(refused.value)


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"status": "error", "error": "no"}', b'{"status": "ok"}',
             b'{"status": "ok", "series": [{"scope": "a:b", "pointlist": [["x", 1]]}]}'],
)  # fmt: skip
def test_what_is_no_answer_of_datadog_is_no_reading(body):
    with odd_server(saying(200, body)) as url, pytest.raises(StoreError):
        DatadogTraffic(url, KEYS).read([NOBODY], 60)


def test_a_users_own_question_is_answered(root, tmp_path):
    with serving(root) as server, prometheus_server(tmp_path / "p", [server.url]) as prometheus:
        source, served = open_traffic([f"prometheus:{prometheus.url}"]), bundle_id(server.url)
        question = f'adroit_ready{{bundle_id="{served}"}}'
        reading = wait_for(
            lambda: source.read([served], 5, None, [question]), lambda got: got.answers[question]
        )
        assert reading.answers == {question: (1.0,)}
    with serving(root) as server, pytest.raises(ConfigError, match="answer no questions"):
        open_traffic([f"metrics:{server.url}"]).read([served], 5, None, ["up"])


# Who is let in.

HASH = "$2b$05$abcdefghijklmnopqrstuupx2xBUC4954936wVIjyyPHmUBFu0wCW"  # of "open sesame"


def test_a_prometheus_behind_tls_and_a_password(root, tmp_path, monkeypatch):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    web = (
        f"tls_server_config: {{cert_file: {tmp_path}/cert.pem, key_file: {tmp_path}/key.pem}}\n"
        f'basic_auth_users: {{rollover: "{HASH}"}}\n'
    )
    with (
        serving(root) as server,
        prometheus_server(tmp_path / "p", [server.url], web=web) as prometheus,
    ):
        source, served = open_traffic([f"prometheus:{prometheus.url}"]), bundle_id(server.url)
        with pytest.raises(PublishError):  # its certificate is nobody's
            source.read([served], 5)
        access = tmp_path / "access.toml"
        monkeypatch.setenv(VARIABLE, str(access))
        table = f'["{prometheus.url}"]\nca_file = "{tmp_path}/cert.pem"\n'
        access.write_text(table)
        with pytest.raises(StoreError, match="expected") as refused:
            source.read([served], 5)
        assert "401" in str(refused.value)
        (tmp_path / "password").write_text("open sesame\n")
        access.write_text(f'{table}username = "rollover"\npassword_file = "{tmp_path}/password"\n')
        wait_for(lambda: source.read([served], 5), lambda got: served in got.by_bundle)


def test_a_token_goes_to_its_server_alone(tmp_path, monkeypatch):
    heard = []

    def respond(handler):
        heard.append(handler.headers.get("Authorization"))
        saying(200, b"{}")(handler)

    (tmp_path / "token").write_text("sesame\n")
    with odd_server(respond) as url, odd_server(respond) as other:
        access = tmp_path / "access.toml"
        access.write_text(f'["{url}"]\ntoken_file = "{tmp_path}/token"\n')
        monkeypatch.setenv(VARIABLE, str(access))
        for address in (url, other):
            with pytest.raises(StoreError) as error:
                open_traffic([f"prometheus:{address}"]).read([SERVED], 5)
            assert "sesame" not in str(error.value)
    assert heard == ["Bearer sesame", None]
    assert "sesame" not in repr(access_to(url))


def test_everybody_who_asks_such_a_server_says_the_token(tmp_path, monkeypatch):
    heard = []

    def respond(handler):
        heard.append((handler.path.partition("?")[0], handler.headers.get("Authorization")))
        body = {"bundle_id": SERVED, "instance_id": "i-1", "data": {"result": []}}
        saying(200, json.dumps(body).encode())(handler)

    (tmp_path / "token").write_text("sesame\n")
    with odd_server(respond) as url:
        access = tmp_path / "access.toml"
        access.write_text(f'["{url}"]\ntoken_file = "{tmp_path}/token"\n')
        monkeypatch.setenv(VARIABLE, str(access))
        traffic = (f"prometheus:{url}", f"metrics:{url}")
        assert ask_servers(SERVED, [url], traffic).servers == 1
        side = Side("a", "v1", SERVED)
        checks = Checks((url,), None, traffic, 60.0, 0.01, 1e-6, 120.0, (url,))
        assert [*probe_addresses(Rollover("0001", "m", side, side, (100.0,), checks))] == []
        assert probe([url], SERVED, None, lambda _: None).verified
    assert {path for path, _ in heard} == {"/bundle", "/metrics", "/api/v1/query"}
    assert {said for _, said in heard} == {"Bearer sesame"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "TOML"),
        ('["http://p"]\nusername = "u"', "username"),
        ('["http://p"]\ntoken = "t"', "token"),
        ('["http://p"]\ntoken_file = "/nowhere"', "/nowhere"),
        ('["http://p"]\ntoken_file = "{file}"', "plain http"),
    ],
)
def test_what_is_wrong_with_the_file_for_access_is_told(tmp_path, text, said):
    file = tmp_path / "access.toml"
    file.write_text(text.replace("{file}", str(file)))
    with pytest.raises(ConfigError) as error:
        access_to("http://p/prefix", {VARIABLE: str(file)})
    assert said in str(error.value)
