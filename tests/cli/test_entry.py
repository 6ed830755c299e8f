"""The programs as a newcomer starts them: from any directory, with any Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from adroit_publish.config.flavors import parse_flavors
from tests.support.checkouts import FLOW, clone_as_it_is, git, make_checkout

ROOT = FLOW.parent


def run(python: object, *arguments: object, cwd: Path, **environment: str) -> tuple[int, str]:
    """Starts a Python; returns its exit code and what it printed."""
    done = subprocess.run(
        [str(python), *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"HOME": str(cwd)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A fresh virtual environment: the standard library and nothing else."""
    directory = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(directory, with_pip=False)
    return directory / "bin/python"


@pytest.fixture
def clone(tmp_path):
    """A clone of this checkout, without a .venv."""
    return clone_as_it_is(tmp_path / "clone")


def ready(clone: Path, python: object) -> None:
    """Gives a clone a .venv as the Makefile leaves it, whose interpreter is ``python``."""
    (clone / ".venv/bin").mkdir(parents=True)
    (clone / ".venv/bin/python").write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
    (clone / ".venv/bin/python").chmod(0o755)
    (clone / ".venv/.made-from-lock").touch()


@pytest.mark.parametrize(
    "program",
    [
        ("-m", "adroit_publish"),
        ("publish_mlflow_model_flow.py", "run"),
        ("republish.py", "--stale"),
        ("train_model.py", "republish"),
        ("projects/example_metaflow/flow.py", "run"),
        ("projects/example_sentiment/flow.py", "run"),
        ("projects/example_sagemaker/flow.py", "run"),
    ],
    ids=" ".join,
)
def test_without_the_requirements_one_message_says_what_to_type(clone, bare, program):
    code, output = run(bare, *program, cwd=clone)
    assert code == 1
    assert "Traceback" not in output
    assert f"make -C {clone} install" in output
    assert f"{clone}/.venv/bin/python" in output
    assert "lacks" in output
    assert "metaflow" in output


@pytest.mark.parametrize("flags", [(), ("-S",)], ids=["empty venv", "python3 -S"])
def test_a_python_that_lacks_them_hands_over_to_the_checkouts(clone, bare, flags):
    ready(clone, sys.executable)
    python = sys.executable if flags else bare
    for program in (("-m", "adroit_publish", "show"), ("republish.py", "--flavor")):
        code, output = run(python, *flags, *program, "nope", cwd=clone)
        assert code == 2, output
        assert "example_metaflow" in output


def test_a_venv_that_lost_its_packages_does_not_start_itself_for_ever(clone, bare):
    ready(clone, bare)
    code, output = run(bare, "-m", "adroit_publish", cwd=clone)
    assert code == 1
    assert output.count("lacks") == 1


def test_a_python_that_has_them_is_left_alone(clone):
    ready(clone, "/bin/false")
    code, output = run(sys.executable, "-m", "adroit_publish", "show", "nope", cwd=clone)
    assert code == 2, output


def test_the_sub_commands_are_the_flows_from_any_directory_below(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    below = root / "projects/doubler"
    ours = {"PYTHONPATH": str(ROOT)}
    words = ("-m", "adroit_publish")
    options = ("--flavor=a", "--verify=none")
    code, output = run(sys.executable, *words, "publish", *options, cwd=below, **ours)
    assert code == 0, output
    assert "published  a: v" in output
    version = parse_flavors((root / "flavors.yaml").read_bytes())["a"].version
    assert str(version).startswith("v")
    code, output = run(sys.executable, *words, "republish", "--flavor", "a", cwd=below, **ours)
    assert code == 0, output
    assert "nothing to do" in output
    code, output = run(sys.executable, *words, "publish", "--flavor=b", cwd=below, **ours)
    assert code == 2, output
    code, output = run(sys.executable, ROOT / "train_model.py", "train", cwd=below)
    assert code == 1
    assert "flow.py run" in output


def test_the_older_name_of_republish_says_the_new_one_and_does_it(tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    older = ("--model_name", "doubler", "--version", "v00000000-000000000000")
    config = ("--config_path", "projects/doubler/config.yaml")
    program = (ROOT / "train_model.py", "-v", "republish", *older, *config)
    code, output = run(sys.executable, *program, cwd=root)
    assert code == 2, output
    assert f"is now: python republish.py -v {' '.join(older)}" in output
    assert "no version v00000000-000000000000" in output


def test_make_install_gives_the_program_and_nothing_of_the_projects(clone):
    """In a fresh .venv that has the requirements of this one."""
    venv.create(clone / ".venv", with_pip=False)
    (packages,) = clone.glob(".venv/lib/python3*/site-packages")
    (packages / "requirements.pth").write_text(sysconfig.get_path("purelib"))
    (clone / ".venv/.made-from-lock").touch()
    for _ in range(2):
        subprocess.run(["make", "install"], cwd=clone, check=True, capture_output=True)
    assert git(clone, "status", "--porcelain") == ""
    python, below = clone / ".venv/bin/python", clone / "projects/common"
    for program in ((clone / ".venv/bin/adroit-publish",), (python, "-m", "adroit_publish")):
        code, output = run(*program, "show", "nope", cwd=below)
        assert code == 2, output
        assert "example_metaflow" in output
    code, output = run(python, "-c", "import projects.common", cwd=below)
    assert code == 1, output


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the checkout as it is."""
    directory = tmp_path_factory.mktemp("wheel")
    source = clone_as_it_is(directory / "source")
    build = ("-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index")
    code, output = run(sys.executable, *build, "-q", "-w", directory, cwd=source)
    assert code == 0, output
    shutil.rmtree(source)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A directory with the wheel installed into it, and nothing that it requires."""
    target = tmp_path_factory.mktemp("target")
    words = ("-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", target, wheel)
    code, output = run(sys.executable, *words, cwd=target)
    assert code == 0, output
    return target


def test_an_installed_wheel_has_the_program_and_both_flows(installed, tmp_path, trained):
    root = make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})
    program = installed / "bin/adroit-publish"
    ours = {"PYTHONPATH": str(installed)}
    below = root / "projects/doubler"
    code, output = run(program, "publish", "--flavor=a", "--verify=none", cwd=below, **ours)
    assert code == 0, output
    version = str(parse_flavors((root / "flavors.yaml").read_bytes())["a"].version)
    code, output = run(program, "show", version, cwd=below, **ours)
    assert code == 0, output
    code, output = run(program, "republish", "--flavor", "a", cwd=below, **ours)
    assert "nothing to do" in output
    assert (installed / "metaflow_extensions/adroit/plugins/mfextinit_adroit.py").exists()


def test_an_installed_wheel_without_its_requirements_says_so(installed, bare, tmp_path):
    program = installed / "bin/adroit-publish"
    code, output = run(bare, program, "status", cwd=tmp_path, PYTHONPATH=str(installed))
    assert code == 1
    assert "Traceback" not in output
    assert "pip install" in output
