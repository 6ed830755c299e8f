"""The record of a publish: who, when, from where, how it went. No part of a version's identity.

Records hang on a version as referrers; more can be added, none is ever changed.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from adroit_publish.bundle.document import canonical_json, parse_json_object
from adroit_publish.bundle.manifest import RECORD_MEDIA_TYPE
from adroit_publish.pipeline.release import Release
from adroit_publish.stores.bundle_store import BundleStore, Published

SCHEMA = 1


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
    for not_of_this_publish in ("expected", "news"):
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


def records(store: BundleStore, published: Published) -> list[dict[str, Any]]:
    """Returns the records of a version, oldest first; raises as ``BundleStore.attached`` does."""
    found = [
        parse_json_object(data, f"record of {published.version}")
        for data in store.attached(published, RECORD_MEDIA_TYPE)
    ]
    return sorted(found, key=lambda record: str(record.get("created_utc")))


def user_name() -> str:
    """Returns who runs this, as Metaflow would name them; ``unknown`` where nobody can tell."""
    for variable in ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER"):
        if name := os.environ.get(variable):
            return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
