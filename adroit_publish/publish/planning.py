"""What a publish or a republish would do, found out by reading alone.

Nothing is written anywhere, no model is pulled, no repository made. What goes wrong for one flavor
is that flavor's row. The states and what they follow from are ``decide``'s table; but a republish
that would make a version which was rolled back is ``held``, which only its bundle tells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from adroit_publish.artifacts.resolved_model import ResolvedModel
from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.manifest import Bundle
from adroit_publish.bundle.version_names import RunId
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.flavors_edit import set_version, version_line
from adroit_publish.config.gates import GateResult, judge_gates
from adroit_publish.custody.admission import admit_gates, admit_lineage
from adroit_publish.custody.rolled_back import RolledBack, refusal
from adroit_publish.decide import (
    TO_DO,
    Cannot,
    EnvMoved,
    InOtherTarget,
    InRollover,
    Judged,
    NotImported,
    NoVersion,
    OnHold,
    Publish,
    Republish,
    State,
    UpToDate,
)
from adroit_publish.errors import PublishError, RefusedError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.places import open_places, open_store
from adroit_publish.publish.env import carried_env
from adroit_publish.publish.republish import bundle_to_be, model_layers
from adroit_publish.publish.source import Source, check_source_secrets, source_recipe
from adroit_publish.publish.survey import LIVE_NOTE, Opened, Survey, accept_line
from adroit_publish.stores.earlier import Earlier

THREADS = 8
DATA_BYTES = 10_000_000
"""From this size on a file of the project is named: it is data, more likely than source."""


@dataclass(frozen=True)
class Line:
    """A line of flavors.yaml, from 1, that would change.

    Attributes:
        after: As it would be; where the version is not known yet, with ``...`` for the rest of it.
    """

    number: int
    before: str
    after: str


@dataclass(frozen=True)
class Plan:
    """What would be done about one flavor.

    Attributes:
        model: The model that would be published; None for other states, as is ``model_bytes``.
        new_version: The version it would become; None where that is known only from the bytes.
        send_bytes: Bytes to send, by place; for a publish, at most.
        reuse_bytes: Bytes that are there, by place.
        run: Of a publish: the run's ``experiment``, ``name``, ``started_utc`` and ``metrics``.
        gates: How the gates on the run's metrics are judged.
    """

    flavor: str
    state: State
    version: str | None
    why: tuple[str, ...] = ()
    model: str | None = None
    model_bytes: int | None = None
    new_version: str | None = None
    send_bytes: Mapping[str, int] | None = None
    reuse_bytes: Mapping[str, int] | None = None
    line: Line | None = None
    run: Mapping[str, Any] | None = None
    gates: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = ()
    error: PublishError | None = None

    @property
    def to_do(self) -> bool:
        """Whether ``--pending`` or ``--stale`` would do something."""
        return self.state in TO_DO

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        shown = {key: getattr(self, key) for key in self.__dataclass_fields__}
        line = self.line and self.line.__dict__
        gates = [vars(result) for result in self.gates]
        error = self.error and self.error.as_dict()
        return shown | {"state": self.state.value, "line": line, "gates": gates, "error": error}


def plan(
    checkout: Checkout, target_name: str | None = None, names: Sequence[str] = ()
) -> tuple[Plan, ...]:
    """Returns what would be done about every flavor, or about those that are named.

    Raises:
        ConfigError: There is no such target or flavor.
    """
    target = checkout.target(target_name)
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    survey = Survey(checkout, target, open_store(target), allow_dirty=True)
    with ThreadPoolExecutor(THREADS, "plan") as pool:
        return tuple(pool.map(partial(_plan, survey), flavors or checkout.flavors.values()))


def _plan(survey: Survey, flavor: Flavor) -> Plan:
    """Returns one flavor's row, whatever goes wrong."""
    standing = survey.look(flavor)
    decision = standing.decision
    row = Plan(flavor.name, decision.state, flavor.version)
    try:
        match decision:
            case NoVersion():
                return replace(row, why=("write a run id as its version",))
            case OnHold():
                return replace(row, why=(decision.why,))
            case InRollover(rolling):
                return replace(row, why=(f"{rolling.where}: {rolling.got}",))
            case InOtherTarget(error):
                return replace(
                    row, why=(str(error.got or error.what),), notes=(str(error.next_step),)
                )
            case Cannot():
                return _cannot(row, decision.error)
            case Publish():
                return _publish(survey, flavor, decision.run_id, row)
            case UpToDate() | EnvMoved() | Republish() | NotImported():
                assert standing.opened is not None
                return _published(survey, flavor, decision, standing.opened, row)
    except PublishError as error:
        return _cannot(row, error)


def _cannot(row: Plan, error: PublishError) -> Plan:
    return Plan(row.flavor, State.CANNOT, row.version, (error.what,), error=error)


def _publish(survey: Survey, flavor: Flavor, run_id: RunId, row: Plan) -> Plan:
    target, project = survey.target, survey.checkout.project(flavor)
    survey.env(flavor)
    source = survey.source(flavor)
    check_source_secrets(flavor, project, source)
    model = resolve_model(
        target.tracking_uri, run_id, flavor.artifact, source_profile=target.source_profile
    )
    earlier = survey.earlier(project.model_name)
    gates = judge_gates(project.run_gates, model.metrics, earlier.live, {})
    refusal = _refusal(model, earlier, gates)
    size = model.size_bytes + source_recipe(source).size_bytes + source.runtime.size_bytes
    return replace(
        row,
        state=State.CANNOT if refusal else row.state,
        why=(refusal.what if refusal else f"its version is the run {run_id}",),
        model=f"{model.name} of run {run_id}",
        model_bytes=model.size_bytes,
        send_bytes={place.location: size for place in open_places(target, project.model_name).all},
        line=_line(survey, flavor, f"v{run_id[:8]}-", known=False),
        run=_run_facts(model),
        gates=gates,
        error=refusal,
        notes=(
            "bytes to send are at most: a digest that a place has is not sent again",
            *_dirty(source.dirty),
            *_rolled_back(survey, project.model_name, run_id),
            *_large(source),
        ),
    )


def _rolled_back(survey: Survey, model_name: str, run_id: RunId) -> Iterator[str]:
    """Yields a note for each version of a run that the run may become again, and must not."""
    for version, entry in survey.rolled_back(model_name).items():
        if version.startswith(f"v{run_id[:8]}-"):
            why, flavor = entry.facts.get("why"), entry.facts["flavor"]
            yield (
                f"{version} of this run was rolled back ({why}), and is refused if it comes out "
                f"again; python -m adroit_publish unhold {flavor} releases it"
            )


def _refusal(
    model: ResolvedModel, earlier: Earlier, gates: tuple[GateResult, ...]
) -> RefusedError | None:
    where = f"run {model.run_id}"
    try:
        admit_lineage(model.lineage, earlier.lineages, where=where, accept=False)
        admit_gates(gates, where=where)
    except RefusedError as error:
        return error
    return None


def _run_facts(model: ResolvedModel) -> dict[str, Any]:
    return {
        "experiment": model.experiment or model.experiment_id,
        "name": model.run_name,
        "started_utc": model.started_utc,
        "metrics": {k: v for k, v in sorted(model.metrics.items()) if math.isfinite(v)},
    }


def _published(survey: Survey, flavor: Flavor, decision: Judged, opened: Opened, row: Plan) -> Plan:
    notes = [*_dirty(opened.source.dirty)]
    if runtime := decision.changes.runtime_line():
        notes.append(f"{runtime}; `republish.py --runtime` takes it over")
    if decision.env_now:
        notes.append(
            f"the env is {decision.env_now} now; `republish.py --flavor {flavor.name} --env` "
            "takes it over"
        )
    if isinstance(decision, NotImported):
        notes.append(
            f"nothing imports what differs: a republish is refused; {accept_line(decision)}"
        )
    try:
        survey.env(flavor)
    except PublishError as error:
        notes.append(f"what its env stands for now could not be found out: {error.what}")
    row = replace(row, why=tuple(decision.changes.lines()), notes=tuple(notes))
    if isinstance(decision, Republish):
        return _republish(survey, flavor, decision, opened, row)
    return row


def held_again(
    survey: Survey, flavor: Flavor, decision: Republish, opened: Opened
) -> RolledBack | None:
    """Returns why a flavor is not to be republished: its version was rolled back; or None.

    Raises:
        PublishError: As ``carried_env``, ``Survey`` and ``Version`` do.
    """
    model_name = opened.version.model_name
    if not survey.rolled_back(model_name):
        return None
    return _held(survey, model_name, flavor, _bundle(survey, flavor, decision, opened))


def _held(survey: Survey, model_name: str, flavor: Flavor, bundle: Bundle) -> RolledBack | None:
    entry = survey.rolled_back(model_name).get(bundle.version)
    return refusal(flavor.name, bundle.version, entry) if entry else None


def _bundle(survey: Survey, flavor: Flavor, decision: Republish, opened: Opened) -> Bundle:
    """Returns the bundle that a republish of a flavor would make."""
    if decision.changes.env:
        env = survey.env(flavor)
    else:
        env = carried_env(survey.checkout, flavor, survey.target, opened.version)
    return bundle_to_be(opened.version, opened.source, opened.project, env)


def _republish(
    survey: Survey, flavor: Flavor, decision: Republish, opened: Opened, row: Plan
) -> Plan:
    check_source_secrets(flavor, opened.project, opened.source)
    version, bundle = opened.version, _bundle(survey, flavor, decision, opened)
    if error := _held(survey, version.model_name, flavor, bundle):
        notes = (*row.notes, f"next: {error.next_step}")
        return replace(row, state=State.HELD, why=(f"{error.what} {error.got}",), notes=notes)
    places = open_places(survey.target, version.model_name)
    has: dict[str, Callable[[Descriptor], bool]] = {
        places.store.location: partial(places.store.has_blob, at_a_glance=True)
    }
    if places.images:
        has[places.images.location] = places.images.has_blob
    own = [layer.descriptor for layer in bundle.layers]
    own_bytes = sum(layer.size_bytes for layer in own)
    reused = {
        where: sum(layer.size_bytes for layer in own if has_blob(layer))
        for where, has_blob in has.items()
    }
    return replace(
        row,
        model=f"the model of {version.name}",
        model_bytes=sum(layer.descriptor.size_bytes for layer in model_layers(version)),
        new_version=bundle.version,
        send_bytes={where: own_bytes - size_bytes for where, size_bytes in reused.items()},
        reuse_bytes=reused,
        line=_line(survey, flavor, bundle.version, known=True),
        notes=(
            *row.notes,
            *_large(opened.source),
            *([LIVE_NOTE] if survey.is_live(flavor) else []),
        ),
    )


def _line(survey: Survey, flavor: Flavor, version: str, *, known: bool) -> Line:
    """Returns the line that the write-back would change, by making the edit in memory."""
    data = survey.checkout.flavors_bytes
    number, before = version_line(data, flavor.name)
    full = version if known else f"{version}{'0' * 12}"
    edited = set_version(data, flavor.name, full, expected=flavor.version)
    _, after = version_line(edited, flavor.name)
    return Line(number, before, after if known else after.replace("0" * 12, "..."))


def _dirty(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    return (f"not committed: {', '.join(paths)}; a publish wants --allow-dirty or a commit",)


def _large(source: Source) -> tuple[str, ...]:
    return tuple(
        f"{file.path} would be packed, {file.size_bytes:,} bytes; if serving does not need it, add "
        "it to `source: exclude` in config.yaml"
        for file in source.files
        if file.size_bytes >= DATA_BYTES
    )
