"""C13, the memory half: publishing needs no more memory for a large model than for a small one.

The peak is measured in a process of its own, above what it holds once its imports are done and the
run is resolved. Full: 5 GB, quick: 512 MiB.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.servers.mlflow_servers import log_model
from tests.support.checkouts import FLOW, make_checkout

FULL = os.environ.get("ADROIT_FULL") == "1"
SIZE_BYTES = 5_000_000_000 if FULL else 512 << 20
LIMIT_BYTES = 64 << 20
PUBLISH = """
from pathlib import Path
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import PublishOptions
from adroit_publish.checkout import open_checkout
def kib(label):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(label + ":"))
jobs = prepare(open_checkout(Path.cwd(), {}), ["a"], PublishOptions(verify="none"))
before = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted afresh
release = publish(jobs[0])
print((kib("VmHWM") - before) * 1024, release.sent_bytes(release.places[0]))
"""


def test_c13_a_large_model_is_published_in_little_memory(tmp_path, capsys):
    tracking_uri = f"sqlite:///{tmp_path}/mlflow.db"
    run_id, _ = log_model(tracking_uri, tmp_path / "artifacts", "model")
    (mlmodel,) = (tmp_path / "artifacts").rglob("MLmodel")
    with (mlmodel.parent / "weights.bin").open("wb") as file:
        file.truncate(SIZE_BYTES)
        file.write(b"not all of it is a hole" * 1000)
    root = make_checkout(tmp_path / "repo", tracking_uri, {"a": run_id})
    done = subprocess.run(
        [sys.executable, "-c", PUBLISH],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    grown, sent = map(int, done.stdout.split())
    with capsys.disabled():
        print(f"\nC13 {sent} bytes published, {grown} bytes of memory above the imports")
    assert sent >= SIZE_BYTES
    assert grown <= LIMIT_BYTES
