"""A checkout's own ``.git/config``, hooks and attributes run no command of theirs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.checkouts import FLOW, commit, git, make_checkout

REPOSITORY = Path(__file__).parents[2]
HOOKS = ("post-checkout", "post-index-change", "pre-auto-gc", "pre-commit", "reference-transaction")
CANARY = '#!/bin/sh\necho "$0 $*" >> {log}\ncat\n'
COMMANDS = {
    "plan": ["-m", "adroit_publish", "plan"],
    "status": ["-m", "adroit_publish", "status"],
    "doctor": ["-m", "adroit_publish", "doctor"],
    "publish": ["-c", "from adroit_publish import publish; publish('a', verify='none')"],
    "republish": ["-c", "from adroit_publish import republish; republish('b', verify='none')"],
    "flow": [FLOW.name, "run", "--flavor=a", "--verify=none"],
    "diff": ["-m", "adroit_publish", "diff", "b@HEAD", "b"],
}


def arm(root: Path, log: Path, script: Path) -> None:
    """Puts a command wherever git's configuration takes one."""
    script.write_text(CANARY.format(log=log))
    script.chmod(0o755)
    for name in HOOKS:
        (root / ".git/own-hooks").mkdir(exist_ok=True)
        (root / ".git/own-hooks" / name).write_text(CANARY.format(log=log))
        (root / ".git/own-hooks" / name).chmod(0o755)
    (root / ".git/included").write_text(f'[filter "in=cluded"]\n\tclean = {script} included\n')
    git(root, "config", "extensions.worktreeConfig", "true")
    git(root, "config", "--worktree", "filter.worktree.clean", f"{script} worktree")
    for key, value in {
        "include.path": "included",
        "filter.own.clean": f"{script} clean",
        "filter.own.smudge": f"{script} smudge",
        "filter.own.required": "true",
        "filter.talks.process": f"{script} process",
        "filter.talks.required": "true",
        "core.fsmonitor": str(script),
        "core.hooksPath": str(root / ".git/own-hooks"),
        "core.sshCommand": f"{script} ssh",
        "core.gitProxy": f"{script} proxy",
        "core.askPass": f"{script} askpass",
        "core.editor": f"{script} editor",
        "core.pager": f"{script} pager",
        "core.alternateRefsCommand": f"{script} alternates",
        "credential.helper": f"!{script} credential",
        "diff.external": f"{script} diff",
        "diff.own.textconv": f"{script} textconv",
        "diff.own.command": f"{script} diff-command",
        "merge.own.driver": f"{script} merge",
        "commit.gpgSign": "true",
        "gpg.program": f"{script}",
        "log.showSignature": "true",
        "status.submoduleSummary": "true",
        "submodule.recurse": "true",
        "alias.status": f"!{script} alias",
        "pager.status": f"{script} pager-status",
        "trailer.x.command": f"{script} trailer",
        "uploadpack.packObjectsHook": f"{script} pack",
        "remote.origin.url": "ssh://nowhere.invalid/repository",
        "remote.origin.uploadpack": f"{script} upload-pack",
        "remote.origin.promisor": "true",
        "extensions.partialClone": "origin",
    }.items():
        git(root, "config", key, value)


def touch(root: Path) -> None:
    """Makes git compare contents, not times."""
    for path in [root / "flavors.yaml", *(root / "projects").rglob("*"), *root.glob("*.y*ml")]:
        if path.is_file():
            os.utime(path, (1, 1))


@pytest.fixture
def armed(tmp_path, trained):
    flavors = {"a": trained.good[0], "b": trained.good[1]}
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, flavors)
    (root / ".gitattributes").write_text(
        "*.py filter=own diff=own merge=own\n*.yaml filter=talks\n*.yml filter=in=cluded\n"
        "features.py filter=worktree\n"
    )
    (root / "projects/doubler/more.py").write_text("MORE = 1\n")
    shutil.copy(FLOW, root)
    commit(root, "attributes")
    run(root, "-c", "from adroit_publish import publish; publish('b', verify='none')")
    (root / "projects/doubler/more.py").write_text("MORE = 2\n")
    commit(root, "published, and changed")
    log = tmp_path / "log"
    arm(root, log, tmp_path / "canary")
    touch(root)
    return root, log


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "HOME"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root,
        env=environ | {"PYTHONPATH": str(REPOSITORY), "HOME": str(root.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_of_the_checkouts_own_configuration_runs(armed, name):
    root, log = armed
    done = run(root, *COMMANDS[name])
    assert "Traceback" not in done.stderr, done.stderr
    assert name not in ("publish", "republish", "flow") or done.returncode == 0, done.stderr
    assert not log.exists(), log.read_text()
    subprocess.run(["git", "diff-index", "--quiet", "HEAD"], cwd=root, stdin=subprocess.DEVNULL)
    assert log.exists(), "the trap does not work"
