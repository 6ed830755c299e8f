"""A run as MLflow's active one: what ``mlflow.log_*``, autolog and nested runs go to.

MLflow keeps the active run by thread, but the tracking store and the experiment of new runs by
process. All three are the run's as long as its block lasts, and what they were before after it.
Blocks nest; blocks of two threads may be open at once where they share store and experiment, and
are refused where not: one of them would get the other's nested runs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit.training.errors import TrainingError

_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_RUN_ID",
)


@dataclass(frozen=True)
class Place:
    """Where runs go: a store and an experiment of it."""

    tracking_uri: str
    experiment_id: str


@dataclass(frozen=True)
class _Settings:
    """What MLflow has by process, as it was before a block."""

    experiment_id: str | None
    environment: Mapping[str, str]


@dataclass(frozen=True)
class _Block:
    thread: int
    place: Place
    before: _Settings


_blocks: list[_Block] = []
_lock = threading.Lock()


def enter(place: Place, run_id: str | None, tags: Mapping[str, str]) -> str:
    """Makes a run the active one of this thread; it begins, or goes on, as RUNNING.

    Args:
        place: The run's.
        run_id: A run that has begun; None for a new one, a child of this thread's active run where
            that is in the same store.
        tags: Of a new run.

    Returns:
        The run's id.

    Raises:
        TrainingError: Another thread's block is open for another store or experiment.
    """
    import mlflow

    outer = mlflow.active_run()
    stranger = outer is not None and mlflow.get_tracking_uri() != place.tracking_uri
    _begin_block(place)
    try:
        if run_id is None and stranger:  # which MLflow would make its parent
            from mlflow.tracking.context.registry import resolve_tags

            created = mlflow.MlflowClient().create_run(place.experiment_id, tags=resolve_tags(tags))
            run_id = created.info.run_id
        run = mlflow.start_run(
            run_id, experiment_id=place.experiment_id, tags=dict(tags), nested=True
        )
    except BaseException:
        _end_block()
        raise
    return str(run.info.run_id)


def leave(run_id: str, status: str) -> bool:
    """Ends the block of a run: it, and whatever was left open in it, is no longer active.

    Args:
        run_id: The run that was entered.
        status: What the run is then.

    Returns:
        Whether it was still active, and was ended by this.
    """
    import mlflow

    try:
        stack = _mlflow()._active_run_stack.get()  # by thread, and empty in a forked child
        was_active = any(run.info.run_id == run_id for run in stack)
        while any(run.info.run_id == run_id for run in stack):
            mlflow.end_run(status)
        return was_active
    finally:
        _end_block()


def _begin_block(place: Place) -> None:
    thread = threading.get_ident()
    with _lock:
        for block in _blocks:
            if block.thread != thread and block.place != place:
                raise TrainingError(
                    "MLflow has one store and one experiment in a process, and another thread's "
                    "`with publisher` has taken them.",
                    where=f"experiment {block.place.experiment_id}",
                    got=f"experiment {place.experiment_id}",
                    next_step="call the publisher's methods without `with` in threads",
                )
        _blocks.append(_Block(thread, place, _apply(place)))


def _end_block() -> None:
    thread = threading.get_ident()
    with _lock:
        [*_, number] = [n for n, block in enumerate(_blocks) if block.thread == thread]
        ended = _blocks.pop(number)
        if number == len(_blocks):
            _restore(ended.before)
        else:  # a block of another thread was begun later, and gives back what this one found
            later = _blocks[number]
            _blocks[number] = _Block(later.thread, later.place, ended.before)


def _apply(place: Place) -> _Settings:
    import mlflow

    environment = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    before = _Settings(_mlflow()._active_experiment_id, environment)
    for name in _VARIABLES:
        os.environ.pop(name, None)
    mlflow.set_tracking_uri(place.tracking_uri)
    os.environ |= {
        "MLFLOW_TRACKING_URI": place.tracking_uri,  # for programs that the block starts
        "MLFLOW_EXPERIMENT_ID": place.experiment_id,
    }
    _mlflow()._active_experiment_id = place.experiment_id
    return before


def _restore(before: _Settings) -> None:
    import mlflow

    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # it documents None for unset
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ |= before.environment
    _mlflow()._active_experiment_id = before.experiment_id


def _mlflow() -> Any:
    """Returns the module of MLflow's with its state, of which only a part can be set in public."""
    from mlflow.tracking import fluent

    return fluent


def _keep_this_thread() -> None:
    global _lock
    _lock = threading.Lock()
    _blocks[:] = [block for block in _blocks if block.thread == threading.get_ident()]


os.register_at_fork(after_in_child=_keep_this_thread)
