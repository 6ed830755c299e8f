"""What a model says its environment must hold: lines of files that somebody else wrote.

Four files of an MLflow model speak of it: ``requirements.txt`` (with what it names by ``-r``), the
pip part of ``conda.yaml``, ``python_env.yaml``, and MLmodel's ``python_version``. Conda's own
packages are left out: their names are not those of Python distributions. What cannot be compared
is kept with the reason, never dropped; an address is never kept, for it may hold a credential.

Source: pip documentation, "Requirements File Format"; PEP 508; PEP 503; MLflow documentation,
"MLflow Models", "Storage Format".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from adroit_publish.bundle.content import Readable
from adroit_publish.edge.text import printable

_LIMIT_BYTES = 1 << 20
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION_AFTER = re.compile(r"\s+--?[A-Za-z].*$")
_EGG = re.compile(r"#(?:.*&)?egg=([A-Za-z0-9][\w.-]*)")
_CONDA_PYTHON = re.compile(r"python\s*={1,2}\s*(\d+(?:\.\d+)*)\s*(?:=.*)?")
_VERSION = re.compile(r"\d+(\.\d+)*")


@dataclass(frozen=True)
class Wanted:
    """One thing that an environment must hold.

    Attributes:
        name: Distribution as PEP 503 compares it, or ``python``; where a line names nothing that
            can be looked up, what is fit to be shown of it.
        specifier: PEP 440, such as ``==1.5.0``; empty for any version.
        by: Who wants it: a file of the model, or ``runtime``.
        marker: PEP 508 marker under which it is wanted, or None for always.
        unchecked: Why it cannot be compared; empty where it can.
    """

    name: str
    specifier: str
    by: str
    marker: str | None = None
    unchecked: str = ""


def model_requirements(
    files: Mapping[str, Readable], python_version: str | None
) -> tuple[Wanted, ...]:
    """Returns what a model's files, by path, want, each thing once, Python first.

    MLmodel's ``python_version``, such as ``3.11.7``, wins over the other files'.
    """
    conda, python_env = _yaml(files, "conda.yaml"), _yaml(files, "python_env.yaml")
    wanted = [*_python(python_version, python_env, conda)]
    wanted += _requirement_lines(files, "requirements.txt", "requirements.txt", set())
    wanted += _listed(files, "conda.yaml", conda, _pip_part(conda))
    wanted += _listed(files, "python_env.yaml", python_env, _strings(python_env, "dependencies"))
    # The files repeat one another; who said it first is named.
    return tuple({(w.name, w.specifier, w.marker): w for w in reversed(wanted)}.values())[::-1]


def _python(of_mlmodel: str | None, python_env: Any, conda: Any) -> Iterator[Wanted]:
    candidates = [
        ("MLmodel", of_mlmodel),
        ("python_env.yaml", python_env.get("python") if isinstance(python_env, dict) else None),
    ]
    for line in _strings(conda, "dependencies"):
        if pin := _CONDA_PYTHON.fullmatch(line.strip()):
            candidates.append(("conda.yaml", pin[1]))
    for by, version in candidates:
        if version is not None:
            if isinstance(version, str) and _VERSION.fullmatch(version):
                yield Wanted("python", _pin(version), by)
            else:
                yield Wanted("python", "", by, unchecked="not a version")
            return


def _pin(version: str) -> str:
    # `python=3.11` means any 3.11.
    return f"=={version}" if version.count(".") >= 2 else f"=={version}.*"


def _listed(files: Mapping[str, Readable], by: str, parsed: Any, lines: list[str]) -> list[Wanted]:
    if by in files and not isinstance(parsed, dict):
        return [Wanted(by, "", by, unchecked="it cannot be read as YAML")]
    return [w for line in lines for w in _of_line(line, files, "", by, {"requirements.txt"})]


def _pip_part(conda: Any) -> list[str]:
    dependencies = conda.get("dependencies") if isinstance(conda, dict) else None
    parts = [item for item in dependencies or () if isinstance(item, dict)]
    return [line for part in parts for line in _strings(part, "pip")]


def _strings(mapping: Any, key: str) -> list[str]:
    value = mapping.get(key) if isinstance(mapping, dict) else None
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _requirement_lines(
    files: Mapping[str, Readable], path: str, by: str, seen: set[str]
) -> Iterator[Wanted]:
    """Yields what the lines of one requirements file want, and of those it names by ``-r``."""
    if path in seen:
        return
    seen.add(path)
    text = _text(files, path)
    if text is None:
        if path in files or by != path:
            yield Wanted(path, "", by, unchecked="the model holds no such text")
        return
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        yield from _of_line(line, files, path, by, seen)


def _of_line(
    line: str, files: Mapping[str, Readable], path: str, by: str, seen: set[str]
) -> Iterator[Wanted]:
    text = _COMMENT.sub("", line).strip()
    if option := re.fullmatch(r"(?:-r|--requirement)[\s=]*(\S+)", text):
        nested = posixpath.normpath(posixpath.join(posixpath.dirname(path), option[1]))
        yield from _requirement_lines(files, nested, by, seen)
    elif re.match(r"(-c|--constraint)\b", text):
        yield Wanted("constraints", "", by, unchecked="constraints of an installation")
    elif option := re.fullmatch(r"(?:-e|--editable)[\s=]*(\S+)", text):
        yield _of_address(line, option[1], by)
    elif text and not text.startswith("-"):
        yield _of_requirement(line, _OPTION_AFTER.sub("", text), by)


def _of_requirement(line: str, text: str, by: str) -> Wanted:
    if text.endswith((".whl", ".tar.gz", ".zip")) and "@" not in text:  # it could pass for a name
        return _of_address(line, text, by)
    try:
        parsed = Requirement(text)
    except InvalidRequirement:
        if "://" in text or "/" in text:
            return _of_address(line, text, by)
        return Wanted(printable(text, 60), "", by, unchecked="not a PEP 508 requirement")
    marker = str(parsed.marker) if parsed.marker else None
    return Wanted(canonicalize_name(parsed.name), str(parsed.specifier), by, marker)


def _of_address(line: str, address: str, by: str) -> Wanted:
    """Returns what an address or a path names: by its egg, or by the name of its file."""
    if egg := _EGG.search(line):
        return Wanted(canonicalize_name(egg[1]), "", by)
    file = re.split(r"[?#]", address, maxsplit=1)[0].replace("\\", "/").rpartition("/")[2]
    try:
        if file.endswith(".whl"):
            name, version = parse_wheel_filename(file)[:2]
        else:
            name, version = parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return Wanted("an address", "", by, unchecked="it names no distribution")
    return Wanted(name, f"=={version}", by)


def _yaml(files: Mapping[str, Readable], path: str) -> Any:
    text = _text(files, path)
    if text is None:
        return None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        return None


def _text(files: Mapping[str, Readable], path: str) -> str | None:
    if path not in files or files[path].size_bytes > _LIMIT_BYTES:
        return None
    with files[path].open() as stream:
        try:
            return stream.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            return None
