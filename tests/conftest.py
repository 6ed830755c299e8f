"""Every test starts from the same environment, whoever's shell it was started from.

What a developer has set for real work (a cloud profile, a tracking server, a Metaflow profile)
must neither change a result nor be reached. Two switches of our own stay: ADROIT_FULL and
ADROIT_REQUIRE_SERVERS. Done at import, so that servers started by fixtures see it as well.
"""

from __future__ import annotations

import os

KEPT = {"ADROIT_FULL", "ADROIT_REQUIRE_SERVERS"}
FOREIGN = ("ADROIT_", "AWS_", "DATABRICKS_", "METAFLOW_", "MLFLOW_")

for name in [name for name in os.environ if name.startswith(FOREIGN) and name not in KEPT]:
    del os.environ[name]
for name in ("CI", "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
    os.environ.pop(name, None)

os.environ |= {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",  # else boto3 asks the network for credentials
    "METAFLOW_HOME": os.devnull,  # no ~/.metaflowconfig
    "METAFLOW_USER": "tester",  # Metaflow refuses root, and an environment that names nobody
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
