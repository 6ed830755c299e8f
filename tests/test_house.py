"""What holds for the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def tracked():
    """The files of the repository that are text."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    for name in filter(None, done.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            yield name, (ROOT / name).read_text(errors="replace")


def test_the_lock_pins_every_package_by_hash_and_records_no_address():
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"(^|[\s@(])/", lock, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", lock.strip())
    pinned = [entry for entry in entries if "==" in entry]
    assert len(pinned) > 100
    assert all("--hash=sha256:" in entry for entry in pinned)


def test_the_lock_of_the_zoo_pins_what_it_names_by_hash_and_records_no_address():
    lock = (ROOT / "tests/zoo.lock").read_text()
    assert "://" not in lock
    assert not re.search(r"(^|[\s@(])/", lock, re.MULTILINE)
    entries = [entry for entry in re.split(r"\n(?=\S)", lock.strip()) if "==" in entry]
    assert all("--hash=sha256:" in entry for entry in entries)
    named = re.findall(r"^[\w.-]+$", (ROOT / "tests/zoo.in").read_text(), re.MULTILINE)
    assert {entry.partition("==")[0] for entry in entries} == set(named)


def test_the_lock_has_every_package_that_the_project_names():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        normal(name) for name in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==", lock, re.MULTILINE)
    }
    for requirement in named:
        assert normal(re.match(r"[\w.-]+", requirement)[0]) in locked


def normal(name):
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_a_machine_makes_is_not_committed():
    made = re.compile(r"(^|/)(\.venv|\.adroit|\.metaflow|__pycache__|mlruns|.*\.egg-info)(/|$)")
    assert [name for name, _ in tracked() if made.search(name)] == []


def test_flavors_yaml_is_committed_with_an_empty_version():
    committed = subprocess.run(
        ["git", "show", "HEAD:flavors.yaml"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert re.search(r"^  version:\s*(#.*)?$", committed, re.MULTILINE)


def test_commands_in_the_readme_are_commands_that_exist():
    text = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make (\w+)", text):
        assert f"\n{target}:" in makefile
    from adroit_publish.cli.commands import cli

    for command in re.findall(r"python -m adroit_publish (\w+)", text):
        assert command in cli.commands


def test_publish_is_the_function_whichever_room_is_loaded_first():
    program = "import adroit_publish.publish.release, adroit_publish as a; a.publish.__kwdefaults__"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_decisions_are_numbered_without_a_gap():
    records = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
    numbers = [path.name.partition("-")[0] for path in records]
    assert numbers == [f"{number:04}" for number in range(1, len(records) + 1)]
    assert [path.read_text().split()[1] for path in records] == numbers


def test_actions_of_workflows_are_pinned_by_the_digest_of_their_commit():
    for workflow in (ROOT / ".github/workflows").iterdir():
        for action in re.findall(r"uses: *(.*)", workflow.read_text()):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action)
