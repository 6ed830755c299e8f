"""What is promoted was seen to load: by this machine before, or at the destination just now."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish import publish
from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.checkout import open_checkout
from adroit_publish.places import open_store
from adroit_publish.publish import prepare
from adroit_publish.publish.source import GATES
from adroit_publish.stores.records import records
from tests.support.checkouts import FLOW, commit, make_checkout

PROD = """
[targets.prod]
tracking_uri = "{tracking_uri}"
bundles = "file:.adroit/prod"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, trained):
    """A checkout whose flavor ``good`` predicts, and whose ``spy`` does not load; unverified."""
    root = make_checkout(
        tmp_path_factory.mktemp("p") / "repo",
        trained.tracking_uri,
        {"good": trained.good[0], "spy": trained.spy, "seen": trained.good[1]},
        target_lines=PROD.format(tracking_uri=trained.tracking_uri),
    )
    versions = {name: publish(name, root=root, verify="none").version for name in ("good", "spy")}
    return root, versions


@pytest.fixture
def checkout(made, tmp_path):
    return Path(shutil.copytree(made[0], tmp_path / "repo"))


def promote(root, name, *options, code=0):
    command = ["promote", name, "--from", "local", "--to", "prod", *options]
    done = subprocess.run(
        [sys.executable, "-m", "adroit_publish", *command],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def store_of(root, target):
    return open_store(open_checkout(root, {}).target(target))


def verifications(root, version):
    """What the records at the destination say of verifications, oldest first."""
    store = store_of(root, "prod")
    return [record.verification for record in records(store, store.get(version))]


def test_show_says_what_the_promotion_saw_of_a_version_that_nobody_had_verified(checkout, made):
    promote(checkout, "good")
    shown = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "show", made[1]["good"], "--target", "prod"],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(FLOW.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    verified = [line.split(maxsplit=1)[1] for line in shown.splitlines() if "predicted:" in line]
    how = verifications(checkout, made[1]["good"])[-1].how
    assert verified == ["none, predicted: False", f"{how}, predicted: True, to promote it to prod"]


def test_a_version_that_does_not_load_is_not_promoted(checkout, made):
    done = promote(checkout, "spy", code=6)
    assert "AWS_SECRET_ACCESS_KEY" in done.stderr
    assert store_of(checkout, "prod").find("doubler", made[1]["spy"]) is None
    promote(checkout, "spy", code=6)  # what is stored already makes it no better
    assert store_of(checkout, "prod").find("doubler", made[1]["spy"]) is None


def test_a_secret_that_an_older_program_packed_is_not_promoted(checkout, monkeypatch):
    monkeypatch.delitem(GATES, "secrets")
    monkeypatch.setattr(prepare, "check_source_secrets", lambda *_: None)
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    (checkout / "projects/doubler/client.py").write_text(f"TOKEN = '{token}'\n")
    commit(checkout, "a secret")
    publish("seen", root=checkout, verify="none")
    done = promote(checkout, "seen", code=4)
    assert "projects/doubler/client.py:1: GitHub token" in done.stderr
    assert token not in done.stderr


def test_a_version_that_nobody_saw_is_verified_where_it_goes(checkout, made):
    assert json.loads(promote(checkout, "good", "--json").stdout)["verified"] == "bubblewrap"
    unseen, seen = verifications(checkout, made[1]["good"])
    assert not unseen.looked
    assert seen.predicted
    assert seen.outputs == [{"x": 2.0, "y": 6.0}, {"x": 4.0, "y": 8.0}]


def test_a_record_written_by_hand_does_not_take_a_version_to_production(checkout, made):
    store = store_of(checkout, "local")
    published = store.get(made[1]["spy"])
    (mine,) = records(store, published)
    forged = canonical_json({**mine.document, "verification": {"how": "image", "predicted": True}})
    store.attach("doubler", made[1]["spy"], published.manifest, RECORD_MEDIA_TYPE, forged)
    promote(checkout, "spy", code=6)


def test_what_this_machine_saw_is_not_looked_at_again(checkout):
    version = publish("seen", root=checkout).version
    answer = json.loads(promote(checkout, "seen", "--json").stdout)
    assert answer["verified"] == "bubblewrap"
    # The two records may be of one second: they come in no order then.
    promoted, published = sorted(verifications(checkout, version), key=bool)
    assert published.predicted
    assert promoted is None
    (checkout / "projects/doubler/features.py").write_text("SCALE = 9\n")
    assert json.loads(promote(checkout, "seen", "--json").stdout)["news"] is False
    assert len(verifications(checkout, version)) == 2


def test_who_waives_it_is_told_and_it_is_recorded(checkout, made):
    done = promote(checkout, "spy", "--verify", "none")
    assert "not verified" in done.stderr
    assert [each.how for each in verifications(checkout, made[1]["spy"])] == ["none", "none"]
    shown = promote(checkout, "spy", "--verify", "none", "--json")
    assert json.loads(shown.stdout)["verified"] == "none"


def test_a_way_of_verification_that_the_destination_lacks_is_refused(checkout):
    assert "process or none" in promote(checkout, "good", "--verify", "image", code=2).stderr


NEEDY = """
import mlflow, os
from mlflow.pyfunc import PythonModel

class Needy(PythonModel):
    def load_context(self, context):
        self.key = os.environ["MY_SVC_API_KEY"]

    def predict(self, context, model_input, params=None):
        return model_input

mlflow.models.set_model(Needy())
"""


def needy_run(directory, tracking_uri):
    """Logs a model that needs an environment variable to load; returns its run id."""
    import mlflow
    import pandas as pd

    (directory / "needy.py").write_text(NEEDY)
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.create_experiment("n", artifact_location=(directory / "n").as_uri())
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(directory / "needy.py"),
            pip_requirements=["mlflow"],
            signature=mlflow.models.infer_signature(pd.DataFrame({"x": [1.0]})),
        )
    mlflow.set_tracking_uri(None)
    return run.info.run_id


def test_what_config_yaml_sets_for_the_model_is_set_where_it_is_promoted(
    checkout, trained, tmp_path, monkeypatch
):
    monkeypatch.setenv("MY_SVC_API_KEY", "here to log it")
    run_id = needy_run(tmp_path, trained.tracking_uri)
    monkeypatch.delenv("MY_SVC_API_KEY")
    version = publish(
        "seen", root=checkout, run_id=run_id, verify="none", accept_new_lineage=True
    ).version
    assert "MY_SVC_API_KEY" in promote(checkout, version, code=6).stderr
    config = checkout / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + "  env: {MY_SVC_API_KEY: a-dummy}\n")
    commit(checkout, "a dummy for the verification")
    promote(checkout, version)
    assert verifications(checkout, version)[1].model_env == ("MY_SVC_API_KEY",)
