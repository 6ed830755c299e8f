"""C14: jobs that push to one branch at once: all entries land, none by force, no update is lost.

Each job is a process with a clone of its own, some of them shallow, and publishes its flavor on a
line beside the others'. One more job publishes a version of a flavor that another has set, and
stops with both values. Then a hook refuses all of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.checkouts import git
from tests.support.git_clones import (
    clone,
    hook,
    is_own_commit,
    make_bare,
    publish,
    run_id,
    version,
    versions_at,
)

JOBS = 16 if os.environ.get("ADROIT_FULL") == "1" else 4
REPOSITORY = Path(__file__).parents[2]

# Lets no push through before all jobs have made theirs, on the same head.
BARRIER = f"""
echo x >> arrived; turns=0
while [ "$(wc -l < arrived)" -lt {JOBS} ] && [ $turns -lt 1200 ]; do
    turns=$((turns + 1)); sleep 0.05
done
"""

# A job waits for the line that lets all of them start.
JOB = """
import json, sys
from pathlib import Path
from adroit_publish.errors import PublishError
from tests.support.git_clones import publish
root, flavor, version = Path(sys.argv[1]), *sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
try:
    done = publish(root, {flavor: version}, push=True)
    print(json.dumps({"commit": done.commit, "note": done.note}))
except PublishError as error:
    print(json.dumps(error.as_dict()))
"""


def push_at_once(jobs: list[tuple[Path, str, str]]) -> list[dict[str, Any]]:
    """Starts a process for each job, lets all go together, and returns what came of each."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", JOB, str(root), flavor, new],
            cwd=REPOSITORY,
            env=os.environ | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for root, flavor, new in jobs
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=600)[0]) for process in processes]


def clones(bare: Path, prefix: str, count: int) -> list[Path]:
    """Returns clones of which every second one is shallow, as those of CI are."""
    depth = ("--depth", "1")
    return [clone(bare, f"{prefix}{n}", *(depth if n % 2 else ())) for n in range(count)]


def test_c14_all_entries_land_and_a_conflict_stops(tmp_path: Path, capsys: Any) -> None:
    names = [f"flavor_{n}" for n in range(JOBS)] + ["contended"]
    bare = make_bare(tmp_path, names)
    roots = clones(bare, "job", JOBS)
    late = clone(bare, "late")
    publish(clone(bare, "early"), {"contended": version(900)}, push=True)
    hook(bare, "pre-receive", BARRIER)
    for root in roots:
        hook(root / ".git", "pre-push", "echo x >> .git/pushes")
    wanted = {name: version(100 + n) for n, name in enumerate(names[:-1])}
    jobs = [(root, *row) for root, row in zip(roots, wanted.items(), strict=True)]
    *done, refused = push_at_once([*jobs, (late, "contended", version(901))])

    log = git(bare, "log", "--first-parent", "--format=%H", "main").split()
    at_the_end = versions_at(bare)
    violations = {
        "an update was lost": at_the_end != wanted | {"contended": version(900)},
        "not one commit for each": len(log) != JOBS + 2,
        "a merge": git(bare, "rev-list", "--merges", "main") != "",
        "a commit that is not there": {job.get("commit") for job in done} != set(log[:JOBS]),
        "the conflict did not stop": refused.get("exit_code") != 4,
        "the conflict hides a value": (refused.get("got"), refused.get("wanted"))
        != (version(900), run_id(JOBS + 1)),
        "the refused edit was lost": version(901) not in (late / "flavors.yaml").read_text(),
        "an own commit that would trigger": not all(is_own_commit(bare, c) for c in log[:-1]),
        "another line changed": _others_changed(bare),
        "a clone does not follow": any(job.get("note") for job in done)
        or any(git(root, "status", "--porcelain") for root in roots),
    }
    wrong = [what for what, is_so in violations.items() if is_so]
    retried = sum((root / ".git/pushes").read_text().count("x") > 1 for root in roots)
    fired = retried + (refused.get("exit_code") == 4)
    with capsys.disabled():
        print(f"\nC14 push injected={JOBS} fired={fired} violations={len(wrong)}")
    assert wrong == [], [*done, refused]
    assert retried >= JOBS - 1, "jobs did not find the branch moved"


def _others_changed(bare: Path) -> bool:
    """Whether a commit of the publisher changed anything but one version on one line."""
    for row in git(bare, "log", "-p", "-U0", "--format=", "main^{/first}..main").splitlines():
        if row.startswith(("+++", "---")) or row[:1] not in "+-":
            continue
        if "conda_env: s, version: " not in row:
            return True
    first = git(bare, "rev-list", "--max-parents=0", "main")
    counts = git(bare, "log", "--numstat", "--format=", f"{first}..main").splitlines()
    return any(count.split() != ["1", "1", "flavors.yaml"] for count in counts if count)


def test_c14_a_hook_that_refuses_is_heard_by_every_job(tmp_path: Path, capsys: Any) -> None:
    names = [f"flavor_{n}" for n in range(JOBS)]
    bare = make_bare(tmp_path, names)
    roots = clones(bare, "job", JOBS)
    hook(bare, "pre-receive", "echo x >> asked; echo 'main is frozen' >&2; exit 1")
    before = git(bare, "rev-parse", "main")
    jobs = [
        (root, name, version(n)) for n, (root, name) in enumerate(zip(roots, names, strict=True))
    ]
    done = push_at_once(jobs)
    asked = (bare / "asked").read_text().count("x")
    violations = sum(
        job.get("exit_code") != 4 or "main is frozen" not in job.get("got", "") for job in done
    )
    violations += git(bare, "rev-parse", "main") != before
    violations += sum(new not in (root / "flavors.yaml").read_text() for root, _, new in jobs)
    with capsys.disabled():
        print(f"\nC14 hook injected={JOBS} fired={asked} violations={violations}")
    assert violations == 0, done
    assert asked == JOBS
