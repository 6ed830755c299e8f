"""One process of a step that ``torchrun`` starts several times: ``ranks FLOW.py ... step ...``.

The first process is the task. The others run the same step, each as a task of its own,
``TASK-rank-N``, so that none overwrites what another sets; later steps see the first one's.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def arguments_of(rank: int, arguments: list[str]) -> list[str]:
    """Returns the words of the step's command for one process.

    Args:
        rank: Of the process, among all instances.
        arguments: Of the first process.
    """
    if rank == 0:
        return arguments
    number = arguments.index("--task-id") + 1
    return [*arguments[:number], f"{arguments[number]}-rank-{rank}", *arguments[number + 1 :]]


if __name__ == "__main__":
    sys.argv = arguments_of(int(os.environ["RANK"]), sys.argv[1:])
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
