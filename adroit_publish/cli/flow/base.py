"""What a publish and a republish are alike in: most options, and all but their first two steps.

Metaflow reads options and steps from the class, inherited ones too. Each flow's own file has its
further options, ``start`` and the step that works on one flavor, so that the order of steps and
what each begins with can be read there.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from metaflow import FlowSpec, Parameter, card, current, step

if TYPE_CHECKING:
    from adroit_publish.cli.flow.location import Location


class PublishingFlow(FlowSpec):
    """A flow that makes versions of flavors and writes them into flavors.yaml."""

    target = Parameter("target", help="where to publish to: a target of adroit.toml")
    allow_dirty = Parameter(
        "allow-dirty", is_flag=True, default=False, help="pack uncommitted files, and record it"
    )
    verify = Parameter(
        "verify", help="image (a container), process (a sandbox) or none; by default the target's"
    )
    accept_env_mismatch = Parameter(
        "accept-env-mismatch", default="", help="packages that may differ from what the model wants"
    )
    accept_gate = Parameter(
        "accept-gate", default="", help="NAME=REASON[;...]: gates of config.yaml to pass by"
    )
    commit = Parameter("commit", is_flag=True, default=False, help="commit flavors.yaml")
    push = Parameter("push", is_flag=True, default=False, help="commit flavors.yaml and push it")
    flavors_per_task = Parameter(
        "flavors-per-task",
        type=int,
        help="most flavors of one task; by default one, or a 50th of more than 50",
    )
    repo = Parameter("repo", help="clone this repository: for machines without a checkout")
    branch = Parameter("branch", help="the branch of --repo; by default its own default")

    def plan(self, only: str | None = None) -> Any:
        """Returns what has to be done for each flavor, or for those that ``only`` names."""
        raise NotImplementedError

    def asked(self) -> dict[str, Any]:
        """Returns the options that both flows have, by their names in ``Options``."""
        return {
            "target": self.target,
            "allow_dirty": self.allow_dirty,
            "verify": self.verify,
            "accept_env_mismatch": tuple(filter(None, self.accept_env_mismatch.split(","))),
            "accept_gates": tuple(filter(None, self.accept_gate.split(";"))),
            "despite_hold": self.despite_hold,
            "despite_rollover": self.despite_rollover,
        }

    def check(self) -> None:
        """Raises what ``plan`` would refuse by the words and the checkout's files alone."""
        raise NotImplementedError

    def place(self) -> Location:
        """Returns where the files are that users write."""
        from adroit_publish.cli.flow.location import Location

        file = inspect.getfile(type(self))
        return Location(file, self.repo, self.branch, self.commit, self.push)

    def begin(self) -> None:
        """What ``start`` does: plans, and refuses what can be refused, before any work."""
        from adroit_publish.cli.flow.batches import in_batches
        from adroit_publish.cli.flow.program import refusals_end_the_run

        self.location = self.place()
        with refusals_end_the_run():
            self.batches = in_batches(self.plan(), self.flavors_per_task)

    def work(self) -> None:
        """What a task does: all of the work on its flavors."""
        from adroit_publish.cli.flow.batches import work_on_batch

        decorators = getattr(self, current.step_name).decorators
        retries = sum(int(d.attributes["times"]) for d in decorators if d.name == "retry")
        attempts_left = retries - current.retry_count
        self.done = work_on_batch(self.input, self.location, attempts_left)

    @step
    def record(self, inputs: Any) -> None:
        """Write all new versions to flavors.yaml in one edit; commit it where that was asked."""
        from adroit_publish.cli.flow.program import refusals_end_the_run
        from adroit_publish.cli.flow.steps import write_back

        with refusals_end_the_run():
            self.location = inputs[0].location
            done = {place: outcome for task in inputs for place, outcome in task.done.items()}
            self.outcomes = write_back(self.location, [done[place] for place in sorted(done)])
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self) -> None:
        """Say what was published, from what, and what is next; fail where a flavor failed."""
        from adroit_publish.cli.flow.card import components
        from adroit_publish.cli.flow.program import refusals_end_the_run
        from adroit_publish.cli.flow.steps import run_facts, summarize, work_again

        with refusals_end_the_run():
            if current.origin_run_id:  # Metaflow has cloned every step before this one
                self.outcomes = work_again(self.location, self.outcomes, self.plan)
            current.card.extend(components(self.outcomes, current.run_id, run_facts()))
            if failure := summarize(self.outcomes):
                self.make_card()
                raise failure

    def make_card(self) -> None:
        """Makes the card of ``end`` as Metaflow does where a step ends well."""
        for decorator in self.end.decorators:
            if decorator.name == "card":
                decorator.task_finished("end", self, self._graph, True, current.retry_count, 0)
