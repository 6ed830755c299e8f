"""Publish models of MLflow runs as immutable, verified versions.

    python publish_mlflow_model_flow.py run --flavor=NAME[,NAME...]

Reads the flavors from flavors.yaml, pulls each one's MLflow model, bundles it with the project's
source and a reference to its conda env, proves that the bundle loads and predicts, stores it, and
writes the new version back into flavors.yaml. Exit codes: 0 done or nothing to do, 2 bad input,
3 source side, 4 refused, 5 store or network (run it again), 6 verification failed.
"""

from metaflow import FlowSpec, Parameter, card, current, step


class PublishMlflowModelFlow(FlowSpec):
    """Publish one or several flavors; one Metaflow run, one card."""

    flavor = Parameter("flavor", help="flavors to publish, with commas between them")
    pending = Parameter(
        "pending", is_flag=True, default=False, help="every flavor whose version is a run id"
    )
    target = Parameter("target", help="where to publish to: a target of adroit.toml")
    mlflow_run_id = Parameter(
        "mlflow-run-id", help="publish this run, whatever the flavor's version says"
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
    despite_hold = Parameter(
        "despite-hold", is_flag=True, default=False, help="publish what is held, for this once"
    )
    commit = Parameter("commit", is_flag=True, default=False, help="commit flavors.yaml")
    push = Parameter("push", is_flag=True, default=False, help="commit flavors.yaml and push it")
    repo = Parameter("repo", help="clone this repository: for machines without a checkout")
    branch = Parameter("branch", help="the branch of --repo; by default its own default")

    @step
    def start(self):
        """Read the files, choose the target, find each run's model; refuse what can be refused."""
        from adroit_publish.cli.flow import run as flow_run
        from adroit_publish.cli.flow.checkout import Commit, FlowCheckout
        from adroit_publish.cli.flow.program import refusals_end_the_run
        from adroit_publish.publish.release import PublishOptions

        options = PublishOptions(
            target=self.target,
            run_id=self.mlflow_run_id,
            allow_dirty=self.allow_dirty,
            verify=self.verify,
            accept_env_mismatch=tuple(filter(None, self.accept_env_mismatch.split(","))),
            despite_hold=self.despite_hold,
        )
        self.git = Commit.of(self.commit, self.push)
        self.checkout = FlowCheckout(__file__, self.repo, self.branch)
        with refusals_end_the_run():
            self.prepared = flow_run.prepare_publish(
                self.checkout, self.flavor, self.pending, options, self.git
            )
        self.next(self.publish, foreach="prepared")

    @step
    def publish(self):
        """Pull, bundle, store, verify and commit one flavor."""
        from adroit_publish.cli.flow import run as flow_run

        retries = [int(d.attributes["times"]) for d in self.publish.decorators if d.name == "retry"]
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
        """Say what was published, from what, and what is next."""
        from adroit_publish.cli.flow import card as publish_card
        from adroit_publish.cli.flow import run as flow_run

        parts = publish_card.components(self.outcomes, current.run_id, flow_run.run_facts())
        current.card.extend(parts)
        flow_run.summarize(self.outcomes)


if __name__ == "__main__":
    from adroit_publish.cli.flow.program import main

    main(PublishMlflowModelFlow)
