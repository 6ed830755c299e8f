"""What is edited in the checkout is what is served, also where a copy was logged with the model."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from adroit_publish import publish, republish
from adroit_publish.checkout import Checkout, open_checkout
from adroit_publish.errors import VerificationError
from adroit_publish.places import open_store
from adroit_publish.stores.records import records
from adroit_publish.versions.promote import promote
from tests.servers.live_servers import ask, started
from tests.support.checkouts import FLOW, Trained, commit, git, make_checkout

FLOW_FILE = """
    import sys

    import pandas as pd
    from mlflow.pyfunc import PythonModel

    from adroit.training import NextdoorMLFlowRunPublisher
    {imports}


    class Priced(PythonModel):
        def predict(self, context, model_input, params=None):
            return [{price}(x) for x in model_input["x"]]


    with NextdoorMLFlowRunPublisher("doubler") as publisher:
        publisher.log_model(
            Priced(),
            X_test=pd.DataFrame({{"x": [1.0, 2.0]}}),
            code_path={code_path},
            pip_requirements=["mlflow"],
        )
    print(publisher.run_id)
"""
PRICE = "def price(x):\n    return x * {}\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    tracking_uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    return make_checkout(tmp_path / "repo", tracking_uri, {"a": ""})


def train(checkout: Path, imports: str, price: str, code_path: list[str], cwd: str) -> str:
    """Trains as a user does, in ``cwd``, and returns the run id."""
    flow = checkout / "projects/doubler/flow.py"
    flow.write_text(dedent(FLOW_FILE).format(imports=imports, price=price, code_path=code_path))
    commit(checkout, "train")
    store = checkout.parent / "store"
    environ = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}/mlflow.db",
        "PYTHONPATH": f"{FLOW.parent}{os.pathsep}{checkout / cwd}",
        "METAFLOW_USER": "jane",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, str(flow)],
        cwd=checkout / cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1]


def verification(root: Path, version: str) -> Any:
    store = open_store(Checkout(root, {}).target(None))
    return records(store, store.get(version))[0].document["verification"]


def served_answer(root: Path, version: str) -> Any:
    command = [sys.executable, "-m", "adroit_publish", "serve", version, "--port", "0"]
    environ = os.environ | {"PYTHONPATH": str(FLOW.parent)}
    with started(command, environ=environ, cwd=root) as server:
        request = '{"dataframe_records": [{"x": 1.0}]}'
        headers = {"Content-Type": "application/json"}
        return ask(server.url + "/invocations", request, headers).json["predictions"]


def test_the_guides_own_example_serves_an_edited_module_that_was_logged_by_its_bare_name(
    checkout: Path,
) -> None:
    prep = checkout / "projects/doubler/data_prep.py"
    prep.write_text(PRICE.format(2))
    run_id = train(
        checkout, "import data_prep", "data_prep.price", ["data_prep.py"], "projects/doubler"
    )
    first = publish("a", root=checkout, run_id=run_id)
    assert served_answer(checkout, first.version) == [2.0]
    assert verification(checkout, first.version)["imports"]["homes"] == {
        "data_prep": "projects/doubler"
    }

    prep.write_text(PRICE.format(3))
    commit(checkout, "dearer")
    with pytest.raises(VerificationError, match="predicts something else"):
        republish("a", root=checkout)
    again = republish("a", root=checkout, accept_output_change=True)
    assert again.changes == ("changed projects/doubler/data_prep.py",)
    assert served_answer(checkout, again.version) == [3.0]


def test_a_package_of_the_project_is_served_from_the_checkout_too(checkout: Path) -> None:
    package = checkout / "projects/doubler/prep"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "prices.py").write_text(PRICE.format(2))
    run_id = train(
        checkout, "from prep import prices", "prices.price", ["prep"], "projects/doubler"
    )
    publish("a", root=checkout, run_id=run_id)
    (package / "rates.py").write_text("RATE = 5\n")
    (package / "prices.py").write_text(
        "from prep.rates import RATE\ndef price(x):\n    return x * RATE\n"
    )
    commit(checkout, "by rate")
    again = republish("a", root=checkout, accept_output_change=True)
    assert served_answer(checkout, again.version) == [5.0]


def test_a_module_of_the_checkout_that_is_not_packed_is_refused_with_the_line_to_add(
    checkout: Path,
) -> None:
    money = checkout / "projects/common/money.py"
    money.parent.mkdir()
    money.write_text(PRICE.format(2))
    paths = ["projects/doubler", "projects/common"]
    run_id = train(checkout, "from projects.common import money", "money.price", paths, ".")
    before = (checkout / "flavors.yaml").read_bytes()
    with pytest.raises(VerificationError) as error:
        publish("a", root=checkout, run_id=run_id)
    assert "projects/common/money.py is not packed" in str(error.value.got)
    assert "source: {include: [projects/common]}" in str(error.value.next_step)
    assert (checkout / "flavors.yaml").read_bytes() == before

    config = checkout / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + "source: {include: [projects/common]}\n")
    commit(checkout, "include")
    first = publish("a", root=checkout, run_id=run_id)
    assert "projects/common/money.py" in verification(checkout, first.version)["imports"]["source"]
    money.write_text(PRICE.format(7))
    commit(checkout, "dearer")
    again = republish("a", root=checkout, accept_output_change=True)
    assert served_answer(checkout, again.version) == [7.0]


def test_a_promotion_asks_what_a_publish_asks_of_the_imports(checkout: Path) -> None:
    with (checkout / "adroit.toml").open("a") as file:
        file.write(
            f'[targets.prod]\ntracking_uri = "sqlite:///{checkout}/none.db"\n'
            'bundles = "file:.adroit/prod"\n'
        )
    (checkout / "projects/common").mkdir()
    (checkout / "projects/common/money.py").write_text(PRICE.format(2))
    config = checkout / "projects/doubler/config.yaml"
    strict = config.read_text()
    accept = '["unimported:projects", "module:projects.common.money"]'
    imports = "from projects.common import money"
    paths = ["projects/doubler", "projects/common"]
    run_id = train(checkout, imports, "money.price", paths, ".")
    config.write_text(strict.replace('["unimported:projects"]', accept))  # and no commit has it
    version = publish("a", root=checkout, run_id=run_id, verify="none", allow_dirty=True).version

    targets = open_checkout(checkout, {})
    local, prod = targets.target("local"), targets.target("prod")
    with pytest.raises(VerificationError, match="leave out") as refused:
        promote(targets, version, local, prod, {}, verify="process")
    assert "module:projects.common.money" in str(refused.value.next_step)
    assert open_store(prod).find("doubler", version) is None

    config.write_text(strict.replace('["unimported:projects"]', accept))
    commit(checkout, "the copy is accepted")
    assert publish("a", root=checkout, run_id=run_id).version == version
    shutil.rmtree(checkout / ".adroit/verified")
    git(checkout, "rm", "-rq", "projects/doubler")  # what is checked out decides nothing
    commit(checkout, "the project is gone, and its flavor still listed")
    checkout_now = open_checkout(checkout, {})
    done = promote(checkout_now, version, local, prod, {}, verify="process")
    assert any("projects/common/money.py is not packed" in line for line in done.findings)
    published = open_store(prod).get(version)
    seen = records(open_store(prod), published)[-1].verification
    assert seen is not None
    assert seen.predicted
    assert seen.imports is not None
    assert [finding.name for finding in seen.findings] == ["module:projects.common.money"]


def test_a_promotion_from_a_clone_without_the_commit_says_so(
    checkout: Path, trained: Trained
) -> None:
    other = make_checkout(
        checkout.parent / "other",
        trained.tracking_uri,
        {"a": trained.good[0]},
        target_lines='[targets.prod]\ntracking_uri = "sqlite:///none.db"\n'
        'bundles = "file:.adroit/prod"\n',
    )
    version = publish("a", root=other, verify="none").version
    shutil.rmtree(other / ".git")
    git(other, "init", "-q", "-b", "main")
    commit(other, "a history of its own")
    targets = open_checkout(other, {})
    local, prod = targets.target("local"), targets.target("prod")
    done = promote(targets, version, local, prod, {}, verify="process")
    (line,) = (line for line in done.findings if "is not in this clone" in line)
    assert "git fetch --unshallow" in line


def test_a_promotion_of_what_the_commit_has_no_config_of_says_so(
    checkout: Path, trained: Trained
) -> None:
    other = make_checkout(
        checkout.parent / "other",
        trained.tracking_uri,
        {"a": trained.good[0]},
        target_lines='[targets.prod]\ntracking_uri = "sqlite:///none.db"\n'
        'bundles = "file:.adroit/prod"\n',
    )
    config = other / "projects/doubler/config.yaml"
    text = config.read_text()
    git(other, "rm", "-q", "projects/doubler/config.yaml")
    commit(other, "without a config")
    config.write_text(text)
    version = publish("a", root=other, verify="none", allow_dirty=True).version
    targets = open_checkout(other, {})
    local, prod = targets.target("local"), targets.target("prod")
    done = promote(targets, version, local, prod, {}, verify="process")
    (line,) = (line for line in done.findings if "has no config.yaml of doubler" in line)
    assert "publish doubler again" in line


def test_a_flat_module_that_was_edited_since_it_was_logged_is_refused_too(checkout: Path) -> None:
    cash = checkout / "projects/common/cash.py"
    cash.parent.mkdir()
    cash.write_text(PRICE.format(2))
    run_id = train(checkout, "import cash", "cash.price", ["cash.py"], "projects/common")
    cash.write_text(PRICE.format(3))
    commit(checkout, "dearer")
    with pytest.raises(VerificationError, match="leave out") as refused:
        publish("a", root=checkout, run_id=run_id)
    assert "projects/common/cash.py is not packed" in str(refused.value.got)

    config = checkout / "projects/doubler/config.yaml"
    config.write_text(config.read_text() + "source: {include: [projects/common]}\n")
    commit(checkout, "include")
    first = publish("a", root=checkout, run_id=run_id)
    assert served_answer(checkout, first.version) == [3.0]
