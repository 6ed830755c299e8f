"""benchmarks/bench_serving.py runs: a benchmark that cannot start measures nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from tests.support.requirements import require
from tests.support.serving_bundles import REPOSITORY

QUICK = "--rounds 1 --seconds 1 --connections 1,8 --rows 1"


def test_the_benchmark_of_serving_measures_both_servers_under_every_load() -> None:
    require(shutil.which("wrk"), "wrk is not installed (a Debian package)")
    done = subprocess.run(
        [sys.executable, "benchmarks/bench_serving.py", *QUICK.split()],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["P11"]
    measured = {(row["server"], row["connections"]) for row in rows}
    wanted = {"adroit.serving", "adroit.serving, batches", "mlflow models serve"}
    assert measured == {(server, connections) for server in wanted for connections in (1, 8)}
    assert all(row["requests_per_s"] > 0 for row in rows)
