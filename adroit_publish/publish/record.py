"""The record of a publish: who, when, from where, how it went. No part of a version's identity.

Records hang on a version as referrers; more can be added, none is ever changed.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.document import canonical_json
from adroit_publish.edge.user import user_name
from adroit_publish.publish.release import Release
from adroit_publish.stores.records import SCHEMA


def publish_record(
    release: Release, verification: Mapping[str, Any], origin: Mapping[str, str]
) -> bytes:
    """Returns the record of a publish that is about to be committed.

    Args:
        release: What is published.
        verification: Outcome of the sandboxed prediction, with its golden outputs.
        origin: What started the publish, such as the Metaflow run.
    """
    facts = release.as_dict()
    for not_of_this_publish in ("expected", "news", "rollover"):
        del facts[not_of_this_publish]
    return canonical_json(
        facts
        | {
            "schema": SCHEMA,
            "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": user_name(),
            "host": platform.node(),
            "origin": dict(origin),
            "verification": dict(verification),
        }
    )
