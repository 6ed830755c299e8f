"""P6: the whole flow for a small model, beside an empty flow and one import of mlflow.

The empty flow has as many steps and the same card; the publish is unverified, to a directory.
Prints a Markdown row and JSON. Target: at most 2.0. A time is never a failure.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RUNS = 5
EMPTY = """
    from metaflow import FlowSpec, card, step

    class EmptyFlow(FlowSpec):
        @step
        def start(self):
            self.names = ["a"]
            self.next(self.publish, foreach="names")

        @step
        def publish(self):
            self.next(self.record)

        @step
        def record(self, inputs):
            self.next(self.end)

        @card(type="blank")
        @step
        def end(self):
            pass

    EmptyFlow()
"""


def main() -> None:
    """Runs the three in turn, so that a drifting machine touches all of them."""
    from tests.servers.mlflow_servers import log_model
    from tests.support.checkouts import git, make_checkout

    os.environ["METAFLOW_USER"] = "bench"
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tracking_uri = f"sqlite:///{directory}/mlflow.db"
        run_id, _ = log_model(tracking_uri, directory / "artifacts", "model")
        root = make_checkout(directory / "repo", tracking_uri, {"a": run_id})
        (root / "empty.py").write_text(dedent(EMPTY))
        flow = ROOT / "publish_mlflow_model_flow.py"
        commands = {
            "publish": [sys.executable, str(flow), "run", "--flavor=a", "--verify=none"],
            "empty flow": [sys.executable, "empty.py", "run"],
            "import mlflow": [sys.executable, "-c", "import mlflow"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, cwd=root, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - began)
            git(root, "checkout", "-q", "flavors.yaml")
            subprocess.run(["rm", "-rf", str(root / ".adroit" / "bundles")], check=True)
    median = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    peer = median["empty flow"] + median["import mlflow"]
    ratio = round(median["publish"] / peer, 2)
    print("| P6 | publish, s | empty flow + import mlflow, s | ratio | target |")
    print("|---|---|---|---|---|")
    print(f"| whole flow, small model | {median['publish']} | {peer:.2f} | {ratio} | 2.0 |")
    print(json.dumps({"benchmark": "P6", "medians_s": median, "ratio": ratio, "target": 2.0}))


if __name__ == "__main__":
    main()
