"""P5: a republish after one line of source, for a large model and for one of 50 KB.

    python benchmarks/bench_republish.py [GIB]      (1 GiB by default)

S3 (SeaweedFS), a registry and AWS's other APIs run on loopback. The model is in no cache when it is
republished, and nobody verifies: what is measured is that cost does not grow with the model. The
peer is an empty flow of as many steps, in the same run. Prints a Markdown table and JSON. Targets:
at most 1 MiB sent, at most 2 s over the empty flow, both sizes within 20 %. A time is never a
failure.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

RUNS = 3
SMALL_BYTES = 50_000


def main() -> None:
    """Publishes both models once, then republishes them in turn with the empty flow between."""
    from benchmarks.bench_flow import EMPTY
    from tests.servers.eng_account import eng_account, push_base
    from tests.support.checkouts import commit, make_checkout

    large_bytes = int(float(sys.argv[1]) * (1 << 30)) if len(sys.argv) > 1 else 1 << 30
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        tracking_uri = f"sqlite:///{directory}/mlflow.db"
        runs = {
            name: _log(directory / name, tracking_uri, size)
            for name, size in (("large", large_bytes), ("small", SMALL_BYTES))
        }
        with eng_account(directory, tracking_uri) as account:
            push_base(account.registry, "adroit-env/plain:1")
            root = make_checkout(
                directory / "repo", tracking_uri, runs, target_lines=account.target_lines
            )
            envs = (root / "conda_envs.yaml").read_text()
            (root / "conda_envs.yaml").write_text(f"{envs}  image: adroit-env/plain:1\n")
            (root / "empty.py").write_text(dedent(EMPTY))
            commit(root, "env")
            environ = os.environ | dict(account.environ) | {"METAFLOW_USER": "bench"}
            _run(
                root,
                environ,
                [str(ROOT / "publish_mlflow_model_flow.py"), "run", "--pending", "--verify=none"],
            )
            commit(root, "published")
            seconds, sent = _measure(root, environ, commit)
    _report(large_bytes, seconds, sent)


def _measure(root, environ, commit):
    republish = str(ROOT / "republish.py")
    commands = {
        "large": [republish, "--flavor=large", "--verify=none"],
        "small": [republish, "--flavor=small", "--verify=none"],
        "empty": ["empty.py", "run"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    sent: dict[str, int] = {}
    for number in range(RUNS):
        (root / "projects/doubler/features.py").write_text(f"SCALE = {number + 10}\n")
        commit(root, f"change {number}")
        for name, command in commands.items():
            shutil.rmtree(root / ".adroit", ignore_errors=True)
            began = time.perf_counter()
            output = _run(root, environ, command)
            seconds[name].append(time.perf_counter() - began)
            found = re.findall(r"([\d,]+) bytes sent", output)
            sent[name] = max([int(each.replace(",", "")) for each in found], default=0)
    return seconds, sent


def _log(directory: Path, tracking_uri: str, size_bytes: int) -> str:
    """Logs a model with a file of that size; returns its run id."""
    import mlflow

    from tests.support.checkouts import DOUBLER

    directory.mkdir()
    weights, code = directory / "weights.bin", directory / "model.py"
    block = os.urandom(1 << 20)
    with weights.open("wb") as stream:
        for number in range(-(-size_bytes // len(block))):
            stream.write(number.to_bytes(8, "big") + block[8:])
        stream.truncate(size_bytes)
    code.write_text(dedent(DOUBLER))
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.create_experiment(directory.name, (directory / "a").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            pip_requirements=["mlflow"],
            artifacts={"weights": str(weights)},
        )
    weights.unlink()
    return str(run.info.run_id)


def _run(root: Path, environ: dict[str, str], command: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=root, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def _report(large_bytes: int, seconds: dict[str, list[float]], sent: dict[str, int]) -> None:
    median = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    over = {name: round(median[name] - median["empty"], 2) for name in ("large", "small")}
    ratio = round(median["large"] / median["small"], 2)
    print("| P5 | republish, s | over an empty flow, s | sent, bytes |")
    print("|---|---|---|---|")
    for name, size in (("large", large_bytes), ("small", SMALL_BYTES)):
        print(f"| {size:,} bytes | {median[name]} | {over[name]} | {sent[name]:,} |")
    print(f"| ratio | {ratio} (target 0.8 to 1.2) | target 2.0 | target 1,048,576 |")
    print(
        json.dumps(
            {"benchmark": "P5", "medians_s": median, "over_s": over, "ratio": ratio, "sent": sent}
        )
    )


if __name__ == "__main__":
    main()
