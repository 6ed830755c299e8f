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
