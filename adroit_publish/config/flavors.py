"""flavors.yaml: what is to be served, as checked values.

Each top-level key is a flavor, but for those that start with ``x-``. A flavor has ``config`` and
``conda_env``, and may have ``version``, ``artifact`` and ``hold``; any other key belongs to another
tool, unless it is so near to one of these that it is a slip.

A version is what its scalar spells, not what YAML makes of it: a run id of digits alone, or one
like ``1234567e...``, is a number to YAML and still the run id that was meant. What spells neither
a run id nor a published version is a problem, and where YAML reads it as a number it says so.
"""

from __future__ import annotations

from collections import abc
from contextlib import suppress
from dataclasses import dataclass

from adroit_publish.bundle.version_names import PublishedVersion, RunId, parse_version
from adroit_publish.config.names import name_problem, nearest
from adroit_publish.config.yaml.text import Report, read_yaml
from adroit_publish.config.yaml.tree import Entry, Mapping, Scalar, deref
from adroit_publish.config.yaml.values import Section, is_null, own_entries, scalar_value
from adroit_publish.errors import ConfigError

KNOWN_KEYS = ("config", "conda_env", "version", "artifact", "hold")

_WANTED_VERSION = (
    "a run id (32 lower-case hex digits), a published version (v, 8 and 12 hex digits), or nothing"
)


@dataclass(frozen=True)
class Flavor:
    """One deployable variant of a model.

    Attributes:
        config: The project's config.yaml, a POSIX path relative to the repository's root.
        conda_env: A name in conda_envs.yaml.
        version: A run id to publish, a published version, or None.
        artifact: The logged name of the model, where its run logged several.
        hold: Why CI has to leave this flavor alone; None where it is not held.
        line: Where it stands in flavors.yaml, from 1.
    """

    name: str
    config: str
    conda_env: str
    version: RunId | PublishedVersion | None
    artifact: str | None
    hold: str | None
    line: int


def parse_flavors(
    data: bytes, file: str = "flavors.yaml", envs: abc.Sequence[str] = ()
) -> dict[str, Flavor]:
    """Returns the flavors by name, in the order of the file.

    Args:
        envs: The conda envs there are, for a flavor that names none.

    Raises:
        ConfigError: The file is not acceptable YAML (see ``yaml_text``), or a flavor is not what
            it has to be; all problems together, each with its line.
    """
    report = Report(file)
    entries = own_entries(read_yaml(data, file), "flavor names", report)
    flavors = {name: _read_flavor(name, entry, report, envs) for name, entry in entries.items()}
    report.check()
    return flavors


def find_flavor(flavors: abc.Mapping[str, Flavor], name: str, file: str = "flavors.yaml") -> Flavor:
    """Returns the flavor of that name; raises ConfigError with the names most like it."""
    if name in flavors:
        return flavors[name]
    raise ConfigError(
        f"There is no flavor {name!r}.",
        where=file,
        wanted=f"one of: {nearest(name, flavors)}",
        next_step=f"name one of these, or add {name!r} to {file}",
    )


def publish_command(flavor: Flavor) -> str:
    """Returns what to type to publish a flavor; ``RUN_ID`` stands for what flavors.yaml lacks."""
    run = "" if flavor.version else " --mlflow-run-id=RUN_ID"
    return f"python publish_mlflow_model_flow.py run --flavor={flavor.name}{run}"


def own_text(entry: Entry | None) -> str | None:
    """Returns what a version's entry spells; None where it is missing, null or empty.

    A block scalar (``|``) is taken without the line break that it ends with. Raises ValueError
    where the value is a list or a mapping.
    """
    node = deref(entry.value) if entry else None
    if node is None or is_null(node):
        return None
    if not isinstance(node, Scalar):
        raise ValueError("must be a string, not a list or a mapping")
    return (node.text.strip() if node.style in ("|", ">") else node.text) or None


def _read_flavor(name: str, entry: Entry, report: Report, envs: abc.Sequence[str]) -> Flavor:
    line = entry.key.line
    problem = name_problem(name)
    if problem:
        report.add(line, f"the flavor name {name[:80]!r} {problem}")
    if is_null(entry.value):
        report.add(line, f"flavor {name!r} is empty; it needs 'config' and 'conda_env'")
        return Flavor(name, "", "", None, None, None, line)
    section = Section(entry.value, f"flavor {name!r}", line, report, KNOWN_KEYS)
    whole = isinstance(deref(entry.value), Mapping)
    config = section.path("config", required=whole)
    if config is not None and ("/" not in config or not config.endswith((".yaml", ".yml"))):
        section.problem("config", "'config' must name a project's file, projects/NAME/config.yaml")
    conda_env = section.text("conda_env", required=whole and not envs)
    if whole and envs and conda_env is None:
        section.problem("conda_env", f"'conda_env' is missing; one of: {', '.join(envs)}")
    if conda_env is not None and (problem := name_problem(conda_env)):
        section.problem("conda_env", f"'conda_env' {problem}")
    return Flavor(
        name=name,
        config=config or "",
        conda_env=conda_env or "",
        version=_read_version(section),
        artifact=section.text("artifact"),
        hold=None if section.value("hold") in (None, False) else _read_hold(section),
        line=line,
    )


def _read_version(section: Section) -> RunId | PublishedVersion | None:
    entry = section.entries.get("version")
    try:
        text = own_text(entry)
    except ValueError as reason:
        section.problem("version", f"'version' {reason}")
        return None
    if text is None:
        return None
    with suppress(ValueError):
        return parse_version(text)
    message = f"'version' is {text[:80]!r}; it must be {_WANTED_VERSION}"
    node = deref(entry.value) if entry else None
    if isinstance(node, Scalar) and isinstance(scalar_value(node), int | float):
        message += "; YAML reads this one as a number or a truth value: quote it"
    section.problem("version", message)
    return None


def _read_hold(section: Section) -> str | None:
    """``hold: true`` holds as well as a reason does."""
    return "held" if section.value("hold") is True else section.text("hold")
