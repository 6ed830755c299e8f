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

from metaflow import FlowSpec, Parameter, card, current, step


class RepublishModelFlow(FlowSpec):
    """Republish one or several flavors; one Metaflow run, one card."""

    flavor = Parameter("flavor", help="flavors to republish, with commas between them")
    stale = Parameter(
        "stale", is_flag=True, default=False, help="every flavor whose source or config changed"
    )
    new_flavor = Parameter("new-flavor", help="write the new version into a copy of the flavor")
    model_name = Parameter("model_name", help="older spelling: the model, with --version")
    version = Parameter("version", help="older spelling: the published version")
    config_path = Parameter("config_path", help="older spelling: the project's config.yaml")
    target = Parameter("target", help="where to publish to: a target of adroit.toml")
    runtime = Parameter(
        "runtime", is_flag=True, default=False, help="a changed runtime (adroit/) is a reason too"
    )
    env = Parameter(
        "env", is_flag=True, default=False, help="take over what the conda env's name stands for"
    )
    allow_dirty = Parameter(
        "allow-dirty", is_flag=True, default=False, help="pack uncommitted files, and record it"
    )
    verify = Parameter(
        "verify", help="image (a container), process (a sandbox) or none; by default the target's"
    )
    accept_env_mismatch = Parameter(
        "accept-env-mismatch", default="", help="packages that may differ from what the model wants"
    )
    accept_output_change = Parameter(
        "accept-output-change", is_flag=True, default=False, help="go on where outputs moved"
    )
    despite_hold = Parameter(
        "despite-hold", is_flag=True, default=False, help="republish what is held, for this once"
    )
    commit = Parameter("commit", is_flag=True, default=False, help="commit flavors.yaml")
    push = Parameter("push", is_flag=True, default=False, help="commit flavors.yaml and push it")
    repo = Parameter("repo", help="clone this repository: for machines without a checkout")
    branch = Parameter("branch", help="the branch of --repo; by default its own default")

    @step
    def start(self):
        """Read the files and the versions, see what changed; refuse what can be refused."""
        from adroit_publish.cli.flow import run as flow_run
        from adroit_publish.cli.flow.checkout import Commit, FlowCheckout
        from adroit_publish.cli.flow.program import refusals_end_the_run
        from adroit_publish.publish.release import RepublishOptions

        options = RepublishOptions(
            target=self.target,
            allow_dirty=self.allow_dirty,
            verify=self.verify,
            accept_env_mismatch=tuple(filter(None, self.accept_env_mismatch.split(","))),
            despite_hold=self.despite_hold,
            new_flavor=self.new_flavor,
            runtime=self.runtime,
            take_env=self.env,
            accept_output_change=self.accept_output_change,
        )
        self.git = Commit.of(self.commit, self.push)
        self.checkout = FlowCheckout(__file__, self.repo, self.branch)
        older = (self.model_name, self.version, self.config_path)
        with refusals_end_the_run():
            if any(older) and not (self.flavor or self.stale):
                found = flow_run.prepare_version(self.checkout, *older, options, self.git)
            else:
                found = flow_run.prepare_republishes(
                    self.checkout, self.flavor, self.stale, options, self.git
                )
            self.prepared = found
        self.next(self.republish, foreach="prepared")

    @step
    def republish(self):
        """Take the model over, pack the source, replay, verify and commit one flavor."""
        from adroit_publish.cli.flow import run as flow_run

        retries = [
            int(d.attributes["times"]) for d in self.republish.decorators if d.name == "retry"
        ]
        self.outcome = flow_run.work_on(
            self.input,
            self.checkout,
            attempts_left=sum(retries) - current.retry_count,
        )
        self.next(self.record)

    @step
    def record(self, inputs):
        """Write all new versions to flavors.yaml in one edit; commit it where that was asked."""
        from adroit_publish.cli.flow import run as flow_run
        from adroit_publish.cli.flow.program import refusals_end_the_run

        with refusals_end_the_run():
            self.outcomes = flow_run.write_back(
                inputs[0].checkout, [branch.outcome for branch in inputs], inputs[0].git
            )
        self.next(self.end)

    @card(type="blank")
    @step
    def end(self):
        """Print the proof: what was taken over, what changed, what was sent."""
        from adroit_publish.cli.flow import card as publish_card
        from adroit_publish.cli.flow import run as flow_run

        parts = publish_card.components(self.outcomes, current.run_id, flow_run.run_facts())
        current.card.extend(parts)
        flow_run.summarize(self.outcomes)


if __name__ == "__main__":
    from adroit_publish.cli.flow.program import main

    main(RepublishModelFlow, command="run")
