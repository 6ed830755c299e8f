"""Runs the benchmarks, and keeps what they print in ``report.md`` and ``report.json``.

    make bench                   all of them
    make bench ONLY=P1,P5        those of these targets

A benchmark is a file ``bench_*.py`` whose documentation begins with the targets it measures; it
prints rows of Markdown tables and lines of JSON, with its peers in the same run. The report has its
tables, how long it took, what its processes needed, and on what machine and commit. What is not run
again stays in the report as it was. A benchmark that ends with an error fails this; a time never.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import re
import resource
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
_LIMIT_S = 3600.0
_BUSY = 1.0


@dataclass(frozen=True)
class Measured:
    """What came of one benchmark.

    Attributes:
        name: Of its file.
        targets: What it measures, such as ``P5``.
        title: The first sentence of its documentation.
        tables: The Markdown rows it printed.
        values: The JSON documents it printed.
        seconds: How long it took, all in all.
        cpu_seconds: What its processes computed.
        peak_memory_mib: Of the largest of its processes.
        load: The machine's load average before it began; more than 1 is no idle machine.
        machine: What it ran on.
        commit: Of this checkout.
        when_utc: When it ended.
    """

    name: str
    targets: list[str]
    title: str
    tables: list[str]
    values: list[object]
    seconds: float
    cpu_seconds: float
    peak_memory_mib: int
    load: float
    machine: str
    commit: str
    when_utc: str


def main() -> int:
    """Runs those that are asked for, one after the other, and writes the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="targets, with commas between them")
    parser.add_argument("--report", type=Path, default=HERE / "report")
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    files = [path for path in sorted(HERE.glob("bench_*.py")) if _chosen(path, wanted)]
    if not files:
        known = sorted({target for path in HERE.glob("bench_*.py") for target in targets_of(path)})
        print(f"bench: no benchmark measures {options.only}; there are {', '.join(known)}")
        return 2
    failed = False
    for path in files:
        measured = _measure(path)
        failed |= measured is None
        if measured is not None:
            _write(options.report, measured)
    return int(failed)


def targets_of(path: Path) -> list[str]:
    """Returns the targets that a benchmark's documentation begins with."""
    first = (ast.get_docstring(ast.parse(path.read_text())) or "").partition(":")[0]
    return re.findall(r"P\d+", first)


def _chosen(path: Path, wanted: set[str]) -> bool:
    return not wanted or bool(wanted & set(targets_of(path)))


def _measure(path: Path) -> Measured | None:
    """Runs one benchmark, showing its rows as they come; None where it ends with an error."""
    load, before, began = os.getloadavg()[0], _children(), time.monotonic()
    if load > _BUSY:
        print(f"bench: the machine is busy (load {load:.1f}): only ratios may mean something")
    print(f"== {path.name}", flush=True)
    with subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, text=True, cwd=HERE.parent
    ) as process:
        assert process.stdout is not None
        limit = threading.Timer(_LIMIT_S, process.kill)
        limit.start()
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith(("|", "{")):
                print(line, end="", flush=True)
        limit.cancel()
    if process.returncode:
        print(f"bench: {path.name} ended with {process.returncode}", file=sys.stderr)
        return None
    title = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0]
    after = _children()
    return Measured(
        name=path.stem,
        targets=targets_of(path),
        title=title,
        tables=[line for line in lines if line.startswith("|")],
        values=[json.loads(line) for line in lines if line.startswith("{")],
        seconds=round(time.monotonic() - began, 1),
        cpu_seconds=round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        peak_memory_mib=after.ru_maxrss // 1024,
        load=round(load, 2),
        machine=_machine(),
        commit=_commit(),
        when_utc=datetime.now(UTC).isoformat(timespec="minutes"),
    )


def _children() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_CHILDREN)


def _machine() -> str:
    """Returns cores, memory, system and Python; no name of a machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return (
        f"{cores} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


def _commit() -> str:
    """Returns the commit, and whether the working tree differs from it."""
    describe = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    return subprocess.run(
        describe, cwd=HERE, capture_output=True, text=True, check=False
    ).stdout.strip()


def _write(report: Path, measured: Measured) -> None:
    """Puts one benchmark into both reports; the others stay."""
    kept = report.with_suffix(".json")
    entries = json.loads(kept.read_text()) if kept.exists() else {}
    entries[measured.name] = asdict(measured)
    entries = dict(sorted(entries.items(), key=lambda entry: _number(entry[1])))
    kept.write_text(json.dumps(entries, indent=1) + "\n")
    sections = [_section(Measured(**entry)) for entry in entries.values()]
    head = (
        "# Benchmarks\n\nMade by `make bench`. Ratios count, seconds do not: they are this "
        "machine's. Each table's peers ran in the same run.\n"
    )
    report.with_suffix(".md").write_text("\n".join([head, *sections]))


def _number(entry: dict[str, object]) -> int:
    targets = entry["targets"]
    assert isinstance(targets, list)
    return min((int(target[1:]) for target in targets), default=99)


def _section(measured: Measured) -> str:
    tables = "\n".join(measured.tables)
    return (
        f"## {measured.title}\n\n{tables}\n\n"
        f"{measured.seconds:.0f} s, {measured.cpu_seconds:.0f} s of CPU, at most "
        f"{measured.peak_memory_mib} MiB in a process. {measured.machine}; load "
        f"{measured.load} before; {measured.commit}, {measured.when_utc}.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
