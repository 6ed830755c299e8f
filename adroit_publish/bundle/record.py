"""The record of a publish or a promotion: a format with a number, and how it is read.

A record is a JSON object that hangs on a version and is no part of its identity. ``Record`` has
what this program reads of it; the whole stands in ``document``. Records outlive the program that
wrote them, so:

* A missing field has the default that stands here.
* A field of the same ``schema`` that is not known here adds to what is said and changes none of
  it: it is kept, shown by ``show --json``, and decides nothing.
* Whatever changes the meaning of a field that is known here takes a new ``schema``; a record of a
  higher one is refused, as written by a newer version of this program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from adroit_publish.bundle.document import parse_json_object
from adroit_publish.bundle.imports import BundleFinding, Imports
from adroit_publish.bundle.kept import (
    Fields,
    count,
    listed,
    number,
    optional,
    reading,
    table,
    text,
)
from adroit_publish.bundle.lineage import Dataset, Lineage

SCHEMA = 1
UNPROVEN = "; accepted before, in a record that nothing here can prove"
_ADDED = ("repeats", "imports", "findings", "model_env", "env", "replay")
"""Fields of a verification that stand in a record only where they say something."""


@dataclass(frozen=True)
class Verification:
    """What was seen when a bundle was loaded and asked once.

    Attributes:
        how: ``image`` for a container, or the kind of sandbox: bubblewrap, namespaces, plain;
            ``none`` where it was waived.
        predicted: Whether it predicted; False where the model has no input example.
        outputs: What it predicted on its input example, as JSON: at most 1,000 rows and 1 MiB.
        outputs_sha256: Hex digest of the whole outputs, as ``gates.reporter.sha256``.
        outputs_truncated: Whether ``outputs`` is less than the whole.
        served: Whether the real server answered too, over HTTP.
        load_seconds: How long the server took from its start until it answered.
        peak_memory_bytes: Most resident memory of the process, interpreter included.
        python_version: Of the interpreter that ran it.
        repeats: Whether the same question was answered the same way twice; outputs that do not are
            no golden ones.
        imports: What the bundle imports, and where each module is found; None where the model's
            files were not read.
        findings: What should be known of the bundle and did not stop its publish.
        model_env: Names of the environment variables that config.yaml set for the model.
        env: What the bundle wants of its env against what is there; None where nothing was read.
        replay: Of a republish, how the outputs compare with the recorded ones: ``skipped`` (why),
            or ``against`` (a version), ``identical``, ``accepted`` and the differences.
    """

    how: str = "none"
    predicted: bool = False
    outputs: Any = None
    outputs_sha256: str | None = None
    outputs_truncated: bool = False
    served: bool = False
    load_seconds: float | None = None
    predict_seconds: float | None = None
    peak_memory_bytes: int | None = None
    python_version: str | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    repeats: bool = True
    imports: Imports | None = None
    findings: tuple[BundleFinding, ...] = ()
    model_env: tuple[str, ...] = ()
    env: Mapping[str, Any] | None = None
    replay: Mapping[str, Any] | None = None

    @property
    def looked(self) -> bool:
        """Whether anything was loaded at all."""
        return self.how != "none"

    @property
    def accepted_change(self) -> str | None:
        """By how much the outputs moved, where that is too much and somebody accepted it."""
        return accepted_change(self.replay)

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values, with the attributes' names."""
        default = Verification()
        absent = [name for name in _ADDED if getattr(self, name) == getattr(default, name)]
        return {name: value for name, value in asdict(self).items() if name not in absent}


def accepted_change(replay: Mapping[str, Any] | None) -> str | None:
    """Returns a line on the change of outputs that was accepted by hand, or None without one."""
    if not replay or not replay.get("accepted"):
        return None
    moved = f"{replay.get('differing')} of {replay.get('leaves')} values differ"
    return f"{moved} from {replay.get('against')}, accepted by hand"


@dataclass(frozen=True)
class Promoted:
    """From where to where a version was promoted: names of targets, and where it was read."""

    source: str
    destination: str
    places: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {"from": self.source, "to": self.destination, "places": list(self.places)}


@dataclass(frozen=True)
class Record:
    """What is read of a record.

    Attributes:
        document: The whole, as it is kept.
        created_utc: When, ISO 8601; None where it does not say.
        run_url: Where the run can be looked at, or None.
        trained_by: What made the run, as ``mlflow.trained_by`` has it.
        datasets: What the run was trained and tested on.
        origin: What started the publish, such as the Metaflow run.
        commit_url: The commit's page, or None.
        dirty: Paths that were packed from the working tree instead.
        republished_from: The version whose model it is, where it was republished.
        lineage: Where the run comes from; None in records from before it was kept.
        accepted_lineage: How it differed from the model's versions, where that was accepted.
        went_past: The live rollover that it was published despite.
        gates: How the gates of config.yaml were judged, as ``config.gates.GateResult``.
        verification: What was seen; None in the record of a promotion that did not look.
        promoted: From where to where; None in the record of a publish.
    """

    document: Mapping[str, Any]
    created_utc: str | None
    who: str | None
    run_id: str | None
    run_url: str | None
    metrics: Mapping[str, float]
    trained_by: Mapping[str, str]
    datasets: tuple[Dataset, ...]
    origin: Mapping[str, str]
    commit: str | None
    commit_url: str | None
    dirty: tuple[str, ...]
    republished_from: str | None
    lineage: Lineage | None
    accepted_lineage: tuple[str, ...]
    went_past: tuple[str, ...]
    gates: tuple[Mapping[str, Any], ...]
    verification: Verification | None
    promoted: Promoted | None


def parse_record(data: bytes, where: str) -> Record:
    """Returns the record in ``data``.

    Raises:
        VerificationError: It is damaged, or was written by a newer version of this program.
    """
    document = parse_json_object(data, where)
    with reading("A record", where, document.get("schema", SCHEMA), SCHEMA):
        return _record(document)


def _record(document: Mapping[str, Any]) -> Record:
    fields = Fields(document)
    return Record(
        document=document,
        created_utc=fields.take("created_utc", optional(text), None),
        who=fields.take("who", optional(text), None),
        run_id=fields.take("run_id", optional(text), None),
        run_url=fields.take("run_url", optional(text), None),
        metrics=fields.take("metrics", table, {}),
        trained_by=fields.take("trained_by", table, {}),
        datasets=fields.take("datasets", listed(_dataset), ()),
        origin=fields.take("origin", table, {}),
        commit=fields.take("commit", optional(text), None),
        commit_url=fields.take("commit_url", optional(text), None),
        dirty=fields.take("dirty", listed(text), ()),
        republished_from=fields.take("republished_from", optional(text), None),
        lineage=fields.take("lineage", optional(_lineage), None),
        accepted_lineage=fields.take("accepted_lineage", listed(text), ()),
        went_past=fields.take("went_past", listed(text), ()),
        gates=fields.take("gates", listed(table), ()),
        verification=fields.take("verification", optional(_verification), None),
        promoted=fields.take("promoted", optional(_promoted), None),
    )


def _dataset(value: Any) -> Dataset:
    fields = Fields(value)
    return Dataset(
        fields.take("name", text, ""),
        fields.take("digest", text, ""),
        fields.take("source", text, ""),
        fields.take("context", text, ""),
    )


def _lineage(value: Any) -> Lineage:
    fields = Fields(value)
    return Lineage(
        fields.take("experiment", optional(text), None),
        fields.take("experiment_id", optional(text), None),
        fields.take("flow", optional(text), None),
        fields.take("columns", listed(text), ()),
    )


def _promoted(value: Any) -> Promoted:
    fields = Fields(value)
    return Promoted(
        fields.take("from", text, ""),
        fields.take("to", text, ""),
        fields.take("places", listed(text), ()),
    )


def _verification(value: Any) -> Verification:
    fields = Fields(value)
    return Verification(
        how=fields.take("how", text, "none"),
        predicted=fields.take("predicted", bool, False),
        outputs=fields.take("outputs", lambda outputs: outputs, None),
        outputs_sha256=fields.take("outputs_sha256", optional(text), None),
        outputs_truncated=fields.take("outputs_truncated", bool, False),
        served=fields.take("served", bool, False),
        load_seconds=fields.take("load_seconds", optional(number), None),
        predict_seconds=fields.take("predict_seconds", optional(number), None),
        peak_memory_bytes=fields.take("peak_memory_bytes", optional(count), None),
        python_version=fields.take("python_version", optional(text), None),
        packages=fields.take("packages", table, {}),
        repeats=fields.take("repeats", bool, True),
        imports=fields.take("imports", optional(_imports), None),
        findings=fields.take("findings", listed(_finding), ()),
        model_env=fields.take("model_env", listed(text), ()),
        env=fields.take("env", optional(table), None),
        replay=fields.take("replay", optional(table), None),
    )


def _imports(value: Any) -> Imports:
    fields = Fields(value)
    return Imports(
        source=fields.take("source", listed(text), ()),
        model=fields.take("model", listed(text), ()),
        env=fields.take("env", listed(text), ()),
        homes=fields.take("homes", table, {}),
        unreadable=fields.take("unreadable", listed(text), ()),
        pickled=fields.take("pickled", _pickled, {}),
    )


def _pickled(value: Any) -> dict[str, tuple[str, ...]]:
    return {path: listed(text)(names) for path, names in table(value).items()}


def _finding(value: Any) -> BundleFinding:
    fields = Fields(value)
    return BundleFinding(fields.take("name", text, ""), fields.take("what", text, ""))
