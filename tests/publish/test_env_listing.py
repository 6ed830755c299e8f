"""A publish to a target without images holds the model against its env's environment.yml."""

from __future__ import annotations

from textwrap import dedent

import pytest

from adroit_publish import publish
from adroit_publish.checkout import open_checkout
from adroit_publish.errors import VerificationError
from adroit_publish.places import open_store
from adroit_publish.stores.records import records
from tests.support.checkouts import DOUBLER, commit, make_checkout
from tests.support.env_images import ENVIRONMENT_YML


@pytest.fixture
def root(tmp_path):
    """A model that requires what is installed here and not in the env that serves it."""
    import mlflow
    import pandas as pd

    code = tmp_path / "model.py"
    code.write_text(dedent(DOUBLER))
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    experiment = mlflow.create_experiment("t", artifact_location=(tmp_path / "a").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(code),
            pip_requirements=["mlflow", "lightgbm"],
            input_example=pd.DataFrame({"x": [1.0, 2.0]}),
        )
    mlflow.set_tracking_uri(None)
    root = make_checkout(tmp_path / "repo", uri, {"a": run.info.run_id})
    (root / "environment.yml").write_bytes(ENVIRONMENT_YML.read_bytes())
    commit(root, "an env that serves")
    return root


def test_a_model_that_requires_what_environment_yml_lacks_gets_no_version_unasked(root):
    import lightgbm  # noqa: F401 - what this machine's own Python has is not what is asked

    before = (root / "flavors.yaml").read_bytes()
    with pytest.raises(VerificationError) as refused:
        publish("a", root=root)
    assert "lightgbm: nothing, requirements.txt wants any: not installed" in refused.value.got
    assert "--accept-env-mismatch=lightgbm" in refused.value.next_step
    store = open_store(open_checkout(root, {}).target(None))
    assert (root / "flavors.yaml").read_bytes() == before
    assert list(store.versions("doubler")) == []

    release = publish("a", root=root, accept_env_mismatch=["lightgbm"])
    (record,) = records(store, store.get(release.version))
    env = record.document["verification"]["env"]
    assert env["looked_at"] == "environment.yml"
    assert env["accepted"] == ["lightgbm"]
    assert {row["name"] for row in env["rows"]} >= {"python", "mlflow", "lightgbm"}
