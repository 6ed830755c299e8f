"""The gate between what is wanted of an environment and what it holds.

The runtime wants Python 3.10 and what it imports; the model wants what it was logged with. Each
want becomes one row: ok, differs, refused, accepted or unchecked. The rules:

    not installed                         refused
    pinned (==), other major version      refused
    pinned, other minor version           refused for Python and for packages whose saved objects
                                          another minor version need not load; else differs
    pinned, other patch version or build  differs
    outside a range (<, >=, ~=, !=)       refused: a person wrote it, where MLflow wrote the pins
    no version to compare                 unchecked

A waived name is never refused; what it would have been refused for stays in its row. So is a want
that was waived for this very env before, where all of its row is the same. Nothing here opens
anything: both sides are values.

Source: PEP 440 (versions, specifiers), PEP 508 (markers, evaluated for the environment's Python);
scikit-learn, "Model persistence"; cloudpickle, README: equal versions of Python are required.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from packaging.markers import Marker, default_environment
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from adroit_publish.bundle.record import UNPROVEN
from adroit_publish.config.environment_yml import Environment
from adroit_publish.errors import VerificationError
from adroit_publish.gates.model_requirements import Wanted

Verdict = Literal["ok", "differs", "refused", "accepted", "unchecked"]

RUNTIME_NEEDS = (
    Wanted("python", ">=3.10", "runtime"),
    Wanted("mlflow-skinny", ">=3", "runtime"),
    Wanted("numpy", "", "runtime"),
    Wanted("pandas", "", "runtime"),
    Wanted("starlette", "", "runtime"),
    Wanted("uvicorn", "", "runtime"),
)
"""What ``adroit.serving`` imports, whatever the model, and what mlflow-skinny's server brings: h11
comes with uvicorn."""

_MINOR_BREAKS = {"python", "cloudpickle", "lightgbm", "scikit-learn", "torch", "xgboost"}
_STANDS_IN = {"mlflow": "mlflow-skinny", "mlflow-skinny": "mlflow"}
_CONDA_NAMES = {"py-xgboost": "xgboost", "pytorch": "torch"}
_LISTED = re.compile(r"([\w.-]+)(?:\[[^]]*\])?\s*(==|=|[<>!~]=?|;|@|)(.*)")
_VERSION = re.compile(r"\d[\w.+!]*")
_BEFORE = "; accepted before, and carried on"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True)
class ObservedEnv:
    """What an interpreter's environment was seen to hold.

    Attributes:
        python: Its version, ``3.11.7``, or only ``3.11``; None where nobody knows.
        packages: Version of every distribution, by any spelling of its name.
        import_names: Top-level modules that can be imported there, Python's own among them; None
            where nobody knows.
        platform: ``os/architecture`` of its image; None for this machine.
        complete: Whether what is not among ``packages`` is not there.
        looked_at: What was read to know it.
    """

    python: str | None
    packages: Mapping[str, str]
    import_names: frozenset[str] | None = None
    platform: str | None = None
    complete: bool = True
    looked_at: str = "the interpreter that serves"


@dataclass(frozen=True)
class EnvRow:
    """One want against what is there.

    Attributes:
        name: Distribution, or ``python``.
        wanted: PEP 440 specifier, or ``any``.
        by: Who wants it: a file of the model, or ``runtime``.
        got: The version that is there, or None.
        why: The reason, where it is not plainly ok.
    """

    name: str
    wanted: str
    by: str
    got: str | None
    verdict: Verdict
    why: str = ""

    @property
    def carried_on(self) -> bool:
        """Whether it was accepted before, and not again."""
        return self.why.endswith(_BEFORE)


Finding = tuple[str, str, str, str | None]
"""The name, what is wanted, by whom, and what is there: what a row is about."""


@dataclass(frozen=True)
class EnvReport:
    """Everything that was wanted of an environment, kept in the record of a publish."""

    rows: tuple[EnvRow, ...]
    looked_at: str

    @property
    def refused(self) -> tuple[EnvRow, ...]:
        """The rows that stop a publish."""
        return tuple(row for row in self.rows if row.verdict == "refused")

    @property
    def accepted(self) -> tuple[str, ...]:
        """The names whose waiver was needed."""
        return tuple(sorted({row.name for row in self.rows if row.verdict == "accepted"}))

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        rows = [asdict(row) for row in self.rows]
        return {"rows": rows, "accepted": list(self.accepted), "looked_at": self.looked_at}


def check_env(
    wanted: Iterable[Wanted],
    env: ObservedEnv,
    *,
    env_name: str,
    accept: Collection[str] = (),
    accepted_before: Collection[Finding] = (),
    unproven: Collection[Finding] = (),
) -> EnvReport:
    """Returns the table of what the model and the runtime want against what ``env`` holds.

    Args:
        accept: Names whose mismatch is waived: distributions, or ``python``.
        accepted_before: What was waived for this env before, as ``findings_of`` gives it.
        unproven: What only records say that was; it is refused, and the message says so.

    Raises:
        VerificationError: Something is missing or too far from what is wanted; all such rows are
            in the one message.
    """
    report = compare(wanted, env, accept, accepted_before, unproven)
    if report.refused:
        names = sorted({row.name for row in report.refused})
        raise VerificationError(
            f"Conda env {env_name} does not hold what the model and its runtime need.",
            where=f"Python {env.python or 'of unknown version'} with {len(env.packages)} packages",
            got="\n".join(_line(row) for row in report.refused),
            next_step=(
                f"publish with an env that holds these (its environment.yml, then make build_env "
                f"ENV={env_name}), or train under this env and log the model "
                f"again; to publish all the same: --accept-env-mismatch={','.join(names)}"
            ),
        )
    return report


def findings_of(kept: Mapping[str, Any]) -> frozenset[Finding]:
    """Returns what a report, as a record keeps it, has accepted: nothing by half a row."""
    rows = [row for row in kept.get("rows", ()) if row.get("verdict") == "accepted"]
    whole = [row for row in rows if row.keys() >= {"name", "wanted", "by", "got"}]
    return frozenset((row["name"], row["wanted"], row["by"], row["got"]) for row in whole)


def compare(
    wanted: Iterable[Wanted],
    env: ObservedEnv,
    accept: Collection[str] = (),
    accepted_before: Collection[Finding] = (),
    unproven: Collection[Finding] = (),
) -> EnvReport:
    """Returns the table as ``check_env`` does, and leaves refused rows to the caller."""
    packages = {str(canonicalize_name(name)): version for name, version in env.packages.items()}
    if env.python is not None:
        packages["python"] = env.python
    waived = {str(canonicalize_name(name)) for name in accept}
    rows = []
    for want in (*RUNTIME_NEEDS, *wanted):
        row = _row(want, packages, env)
        if row is not None and row.verdict == "refused":
            finding = (row.name, row.wanted, row.by, row.got)
            if row.name in waived:
                row = replace(row, verdict="accepted")
            elif finding in accepted_before:
                row = replace(row, verdict="accepted", why=row.why + _BEFORE)
            elif finding in unproven:
                row = replace(row, why=row.why + UNPROVEN)
        if row is not None:
            rows.append(row)
    return EnvReport(tuple(rows), env.looked_at)


def listed_env(
    environment: Environment, required_by: Callable[[str], Collection[str] | None], looked_at: str
) -> ObservedEnv | None:
    """Returns what an environment.yml lists, and what these packages require.

    None where the list has no room for what serves a model: then it is not the whole env.

    Args:
        required_by: Returns the names that a distribution requires; None where nobody knows.
    """
    versions = dict(map(_listed, (*environment.conda, *environment.pip)))
    waiting, complete = list(versions), True
    while waiting:
        required = required_by(waiting.pop())
        complete = complete and required is not None
        for name in required or ():
            if name not in versions:
                versions[name] = ""  # some version
                waiting.append(name)
    serving = {want.name for want in RUNTIME_NEEDS} - {"python", *versions}
    if any(_STANDS_IN.get(name) not in versions for name in serving):
        return None
    return ObservedEnv(environment.python, versions, complete=complete, looked_at=looked_at)


def _listed(line: str) -> tuple[str, str]:
    """Returns the distribution and version of one dependency; empty where that is not pinned."""
    name, exact, rest = _LISTED.fullmatch(line.strip().rpartition("::")[2]).groups()  # type: ignore[union-attr]
    canonical = str(canonicalize_name(name))
    pinned = exact == "==" or (exact == "=" and rest.count(".") >= 2)
    version = _VERSION.match(rest.strip()) if pinned else None
    return _CONDA_NAMES.get(canonical, canonical), version[0] if version else ""


def _row(want: Wanted, packages: Mapping[str, str], env: ObservedEnv) -> EnvRow | None:
    """Returns the row of one want, or None where its marker rules it out."""
    name = want.name if want.name in packages else _STANDS_IN.get(want.name, want.name)
    got = packages.get(name)
    verdict, why = _verdict(want, got, env)
    if verdict is None:
        return None
    if name != want.name and got is not None:
        why = f"{name} stands in for it" + (f"; {why}" if why else "")
    return EnvRow(want.name, want.specifier or "any", want.by, got, verdict, why)


def _verdict(want: Wanted, got: str | None, env: ObservedEnv) -> tuple[Verdict | None, str]:
    if want.unchecked:
        return "unchecked", want.unchecked
    if want.name == "python" and got is None:
        return "unchecked", "the env's Python is not known"
    if want.marker is not None:
        if env.python is None:
            return "unchecked", "whether it is wanted depends on the env's Python"
        if not Marker(want.marker).evaluate(_marker_values(env)):
            return None, ""
    if got is None and not env.complete:
        return "unchecked", "not listed, and what is listed may bring it"
    if got is None:
        return "refused", "not installed"
    try:
        return _compared(want, Version(got))
    except InvalidVersion:
        return "unchecked", "its version cannot be compared"


def _compared(want: Wanted, got: Version) -> tuple[Verdict, str]:
    specifiers = SpecifierSet(want.specifier)
    if specifiers.contains(got, prereleases=True):
        return "ok", ""
    if want.name == "python" and len(got.release) == 2:  # all that is known is the minor version
        specifiers = SpecifierSet(re.sub(r"==(\d+\.\d+)\.\d+$", r"==\1.*", want.specifier))
        if specifiers.contains(got):
            return "ok", ""
    pins = [
        Version(specifier.version)
        for specifier in specifiers
        if specifier.operator in ("==", "===") and not specifier.version.endswith(".*")
    ]
    if not pins and want.name == "python" and want.specifier.startswith("=="):
        return "refused", _minor_reason("python")
    if not pins:
        return "refused", "outside the range that is asked for"
    pin = pins[0]
    if (pin.epoch, pin.major) != (got.epoch, got.major):
        return "refused", "another major version"
    if pin.minor != got.minor:
        if want.name in _MINOR_BREAKS:
            return "refused", _minor_reason(want.name)
        return "differs", "another minor version"
    return "differs", "another build" if pin.release == got.release else "another patch version"


def _minor_reason(name: str) -> str:
    if name == "python":
        return "pickles and bytecode are of one minor version of Python"
    return f"another minor version of {name} need not load what this one saved"


def _marker_values(env: ObservedEnv) -> dict[str, str]:
    values = {**default_environment()}
    assert env.python is not None  # the caller has looked
    values |= {
        "extra": "",
        "python_version": ".".join(env.python.split(".")[:2]),
        "python_full_version": env.python,
        "implementation_version": env.python,
    }
    if env.platform is not None:
        machine = env.platform.split("/")[1]
        values |= {
            "os_name": "posix",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "platform_machine": _MACHINES.get(machine, machine),
        }
    return values  # type: ignore[return-value]


def _line(row: EnvRow) -> str:
    return f"{row.name}: {row.got or 'nothing'}, {row.by} wants {row.wanted}: {row.why}"
