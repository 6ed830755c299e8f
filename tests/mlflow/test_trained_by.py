"""mlflow.trained_by: what tags may say, and which pages lead on."""

from __future__ import annotations

import pytest

from adroit_publish.mlflow.trained_by import commit_page, job_page, trained_by

ARN = "arn:aws:sagemaker:eu-west-1:123456789012:training-job/Train-2-0-0d162088"
COMMIT = "0b5c5b2f" * 5


def test_tags_of_our_training_lead_back_to_it() -> None:
    tags = {
        "metaflow.run": "ExampleMetaflow/1795537240005196",
        "metaflow.url": "https://metaflow.example/ui/ExampleMetaflow/1795537240005196",
        "sagemaker.training_job": ARN,
        "mlflow.user": "jane",
    }
    assert trained_by(tags) == {
        "metaflow_run": tags["metaflow.run"],
        "metaflow_page": tags["metaflow.url"],
        "training_job": ARN,
    }
    assert job_page(ARN).endswith("region=eu-west-1#/jobs/Train-2-0-0d162088")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("metaflow.run", "Flow/1](https://evil.example)"),
        ("metaflow.run", "Flow/1\x1b[2J"),
        ("metaflow.run", "Flow/" + "1" * 600),
        ("metaflow.url", "javascript:alert(1)"),
        ("metaflow.url", "https://metaflow.example/ui) ![x](https://evil.example"),
        ("metaflow.url", "https://jane:secret@metaflow.example/ui"),
        ("sagemaker.training_job", ARN + "\n"),
        ("sagemaker.training_job", "arn:aws:s3:::bucket"),
    ],
)
def test_a_tag_that_is_no_name_or_address_is_left_out(tag: str, value: str) -> None:
    assert trained_by({tag: value}) == {}


@pytest.mark.parametrize(
    "remote",
    [
        "https://github.example/team/models.git",
        "https://jane:secret@github.example/team/models",
        "ssh://git@github.example:22/team/models.git",
        "git@github.example:team/models.git",
    ],
)
def test_a_commit_has_a_page_where_the_host_has_pages(remote: str) -> None:
    assert commit_page(remote, COMMIT) == f"https://github.example/team/models/commit/{COMMIT}"


@pytest.mark.parametrize("remote", ["", "/srv/git/models.git", "https://git.example/team/models"])
def test_elsewhere_a_commit_has_none(remote: str) -> None:
    assert commit_page(remote, COMMIT) is None
