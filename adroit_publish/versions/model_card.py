"""The model card of a version, in Markdown: for whoever has to judge it without running it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from adroit_publish.bundle.lineage import columns_of
from adroit_publish.bundle.record import Record, Verification
from adroit_publish.config.gates import kept_result
from adroit_publish.edge.text import printable
from adroit_publish.stores.records import last_publish, last_verification, output_change
from adroit_publish.version import Version
from adroit_publish.versions.signatures import signatures

Row = Sequence[object]


def model_card(version: Version) -> str:
    """Returns everything that is known of a version's model; raises as ``Version``.

    A section of which nothing is known is left out.
    """
    record = last_publish(version.records)
    seen = last_verification(version.records)
    lines = [f"# {_plain(version.model_name)} {version.name}", ""]
    lines += _section("Version", ("what", "value"), _facts(version, record))
    columns = (line.partition(" ") for line in columns_of(version.bundle.signature))
    lines += _section("Signature", ("part", "column"), ((part, name) for part, _, name in columns))
    if record:
        lines += _section("Metrics", ("metric", "value"), sorted(record.metrics.items()))
        gates = ((gate.get("gate"), kept_result(gate)) for gate in record.gates)
        lines += _section("Gates", ("gate", "result"), gates)
        data = ((one.context, one.name, one.digest, one.source) for one in record.datasets)
        lines += _section("Data", ("used for", "name", "digest", "source"), data)
    if seen:
        lines += _section("Verification", ("what", "value"), _seen(version, seen))
    signed = ((one.kind, one.key, one.who, one.problem or "yes") for one in signatures(version))
    lines += _section("Signed", ("what", "by key", "who", "counts"), signed)
    lines += _section("Requirements", ("requirement",), ((r,) for r in version.bundle.requirements))
    return "\n".join(lines)


def _facts(version: Version, record: Record | None) -> Iterator[Row]:
    bundle = version.bundle
    yield "manifest", version.published.manifest.digest
    yield "run", bundle.run_id
    yield "conda env", f"{bundle.conda_env_name} {bundle.conda_env_digest or ''}".strip()
    yield "python", bundle.python_version
    if record is None:
        return
    yield "run's page", record.run_url
    yield "experiment", record.lineage.experiment if record.lineage else None
    for name, value in record.trained_by.items():
        yield f"trained by: {name}", value
    yield "published", f"{record.created_utc} by {record.who}"
    yield "flavor", record.document.get("flavor")
    yield "commit", record.commit_url or record.commit
    yield "uncommitted", ", ".join(record.dirty)
    yield "republished from", record.republished_from
    for line in (*record.accepted_lineage, *record.went_past):
        yield "accepted", line


def _seen(version: Version, seen: Verification) -> Iterator[Row]:
    yield "how", seen.how
    yield "predicted", "yes" if seen.predicted else "no: there is no input example"
    yield "load", f"{seen.load_seconds:.1f} s" if seen.load_seconds is not None else None
    if seen.peak_memory_bytes is not None:
        yield "peak memory", f"{seen.peak_memory_bytes / (1 << 20):,.0f} MiB"
    yield "packages", len(seen.packages) or None
    yield "outputs", output_change(version.records)
    for finding in seen.findings:
        yield "finding", finding.what


def _section(title: str, header: Sequence[str], rows: Iterable[Row]) -> list[str]:
    """Returns a table with its heading; nothing where there is no row, or none with a value."""
    told = [row for row in rows if row[-1] not in (None, "")]
    if not told:
        return []
    lines = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in told]
    return [f"## {title}", "", *lines, ""]


def _plain(value: object) -> str:
    """Returns a value as a cell shows it: what a run says of itself is no Markdown and no HTML."""
    text = "" if value is None else printable(" ".join(str(value).split()))
    for mark in "\\`*_[]|<>":
        text = text.replace(mark, f"\\{mark}")
    return text
