"""``wait=False``: the job is started and left alone; the flow goes on without what it makes.

The task in the flow sets, in place of each artifact that the step would set, an ``OnItsWay``: any
use of it says where the artifact is going to be. The job runs the step as a task of its own beside
it, ``RUN/STEP/TASK-sagemaker``, where the artifacts can be read once it has ended.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .errors import SagemakerError


class OnItsWay:
    """An artifact that a training job is making.

    Args:
        name: The artifact's.
        task: ``FLOW/RUN/STEP/TASK`` where it is going to be.
        job: The training job's name.
    """

    def __init__(self, name: str, task: str, job: str) -> None:
        self.__dict__.update(name=name, task=task, job=job)

    def __repr__(self) -> str:
        return f"<self.{self.name}: on its way, from training job {self.job}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return OnItsWay, (self.name, self.task, self.job)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):  # what pickle, copy and inspect ask anything for
            raise AttributeError(attribute)
        self._refuse()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise SagemakerError(
            f"self.{self.name} is made by training job {self.job}, which this flow does not wait "
            f"for: its step has @in_sagemaker(wait=False).\n"
            f"  got:    nothing yet, in this task\n"
            f"  wanted: wait=True where a later step needs it; or, once the job has ended, read it "
            f"from outside:\n"
            f"          metaflow.Task({self.task!r}).data.{self.name}\n"
            f"  next:   python FLOW.py sagemaker follow {self.job}"
        )


for _name in (
    "bool", "len", "iter", "next", "call", "getitem", "setitem", "contains", "int", "float", "str",
    "index", "format", "bytes", "array", "fspath", "enter", "lt", "le", "gt", "ge", "neg", "abs",
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "pow",
):  # fmt: skip
    setattr(OnItsWay, f"__{_name}__", OnItsWay._refuse)


def stand_in(
    flow: Any, step: Callable[..., Any], successors: list[str], task: str, start: Callable[[], str]
) -> Callable[..., None]:
    """Returns what runs in the flow in place of a step that is handed over.

    Args:
        flow: The flow, as the step's ``self``.
        step: The step's function.
        successors: Names of the steps that follow.
        task: ``FLOW/RUN/STEP/TASK`` that the job writes.
        start: Starts the job and returns its name.
    """
    made = sorted(set(_artifacts(step)))

    def hand_over(*_: Any) -> None:
        job = start()
        for name in made:
            setattr(flow, name, OnItsWay(name, task, job))
        if successors:
            flow.next(*(getattr(flow, name) for name in successors))

    return hand_over


def _artifacts(step: Callable[..., Any]) -> Iterator[str]:
    """Yields the names that a step binds on ``self``, as far as its source tells."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(step)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node.attr
