"""The values of a publish: what is asked, what has to be done, what came of it.

All are small, frozen and picklable: they pass between the steps of a flow. None holds model bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adroit_publish.artifacts.resolved_model import ResolvedModel
from adroit_publish.bundle.digest import Digest
from adroit_publish.bundle.lineage import Dataset, Lineage
from adroit_publish.bundle.manifest import BaseImage
from adroit_publish.config.conda_envs import CondaEnv
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.gates import GateResult
from adroit_publish.config.project import Project
from adroit_publish.config.targets import Target
from adroit_publish.errors import PublishError
from adroit_publish.stores.bundle_store import Published

VERIFY_KINDS = ("image", "process", "none")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user asks of a publish or a republish besides the flavors.

    Attributes:
        target: Name of the target; None lets the environment decide (design, section 4).
        allow_dirty: Pack the working tree where it differs from the commit, and record it.
        verify: ``image``, ``process`` or ``none``; None for the target's own.
        accept_env_mismatch: Packages (or ``python``) whose mismatch with the env is waived.
        accept_gates: ``NAME=REASON`` of each gate of config.yaml that may be passed by.
        went_past: The rollover that this went past, for the record; found out, never asked for.
    """

    target: str | None = None
    allow_dirty: bool = False
    verify: str | None = None
    accept_env_mismatch: tuple[str, ...] = ()
    accept_gates: tuple[str, ...] = ()
    despite_hold: bool = False
    despite_rollover: bool = False
    went_past: tuple[str, ...] = ()

    @property
    def into_another_flavor(self) -> bool:
        """Whether the flavor itself stays as it is."""
        return False


@dataclass(frozen=True, kw_only=True)
class PublishOptions(Options):
    """What a user asks of a publish.

    Attributes:
        run_id: Publish this MLflow run, whatever the flavor's ``version`` says.
        accept_new_lineage: Publish a run that comes from elsewhere than the model's versions.
    """

    run_id: str | None = None
    accept_new_lineage: bool = False


@dataclass(frozen=True, kw_only=True)
class RepublishOptions(Options):
    """What a user asks of a republish.

    Attributes:
        runtime: Another runtime alone is a reason as well.
        take_env: Take over what the env's name stands for now.
    """

    new_flavor: str | None = None
    runtime: bool = False
    take_env: bool = False
    accept_output_change: bool = False

    @property
    def into_another_flavor(self) -> bool:
        """Whether the flavor itself stays as it is."""
        return self.new_flavor is not None


@dataclass(frozen=True)
class EnvReference:
    """A conda env as a bundle refers to it.

    Attributes:
        base: Its image, pinned, or None where the target has no images.
        digest: What pins it: the image's digest, or its environment.yml's; None without either.
        carried: Whether it is that of a published version, whatever its name stands for now.
        listing: Its environment.yml, where there is no image and the digest is that file's.
    """

    env: CondaEnv
    base: BaseImage | None
    digest: Digest | None
    carried: bool = False
    listing: bytes | None = None


@dataclass(frozen=True)
class Job:
    """One flavor that something can be done for: everything that could be refused has been asked.

    Attributes:
        root: The checkout, absolute.
        flavor: As flavors.yaml has it; its ``version`` is what the write-back expects to find.
        commit: The commit whose source is packed, 40 hex digits.
        live: Metrics and measurements of the live version, by name; None where there is none, or
            no gate asks for it.
    """

    root: str
    flavor: Flavor
    project: Project
    env: EnvReference
    target: Target
    commit: str
    verify: str
    options: Options
    live: Mapping[str, float] | None


@dataclass(frozen=True)
class PublishJob(Job):
    """A run whose model is to be published.

    Attributes:
        moved_from: What versions in flavors.yaml pin for this env, where it is another digest.
        lineages: Where the model's versions come from, by version.
    """

    options: PublishOptions
    model: ResolvedModel
    moved_from: str | None
    lineages: Mapping[str, Lineage]


@dataclass(frozen=True)
class RepublishJob(Job):
    """A version whose model is to be published with other source.

    Attributes:
        moved_to: What the env's name stands for now, where that is not what is taken over.
        live_in_place: Whether the flavor is live, and gets the new version itself.
    """

    options: RepublishOptions
    published: Published
    changes: tuple[str, ...]
    moved_to: str | None
    live_in_place: bool


@dataclass(frozen=True)
class LayerReceipt:
    """One layer of our own and what became of it.

    Attributes:
        kind: ``model``, ``runtime``, ``source`` or ``record``.
        sent: Whether it was sent, by place; False where the place had it.
        carried: Whether it was taken over from a published version by its digest.
    """

    kind: str
    digest: str
    size_bytes: int
    files: int
    sent: Mapping[str, bool]
    carried: bool = False


@dataclass(frozen=True)
class Release:
    """One flavor that is published.

    Attributes:
        places: Where the bundle is: the store, and the repository of its image.
        dirty: Paths that were packed from the working tree instead.
        layers: Receipts of the layers, bottom up.
        verification: Outcome of the sandboxed prediction, without its outputs.
        trained_by: What made the run, as ``mlflow.trained_by`` has it.
        datasets: What the run was trained and tested on, where that was logged.
        vouched: How many of the model's files are vouched for how (``artifacts.arrival.seal``).
        republished_from: The version whose model it is, where it was republished.
        changes: What differs from that version, a line each.
        lineage: Where the run comes from; None where that is not known.
        accepted_lineage: How that differs from the model's versions, where it was accepted.
        copied_from: The flavor that this new one is a copy of; None where it is no new one.
    """

    flavor: str
    model_name: str
    run_id: str | None
    run_url: str | None
    version: str
    manifest_digest: str
    bundle_id: str
    target: str
    places: tuple[str, ...] = ()
    commit: str = ""
    dirty: tuple[str, ...] = ()
    conda_env: str = ""
    conda_env_digest: str | None = None
    layers: tuple[LayerReceipt, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    verification: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    trained_by: Mapping[str, str] = field(default_factory=dict)
    datasets: tuple[Dataset, ...] = ()
    vouched: Mapping[str, int] = field(default_factory=dict)
    commit_url: str | None = None
    warnings: tuple[str, ...] = ()
    republished_from: str | None = None
    changes: tuple[str, ...] = ()
    lineage: Lineage | None = None
    accepted_lineage: tuple[str, ...] = ()
    went_past: tuple[str, ...] = ()
    gates: tuple[GateResult, ...] = ()
    copied_from: str | None = None

    @property
    def news(self) -> bool:
        """Whether something was made; else flavors.yaml named this version, and it was whole."""
        return bool(self.layers)

    def sent_bytes(self, place: str) -> int:
        """Returns how many bytes of layers were sent to ``place``."""
        return sum(layer.size_bytes for layer in self.layers if layer.sent.get(place))

    def reused_bytes(self, place: str) -> int:
        """Returns how many bytes of layers ``place`` had already."""
        return sum(layer.size_bytes for layer in self.layers) - self.sent_bytes(place)

    def as_dict(self) -> dict[str, Any]:
        """Returns the release as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Failure:
    """One flavor that was not published."""

    flavor: str
    error: PublishError
