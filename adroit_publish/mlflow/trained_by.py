"""What made an MLflow run, read off the tags that ``adroit.training`` gives it, and pages of it.

Anybody who may write to the tracking server can set a tag: only what has the form of a name, of an
address and of an ARN is taken, so that it can stand in a card and in a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

METAFLOW_RUN = "metaflow_run"
METAFLOW_PAGE = "metaflow_page"
TRAINING_JOB = "training_job"

_TAGS = {  # key: MLflow's tag, and the form of its value
    METAFLOW_RUN: ("metaflow.run", r"\w{1,200}/[\w.-]{1,200}"),
    METAFLOW_PAGE: ("metaflow.url", r"https?://[\w.:-]+(/[\w./~%+=&?#-]*)?"),
    TRAINING_JOB: (
        "sagemaker.training_job",
        r"arn:aws[\w-]*:sagemaker:[a-z0-9-]+:\d{12}:training-job/[A-Za-z0-9-]{1,63}",
    ),
}


def trained_by(tags: Mapping[str, str]) -> dict[str, str]:
    """Returns what a run's tags tell of its training, by the names above; those that are there."""
    values = {key: tags.get(tag, "") for key, (tag, _) in _TAGS.items()}
    return {
        key: value
        for key, value in values.items()
        if len(value) <= 500 and re.fullmatch(_TAGS[key][1], value)
    }


def job_page(arn: str) -> str:
    """Returns the page of a training job in the AWS console."""
    region, name = arn.split(":")[3], arn.rpartition("/")[2]
    return f"https://{region}.console.aws.amazon.com/sagemaker/home?region={region}#/jobs/{name}"


def commit_page(remote_url: str, commit: str) -> str | None:
    """Returns the page of a commit, where the remote is a host that has pages for commits.

    The remote is as git has it: ``https://HOST/PATH``, ``ssh://git@HOST/PATH`` or
    ``git@HOST:PATH``. A user name or a password in it does not get into the result.
    """
    form = r"(?:(?:https|ssh)://)?(?:[^@/]+@)?([\w.-]+)(?::\d+)?[:/]+([\w./~-]+?)(?:\.git)?/?"
    found = re.fullmatch(form, remote_url)
    if not found or not re.search(r"github|gitlab", found[1]):
        return None
    return f"https://{found[1]}/{found[2]}/commit/{commit}"
