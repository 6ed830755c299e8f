"""What the ``MLmodel`` file of a pulled model says of it. It is somebody else's file: untrusted.

Source: MLflow documentation, "MLflow Models", "Storage Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adroit_publish.bundle.content import Readable
from adroit_publish.errors import SourceError

_LIMIT_BYTES = 8 << 20


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
    """Returns the facts of a model's files.

    Args:
        files: The model's files by relative path; ``MLmodel`` among them.

    Raises:
        SourceError: MLmodel or requirements.txt cannot be read as what it should be.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(_text(files, "MLmodel"))
    except (YAMLError, ValueError, RecursionError) as error:
        raise _malformed("MLmodel", str(error).splitlines()[0]) from error
    if not isinstance(value, dict):
        raise _malformed("MLmodel", f"a {type(value).__name__}")
    pyfunc = (value.get("flavors") or {}).get("python_function") or {}
    lines = _text(files, "requirements.txt").splitlines() if "requirements.txt" in files else []
    stripped = (line.strip() for line in lines)
    return MlmodelFacts(
        model_uuid=_string(value.get("model_uuid")),
        signature=_signature(value.get("signature")),
        requirements=tuple(line for line in stripped if line and not line.startswith("#")),
        python_version=_string(pyfunc.get("python_version")),
    )


def _text(files: Mapping[str, Readable], path: str) -> str:
    if files[path].size_bytes > _LIMIT_BYTES:
        raise _malformed(path, f"{files[path].size_bytes} bytes")
    with files[path].open() as stream:
        try:
            return stream.read().decode()
        except UnicodeDecodeError as error:
            raise _malformed(path, "not UTF-8") from error


def _signature(value: Any) -> Mapping[str, Any] | None:
    if value is None:
        return None
    try:
        parts = {key: json.loads(part) for key, part in value.items() if part is not None}
    except (AttributeError, TypeError, ValueError) as error:
        raise _malformed("MLmodel", "a signature that is no JSON") from error
    return parts


def _string(value: Any) -> str | None:
    return None if value is None else str(value)


def _malformed(path: str, got: str) -> SourceError:
    return SourceError(
        f"The model's {path} cannot be read.",
        where=path,
        got=got,
        wanted="a file as MLflow writes it, at most 8 MiB",
        next_step="log the model again",
    )
