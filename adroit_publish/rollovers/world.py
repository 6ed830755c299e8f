"""The world of a rollover: where its evidence is read, and how its acts are done.

What cannot be read proves nothing: the reason is kept, and not raised. What cannot be
done is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import parse_flavors
from adroit_publish.config.flavors_entries import delete_flavor
from adroit_publish.config.sitevars import Pointer
from adroit_publish.config.targets import Target
from adroit_publish.custody.check import verify
from adroit_publish.errors import ConfigError, PublishError, RefusedError, VerificationError
from adroit_publish.evidence import endpoints
from adroit_publish.evidence.old_servers import ask_servers
from adroit_publish.evidence.sitevars import Sitevars
from adroit_publish.evidence.sources import open_traffic
from adroit_publish.gates.replay import compare_outputs
from adroit_publish.git.remote import followed_branch
from adroit_publish.places import open_places
from adroit_publish.rollover.evidence import (
    AnsweringRead,
    EndpointsRead,
    Evidence,
    FlavorsRead,
    PointerRead,
    Publication,
)
from adroit_publish.rollover.state import Rollover, Side
from adroit_publish.rollovers.book import enter_pointer, note, pointed_step, weights_in
from adroit_publish.rollovers.counting import NoEvidence, count_traffic
from adroit_publish.rollovers.regions import read_pointers, set_everywhere
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.chain import check_enterable, last_number
from adroit_publish.version import Golden, Versions
from adroit_publish.versions.predict import example_request
from adroit_publish.writeback.committed_flavors import bytes_at
from adroit_publish.writeback.flavors_file import edit_file


@dataclass(frozen=True)
class Question:
    """The input example of a version, and what it has to answer.

    Attributes:
        request: The body of the request.
        golden: The recorded predictions.
    """

    request: bytes
    golden: Golden

    def differs(self, rtol: float, predictions: Any) -> str | None:
        """Returns how predictions differ from the recorded ones, or None."""
        golden = self.golden
        replay = compare_outputs(golden.outputs, predictions, rtol, truncated=golden.truncated)
        return None if replay.same else "; ".join(replay.lines())


@dataclass
class RealWorld:
    """A checkout, a target and what the rollover was told of servers; a ``World``.

    Attributes:
        checkout: The checkout; its flavors.yaml is read afresh each time.
        target: The target.
        store: Its bundle store.
        sitevars: Its sitevars, by region.
        who: Who runs the command.
    """

    checkout: Checkout
    target: Target
    store: BundleStore
    sitevars: Mapping[str, Sitevars]
    who: str
    _questions: dict[str, Question] = field(default_factory=dict)

    def now_s(self) -> float:
        """Returns the time."""
        return time.time()

    # Looking.

    def read(self, rollover: Rollover, names: Iterable[str]) -> tuple[Evidence, Any]:
        """Returns readings by name; see ``World``. What is watched is always read."""
        wanted = set(names)
        in_a_hurry = wanted <= {"pointer", "answering"}
        with suppress(ConfigError):  # a scheme of another program: no evidence, below
            wanted |= (
                set()
                if in_a_hurry
                else {"traffic"}
                if open_traffic(rollover.checks.traffic).watches
                else set()
            )
        readers: dict[str, Callable[[Rollover], Any]] = {
            "published": self._published,
            "flavors": self._flavors,
            "pointer": self._pointer,
            "endpoints": self._endpoints,
            "answering": self._answering,
        }
        readings: dict[str, Any] = {}
        absent: dict[str, str] = {}
        counters = rollover.counters
        for name in sorted(wanted):
            try:
                if name == "traffic":
                    readings[name], counters = count_traffic(rollover)
                else:
                    readings[name] = readers[name](rollover)
            except NoEvidence as reason:
                absent[name], counters = str(reason), reason.counters or counters
            except PublishError as error:
                absent[name] = "; ".join(filter(None, (error.what, str(error.where or ""))))
        return Evidence(**readings, absent=absent), counters

    def _published(self, rollover: Rollover) -> Publication:
        return Publication(
            time.time(),
            tuple(self._problems(rollover.model, rollover.old)),
            tuple(self._problems(rollover.model, rollover.new)),
            registry=self.target.images is not None,
        )

    def _problems(self, model: str, side: Side) -> Iterator[str]:
        """Yields what a version lacks in the store and the registry, by their own word."""
        published = self.store.find(model, side.version)
        if published is None:
            yield f"{side.version} is not in {self.store.location}"
            return
        images = open_places(self.target, model).images
        for problem in verify(self.store, published, images, shallow=True).problems:
            yield f"{side.version}: {problem}"

    def _flavors(self, rollover: Rollover) -> FlavorsRead:
        flavors = Checkout(self.checkout.root).flavors
        old, new = flavors.get(rollover.old.flavor), flavors.get(rollover.new.flavor)
        return FlavorsRead(
            time.time(),
            None if old is None else old.version or "",
            None if new is None else new.version or "",
            *(self._upstream(rollover.old) if rollover.state == "retiring" else ()),
        )

    def _upstream(self, old: Side) -> tuple[str | None, bool]:
        """Returns the branch that is followed, and whether its flavors.yaml has the old flavor.

        The versions of a store on this machine are pushed nowhere: a branch that has another
        version of the flavor is not followed by this rollover.
        """
        upstream = followed_branch(self.checkout.root)
        if upstream is None:
            return None, False
        flavors = parse_flavors(bytes_at(self.checkout.root, upstream.tip()))
        pushed = flavors.get(old.flavor)
        if self.target.on_this_machine and pushed and pushed.version != old.version:
            return None, False
        return str(upstream), pushed is not None

    def _answering(self, rollover: Rollover) -> AnsweringRead:
        checks = rollover.checks
        return ask_servers(rollover.old.bundle_id, checks.old_urls, checks.traffic)

    def _pointer(self, rollover: Rollover) -> PointerRead:
        return read_pointers(self.sitevars, rollover.model)

    def _endpoints(self, rollover: Rollover) -> EndpointsRead:
        """Whether the new version is deployed is asked first, without a prediction.

        From the answer on, its requests are its own: a sample.
        """
        checks, first = rollover.checks, rollover.state == "proposed"
        question = None if first else self._question(rollover)
        reading = endpoints.probe(
            checks.urls,
            rollover.new.bundle_id,
            question.request if question else None,
            partial(question.differs, checks.rtol) if question else _anything,
            replicas=checks.replicas,
            sampling=rollover.state not in ("proposed", "deployed"),
        )
        right = not reading.problems
        facts = {"urls": [{"url": at.url, "replicas": at.replicas} for at in reading.urls]}
        utc_s = reading.utc.timestamp()
        return EndpointsRead(utc_s, right, right and bool(question), reading.problems, facts)

    def _question(self, rollover: Rollover) -> Question:
        version = rollover.new.version
        if version not in self._questions:
            published = self.store.find(rollover.model, version)
            if published is None:
                raise NoEvidence(f"{version} is not in {self.store.location}")
            versions = Versions(self.store)
            golden = versions.golden_outputs(versions.open(published))
            if golden is None or golden.outputs is None:
                raise NoEvidence(
                    f"no publish of {version} recorded its outputs: publish it again, with an "
                    "input example and verified"
                )
            request = example_request(self.store, published)
            self._questions[version] = Question(request, golden)
        return self._questions[version]

    # Acting.

    def act(
        self, rollover: Rollover, action: str, evidence: Evidence, mine: Callable[[], None]
    ) -> None:
        """Does what the rules ask for; see ``World``.

        Raises:
            RefusedError: The sitevar or the flavor was changed by others just now.
            ConfigError: flavors.yaml cannot be edited so.
            StoreError: A place failed.
            VerificationError: What is entered now would not be accepted; a way back goes on.
        """
        if action == "point":
            assert evidence.pointer
            if rollover.state != "rolling back":
                check_enterable(self.store, rollover.model)
            mine()
            self._point(rollover, evidence.pointer.by_region)
            return

        def edit(data: bytes) -> bytes:
            mine()  # under the file's lock
            old = rollover.old
            return delete_flavor(data, old.flavor, expected=old.version)

        edit_file(self.checkout.flavors_file, edit)

    def take_back(self, rollover: Rollover, share: float, wanted: float) -> None:
        """Undoes an act that came too late; see ``World``."""
        back = replace(rollover, goal=wanted, region=None)
        with suppress(RefusedError):  # it says something else already
            self._point(back, dict.fromkeys(self.sitevars, rollover.weights(share)))

    def _point(self, rollover: Rollover, before: Mapping[str, Mapping[str, float]]) -> None:
        """Sets the sitevars that are to be set, by what each is to say before."""
        regions = [region for region in before if rollover.region in (None, region)]
        set_everywhere(regions, lambda region: self._point_in(rollover, region, before[region]))

    def _point_in(self, rollover: Rollover, region: str, before: Mapping[str, float]) -> None:
        """Sets one sitevar to the rollover's goal, and enters that; else ``note`` does."""
        assert rollover.goal is not None
        since = last_number(self.store, rollover.model)
        why = rollover.history[-1].why
        change = self.sitevars[region].set(
            rollover.model,
            Pointer.of(rollover.weights(rollover.goal)),
            expected=Pointer.of(before) if before else None,
            who=self.who,
            why=f"rollover {rollover.id}: {why or rollover.state}",
        )
        if change is None:
            return
        kind = "rolled-back" if rollover.state == "rolling back" else "pointed"
        step = pointed_step(rollover, kind, len(rollover.history) + 1, self.who, why, region)
        sitevars = self.sitevars[region]
        with suppress(PublishError):
            enter_pointer(self.store, sitevars, rollover.model, step, dict(before), since)

    def note(self, rollover: Rollover) -> None:
        """Enters the last transition in the ledger; see ``World``.

        Of a region that cannot be read, nothing is known that could be entered. A rollback waits
        for no ledger to be mended; ``verify-ledger`` tells what it does not have.
        """
        forgiven = VerificationError if rollover.state == "rolled back" else NoEvidence
        for region in self.sitevars:
            with suppress(NoEvidence, forgiven):
                note(self.store, rollover, partial(self._current, rollover.model, region), region)

    def _current(self, model: str, region: str) -> Mapping[str, float]:
        try:
            return weights_in(self.sitevars[region].get(model).pointer)
        except PublishError as error:
            if not region:
                raise
            raise NoEvidence(error.what) from error


def _anything(_predictions: Any) -> None:
    """What a server predicts is not looked at."""
