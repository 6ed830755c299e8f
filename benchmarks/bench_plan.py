"""P9: ``plan`` over 100 flavors with nothing to do, on a directory and on S3.

The peer is ``plan`` of one flavor in the same checkout: the ratio says what a flavor costs. Prints
a Markdown table and JSON. Targets: 3 s on the directory, 5 s on S3. A time is never a failure.
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RUNS, FLAVORS = 5, 100


def main() -> None:
    """Publishes one flavor to each place, then plans a hundred that have its version."""
    from tests.servers.eng_account import eng_account, push_base
    from tests.servers.mlflow_servers import log_model
    from tests.support.checkouts import commit, git, make_checkout

    rows = {}
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tracking_uri = f"sqlite:///{directory}/mlflow.db"
        run_id, _ = log_model(tracking_uri, directory / "artifacts", "model")
        with eng_account(directory, tracking_uri) as account:
            push_base(account.registry, "adroit-env/plain:1")
            root = make_checkout(
                directory / "repo", tracking_uri, {"f0": run_id}, target_lines=account.target_lines
            )
            envs = (root / "conda_envs.yaml").read_text()
            (root / "conda_envs.yaml").write_text(f"{envs}  image: adroit-env/plain:1\n")
            commit(root, "env")
            clean = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
            places = {"directory": ("local", clean), "S3": ("eng", clean | dict(account.environ))}
            for place, (target, environ) in places.items():
                environ = environ | {"PYTHONPATH": str(ROOT), "METAFLOW_USER": "bench"}
                flow = [str(ROOT / "publish_mlflow_model_flow.py"), "run", f"--target={target}"]
                _run(root, environ, [*flow, "--flavor=f0", "--verify=none"])
                text = (root / "flavors.yaml").read_text()
                entry = text[text.index("f0:") :]
                more = [entry.replace("f0:", f"f{n}:", 1) for n in range(1, FLAVORS)]
                (root / "flavors.yaml").write_text("\n".join([text, *more]))
                plan = ["-m", "adroit_publish", "plan", f"--target={target}"]
                rows[place] = [
                    statistics.median(_timed(root, environ, command) for _ in range(RUNS))
                    for command in (plan, [*plan, "--flavor=f0"])
                ]
                git(root, "checkout", "-q", "flavors.yaml")
    print("| P9 | 100 flavors, s | 1 flavor, s | ratio | target, s |")
    print("|---|---|---|---|---|")
    for place, (many, one) in rows.items():
        target_s = 3 if place == "directory" else 5
        print(f"| plan, {place} | {many:.2f} | {one:.2f} | {many / one:.1f} | {target_s} |")
    print(json.dumps({"benchmark": "P9", "medians_s": rows}))


def _timed(root: Path, environ: dict[str, str], command: list[str]) -> float:
    began = time.perf_counter()
    _run(root, environ, command)
    return time.perf_counter() - began


def _run(root: Path, environ: dict[str, str], command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
