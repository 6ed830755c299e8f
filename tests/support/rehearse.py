"""The Eng account on a laptop: ``make rehearse`` publishes the example to S3 and ECR, on loopback.

SeaweedFS plays S3, moto_server plays STS and ECR's API, Debian's docker-registry holds the images,
and a tiny image stands in for the conda env. Everything happens in a clone in a temporary
directory: the checkout is not touched, and nothing is left behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from adroit_publish.config.flavors import parse_flavors
from adroit_publish.registry.image_reference import Tag
from tests.servers.eng_account import EngAccount, eng_account, images, push_base

ROOT = Path(__file__).resolve().parents[2]
FLAVOR = "example_metaflow"
ENV_IMAGE = "adroit-env/sklearn:2026.11"
BEST_RUN = (
    "import metaflow; metaflow.namespace(None); "
    "print(metaflow.Flow('ExampleMetaflow').latest_successful_run.data.best_run_id)"
)


def main() -> None:
    """Trains, starts the account, publishes twice, and shows what is where."""
    if shutil.which("docker-registry") is None:
        sys.exit("rehearse: needs docker-registry (apt install docker-registry)")
    with tempfile.TemporaryDirectory(prefix="adroit-rehearsal-") as scratch:
        clone = Path(scratch) / "clone"
        say("a clone of HEAD, and a model trained in it")
        run(["git", "clone", "-q", str(ROOT), str(clone)], ROOT, {})
        run([sys.executable, "projects/example_metaflow/flow.py", "run"], clone, {}, quiet=True)
        run_id = output([sys.executable, "-c", BEST_RUN], clone)
        say("S3, STS, ECR and a registry on loopback (a dozen seconds)")
        tracking_uri = f"sqlite:///{clone}/.adroit/mlflow.db"
        with eng_account(Path(scratch), tracking_uri) as account:
            publish_and_show(account, clone, run_id)


def publish_and_show(account: EngAccount, clone: Path, run_id: str) -> None:
    """Publishes the run, publishes it again, and compares the digests of both places."""
    push_base(account.registry, ENV_IMAGE)
    (clone / "rehearsal.toml").write_text(account.target_lines)
    environ = dict(account.environ) | {"ADROIT_CONFIG": "rehearsal.toml"}
    flow = [sys.executable, "publish_mlflow_model_flow.py", "run", f"--flavor={FLAVOR}"]
    flow.append("--verify=none")  # the image that stands in for the env holds no Python
    say("AWS_PROFILE=eng AWS_DEFAULT_REGION=us-east-1 python " + " ".join(flow[1:]) + " ...")
    run([*flow, f"--mlflow-run-id={run_id}"], clone, environ)
    say("the same again: nothing to do")
    run(["git", "diff", "--stat"], clone, {})
    run(flow, clone, environ)
    version = parse_flavors((clone / "flavors.yaml").read_bytes())[FLAVOR].version or ""
    say(f"every byte of {version} in S3")
    run([sys.executable, "-m", "adroit_publish", "verify", version], clone, environ)
    tagged = images(account.registry, f"adroit/{FLAVOR}").resolve(Tag(version))
    say(f"the registry's tag {version} is {tagged.descriptor.digest}")


def say(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def run(command: list[str], cwd: Path, environ: dict[str, str], *, quiet: bool = False) -> None:
    """Runs a command to its end; stops the rehearsal where it fails."""
    stream = subprocess.DEVNULL if quiet else None
    done = subprocess.run(command, cwd=cwd, env=clean() | environ, stdout=stream, check=False)
    if done.returncode:
        sys.exit(f"rehearse: {' '.join(command)} ended with {done.returncode}")


def output(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=clean(), check=True, capture_output=True, text=True)
    return done.stdout.strip()


def clean() -> dict[str, str]:
    """Returns the environment without what could point to a real account."""
    foreign = ("AWS_", "ADROIT_", "MLFLOW_", "DATABRICKS_", "METAFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return kept | {"METAFLOW_USER": "adroit", "AWS_EC2_METADATA_DISABLED": "true"}


if __name__ == "__main__":
    main()
