"""From training on to a published version: the publish flow, run by Metaflow's Runner."""

from __future__ import annotations

from pathlib import Path

from adroit.training.errors import TrainingError
from adroit.training.logged_run import LoggedRun

_FLOW = "publish_mlflow_model_flow.py"


def publish(logged: LoggedRun, flavor: str, root: Path, target: str | None = None) -> str:
    """Publishes a run as a flavor: the flow in the checkout, as if it were typed.

    Args:
        logged: What ``log_model`` returned.
        flavor: Of the checkout's flavors.yaml, where the version is written.
        root: The checkout.
        target: Of adroit.toml; None for the one that the environment means.

    Returns:
        The publish flow's run, ``PublishMlflowModelFlow/...``.

    Raises:
        TrainingError: It was not published; the end of what the flow said is in the message.
    """
    from metaflow import Runner

    options = {"flavor": flavor, "mlflow_run_id": logged.run_id}
    if target:
        options["target"] = target
    plain = {
        "ADROIT_PLAIN": "1"
    }  # the step that this is has Metaflow's prefix on each line already
    with Runner(str(root / _FLOW), cwd=str(root), env=plain, show_output=True) as runner:
        try:
            running = runner.run(**options)
            problem = running.stderr.strip()
            pathspec = running.run.pathspec if running.status == "successful" else None
        except RuntimeError as refusal:  # without a run: the files or the words are wrong
            problem, pathspec = str(refusal).strip(), None
    if pathspec:
        return str(pathspec)
    raise TrainingError(
        "The model is logged, but was not published.",
        where=f"run {logged.run_id}, flavor {flavor}",
        got=problem.rpartition("\n\n")[2],  # its one message, below what Metaflow says
        next_step=logged.publish_command(flavor) + (f" --target={target}" if target else ""),
    )
