"""Verification: exactly this bundle loads, predicts, and finds in its env what it needs.

    image     a container of the published image, by digest: the env it will be served in
    process   a sandbox on this machine, with this machine's interpreter; what the env's image
              holds is read from its layers
    none      nobody looked; the record says so

Whichever it was, the version gets its name only afterwards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from adroit_publish.bundle.content import Readable
from adroit_publish.bundle.digest import verified
from adroit_publish.bundle.imports import BundleFinding
from adroit_publish.bundle.layer import Layer
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.bundle.record import Record, Verification
from adroit_publish.config.targets import Target
from adroit_publish.errors import ConfigError, StoreError
from adroit_publish.gates import docker_engine, sandbox
from adroit_publish.gates.closure import check_closure
from adroit_publish.gates.container import predict_in_image
from adroit_publish.gates.env_contract import (
    EnvReport,
    Finding,
    ObservedEnv,
    check_env,
    findings_of,
)
from adroit_publish.gates.layout import lay_out
from adroit_publish.gates.model_requirements import model_requirements
from adroit_publish.gates.prediction import predict_in_sandbox
from adroit_publish.gates.replay import unexpected
from adroit_publish.mlflow.mlmodel import read_mlmodel
from adroit_publish.places import Places, docker_login, docker_reference
from adroit_publish.publish.env import env_of_image, env_of_listing, unlisted
from adroit_publish.publish.release import VERIFY_KINDS, Job
from adroit_publish.publish.seen_here import is_ours, proven
from adroit_publish.publish.source import SourceCheck, files_of, served
from adroit_publish.publish.stages import Stage, Stages
from adroit_publish.stores.model_files import SeenFile
from adroit_publish.version import Versions


def verification_kind(asked: str | None, target: Target) -> str:
    """Returns how a publish to ``target`` is verified; raises ConfigError as below."""
    kind = asked or ("image" if target.images else "process")
    if kind not in VERIFY_KINDS or (kind == "image" and not target.images):
        ways = [way for way in VERIFY_KINDS if way != "image" or target.images]
        raise ConfigError(
            "--verify names no way of verification for this target.",
            where=f"target {target.name}",
            got=kind,
            wanted=" or ".join(ways),
        )
    return kind


def choose_verification(asked: str | None, target: Target) -> str:
    """Returns how a publish to ``target`` is verified; asks a Docker engine to be there for images.

    Args:
        asked: ``--verify``, or None for the target's own: its image, where it has images.

    Raises:
        ConfigError: There is no such way, or none with this target.
        RefusedError: No Docker engine answers.
    """
    kind = verification_kind(asked, target)
    if kind == "image":
        with docker_engine.connected(
            "the image cannot be run before it is published",
            "or give --verify process: the same in a sandbox here, without the image's own env",
        ):
            pass
    return kind


def earlier_verification(job: Job, bundle: Bundle, versions: Versions) -> Verification | None:
    """Returns what an earlier publish of this very version saw, where that is enough.

    A record proves nothing by itself, for whoever can write to the store can write one: it counts
    where this machine made the verification that it tells of.
    """
    version = versions.find(job.project.model_name, bundle.version)
    if version is None or not version.records:
        return None  # what was recorded is gone: it is recorded anew
    manifest = bundle.manifest.digest
    seen = proven(version.records, Path(job.root), manifest, job.verify, job.target)
    return seen or (Verification() if job.verify == "none" else None)


def verify_bundle(
    job: Job,
    bundle: Bundle,
    checked: SourceCheck,
    places: Places,
    stages: Stages,
    stage: Stage,
    before: Sequence[Record] = (),
) -> Verification:
    """Lets a stored bundle load and predict, and compares its env with what it needs.

    Args:
        before: Records of the version whose model it is; what those of this machine
            accepted is carried on.

    Raises:
        VerificationError: It does not load or predict, or the env lacks what it needs.
        RefusedError: There is no engine, or no sandbox, to run it in.
        StoreError: The image could not be had.
    """
    if job.verify == "none":
        stages.warn("not verified: nobody has seen this bundle load (--verify none)")
        return Verification(imports=checked.imports, findings=checked.findings)
    files = files_of(file for layer in bundle.layers for file in layer.files)
    contract = Contract(job, files, before)
    if job.verify == "image":
        verification = _run_image(job, bundle, places, contract, stage)
    else:
        verification = _run_here(job, bundle, contract)
    if not verification.predicted:
        stages.warn("not predicted: the model has no input example; log it with input_example=...")
    if verification.how == "plain":
        stages.warn("verified without a sandbox: this machine has no bubblewrap and no namespaces")
    for line in contract.differences():
        stages.warn(line)
    signature = read_mlmodel(contract.model).signature or {}
    promised = signature.get("outputs") if verification.predicted else None
    surprises = unexpected(verification.outputs, promised)
    findings = dict.fromkeys(
        (*checked.findings, *contract.findings, *verification.findings, *surprises)
    )
    for finding in findings:
        stages.warn(finding.what)
    return replace(
        verification,
        env=contract.report.as_dict() if contract.report else None,
        imports=checked.imports,
        findings=tuple(findings),
        model_env=tuple(sorted(job.project.env)),
    )


@dataclass
class Contract:
    """One bundle against its conda env; ``check`` is told what that holds, and makes ``report``."""

    job: Job
    files: Mapping[str, Readable]
    before: Sequence[Record] = ()
    report: EnvReport | None = None
    findings: tuple[BundleFinding, ...] = ()

    @property
    def model(self) -> dict[str, Readable]:
        """The model's files by path below the model's directory."""
        return {
            path.removeprefix("model/"): content
            for path, content in self.files.items()
            if path.startswith("model/")
        }

    def check(self, env: ObservedEnv) -> None:
        """Raises VerificationError where the env lacks what the bundle needs."""
        _, self.findings = check_closure(served(self.job, self.files), env.import_names)
        if self.job.env.base is None:
            listed = env_of_listing(self.job.env)
            self.findings += () if listed else (unlisted(self.job.env),)
            env = listed or replace(env, looked_at="this machine's Python")
        ours = [record for record in self.before if is_ours(record, Path(self.job.root))]
        self.report = check_env(
            model_requirements(self.model, read_mlmodel(self.model).python_version),
            env,
            env_name=self.job.env.env.name,
            accept=self.job.options.accept_env_mismatch,
            accepted_before=self.accepted_in(ours),
            unproven=self.accepted_in(self.before),
        )

    def accepted_in(self, before: Sequence[Record]) -> frozenset[Finding]:
        """Returns what was accepted when the model was published with this very env."""
        digest = self.job.env.digest
        kept = (
            findings_of(record.verification.env)
            for record in before
            if record.verification and record.verification.env
            if digest is not None and record.document.get("conda_env_digest") == digest
        )
        return frozenset().union(*kept)

    def differences(self) -> list[str]:
        """Returns a line for each want that is not met to the letter, and did not stop it."""
        rows = self.report.rows if self.report else ()
        return [
            f"env: {row.name} {row.wanted} wanted by {row.by}, {row.got} there "
            f"({row.verdict}{' before' if row.carried_on else ''})"
            for row in rows
            if row.verdict in ("differs", "accepted")
        ]


def _run_image(
    job: Job, bundle: Bundle, places: Places, contract: Contract, stage: Stage
) -> Verification:
    assert places.images is not None  # `choose_verification` saw to it
    base_bytes = sum(layer.size_bytes for layer in job.env.base.layers) if job.env.base else 0
    own_bytes = sum(layer.descriptor.size_bytes for layer in bundle.layers)
    return predict_in_image(
        docker_reference(places.images, bundle.manifest.digest),
        python=job.env.env.python,
        auth=docker_login(job.target, places.images),
        model_env=job.project.env,
        check_env=contract.check,
        together_rtol=_together_rtol(job),
        pulled=stage.progress(base_bytes + own_bytes, "the Docker engine"),
    )


def _run_here(job: Job, bundle: Bundle, contract: Contract) -> Verification:
    check: Callable[[ObservedEnv], None] = contract.check
    if job.env.base is not None:
        # The interpreter here is not the env: what its image holds decides, where it can be read.
        check = _ignore
        if observed := env_of_image(job, job.env.base):
            contract.check(observed)
        else:
            contract.findings = (unlisted(job.env),)
    with ExitStack() as scratch:
        with _no_room(tempfile.gettempdir()):
            made = tempfile.TemporaryDirectory(prefix="adroit-verify-")
        directory = Path(scratch.enter_context(made))
        with _no_room(directory):
            files = [file for layer in bundle.layers for file in layer.files]
            lay_out(files, directory, link=sandbox.available() != "plain")
        seen = predict_in_sandbox(
            directory,
            allow_plain=job.target.on_this_machine,
            model_env=job.project.env,
            check_env=check,
            together_rtol=_together_rtol(job),
        )
    for layer in bundle.layers:  # what was seen is what was stored, or nothing was seen
        _check_unchanged(layer)
    return seen


def _together_rtol(job: Job) -> float | None:
    """Returns how far answers to many at once may differ; None where one at a time is answered."""
    serve = job.project.serve
    return job.project.rtol if serve.get("thread_safe") or serve.get("batch") else None


def _check_unchanged(layer: Layer) -> None:
    named, files = layer.descriptor, [file.content for file in layer.files]
    for file in files:
        if isinstance(file, SeenFile):
            file.check()
    if not all(isinstance(file, SeenFile) for file in files):
        where = f"{layer.kind} layer"
        for _ in verified(layer.content.chunks(), named.digest, named.size_bytes, where):
            pass


@contextmanager
def _no_room(where: object) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            "There is no room for a scratch copy of the bundle.",
            where=error.filename or where,
            got=error.strerror,
            next_step="make room there, or set TMPDIR to another directory",
        ) from error


def _ignore(_env: ObservedEnv) -> None:
    """The env of this machine's interpreter, where another one decides."""
