"""environment.yml: what conda is to install, and the part of it that pip is.

Only what a build has to know is read; the rest of the file is conda's. A requirement that starts
with ``-`` (``-r other.txt``, ``--index-url``) is refused: it names what the build does not have.

Source: conda user guide, "Creating an environment file manually".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from adroit_publish.config.yaml.text import Report, read_yaml
from adroit_publish.config.yaml.values import Section, value_of

_PYTHON = re.compile(r"python\s*={1,2}\s*(3\.\d+)[\d.*]*")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Environment:
    """What an environment.yml asks for.

    Attributes:
        channels: Names or URLs, as written, without ``nodefaults``.
        python: Python's minor version, ``3.11``, where the file pins it.
        conda: The conda packages beside python and pip, as written.
        pip: The requirements for pip, as written.
    """

    channels: tuple[str, ...]
    python: str | None
    conda: tuple[str, ...]
    pip: tuple[str, ...]


def parse_environment(data: bytes, file: str) -> Environment:
    """Returns what the file asks for; raises ConfigError with all its problems, by line."""
    document, report = read_yaml(data, file), Report(file)
    section = Section(document.root, "the environment", 1, report, ("channels", "dependencies"))
    channels = tuple(name for name in section.texts("channels") if name != "nodefaults")
    conda, pip = _dependencies(section)
    report.check()
    pinned = [match[1] for match in map(_PYTHON.fullmatch, conda) if match]
    others = [spec for spec in conda if _NAME.match(spec)[0] not in ("python", "pip")]  # type: ignore[index]
    return Environment(channels, pinned[0] if pinned else None, tuple(others), tuple(pip))


def _dependencies(section: Section) -> tuple[list[str], list[str]]:
    entry = section.entries.get("dependencies")
    listed = value_of(entry.value) if entry else None
    conda: list[str] = []
    pip: list[str] = []
    for item in listed if isinstance(listed, list) else [None]:
        if isinstance(item, str) and _NAME.match(item):
            conda.append(item)
        elif isinstance(item, dict) and set(item) == {"pip"} and _requirements(item["pip"]):
            pip += item["pip"]
        else:
            allowed = "conda packages, and `pip:` with a list of requirements"
            section.problem("dependencies", f"'dependencies' must list {allowed}")
    return conda, pip


def _requirements(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, str) and item.isprintable() and _NAME.match(item) for item in value
    )
