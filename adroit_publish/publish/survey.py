"""A command's look at its flavors: each file, version and env is opened once, then one decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from adroit_publish.bundle.content import Concatenation, Readable
from adroit_publish.bundle.digest import sha256_of
from adroit_publish.bundle.layer import ROOT
from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.project import Project
from adroit_publish.config.targets import Target
from adroit_publish.custody.rolled_back import rolled_back
from adroit_publish.custody.signature import admit_signed
from adroit_publish.decide import (
    Decision,
    Facts,
    Files,
    NotImported,
    OfAnotherTarget,
    RollingOver,
    decide,
)
from adroit_publish.edge.once import Once
from adroit_publish.errors import ConfigError, PublishError
from adroit_publish.places import open_store
from adroit_publish.publish.env import resolve_env
from adroit_publish.publish.release import EnvReference
from adroit_publish.publish.source import Source, project_source
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.earlier import Earlier, earlier_versions
from adroit_publish.stores.ledger import LedgerEntry
from adroit_publish.stores.live import live_flavors, look
from adroit_publish.stores.rollovers import Rollovers
from adroit_publish.version import Version, Versions

LIVE_NOTE = "this flavor is live: use --new-flavor, so that a rollover can take its traffic over"


@dataclass(frozen=True)
class Opened:
    """What was opened to decide about a published flavor."""

    project: Project
    version: Version
    source: Source


@dataclass(frozen=True)
class Standing:
    """What has to be done about one flavor; ``opened`` where it is published and can be judged."""

    flavor: Flavor
    decision: Decision
    opened: Opened | None = None


class Survey:
    """A checkout against one target; any thread may ask.

    Args:
        despite_rollover: Whether the flavors of a live rollover are judged as any others.
    """

    def __init__(
        self,
        checkout: Checkout,
        target: Target,
        store: BundleStore,
        *,
        allow_dirty: bool,
        despite_rollover: bool = False,
    ) -> None:
        self.checkout = checkout
        self.target = target
        self.store = store
        self.versions = Versions(store)
        self._allow_dirty, self._despite_rollover = allow_dirty, despite_rollover
        self._once = Once()

    def look(self, flavor: Flavor) -> Standing:
        """Returns what has to be done about a flavor; nothing is raised for what is wrong."""
        rolling: RollingOver | None = None
        try:
            rolling = None if self._despite_rollover else self.rollover(flavor)
            if flavor.hold is not None or not isinstance(flavor.version, PublishedVersion):
                return Standing(flavor, decide(flavor, None, rolling))
            opened = self._open(flavor, flavor.version)
            return Standing(flavor, decide(flavor, self._facts(flavor, opened), rolling), opened)
        except PublishError as error:
            return Standing(flavor, decide(flavor, error))

    def rollover(self, flavor: Flavor) -> RollingOver | None:
        """Returns the live rollover that a flavor is one of the two of; None: there is none.

        Raises:
            PublishError: Rollovers cannot be read.
        """
        live = self._once("rollovers", lambda: live_rollovers(self.store))
        return live.get(flavor.name)

    def is_live(self, flavor: Flavor) -> bool:
        """Whether the ledger's last word is that a flavor has a share of its model's requests."""
        model = self.checkout.project(flavor).model_name
        live = self._once(("live", model), lambda: live_flavors(look(self.store, model).all))
        return flavor.name in live

    def rolled_back(self, model_name: str) -> dict[str, LedgerEntry]:
        """Returns what a model's rollovers rolled back; raises as ``custody.rolled_back``."""
        return self._once(("rolled back", model_name), lambda: rolled_back(self.store, model_name))

    def source(self, flavor: Flavor) -> Source:
        """Returns what would be packed of a flavor's project; raises as ``project_source``."""
        same = self.checkout.names_as_committed(flavor)
        return self._once(
            ("source", flavor.config, flavor.conda_env, same),
            lambda: project_source(self.checkout, flavor, allow_dirty=self._allow_dirty),
        )

    def env(self, flavor: Flavor) -> EnvReference:
        """Returns the env of a flavor, pinned as it is now; raises as ``resolve_env``."""
        return self._once(
            ("env", flavor.conda_env), lambda: resolve_env(self.checkout, flavor, self.target)
        )

    def env_before(self, flavor: Flavor) -> str | None:
        """Returns what a version of its model in flavors.yaml pins, where the env moved since."""
        now = self.env(flavor).digest
        model_name = self.checkout.project(flavor).model_name
        for other in self.checkout.flavors.values():
            if not isinstance(other.version, PublishedVersion):
                continue
            if other.conda_env != flavor.conda_env:
                continue
            try:
                version = self.versions.find(model_name, other.version)
                pinned = version.bundle.conda_env_digest if version else None
            except PublishError:
                continue  # this is a hint; `verify` is where a damaged version is told
            if pinned is not None and pinned != now:
                return str(pinned)
        return None

    def earlier(self, model_name: str) -> Earlier:
        """Returns what is known of a model's versions; raises as ``earlier_versions``."""
        return self._once(
            ("earlier", model_name),
            lambda: earlier_versions(self.store, model_name, datetime.now(UTC)),
        )

    def _open(self, flavor: Flavor, name: PublishedVersion) -> Opened:
        project = self.checkout.project(flavor)
        self.checkout.conda_env(flavor)  # which has to be there
        version = self.versions.find(project.model_name, name)
        if version is None:
            raise _not_here(self, flavor, project.model_name, name)
        admit_signed(self.store, version.published, flavor.name or None)
        _ = version.bundle  # damage of the version comes before what is wrong with the source
        return Opened(project, version, self.source(flavor))

    def _facts(self, flavor: Flavor, opened: Opened) -> Facts:
        source = _digests((f.path, f.content, f.executable) for f in opened.source.files)
        return Facts(
            source=source,
            runtime=self._once("runtime", lambda: _runtime(opened.source)),
            serve=opened.project.serve,
            conda_env=flavor.conda_env,
            env_now=self._env_now(flavor),
            published=opened.version.bundle,
            imported=_imported(opened, source),
        )

    def _env_now(self, flavor: Flavor) -> str | None:
        try:
            return self.env(flavor).digest
        except PublishError:
            return None  # whoever takes the env over is told


def live_rollovers(store: BundleStore) -> dict[str, RollingOver]:
    """Returns by flavor why the flavors of live rollovers are to be left alone."""
    found = {}
    for kept in Rollovers(store.objects).live():
        live = kept.rollover
        for side in (live.old, live.new):
            found[side.flavor] = RollingOver(
                f"Flavor {side.flavor} is in a live rollover, {live.old.flavor} -> "
                f"{live.new.flavor}.",
                where=f"rollover {live.id} of {live.model}",
                got=f"{live.old.flavor} -> {live.new.flavor}, {live.state}",
                wanted="the versions that it began with: another one would hold it",
                next_step=f"finish it (python -m adroit_publish rollover status {live.model}), "
                "publish into another flavor by --new-flavor, or add --despite-rollover",
            )
    return found


def accept_line(decision: NotImported) -> str:
    """Returns what to write where files that nothing imports are read all the same."""
    names = ", ".join(map(_accept_name, decision.changes.source.paths))
    return (
        "if it is read all the same, say so in config.yaml and commit it: "
        f'"verify: {{accept: [{names}]}}"'
    )


def _accept_name(path: str) -> str:
    module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"unimported:{module}"


def _is_accepted(path: str, accept: Iterable[str]) -> bool:
    """Whether a file, or a package that it is in, is named as read all the same."""
    return any(f"{_accept_name(path)}.".startswith(f"{name}.") for name in accept)


def _imported(opened: Opened, source: Files) -> frozenset[str] | None:
    """Returns the checkout's files whose edits count; None where no record says what they are."""
    records = opened.version.records
    seen = (record.verification.imports for record in records if record.verification)
    imports = next((one for one in seen if one), None)
    if imports is None or imports.unreadable:
        return None
    paths = {*source, *(entry.path for entry in opened.version.bundle.files["source"])}
    accept = opened.project.accept
    return frozenset(
        path for path in paths if imports.depend_on(path) or _is_accepted(path, accept)
    )


def _runtime(source: Source) -> Files:
    prefix = f"{ROOT}/runtime/"
    files = source.runtime.files
    return _digests((f.path.removeprefix(prefix), f.content, f.executable) for f in files)


def _digests(files: Iterable[tuple[str, Readable, bool]]) -> Files:
    return {
        path: (str(sha256_of(Concatenation((content,)))), executable)
        for path, content, executable in files
    }


def _not_here(
    survey: Survey, flavor: Flavor, model_name: str, version: PublishedVersion
) -> PublishError:
    """Returns why a version is not in the target's store: whose it is, where it is known."""
    where, target = f"flavors.yaml:{flavor.line}", survey.target
    for other_model in survey.store.models():
        if other_model != model_name and survey.versions.find(other_model, version):
            return ConfigError(
                f"Version {version} of flavor {flavor.name} is of another model.",
                where=where,
                got=f"a version of {other_model} in target {target.name}",
                wanted=f"a version of {model_name}, which {flavor.config} names",
                next_step="mend the flavor's `config` or its `version`",
            )
    for other in survey.checkout.targets.by_name.values():
        if other.name != target.name and (run_id := _run_there(other, model_name, version)):
            return OfAnotherTarget(
                f"Version {version} of flavor {flavor.name} is of another target.",
                where=where,
                got=f"target {other.name} ({open_store(other).location}), from run {run_id}",
                wanted=f"a version in target {target.name}",
                next_step=(
                    f"python -m adroit_publish promote {version} --from {other.name} "
                    f"--to {target.name}, or publish its run: "
                    f"python publish_mlflow_model_flow.py run --flavor={flavor.name} "
                    f"--target={target.name} --mlflow-run-id={run_id}"
                ),
            )
    return OfAnotherTarget(
        f"Version {version} of flavor {flavor.name} is in no store that could be asked.",
        where=where,
        wanted=f"a version in target {target.name} ({target.bundles}), or a run id",
        next_step=(
            f"add --target for the target it was published to, or publish its run "
            f"(its id starts with {version.run_id_start}) with --mlflow-run-id"
        ),
    )


def _run_there(target: Target, model_name: str, version: str) -> str | None:
    """Returns the run of a version in another target's store; None where it does not know it."""
    try:
        opened = Versions(open_store(target)).find(model_name, version)
        return opened.bundle.run_id if opened else None
    except PublishError:
        return None  # a store that cannot be asked does not know
