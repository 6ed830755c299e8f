"""C04: writers of one flavors.yaml lose no update; of one flavor, one wins, the others hear it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from adroit_publish.config.flavors import parse_flavors

FULL = os.environ.get("ADROIT_FULL") == "1"
WRITERS, WRITES = (32, 100) if FULL else (8, 5)
REPOSITORY = Path(__file__).parents[2]

# A writer waits for the line that lets all of them start, then writes row after row.
WRITER = """
import sys
from pathlib import Path
from adroit_publish.errors import RefusedError
from tests.support.git_clones import write_versions
path, rows = Path(sys.argv[1]), [row.split(",") for row in sys.argv[2:]]
print("ready", flush=True)
sys.stdin.readline()
for flavor, expected, new in rows:
    try:
        print(*(write_versions(path, {flavor: (expected or None, new)}) or ["nothing"]))
    except RefusedError as error:
        print("refused" if new not in str(error) and error.got and error.wanted else error)
"""


def run_id(number: int) -> str:
    return f"{number:032x}"


def flavors_file(directory: Path, names: list[str]) -> Path:
    path = directory / "flavors.yaml"
    entries = [
        f"{name}:   # of {name}\n  config: projects/m/config.yaml\n  conda_env: s\n  version:\n"
        for name in names
    ]
    path.write_text("# the head\n" + "\n".join(entries))
    return path


def write_at_once(path: Path, rows_by_writer: list[list[tuple[str, str, str]]]) -> list[list[str]]:
    """Starts a process for each writer, lets all go together, and returns what each printed."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), *(",".join(row) for row in rows)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rows in rows_by_writer
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    printed = [writer.communicate(timeout=600)[0].splitlines() for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(writers)
    return printed


def test_writers_of_different_flavors_lose_no_update(tmp_path: Path, capsys: Any) -> None:
    names = [f"flavor_{number}" for number in range(WRITERS)]
    path = flavors_file(tmp_path, names)
    before = path.read_text()
    rows = [
        [
            (name, "" if n == 0 else run_id(w * WRITES + n), run_id(w * WRITES + n + 1))
            for n in range(WRITES)
        ]
        for w, name in enumerate(names)
    ]
    printed = write_at_once(path, rows)
    lost = sum(lines != [name] * WRITES for name, lines in zip(names, printed, strict=True))
    flavors = parse_flavors(path.read_bytes())
    wrong = [w for w, name in enumerate(names) if flavors[name].version != rows[w][-1][2]]
    after = path.read_text()
    for w in range(WRITERS):
        for quoted in (f' "{rows[w][-1][2]}"', f" {rows[w][-1][2]}"):
            after = after.replace(quoted, "")
    injected = WRITERS * WRITES
    with capsys.disabled():
        print(
            f"\nC04 different injected={injected} fired={injected} violations={lost + len(wrong)}"
        )
    assert (lost, wrong) == (0, [])
    assert after == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["flavors.yaml"]


def test_of_writers_of_one_flavor_one_wins_and_the_others_are_refused(
    tmp_path: Path, capsys: Any
) -> None:
    violations = 0
    names = [f"flavor_{number}" for number in range(WRITES)]
    path = flavors_file(tmp_path, names)
    rows = [
        [(name, "", run_id(16**8 + w * WRITES + n)) for n, name in enumerate(names)]
        for w in range(WRITERS)
    ]
    printed = write_at_once(path, rows)
    flavors = parse_flavors(path.read_bytes())
    for n, name in enumerate(names):
        winners = [w for w in range(WRITERS) if printed[w][n] == name]
        losers = [w for w in range(WRITERS) if printed[w][n] == "refused"]
        right = len(winners) == 1 and len(losers) == WRITERS - 1
        violations += not (right and flavors[name].version == rows[winners[0]][n][2])
    injected = WRITERS * WRITES
    with capsys.disabled():
        print(f"\nC04 same injected={injected} fired={injected} violations={violations}")
    assert violations == 0, printed
