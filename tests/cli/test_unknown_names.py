"""A name that nothing has: every command that takes one says which there are."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from adroit_publish.cli.commands import cli
from adroit_publish.errors import ConfigError
from tests.support.checkouts import make_checkout

RUN, VERSION = "0" * 32, "v00000000-0123456789ab"
SLIP = "v00000000-0123456789ac"


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    flavors = {"churn_daily": RUN, "churn_hourly": RUN, "spam": RUN}
    root = make_checkout(tmp_path / "repo", f"sqlite:///{tmp_path}/none.db", flavors)
    (root / ".adroit/bundles/doubler" / VERSION).mkdir(parents=True)
    (root / ".adroit/bundles/doubler" / VERSION / "oci-layout").write_text("{}")
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (["hold", "churn_dialy", "--why", "x"], "churn_daily"),
        (["unhold", "churn_dialy"], "churn_daily"),
        (["plan", "--flavor", "churn_dialy"], "churn_daily"),
        (["show", "churn_dialy"], "churn_daily"),
        (["verify", "churn_dialy"], "churn_daily"),
        (["pull", "churn_dialy", "there"], "churn_daily"),
        (["serve", "churn_dialy"], "churn_daily"),
        (["manifest", "churn_dialy", "--kind", "kserve"], "churn_daily"),
        (["diff", "churn_dialy", "spam"], "churn_daily"),
        (["diff", "churn_dialy@HEAD", "spam"], "churn_daily"),
        (["show", SLIP], VERSION),
        (["verify", SLIP], VERSION),
        (["pull", SLIP, "there"], VERSION),
        (["serve", SLIP], VERSION),
        (["manifest", SLIP, "--kind", "kserve"], VERSION),
        (["diff", SLIP, "spam"], VERSION),
        (["predict", "http://127.0.0.1:9", "--example", SLIP], VERSION),
        (["versions", "dubler"], "doubler"),
        (["history", "dubler"], "doubler"),
        (["status", "--target", "locl"], "local"),
        (["build-env", "plian"], "plain"),
        (["promote", "spam", "--from", "locl", "--to", "local"], "local"),
        (["show", "zzz"], "churn_daily, churn_hourly, spam"),
        (["hold", "zzz", "--why", "x"], "churn_daily, churn_hourly, spam"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_the_names_that_are_most_like_it_are_listed(checkout, command, wanted):
    before = (checkout / "flavors.yaml").read_bytes()
    error = CliRunner().invoke(cli, command).exception
    assert isinstance(error, ConfigError), error
    told = str(error).replace(" ".join(command), "")
    assert wanted in told, told
    assert (checkout / "flavors.yaml").read_bytes() == before
