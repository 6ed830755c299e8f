"""Where a publish gets its two inputs from: the model's files and the project's files.

``mlflow_model`` turns a run id into the one model it holds and the list of that model's files;
``artifacts`` brings those files within reach, in place or through a cache; ``git_source`` turns a
commit into the project's files. Everything read here was written by others: addresses, listings
and file names are checked before they are used. Floor 3: imports ``bundle`` and ``errors`` only.
"""

from __future__ import annotations

from adroit_publish.sources.artifacts import LocalFile, PulledModel, pull_model
from adroit_publish.sources.git_source import Snapshot, SourceFile, snapshot
from adroit_publish.sources.listing import RemoteFile
from adroit_publish.sources.mlflow_model import resolve_model
from adroit_publish.sources.resolved_model import ResolvedModel

__all__ = [
    "LocalFile",
    "PulledModel",
    "RemoteFile",
    "ResolvedModel",
    "Snapshot",
    "SourceFile",
    "pull_model",
    "resolve_model",
    "snapshot",
]
