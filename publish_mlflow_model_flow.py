"""Publish models of MLflow runs as immutable, verified versions.

    python publish_mlflow_model_flow.py run --flavor=NAME[,NAME...]

Reads the flavors from flavors.yaml, pulls each one's MLflow model, bundles it with the project's
source and a reference to its conda env, proves that the bundle loads and predicts, stores it, and
writes the new version back into flavors.yaml. Exit codes: 0 done or nothing to do, 2 bad input,
3 source side, 4 refused, 5 store or network (run it again), 6 verification failed.
"""

from adroit.interpreter import needs_requirements

if __name__ == "__main__":
    needs_requirements()

from metaflow import Parameter, step

from adroit_publish.cli.flow.base import PublishingFlow


class PublishMlflowModelFlow(PublishingFlow):
    """Publish one or several flavors; one Metaflow run, one card."""

    flavor = Parameter("flavor", help="flavors to publish, with commas between them")
    pending = Parameter(
        "pending", is_flag=True, default=False, help="every flavor whose version is a run id"
    )
    mlflow_run_id = Parameter(
        "mlflow-run-id", help="publish this run, whatever the flavor's version says"
    )
    accept_new_lineage = Parameter(
        "accept-new-lineage",
        is_flag=True,
        default=False,
        help="publish a run of another experiment, flow or signature than the model's versions",
    )
    despite_hold = Parameter(
        "despite-hold", is_flag=True, default=False, help="publish what is held, for this once"
    )
    despite_rollover = Parameter(
        "despite-rollover", is_flag=True, default=False, help="publish a flavor of a live rollover"
    )

    @step
    def start(self):
        """Read the files, choose the target, find each run's model; refuse what can be refused."""
        self.begin()
        self.next(self.publish, foreach="batches")

    @step
    def publish(self):
        """Pull, bundle, store, verify and commit each flavor of a task."""
        self.work()
        self.next(self.record)

    def options(self):
        from adroit_publish.publish.release import PublishOptions

        return PublishOptions(
            **self.asked(),
            run_id=self.mlflow_run_id,
            accept_new_lineage=self.accept_new_lineage,
        )

    def check(self):
        from adroit_publish.cli.flow.start import check_publish

        check_publish(self.place(), self.flavor, self.pending, self.options())

    def plan(self, only=None):
        from adroit_publish.cli.flow.start import prepare_publish

        flavors, pending = (only, False) if only else (self.flavor, self.pending)
        return prepare_publish(self.location, flavors, pending, self.options())


if __name__ == "__main__":
    from adroit_publish.cli.flow.program import main

    main(PublishMlflowModelFlow)
