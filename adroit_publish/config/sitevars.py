"""The sitevar ``adroit_model_versions``: which flavor of a model is live, or which share of each.

The format is ``adroit.sitevars.document``, which services read by. Here are its errors for people,
and its one spelling: keys sorted, indented by two, a newline at the end. An edit changes one
model's entry; whatever the other entries say, they go on saying it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from adroit.sitevars.document import Pointer, read_object, read_pointers
from adroit_publish.config.names import name_problem
from adroit_publish.errors import ConfigError, Problem

__all__ = ["Pointer", "check_model_name", "parse_sitevar", "with_pointer"]

_NEXT = "mend the document at its place; nothing was changed"


def parse_sitevar(data: bytes, where: str) -> dict[str, Pointer]:
    """Returns the pointers by model; raises ConfigError with all problems of the document."""
    return _read(data, where)[1]


def with_pointer(data: bytes | None, model: str, pointer: Pointer, where: str) -> bytes:
    """Returns the document with one model's entry set; None stands for one that is not there yet.

    Raises:
        ConfigError: The document is not what it has to be: then nothing of it can be kept safely.
    """
    entries = {} if data is None else dict(_read(data, where)[0])
    entries[model] = pointer.as_json()
    text = json.dumps(entries, ensure_ascii=False, sort_keys=True, indent=2, allow_nan=False)
    return f"{text}\n".encode()


def check_model_name(model: str) -> None:
    """Lets a name pass that a model can have; raises ConfigError for any other."""
    if problem := name_problem(model, ascii_only=True):
        raise ConfigError(f"A model's name {problem}.", got=repr(model[:80]))


def _read(data: bytes, where: str) -> tuple[Mapping[str, object], dict[str, Pointer]]:
    try:
        entries = read_object(data)
    except ValueError as reason:
        raise ConfigError.of([Problem(where, 0, f"the sitevar {reason}")], _NEXT) from None
    pointers, problems = read_pointers(entries)
    if problems:
        told = [Problem(where, 0, f"{model!r:.80} {text}") for model, text in problems.items()]
        raise ConfigError.of(told, _NEXT)
    return entries, pointers
