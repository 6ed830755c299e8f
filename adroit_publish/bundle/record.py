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
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from adroit_publish.bundle.document import parse_json_object
from adroit_publish.errors import VerificationError

SCHEMA = 1


@dataclass(frozen=True)
class Verification:
    """What was seen when a bundle was loaded and asked once.

    Attributes:
        how: ``image`` for a container, or the kind of sandbox: bubblewrap, namespaces, plain;
            ``none`` where it was waived.
        predicted: Whether it predicted; False where the model has no input example.
        outputs: What it predicted on its input example, as JSON: at most 1,000 rows and 1 MiB.
        outputs_sha256: Hex digest of the whole outputs, as ``adroit.serving.outputs.sha256``.
        outputs_truncated: Whether ``outputs`` is less than the whole.
        served: Whether the real server answered too, over HTTP.
        load_seconds: How long the handler took to load.
        predict_seconds: How long it took to predict.
        peak_memory_bytes: Most resident memory of the process, interpreter included.
        python_version: Of the interpreter that ran it.
        packages: Installed there, name to version.
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
    env: Mapping[str, Any] | None = None
    replay: Mapping[str, Any] | None = None

    @property
    def looked(self) -> bool:
        """Whether anything was loaded at all."""
        return self.how != "none"

    @property
    def accepted_change(self) -> bool:
        """Whether the outputs moved by more than is allowed, and somebody accepted that."""
        return bool((self.replay or {}).get("accepted"))

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values, with the attributes' names."""
        absent = [name for name in ("env", "replay") if getattr(self, name) is None]
        return {name: value for name, value in asdict(self).items() if name not in absent}


@dataclass(frozen=True)
class Promoted:
    """From where to where a version was promoted.

    Attributes:
        source: Name of the target it was read from.
        destination: Name of the target that has it since.
        places: Where it was read.
    """

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
        who: Who ran the command, or None.
        run_id: The MLflow run of the model, or None.
        run_url: Where the run can be looked at, or None.
        metrics: The run's metrics.
        trained_by: What made the run, as ``mlflow.trained_by`` has it.
        origin: What started the publish, such as the Metaflow run.
        commit: The commit of the source, or None.
        commit_url: The commit's page, or None.
        dirty: Paths that were packed from the working tree instead.
        republished_from: The version whose model it is, where it was republished.
        verification: What was seen; None where it is no record of a publish.
        promoted: From where to where; None where it is no record of a promotion.
    """

    document: Mapping[str, Any]
    created_utc: str | None
    who: str | None
    run_id: str | None
    run_url: str | None
    metrics: Mapping[str, float]
    trained_by: Mapping[str, str]
    origin: Mapping[str, str]
    commit: str | None
    commit_url: str | None
    dirty: tuple[str, ...]
    republished_from: str | None
    verification: Verification | None
    promoted: Promoted | None


def parse_record(data: bytes, where: str) -> Record:
    """Returns the record in ``data``.

    Args:
        data: The JSON object.
        where: What it belongs to, for messages.

    Raises:
        VerificationError: It is damaged, or was written by a newer version of this program.
    """
    document = parse_json_object(data, where)
    schema = document.get("schema", SCHEMA)
    if schema != SCHEMA:
        raise VerificationError(
            "A record was written by a newer version of this program.",
            where=where,
            got=f"schema {schema!r}",
            wanted=f"schema {SCHEMA}",
            next_step="update this checkout and its environment, then run the command again",
        )
    try:
        return _record(document)
    except (TypeError, ValueError, AttributeError) as error:
        raise VerificationError("A record is damaged.", where=where, got=str(error)) from error


def _record(document: Mapping[str, Any]) -> Record:
    def text(name: str) -> str | None:
        value = document.get(name)
        return None if value is None else str(value)

    verification, promoted = document.get("verification"), document.get("promoted")
    return Record(
        document=document,
        created_utc=text("created_utc"),
        who=text("who"),
        run_id=text("run_id"),
        run_url=text("run_url"),
        metrics=dict(document.get("metrics") or {}),
        trained_by=dict(document.get("trained_by") or {}),
        origin=dict(document.get("origin") or {}),
        commit=text("commit"),
        commit_url=text("commit_url"),
        dirty=tuple(document.get("dirty") or ()),
        republished_from=text("republished_from"),
        verification=None if verification is None else _verification(verification),
        promoted=None
        if promoted is None
        else Promoted(
            str(promoted.get("from", "")),
            str(promoted.get("to", "")),
            tuple(map(str, promoted.get("places", ()))),
        ),
    )


def _verification(value: Mapping[str, Any]) -> Verification:
    known = {each.name for each in fields(Verification)}
    seen = Verification(**{name: given for name, given in value.items() if name in known})
    if not isinstance(seen.how, str) or not isinstance(seen.packages, Mapping):
        raise TypeError("a verification of another shape")
    return seen
