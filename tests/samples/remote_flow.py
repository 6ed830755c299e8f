"""A flow whose step ``train`` runs in SageMaker; ``--mode`` says what happens there."""

import os
import sys
import time

from metaflow import FlowSpec, Parameter, current, in_sagemaker, step


class RemoteFlow(FlowSpec):
    mode = Parameter("mode", default="well")
    parts = Parameter("parts", default=1)
    needed = Parameter("needed", is_flag=True, default=False)

    @step
    def start(self):
        self.numbers = list(range(20, 20 + self.parts))
        self.next(self.train, foreach="numbers")

    @in_sagemaker(
        instance_type="ml.m5.xlarge",
        tags={"team": "ads"},
        max_run=int(os.environ.get("MAX_RUN", "600")),
        wait=os.environ.get("WAIT", "yes") == "yes",
    )
    @step
    def train(self):
        from adroit.training.errors import TrainingError  # of the repository, not of the image

        print("training", self.input, 'it\'s $HOME "quoted"')
        if self.mode == "fail once" and current.retry_count == 0:
            raise TrainingError("The loss is not a number.")
        if self.mode == "hang":
            print("hanging")
            time.sleep(600)
        self.doubled = 2 * self.input
        self.there = {
            "cwd": os.getcwd(),
            "environment": sorted(os.environ),
            "job": os.environ.get("TRAINING_JOB_NAME"),
            "attempt": current.retry_count,
            "free": sys.flags.safe_path,
        }
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = sorted(each.doubled for each in inputs) if self.needed else None
        self.there = None if os.environ.get("WAIT") == "no" else inputs[0].there
        self.next(self.end)

    @step
    def end(self):
        if os.environ.get("FAIL_END"):
            raise ValueError("not yet")
        print("made", self.all, self.there)


if __name__ == "__main__":
    RemoteFlow()
