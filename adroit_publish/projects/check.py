"""A rehearsal: a project is trained on a few rows and published to a scratch place, all of it.

What ``log_model`` and a publish would refuse after hours of training is refused here in seconds, by
the same code and with the same words: imports, code paths, includes, the env, names of gates.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.gates import judge_gates
from adroit_publish.config.names import nearest
from adroit_publish.config.project import Project
from adroit_publish.errors import ConfigError, SourceError
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish
from adroit_publish.publish.release import Failure, PublishJob, PublishOptions
from adroit_publish.publish.source import project_source
from adroit_publish.publish.stages import Listener

_TARGET = """\
[targets.rehearsal]
tracking_uri = "{tracking_uri}"
bundles = "file:bundles"
"""
_TAIL_LINES = 25


@dataclass(frozen=True)
class Checked:
    """A project that trains, and whose model would be published.

    Attributes:
        warnings: What a publish would warn of, and what has to be committed before one.
    """

    flavor: str
    warnings: tuple[str, ...]


def check_project(checkout: Checkout, name: str, rows: int, listener: Listener) -> Checked:
    """Trains on ``rows`` rows and publishes to a scratch place; nothing of it stays.

    Args:
        name: A flavor, or a model.
        listener: Hears of the publish's stages.

    Raises:
        ConfigError: There is no such flavor, its files are wrong, its flow takes no ``--rows``, or
            a gate is of a metric that the run does not log.
        SourceError: It does not train, or logs no model.
        PublishError: What a publish of the model would be refused with.
    """
    flavor = _flavor(checkout, name)
    project = checkout.project(flavor)
    checkout.environment(checkout.conda_env(flavor))
    dirty = project_source(checkout, flavor, allow_dirty=True).dirty
    with TemporaryDirectory(prefix="adroit-check-") as directory:
        scratch = Path(directory)
        tracking_uri = f"sqlite:///{scratch}/mlflow.db"
        run_id = _train(checkout.root, flavor, rows, scratch, tracking_uri)
        (scratch / "adroit.toml").write_text(_TARGET.format(tracking_uri=tracking_uri))
        environ = dict(checkout.environ) | {"ADROIT_CONFIG": str(scratch / "adroit.toml")}
        accepted = tuple(f"{gate.name}=a rehearsal" for gate in project.gates)
        options = PublishOptions(
            target="rehearsal", run_id=run_id, allow_dirty=True, accept_gates=accepted
        )
        (job,) = prepare(Checkout(checkout.root, environ), [flavor.name], options)
        if isinstance(job, Failure):
            raise job.error
        assert isinstance(job, PublishJob)  # the scratch place holds no version
        _check_gates(project, job.model.metrics)
        release = publish(job, listener)
    warnings = [line for line in release.warnings if "a rehearsal" not in line]
    if dirty:
        warnings.append(f"commit these before a publish: {', '.join(dirty)}")
    return Checked(flavor.name, tuple(warnings))


def _flavor(checkout: Checkout, name: str) -> Flavor:
    flavors = checkout.flavors
    of_model = (f for f in flavors.values() if f.config == f"projects/{name}/config.yaml")
    flavor = flavors.get(name) or next(of_model, None)
    if flavor is None:
        raise ConfigError(
            f"There is no flavor or project {name!r}.",
            where="flavors.yaml",
            wanted=f"one of: {nearest(name, flavors)}",
            next_step=f"python -m adroit_publish new {name}",
        )
    return flavor


def _train(root: Path, flavor: Flavor, rows: int, scratch: Path, tracking_uri: str) -> str:
    """Runs the project's flow on a few rows; returns the run that it logged a model to."""
    flow = root / flavor.config.rpartition("/")[0] / "flow.py"
    if not flow.is_file() or "rows" not in flow.read_text(encoding="utf-8", errors="replace"):
        raise ConfigError(
            f"The project of {flavor.name} cannot be rehearsed.",
            where=flow,
            wanted='a flow with Parameter("rows", type=int) that trains on so many rows',
            next_step="add it; python -m adroit_publish new my_model writes one that has it",
        )
    logged = scratch / "logged"
    environ = dict(os.environ) | {
        "ADROIT_LOGGED_FILE": str(logged),
        "MLFLOW_TRACKING_URI": tracking_uri,
        "METAFLOW_DEFAULT_DATASTORE": "local",
        "METAFLOW_DEFAULT_METADATA": "local",
        "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(scratch),
        "MF_IGNORE_SAGEMAKER": "true",
    }
    done = subprocess.run(
        [sys.executable, str(flow), "run", "--rows", str(rows)],
        cwd=root,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not logged.exists():
        lines = done.stdout.rstrip().splitlines()[-_TAIL_LINES:]
        raise SourceError(
            "The flow does not train on a few rows." if done.returncode else "It logs no model.",
            where=flow,
            got="\n".join(lines),
            wanted="a run that ends well and calls log_model",
        )
    return logged.read_text().split()[-1]


def _check_gates(project: Project, metrics: Mapping[str, float]) -> None:
    """A metric of a few rows says nothing of its bounds; that there is none does."""
    missing = [r.gate for r in judge_gates(project.run_gates, metrics, None, {}) if r.value is None]
    if missing:
        raise ConfigError(
            "A gate is of a metric that the run does not log.",
            where=f"gates of projects/{project.model_name}/config.yaml",
            got=", ".join(missing),
            wanted=f"one of: {', '.join(sorted(metrics)) or 'none is logged'}",
        )
