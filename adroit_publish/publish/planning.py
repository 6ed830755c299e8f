"""What a publish or a republish would do, found out by reading alone.

Nothing is written anywhere, no model is pulled, no repository made. What goes wrong for one flavor
is that flavor's row. The states and what they follow from are ``plan``'s table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from adroit_publish.bundle.digest import Descriptor
from adroit_publish.bundle.layer import hash_layer
from adroit_publish.bundle.version_names import RunId
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, find_flavor
from adroit_publish.config.flavors_edit import set_version, version_line
from adroit_publish.decide import TO_DO, State, state_of_published
from adroit_publish.errors import PublishError
from adroit_publish.mlflow.model import resolve_model
from adroit_publish.places import Places, open_places, open_store
from adroit_publish.publish.env import carried_env, resolve_env
from adroit_publish.publish.release import EnvReference
from adroit_publish.publish.republish import read_original, remake
from adroit_publish.publish.source import project_source, runtime_recipe, source_recipe
from adroit_publish.publish.standing import OfAnotherTarget, Standing, standing_of
from adroit_publish.stores.bundle_store import BundleStore

THREADS = 8


@dataclass(frozen=True)
class Line:
    """A line of flavors.yaml that would change.

    Attributes:
        number: From 1.
        before: As it is.
        after: As it would be; where the version is not known yet, with ``...`` for the rest of it.
    """

    number: int
    before: str
    after: str


@dataclass(frozen=True)
class Plan:
    """What would be done about one flavor.

    Attributes:
        flavor: Its name.
        state: How it stands.
        version: What flavors.yaml says.
        why: What the state follows from, a line each.
        model: The model that would be published, and its size in bytes; None for other states.
        model_bytes: Its size; None where no model was resolved.
        new_version: The version it would become; None where that is known only from the bytes.
        send_bytes: Bytes to send, by place; for a publish, at most.
        reuse_bytes: Bytes that are there, by place.
        line: The line that would change.
        notes: What else should be known.
        error: Why it cannot be said, or None.
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
        error = self.error and self.error.as_dict()
        return shown | {"state": self.state.value, "line": line, "error": error}


def plan(
    checkout: Checkout,
    target_name: str | None = None,
    names: Sequence[str] = (),
) -> tuple[Plan, ...]:
    """Returns what would be done about every flavor, or about those that are named.

    Args:
        checkout: The checkout.
        target_name: Name of the target; None lets the environment decide.
        names: Flavors; all of them where none is named.

    Raises:
        ConfigError: There is no such target or flavor.
    """
    target = checkout.target(target_name)
    flavors = [find_flavor(checkout.flavors, name) for name in dict.fromkeys(names)]
    planner = _Planner(checkout, target, open_store(target), checkout.flavors_bytes)
    with ThreadPoolExecutor(THREADS, "plan") as pool:
        return tuple(pool.map(planner.plan, flavors or checkout.flavors.values()))


class _Planner:
    def __init__(self, checkout: Checkout, target: Any, store: BundleStore, data: bytes) -> None:
        self.checkout, self.target, self.store, self.data = checkout, target, store, data

    def plan(self, flavor: Flavor) -> Plan:
        """Returns one flavor's row, whatever goes wrong."""
        try:
            return self._plan(flavor)
        except OfAnotherTarget as error:
            why = (str(error.got or error.what),)
            return Plan(
                flavor.name, State.OTHER_TARGET, flavor.version, why, notes=(str(error.next_step),)
            )
        except PublishError as error:
            return Plan(flavor.name, State.CANNOT, flavor.version, (error.what,), error=error)

    def _plan(self, flavor: Flavor) -> Plan:
        if flavor.hold is not None:
            return Plan(flavor.name, State.HELD, flavor.version, (flavor.hold,))
        if flavor.version is None:
            return Plan(flavor.name, State.NO_VERSION, None, ("write a run id as its version",))
        if isinstance(flavor.version, RunId):
            return self._publish(flavor, flavor.version)
        return self._published(flavor)

    def _publish(self, flavor: Flavor, run_id: RunId) -> Plan:
        project = self.checkout.project(flavor)
        resolve_env(self.checkout, flavor, self.target)
        source = project_source(self.checkout.root, flavor, project, allow_dirty=True)
        model = resolve_model(
            self.target.tracking_uri,
            run_id,
            flavor.artifact,
            source_profile=self.target.source_profile,
        )
        size = model.size_bytes + source_recipe(source).size_bytes + runtime_recipe().size_bytes
        places = open_places(self.target, project.model_name)
        return Plan(
            flavor.name,
            State.PUBLISH,
            flavor.version,
            (f"its version is the run {run_id}",),
            model=f"{model.name} of run {run_id}",
            model_bytes=model.size_bytes,
            send_bytes={place.location: size for place in places.all},
            line=self._line(flavor, f"v{run_id[:8]}-", known=False),
            notes=(
                "bytes to send are at most: a digest that a place has is not sent again",
                *_dirty(source.dirty),
            ),
        )

    def _published(self, flavor: Flavor) -> Plan:
        standing = standing_of(self.checkout, flavor, self.target, self.store, allow_dirty=True)
        moved = self._env_moved(flavor, standing)
        state = state_of_published(standing.changes, moved is not None)
        notes = [*_dirty(standing.source.dirty)]
        if runtime := standing.changes.runtime_line():
            notes.append(f"{runtime}; `republish.py --runtime` takes it over")
        if moved:
            notes.append(
                f"the env is {moved} now; `republish.py --flavor {flavor.name} --env` takes it over"
            )
        row = Plan(
            flavor.name,
            state,
            flavor.version,
            tuple(standing.changes.lines()),
            notes=tuple(notes),
        )
        return self._republish(flavor, standing, row) if state is State.REPUBLISH else row

    def _republish(self, flavor: Flavor, standing: Standing, row: Plan) -> Plan:
        published = standing.published
        if standing.changes.env:
            env = resolve_env(self.checkout, flavor, self.target)
        else:
            env = carried_env(self.checkout, flavor, self.target, self.store, published)
        original = read_original(self.store, published)
        layers = (hash_layer(runtime_recipe()), hash_layer(source_recipe(standing.source)))
        bundle = remake(original, layers, standing.project, env)
        places = open_places(self.target, published.model_name)
        own = [layer.descriptor for layer in bundle.layers]
        sizes = {place.location: _sizes(has, own) for place, has in _asked(places)}
        return replace(
            row,
            model=f"the model of {published.version}",
            model_bytes=sum(layer.descriptor.size_bytes for layer in original.model),
            new_version=bundle.version,
            send_bytes={where: send for where, (send, _) in sizes.items()},
            reuse_bytes={where: reuse for where, (_, reuse) in sizes.items()},
            line=self._line(flavor, bundle.version, known=True),
        )

    def _env_moved(self, flavor: Flavor, standing: Standing) -> str | None:
        """Returns what the env's name stands for now, where the version pins something else."""
        if standing.changes.env:
            return None
        pinned = standing.record.conda_env_digest
        now: EnvReference = resolve_env(self.checkout, flavor, self.target)
        return None if now.digest is None or pinned in (None, now.digest) else str(now.digest)

    def _line(self, flavor: Flavor, version: str, *, known: bool) -> Line:
        """Returns the line that the write-back would change, by making the edit in memory."""
        number, before = version_line(self.data, flavor.name)
        full = version if known else f"{version}{'0' * 12}"
        edited = set_version(self.data, flavor.name, full, expected=flavor.version)
        _, after = version_line(edited, flavor.name)
        return Line(number, before, after if known else after.replace("0" * 12, "..."))


def _asked(places: Places) -> list[tuple[Any, Callable[[Descriptor], bool]]]:
    """Returns each place with how it is asked for a blob."""
    found: list[tuple[Any, Callable[[Descriptor], bool]]] = [
        (places.store, lambda blob: places.store.has_blob(blob, at_a_glance=True))
    ]
    if places.images:
        found.append((places.images, places.images.has_blob))
    return found


def _sizes(has: Callable[[Descriptor], bool], blobs: Sequence[Descriptor]) -> tuple[int, int]:
    """Returns the bytes that would be sent, and those that are there."""
    there = sum(blob.size_bytes for blob in blobs if has(blob))
    return sum(blob.size_bytes for blob in blobs) - there, there


def _dirty(paths: Sequence[str]) -> tuple[str, ...]:
    if not paths:
        return ()
    return (f"not committed: {', '.join(paths)}; a publish wants --allow-dirty or a commit",)
