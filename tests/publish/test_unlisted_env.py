"""An env that nothing here lists: this machine's Python stands in for it, and everybody is told."""

from __future__ import annotations

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.places import open_store
from adroit_publish.stores.records import last_publish, records
from tests.support.checkouts import commit, make_checkout

SERVES = "dependencies: [python=3.11, pip, {pip: [mlflow-skinny==3.17.2, numpy, pandas]}]\n"


@pytest.mark.parametrize(
    ("envs", "listing", "told"),
    [
        (
            "environment: environment.yml",
            "dependencies: [python=3.11, pip]\n",
            "does not list what",
        ),
        ("image: adroit-env/plain:1", SERVES, "it has no environment.yml"),
        ("environment: environment.yml", SERVES, None),
    ],
    ids=["lists nothing that serves", "no file", "lists it"],
)
def test_an_env_that_nothing_lists_is_told_in_the_record_and_at_the_end(
    tmp_path, trained, envs, listing, told
):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    (root / "environment.yml").write_text(listing)
    (root / "conda_envs.yaml").write_text(f"plain:\n  {envs}\n")
    commit(root, "an env")
    release = publish("a", root=root)
    store = open_store(open_checkout(root, {}).target(None))
    seen = last_publish(records(store, store.get(release.version))).verification
    findings = [one.what for one in seen.findings if one.name == "env:unlisted"]
    assert [told in what for what in findings] == ([True] if told else [])
    assert all(what in release.warnings for what in findings)
    assert seen.env["looked_at"] == ("this machine's Python" if told else "environment.yml")
