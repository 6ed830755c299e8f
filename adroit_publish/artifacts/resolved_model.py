"""The value that a run id resolves to: small, frozen, and enough to pull the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from adroit_publish.bundle.lineage import Dataset, Lineage, flow_of
from adroit_publish.bundle.listing import RemoteFile


@dataclass(frozen=True)
class ResolvedModel:
    """One model of one run, by reference.

    Attributes:
        run_id: 32 hex digits.
        model_id: MLflow 3's ``m-...``; None where the model lies in the run's artifacts (MLflow 2).
        name: The name it was logged under.
        artifact_uri: Where its files are: ``file:///...``, ``s3://...``, ``dbfs:...``, or the URL
            of the tracking server's artifact proxy. Never holds credentials.
        files: Its files, sorted by the bytes of their paths; ``MLmodel`` is among them.
        tracking_uri: The store it was resolved in. Never holds credentials.
        run_url: The run's page; None where the tracking store has none.
        metrics: The run's last value of each metric.
        trained_by: What made it, as its tags say; see ``trained_by.trained_by``.
        datasets: What it was trained and tested on, where that was logged.
        cache_key: A directory name that no other model's files share.
    """

    run_id: str
    model_id: str | None
    name: str
    artifact_uri: str
    files: tuple[RemoteFile, ...]
    tracking_uri: str
    experiment_id: str
    run_name: str
    run_url: str | None
    metrics: Mapping[str, float] = field(compare=False)
    cache_key: str
    trained_by: Mapping[str, str] = field(default_factory=dict, compare=False)
    datasets: tuple[Dataset, ...] = field(default=(), compare=False)
    experiment: str | None = None
    started_utc: str | None = None

    @property
    def lineage(self) -> Lineage:
        """Where it comes from, as far as that is known before its files are here."""
        return Lineage(self.experiment, self.experiment_id, flow_of(self.trained_by))

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)
