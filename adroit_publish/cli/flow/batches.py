"""How flavors are dealt to tasks: few are one each, many are some tens of tasks.

A task is a process, and on a cluster a machine: for a thousand flavors that cost would be most of
the run. A batch goes on past a flavor that fails, and tries again what may succeed then; only a
flavor that is alone in its task leaves that to Metaflow's ``@retry``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adroit_publish.cli.flow.location import Location
from adroit_publish.cli.flow.start import Prepared
from adroit_publish.cli.flow.steps import Outcome, work_on
from adroit_publish.errors import ConfigError
from adroit_publish.publish.release import Failure, PublishJob

Batch = Mapping[int, Prepared | None]
"""What one task works on, by its place in the order that the flavors were asked for."""

TASKS = 50
"""Tasks of one run, unless it is told how many flavors a task has."""


def in_batches(prepared: Sequence[Prepared | None], per_task: int | None) -> tuple[Batch, ...]:
    """Deals flavors to tasks, the largest models first, so that all end at about the same time.

    Args:
        per_task: Most flavors of a task; None for one, or as many as make ``TASKS`` of them.

    Raises:
        ConfigError: ``per_task`` is not positive.
    """
    if per_task is not None and per_task < 1:
        raise ConfigError(
            "A task needs a flavor.", got=f"--flavors-per-task {per_task}", wanted="1 or more"
        )
    tasks = min(len(prepared), TASKS) if per_task is None else -(-len(prepared) // per_task)
    by_size = sorted(range(len(prepared)), key=lambda place: -_size_bytes(prepared[place]))
    return tuple(
        {place: prepared[place] for place in by_size[task::tasks]} for task in range(tasks)
    )


def work_on_batch(
    batch: Batch, location: Location, attempts_left: int
) -> dict[int, Outcome | None]:
    """Works on each flavor of a task; raises only what Metaflow is to run the task again for."""
    if len(batch) == 1:
        return {place: work_on(item, location, attempts_left) for place, item in batch.items()}
    outcomes = {place: work_on(item, location, 0) for place, item in batch.items()}
    for _ in range(attempts_left):
        for place, outcome in outcomes.items():
            if isinstance(outcome, Failure) and getattr(outcome.error, "transient", False):
                outcomes[place] = work_on(batch[place], location, 0)
    return outcomes


def _size_bytes(item: Prepared | None) -> int:
    """Returns how many bytes are pulled; a republish pulls none."""
    return sum(file.size_bytes for file in item.model.files) if isinstance(item, PublishJob) else 0
