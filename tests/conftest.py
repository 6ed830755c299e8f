"""Every test starts from the same environment, whoever's shell it was started from.

What a developer has set for real work (a cloud profile, a tracking server, a Metaflow profile)
must neither change a result nor be reached. Four switches of our own stay: ADROIT_FULL,
ADROIT_REQUIRE_SERVERS, ADROIT_REQUIRE_ZOO and ADROIT_UPDATE_GOLDENS. Done at import, so that
servers started by fixtures see it as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from tests.support.checkouts import Trained

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)  # however busy it is
hypothesis.settings.load_profile("any machine")

KEPT = {f"ADROIT_{name}" for name in ("FULL", "REQUIRE_SERVERS", "REQUIRE_ZOO", "UPDATE_GOLDENS")}
FOREIGN = ("ADROIT_", "AWS_", "DATABRICKS_", "METAFLOW_", "MLFLOW_")

for name in [name for name in os.environ if name.startswith(FOREIGN) and name not in KEPT]:
    del os.environ[name]
for name in ("CI", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "PYTHONDONTWRITEBYTECODE"):
    os.environ.pop(name, None)
sys.dont_write_bytecode = False  # users have bytecode beside their code; so have the tests

os.environ |= {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",  # else boto3 asks the network for credentials
    "METAFLOW_HOME": os.devnull,  # no ~/.metaflowconfig
    "METAFLOW_USER": "tester",  # Metaflow refuses root, and an environment that names nobody
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


from tests.servers.mlflow_servers import proxied_server  # noqa: E402, F401 - fixtures of every room
from tests.servers.object_servers import moto_server, seaweed  # noqa: E402, F401


@pytest.fixture(autouse=True)
def no_snapshot_stays() -> Iterator[None]:
    """A worker ends without its exit handlers: what it would remove then is removed here."""
    yield
    if snapshot := sys.modules.get("adroit_publish.mlflow.snapshot"):
        snapshot._snapshots.clear()


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Really logged models, made once for each worker that needs them."""
    from tests.support.checkouts import train_models

    return train_models(tmp_path_factory.mktemp("trained"))
