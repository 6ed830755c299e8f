"""Stops a training job when the command that follows it is gone, however it went.

    python guard.py JOB    with a pipe on its standard input

The command writes ``done`` before it closes the pipe. A pipe that closes without it means that the
command was killed: by Ctrl-C, by Metaflow's runtime after its five seconds, or by the system. A
training job costs money for each second it runs; so it is stopped then. This is a program of its
own because nothing else outlives SIGKILL.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

TRIES = 5


class Guard:
    """The guard of one job: started before the job is, told when it is over.

    Args:
        job: The job's name.
    """

    def __init__(self, job: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), job],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the command, not for its guard
        )

    def dismiss(self) -> None:
        """Tells it that the job is over, or is to go on alone."""
        self._process.communicate(b"done")


def watch(job: str) -> None:
    """Waits for the pipe to close, and stops the job unless it was told that all is done."""
    if sys.stdin.buffer.read() == b"done":
        return
    import boto3

    for number in range(TRIES):
        time.sleep(number)  # the job may be about to be made
        try:
            boto3.Session().client("sagemaker").stop_training_job(TrainingJobName=job)
        except Exception:  # noqa: BLE001 - nobody is left to tell; try again
            continue
        return


if __name__ == "__main__":
    watch(sys.argv[1])
