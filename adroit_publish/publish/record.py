"""Writing the record of a publish: who, when, from where, how it went.

No part of a version's identity; its format: ``bundle.record``.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime

from adroit_publish.bundle.document import canonical_json
from adroit_publish.bundle.record import SCHEMA, Verification
from adroit_publish.edge.user import user_name
from adroit_publish.publish.release import Release

RELEASE_FIELDS = (
    "flavor", "model_name", "run_id", "run_url", "version", "manifest_digest", "bundle_id",
    "target", "places", "commit", "dirty", "conda_env", "conda_env_digest", "layers", "seconds",
    "metrics", "trained_by", "commit_url", "warnings", "republished_from", "changes",
    "copied_from",
)  # fmt: skip
"""What a record takes over from the release; what else a release holds is not of the publish."""


def publish_record(
    release: Release, verification: Verification, origin: Mapping[str, str]
) -> bytes:
    """Returns the record of a publish that is about to be committed.

    Args:
        release: What is published.
        verification: What was seen of it, golden outputs included.
        origin: What started the publish, such as the Metaflow run.
    """
    facts = release.as_dict()
    return canonical_json(
        {name: facts[name] for name in RELEASE_FIELDS}
        | {
            "schema": SCHEMA,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": user_name(),
            "host": platform.node(),
            "origin": dict(origin),
            "verification": verification.as_dict(),
        }
    )
