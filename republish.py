"""Republish models with the source of today: the same weights, by digest; a new version.

    python republish.py --flavor NAME[,NAME...] [--new-flavor NAME2]
    python republish.py --stale
    python republish.py --model_name M --version V --config_path P

Reads the published version, takes its model's layers over, packs the project's source as committed,
replays the recorded outputs, and writes the new version back into flavors.yaml. Prints the proof.
A Metaflow run like a publish; Metaflow's own commands (`show`, `card`) work as for any flow. Exit
codes: 0 done or nothing to do, 2 bad input, 3 source side, 4 refused, 5 store or network (run it
again), 6 verification failed or other outputs.
"""

from adroit.interpreter import needs_requirements

if __name__ == "__main__":
    needs_requirements()

from metaflow import Parameter, step

from adroit_publish.cli.flow.base import PublishingFlow


class RepublishModelFlow(PublishingFlow):
    """Republish one or several flavors; one Metaflow run, one card."""

    flavor = Parameter("flavor", help="flavors to republish, with commas between them")
    stale = Parameter(
        "stale", is_flag=True, default=False, help="every flavor whose source or config changed"
    )
    new_flavor = Parameter("new-flavor", help="write the new version into a copy of the flavor")
    model_name = Parameter("model_name", help="older spelling: the model, with --version")
    version = Parameter("version", help="older spelling: the published version")
    config_path = Parameter("config_path", help="older spelling: the project's config.yaml")
    runtime = Parameter(
        "runtime", is_flag=True, default=False, help="a changed runtime (adroit/) is a reason too"
    )
    env = Parameter(
        "env", is_flag=True, default=False, help="take over what the conda env's name stands for"
    )
    accept_output_change = Parameter(
        "accept-output-change", is_flag=True, default=False, help="go on where outputs moved"
    )
    despite_hold = Parameter(
        "despite-hold", is_flag=True, default=False, help="republish what is held, for this once"
    )
    despite_rollover = Parameter(
        "despite-rollover",
        is_flag=True,
        default=False,
        help="republish a flavor of a live rollover",
    )

    @step
    def start(self):
        """Read the files and the versions, see what changed; refuse what can be refused."""
        self.begin()
        self.next(self.republish, foreach="batches")

    @step
    def republish(self):
        """Take each model over, pack the source, replay, verify and commit."""
        self.work()
        self.next(self.record)

    def options(self):
        from adroit_publish.publish.release import RepublishOptions

        return RepublishOptions(
            **self.asked(),
            new_flavor=self.new_flavor,
            runtime=self.runtime,
            take_env=self.env,
            accept_output_change=self.accept_output_change,
        )

    def older(self):
        words = (self.model_name, self.version, self.config_path)
        return words if any(words) and not (self.flavor or self.stale) else None

    def check(self):
        from adroit_publish.cli.flow.start import check_republishes, check_version

        if older := self.older():
            check_version(self.place(), *older)
        else:
            check_republishes(self.place(), self.flavor, self.stale, self.options())

    def plan(self, only=None):
        from adroit_publish.cli.flow.start import prepare_republishes, prepare_version

        if older := self.older():
            return prepare_version(self.location, *older, self.options())
        flavors, stale = (only, False) if only else (self.flavor, self.stale)
        return prepare_republishes(self.location, flavors, stale, self.options())


if __name__ == "__main__":
    from adroit_publish.cli.flow.program import main

    main(RepublishModelFlow, command="run")
