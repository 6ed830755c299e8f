"""projects/NAME/config.yaml: how one model is served, packed and checked.

The ``serve`` section goes into ``bundle.json`` as it is, merges and aliases carried out, so keys
in it that this program does not know are kept. ``source``, ``verify``, ``security`` and
``serve.handler`` are this program's alone: an unknown key there would be without effect, so it is
an error. Other keys at the top belong to other tools. A key near a known one is an error anywhere.

``excluded`` decides what of a project is not packed, by .gitignore's patterns without ``!``.

Source: gitignore(5), "PATTERN FORMAT"; OCI distribution specification 1.1, section "Pulling
manifests" (the grammar of repository names).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from adroit_publish.config.gates import MEASURED, Gate, read_gates
from adroit_publish.config.names import name_problem, relative_path
from adroit_publish.config.rollout import KEYS as ROLLOUT_KEYS
from adroit_publish.config.rollout import Rollout, read_rollout
from adroit_publish.config.serve import KNOWN, check_serve
from adroit_publish.config.yaml.text import Report, read_yaml
from adroit_publish.config.yaml.values import Section

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

DEFAULT_EXCLUDES = ("config.yaml", "flow.py", "tests/", "*.md", "*.ipynb")
DEFAULT_RTOL = 1e-6
MAX_STARS = 10  # each one more multiplies what a regular expression may try

NO_MODELS = frozenset({"blobs", "ledger", "rollovers", "sitevars", "tmp"})
"""Names that stand beside the models in a store; no model may be called so."""
_TOP = ("model_name", "serve", "source", "verify", "security", "gates", "rollout")
_CLASS_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_GLOBAL = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFUSED_ENV = re.compile(r"(ADROIT|AWS|DYLD|LD)_.*|PYTHON.*|PATH|HOME|TMPDIR")
_FINDING = re.compile(r"(import|module|shadow|unimported):[^\W\d]\w*(\.[^\W\d]\w*)*")
_FINDINGS = "import:, module: or shadow: and a module, or unimported: and a module"
_OCI_COMPONENT = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")


@dataclass(frozen=True)
class Handler:
    """The class that serves the model (``module.path:Class``), and its keyword arguments."""

    class_path: str
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Project:
    """One model's config.yaml.

    Attributes:
        include: Further directories to pack, relative to the repository's root.
        exclude: The project's own patterns for ``excluded``, beside ``DEFAULT_EXCLUDES``.
        rtol: How far a republished model's outputs may differ, relative.
        env: Environment variables that a verification sets, in the place of secrets that the model
            finds where it is served.
        accept: Findings of a gate that are accepted, such as ``shadow:calendar``.
        allow_pickle_globals: ``module.name`` entries waived for this model.
        allow_secrets: Digests of files that may hold what looks like a secret.
        gates: What a run and its bundle have to be.
        serve: The serve section as JSON values.
        rollout: How a rollover of the model goes unless told otherwise.
    """

    model_name: str
    handler: Handler
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    rtol: float
    env: Mapping[str, str]
    accept: tuple[str, ...]
    allow_pickle_globals: tuple[str, ...]
    allow_secrets: tuple[str, ...]
    serve: Mapping[str, Any]
    gates: tuple[Gate, ...] = ()
    rollout: Rollout = field(default_factory=Rollout)

    @property
    def run_gates(self) -> tuple[Gate, ...]:
        """The gates on the run's metrics, known before its model is pulled."""
        return tuple(gate for gate in self.gates if gate.name not in MEASURED)

    @property
    def measured_gates(self) -> tuple[Gate, ...]:
        """The gates on what the verification measures."""
        return tuple(gate for gate in self.gates if gate.name in MEASURED)


def parse_project(data: bytes, file: str, directory: str) -> Project:
    """Returns the configuration of a project; ``model_name`` must equal its directory's name.

    Raises:
        ConfigError: The file is not acceptable YAML (see ``yaml_text``), or something in it is not
            what it has to be; all problems together, each with its line.
    """
    report = Report(file)
    top = Section(read_yaml(data, file).root, "config.yaml", 1, report, _TOP)
    serve = top.section("serve", KNOWN)
    check_serve(serve)
    source = top.section("source", ("include", "exclude"), closed=True)
    verify = top.section("verify", ("rtol", "env", "accept"), closed=True)
    security = top.section("security", ("allow_pickle_globals", "allow_secrets"), closed=True)
    project = Project(
        model_name=_read_model_name(top, PurePosixPath(directory).name),
        handler=_read_handler(serve),
        include=_read_include(source),
        exclude=_read_exclude(source),
        rtol=_read_rtol(verify),
        env=_read_env(verify),
        accept=_read_texts(verify, "accept", _FINDING, _FINDINGS),
        allow_pickle_globals=_read_texts(
            security, "allow_pickle_globals", _GLOBAL, "module.name, no wildcard"
        ),
        allow_secrets=_read_texts(
            security, "allow_secrets", _DIGEST, "a file's digest, sha256: and 64 hex digits"
        ),
        serve=_read_json(top, "serve"),
        gates=read_gates(top.section("gates", ())),
        rollout=read_rollout(top.section("rollout", ROLLOUT_KEYS, closed=True)),
    )
    report.check()
    return project


def excluded(path: str, patterns: Sequence[str]) -> bool:
    """Whether a file is kept out of the bundle by one of the patterns, which are .gitignore's.

    Its POSIX path is relative to the project's directory.
    """
    return _spec(tuple(patterns)).match_file(path)


@lru_cache(maxsize=64)
def _spec(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    # Git matches only directories by a pattern that ends in `**/`; pathspec, files as well.
    return GitIgnoreSpec.from_lines(re.sub(r"/\*\*/\Z", "/**/*/", line) for line in patterns)


def _read_model_name(top: Section, directory: str) -> str:
    name = top.text("model_name", required=True)
    if name is None:
        return ""
    problem = name_problem(name, ascii_only=True)
    if not problem and not _OCI_COMPONENT.fullmatch(name.lower()):
        problem = f"{name!r} cannot name an image repository: '.', '_' and '-' stand between "
        problem += "letters and digits, one at a time ('-' may repeat)"
    elif not problem and name in NO_MODELS:
        problem = f"{name!r} is the name of a part of every store; choose another"
    elif not problem and name != directory:
        problem = f"is {name!r}, but the directory is {directory!r}; they must be equal"
    if problem:
        top.problem("model_name", f"'model_name' {problem}")
    return name


def _read_handler(serve: Section) -> Handler:
    if "handler" not in serve.entries:
        serve.problem("handler", "'handler' is missing")
        return Handler("", {})
    handler = serve.section("handler", ("class_path", "kwargs"), closed=True)
    class_path = handler.text("class_path", required=True) or ""
    if class_path and not _CLASS_PATH.fullmatch(class_path):
        handler.problem("class_path", f"'class_path' is {class_path!r}, not 'module.path:Class'")
    kwargs = _read_json(handler, "kwargs")
    percent = kwargs.get("log_features_percent")
    if percent is not None and not (_is_number(percent) and 0 <= percent <= 100):
        message = f"'log_features_percent' is {percent!r}; it is a number of percent, from 0 to 100"
        handler.problem("kwargs", message)
    return Handler(class_path, kwargs)


def _read_json(section: Section, key: str) -> dict[str, Any]:
    value = section.value(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        # A mapping that is read as a Section has been reported there.
        if key == "kwargs":
            section.problem(key, f"{key!r} must be a mapping")
        return {}
    if not _is_finite(value):
        section.problem(key, f"{key!r} holds .inf or .nan, which JSON does not have")
    return value


def _is_finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_is_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_include(source: Section) -> tuple[str, ...]:
    paths = []
    for text in source.texts("include"):
        try:
            paths.append(relative_path(text))
        except ValueError as reason:
            source.problem("include", f"'include' {text!r} {reason}")
    return tuple(paths)


def _read_exclude(source: Section) -> tuple[str, ...]:
    patterns = source.texts("exclude")
    for pattern in patterns:
        if pattern.startswith("!"):
            source.problem("exclude", f"'exclude' {pattern!r}: a pattern cannot bring files back")
        elif pattern.count("*") > MAX_STARS:
            message = f"has more than {MAX_STARS} '*'; write several patterns"
            source.problem("exclude", f"'exclude' {pattern!r} {message}")
        else:
            try:
                if not any(rule.include for rule in _spec((pattern,)).patterns):
                    source.problem("exclude", f"'exclude' {pattern!r} matches nothing")
            except re.error:
                source.problem("exclude", f"'exclude' {pattern!r} has a class [...] out of order")
    return patterns


def _read_rtol(verify: Section) -> float:
    rtol = verify.value("rtol")
    if rtol is None:
        return DEFAULT_RTOL
    if not (_is_number(rtol) and 0 <= rtol < 1):
        verify.problem("rtol", f"'rtol' is {rtol!r}; it is a number from 0 to below 1")
        return DEFAULT_RTOL
    return float(rtol)


def _read_env(verify: Section) -> dict[str, str]:
    env = verify.value("env")
    if env is None:
        return {}
    if not isinstance(env, dict):
        verify.problem("env", "'env' must be a mapping of names to strings")
        return {}
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            verify.problem("env", f"'env' {name!r} is not a name: letters, digits and '_'")
        elif _REFUSED_ENV.fullmatch(name):
            verify.problem("env", f"'env' {name!r} belongs to the sandbox; a model may not set it")
        elif not (isinstance(value, str) and value.isprintable()):
            verify.problem("env", f"'env' {name!r} must be a string that prints; quote it")
    return env


def _read_texts(section: Section, key: str, form: re.Pattern[str], allowed: str) -> tuple[str, ...]:
    names = section.texts(key)
    for name in names:
        if not form.fullmatch(name):
            section.problem(key, f"{key!r} has {name!r}; an entry is {allowed}")
    return names
