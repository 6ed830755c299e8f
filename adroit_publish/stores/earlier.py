"""What is known of a model's published versions: where they came from, and how the live one does.

Read from the records of every version, whatever checkout names it. A version that is damaged tells
nothing; ``verify`` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from adroit_publish.bundle.lineage import Lineage, columns_of, flow_of
from adroit_publish.bundle.record import Record
from adroit_publish.config.gates import measured_values
from adroit_publish.errors import StoreError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore
from adroit_publish.stores.live import live_at, look
from adroit_publish.stores.records import last_publish, records

THREADS = 8


@dataclass(frozen=True)
class Earlier:
    """The versions of a model that were published before.

    Attributes:
        lineages: Where they came from: each lineage once, by a version that has it.
        live: Metrics and measurements of the live version, by name: of the one that the ledger
            gives most requests to, or, where it names none, of the one that was published last.
            None before the first publish.
    """

    lineages: Mapping[str, Lineage]
    live: Mapping[str, float] | None


def earlier_versions(store: BundleStore, model_name: str, now: datetime) -> Earlier:
    """Returns what is known of a model's versions at a time, aware of its zone.

    Raises:
        StoreError: The store failed.
    """
    with ThreadPoolExecutor(THREADS, "earlier") as pool:
        names = [*store.version_names(model_name)]
        read = pool.map(lambda name: (name, *_read(store, model_name, name)), names)
        known = list(read)
    lineages = {lineage: version for version, lineage, _ in known if lineage != Lineage()}
    publishes = {version: record for version, _, record in known if record}
    live = live_at(look(store, model_name).proven, now)
    shares = sorted(live.shares if live else (), key=lambda share: share.weight)
    names = [share.version for share in shares if share.version in publishes]
    names = names or sorted(publishes, key=lambda version: publishes[version].created_utc or "")
    return Earlier(
        {version: lineage for lineage, version in lineages.items()},
        values_of(publishes[names[-1]]) if names else None,
    )


def values_of(record: Record) -> dict[str, float]:
    """Returns the values that gates compare: the run's metrics, and what was measured."""
    metrics = {k: v for k, v in record.metrics.items() if isinstance(v, int | float)}
    sizes = (layer.get("size_bytes", 0) for layer in record.document.get("layers", ()))
    return metrics | measured_values(record.verification, sum(sizes))


def _read(store: BundleStore, model_name: str, version: str) -> tuple[Lineage, Record | None]:
    try:
        published = store.find(model_name, version)
        if published is None:
            return Lineage(), None
        record = last_publish(records(store, published))
        if record and record.lineage:
            return record.lineage, record
        columns = columns_of(store.bundle_record(published, store.manifest(published)).signature)
        return Lineage(flow=flow_of(record.trained_by if record else {}), columns=columns), record
    except (StoreError, VerificationError) as error:
        if isinstance(error, StoreError) and error.transient:
            raise
        return Lineage(), None
