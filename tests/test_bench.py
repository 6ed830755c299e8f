"""The harness of the benchmarks: what it runs, and what it keeps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
TINY = '''"""P3 and P5: nothing beside nothing.

More words.
"""
print("noise")
print("| what | ratio |\\n|---|---|\\n| nothing | {ratio} |")
print(\'{{"ratio": {ratio}}}\')
'''
OTHER = TINY.replace("P3 and P5: nothing beside", "P2: some beside")


@pytest.fixture
def benchmarks(tmp_path):
    shutil.copy(BENCHMARKS / "run.py", tmp_path)
    (tmp_path / "bench_tiny.py").write_text(TINY.format(ratio=1.0))
    (tmp_path / "bench_other.py").write_text(OTHER.format(ratio=0.5))
    return tmp_path


def bench(directory, *options):
    command = [sys.executable, str(directory / "run.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_report_has_what_each_benchmark_printed_in_the_order_of_targets(benchmarks):
    code, output = bench(benchmarks)
    assert code == 0, output
    kept = json.loads((benchmarks / "report.json").read_text())
    assert {name: entry["targets"] for name, entry in kept.items()} == {
        "bench_other": ["P2"], "bench_tiny": ["P3", "P5"]
    }  # fmt: skip
    assert kept["bench_tiny"]["values"] == [{"ratio": 1.0}]
    report = (benchmarks / "report.md").read_text()
    assert report.index("P2: some beside nothing.") < report.index("P3 and P5: nothing beside")
    assert "| nothing | 0.5 |" in report
    assert "noise" not in report
    assert "MiB in a process" in report
    assert str(benchmarks) not in report


def test_what_is_not_run_again_stays_in_the_report(benchmarks):
    bench(benchmarks)
    (benchmarks / "bench_tiny.py").write_text(TINY.format(ratio=2.0))
    (benchmarks / "bench_other.py").write_text(OTHER.format(ratio=9.0))
    assert bench(benchmarks, "--only=P5,P1")[0] == 0
    report = (benchmarks / "report.md").read_text()
    assert "| nothing | 2.0 |" in report
    assert "| nothing | 0.5 |" in report
    assert "| nothing | 1.0 |" not in report


def test_a_benchmark_that_does_not_run_is_an_error_and_leaves_the_report(benchmarks):
    bench(benchmarks)
    before = (benchmarks / "report.json").read_text()
    (benchmarks / "bench_tiny.py").write_text('"""P3: broken."""\nraise SystemExit(3)\n')
    code, output = bench(benchmarks, "--only=P3")
    assert code == 1
    assert "bench_tiny.py ended with 3" in output
    assert (benchmarks / "report.json").read_text() == before


def test_a_target_that_nobody_measures_is_named(benchmarks):
    code, output = bench(benchmarks, "--only=P99")
    assert (code, "P2, P3, P5" in output) == (2, True)


def test_every_benchmark_says_which_targets_it_measures():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from run import targets_of
    finally:
        sys.path.remove(str(BENCHMARKS))
    targets = [target for path in BENCHMARKS.glob("bench_*.py") for target in targets_of(path)]
    assert len(targets) == len(set(targets)), "two benchmarks measure one target"
    assert all(targets_of(path) for path in BENCHMARKS.glob("bench_*.py"))
