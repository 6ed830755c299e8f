"""What releases change in flavors.yaml: a version of a flavor, or a new flavor beside the old."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adroit_publish.pipeline.release import Release
from adroit_publish.pipeline.write_back import write_versions


def write_releases(path: Path, releases: Sequence[Release]) -> tuple[str, ...]:
    news = {r.flavor: (r.expected, r.version) for r in releases if r.news}
    return write_versions(path, news) if news else ()
