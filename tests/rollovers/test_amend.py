"""rollover amend, and what start tells of the addresses that it was given."""

from __future__ import annotations

import json

from tests.rollovers.test_way_back import answering, published, rolling, root, sides  # noqa: F401
from tests.servers.odd_servers import odd_server, saying
from tests.support.rolling import done, run


def test_a_live_rollover_is_amended_on_record_and_goes_on(root):  # noqa: F811
    rolling(root, "pointed", share=10.0)
    amend = ("rollover", "amend", "doubler")
    assert run(root, *amend, "--why", "x")[0] == 2
    said = json.loads(
        done(root, *amend, "--why", "wrong port", "--metrics", "http://127.0.0.1:2/metrics",
             "--quiet", "7", "--json")
    )  # fmt: skip
    rollover = said["rollover"]
    assert rollover["state"] == "pointed"
    assert rollover["checks"]["traffic"] == ["metrics:http://127.0.0.1:2"]
    (amendment,) = rollover["amendments"]
    assert (amendment["why"], amendment["who"]) == ("wrong port", "tester")
    assert amendment["before"] == {"traffic": ["prometheus:http://127.0.0.1:1"], "quiet_s": 60.0}
    assert amendment["after"] == {"traffic": ["metrics:http://127.0.0.1:2"], "quiet_s": 7.0}
    assert any("GET http://127.0.0.1:2/metrics" in line for line in said["probes"])
    assert run(root, *amend, "--why", "again", "--quiet", "7")[0] == 2
    done(root, "rollover", "abandon", "doubler", "--why", "done")
    assert run(root, *amend, "--why", "late", "--quiet", "9")[0] == 4


def test_start_tells_the_request_that_it_made_and_understands_a_trailing_metrics(root):  # noqa: F811
    old, new = sides(root)
    with answering(new) as right, odd_server(saying(404, b"no such page")) as wrong:
        said = json.loads(
            done(root, "rollover", "start", "--from", "old", "--to", "new", "--url", right,
                 "--old-url", f"{right}/", "--metrics", f"{wrong}/metrics", "--json")
        )  # fmt: skip
    checks = said["rollover"]["checks"]
    assert checks["traffic"] == [f"metrics:{wrong}"]
    assert checks["old_urls"] == [right]
    served, counted = said["probes"]
    assert (
        served == f"GET {right}/bundle: it serves bundle {new.bundle_id[:80]}, not {old.bundle_id}"
    )
    assert counted == f"GET {wrong}/metrics: 404"


def test_amend_takes_what_start_takes_and_prints_what_it_changed(root):  # noqa: F811
    rolling(root, "pointed", share=10.0)
    options = ("--steps", "10,40,100", "--approve-at", "40", "--check", "queue: max(q) <= 5")
    options += ("--latency-margin", "0.5", "--quiet", "4m", "--bake", "30s")
    said = done(root, "rollover", "amend", "doubler", "--why", "slower", *options)
    changed = [line for line in said.splitlines() if line.startswith("changed: ")]
    assert changed == [
        "changed: --steps 10,100 -> --steps 10,40,100",
        "changed: --bake 0s -> --bake 30s",
        "changed: --quiet 60s -> --quiet 240s",
        "changed: no --latency-margin -> --latency-margin 0.5",
        "changed: no --approve-at -> --approve-at 40",
        "changed: no --check -> --check 'queue: max(q) <= 5'",
    ]
    kept = json.loads(done(root, "rollover", "status", "doubler", "--json"))["rollover"]
    assert kept["steps"] == [10, 40, 100]
    assert kept["checks"]["bounds"] == [
        {"name": "queue", "query": "max(q)", "least": None, "most": 5.0}
    ]
    (amendment,) = kept["amendments"]
    assert (amendment["before"]["steps"], amendment["after"]["steps"]) == ([10, 100], [10, 40, 100])
    for wrong in (("--steps", "ten"), ("--steps", "10"), ("--quiet", "0s"), ("--quiet", "soon")):
        code, said = run(root, "rollover", "amend", "doubler", "--why", "x", *wrong)
        assert code == 2, said
        assert wrong[0] in said


def test_counts_that_come_later_may_be_older(root):  # noqa: F811
    rolling(root, "pointed", share=10.0)
    to = ("--traffic", "datadog:https://api.datadoghq.com")
    said = done(root, "rollover", "amend", "doubler", "--why", "moved", *to, "--json")
    assert json.loads(said)["rollover"]["checks"]["fresh_s"] > 400


def test_another_start_says_its_options_as_they_are_typed(root):  # noqa: F811
    places = ("--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1")
    start = ("rollover", "start", "--from", "old", "--to", "new", *places)
    done(root, *start, "--steps", "10,100", "--quiet", "4s")
    code, said = run(root, *start, "--steps", "50,100", "--quiet", "4s", "--old-url", "http://o")
    assert code == 4, said
    assert "got:    no --old-url --steps 10,100" in said
    assert "wanted: --old-url http://o --steps 50,100" in said
    (amend,) = [line for line in said.splitlines() if "next:" in line]
    assert amend.endswith("amend doubler --why TEXT --old-url http://o --steps 50,100")


def test_a_start_by_another_rtol_is_another_rollover(root):  # noqa: F811
    places = ("--url", "http://127.0.0.1:1", "--prometheus", "http://127.0.0.1:1")
    start = ("rollover", "start", "--from", "old", "--to", "new", *places)
    done(root, *start)
    done(root, *start)
    config = root / "projects/doubler/config.yaml"
    config.write_text(config.read_text().replace("verify:", "verify:\n  rtol: 0.25"))
    code, said = run(root, *start)
    assert code == 4, said
    assert "wanted: rtol 0.25" in said
    assert "next:   set verify.rtol in config.yaml to" in said
    code, said = run(root, *start, "--quiet", "4s")
    assert (code, "--quiet 4s rtol 0.25" in said) == (4, True), said
