"""What the ``MLmodel`` file of a pulled model says of it. It is somebody else's file: untrusted.

Source: MLflow documentation, "MLflow Models", "Storage Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.content import Readable
from adroit_publish.config.yaml.tree import MAX_DEPTH, MAX_NODES
from adroit_publish.errors import SourceError

_LIMIT_BYTES = 4 << 20
"""A signature of 50,000 columns takes 3 MiB; a file of four is parsed within a second."""
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class MlmodelFacts:
    """The parts of an MLmodel file that a bundle records.

    Attributes:
        model_uuid: MLflow's id of the saved model, or None.
        signature: ``inputs``, ``outputs`` and ``params`` as parsed JSON, or None.
        requirements: Lines of requirements.txt without comments and blanks.
        python_version: The Python it was logged under, such as ``3.11.7``, or None.
    """

    model_uuid: str | None
    signature: Mapping[str, Any] | None
    requirements: tuple[str, ...]
    python_version: str | None


def read_mlmodel(files: Mapping[str, Readable]) -> MlmodelFacts:
    """Returns the facts of a model's files; raises SourceError where they cannot be read."""
    mlmodel = parse_mlmodel(_text(files, "MLmodel"))
    pyfunc = _table(_table(mlmodel, "flavors"), "python_function")
    lines = _text(files, "requirements.txt").splitlines() if "requirements.txt" in files else []
    stripped = (line.strip() for line in lines)
    return MlmodelFacts(
        model_uuid=_string(mlmodel.get("model_uuid")),
        signature=_signature(mlmodel.get("signature")),
        requirements=tuple(line for line in stripped if line and not line.startswith("#")),
        python_version=_string(pyfunc.get("python_version")),
    )


def parse_mlmodel(text: str) -> dict[str, Any]:
    """Returns the mapping that MLmodel holds, every scalar of it as its text.

    By the parser that MLflow loads it with, which is many times faster than the one that reads our
    users' files; so a ``model_uuid`` of digits and one ``e`` stays what it is, whichever YAML.
    Raises SourceError where it is not a mapping in YAML, or beyond the limits of other files.
    """
    import yaml  # type: ignore[import-untyped]

    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    nodes = depth = 0
    try:
        for event in yaml.parse(text, Loader=loader):
            nodes += isinstance(event, yaml.NodeEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if nodes > MAX_NODES or depth > MAX_DEPTH:
                limit = f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels"
                raise _malformed("MLmodel", f"{limit}, from line {event.start_mark.line + 1}")
        mlmodel = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _malformed("MLmodel", str(error).partition("\n")[0]) from error
    if not isinstance(mlmodel, dict):
        raise _malformed("MLmodel", f"a {type(mlmodel).__name__}")
    return mlmodel


def _table(mapping: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = mapping.get(key, {})
    if isinstance(value, dict):
        return value
    if value in _NULLS:
        return {}
    raise _malformed("MLmodel", f"{key}: a {type(value).__name__}")


def _text(files: Mapping[str, Readable], path: str) -> str:
    if files[path].size_bytes > _LIMIT_BYTES:
        raise _malformed(path, f"{files[path].size_bytes} bytes")
    with files[path].open() as stream:
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise _malformed(path, "not UTF-8") from error


def _signature(value: Any) -> Mapping[str, Any] | None:
    if value is None or value in _NULLS:
        return None
    try:
        parts = {key: json.loads(part) for key, part in value.items() if part not in _NULLS}
    except (AttributeError, TypeError, ValueError) as error:
        raise _malformed("MLmodel", "a signature that is not JSON") from error
    return parts


def _string(value: Any) -> str | None:
    return None if value is None or value in _NULLS else str(value)


def _malformed(path: str, got: str) -> SourceError:
    return SourceError(
        f"The model's {path} cannot be read.",
        where=path,
        got=got,
        wanted=f"a file as MLflow writes it, at most {_LIMIT_BYTES >> 20} MiB",
        next_step="log the model again",
    )
