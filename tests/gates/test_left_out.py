"""Which logged modules are copies of files of the checkout, as far as names and bytes tell."""

from __future__ import annotations

import hashlib

import pytest

from adroit_publish.bundle.content import InlineFile
from adroit_publish.bundle.imports import Imports
from adroit_publish.errors import VerificationError
from adroit_publish.gates.left_out import check_left_out

LOGGED = b"RATE = 2\n"
PROJECTS = ("projects/doubler/config.yaml", "projects/other/config.yaml")


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def check(logged: str, committed: dict[str, bytes], accepted: tuple[str, ...] = ()):
    path = f"code/{logged}"
    files = {f"model/{path}": InlineFile(LOGGED)}
    blobs = {name: blob(data) for name, data in committed.items()}
    return check_left_out(Imports((), (path,), ()), files, blobs, "doubler", accepted)


def others(*paths: str) -> dict[str, bytes]:
    return dict.fromkeys((*PROJECTS, *paths), b"RATE = 3\n")


@pytest.mark.parametrize("logged", ["cash.py", "tills/cash.py", "tills/__init__.py"])
@pytest.mark.parametrize("data", [LOGGED, b"RATE = 3\n"])
def test_a_module_that_was_logged_by_a_shorter_path_is_a_copy_however_it_was_edited(logged, data):
    origin = f"projects/common/{logged}"
    committed = others() | {origin: data}
    with pytest.raises(VerificationError, match="leave out") as refused:
        check(logged, committed)
    assert f"{origin} is not packed" in str(refused.value.got)
    assert origin.rpartition("/")[0] in str(refused.value.next_step)
    module = logged.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    assert f"accept: [module:{module}]" in str(refused.value.next_step)
    (finding,) = check(logged, committed, (f"module:{module}",))
    assert origin in finding.what


def test_all_files_of_the_name_are_named():
    with pytest.raises(VerificationError) as refused:
        check("cash.py", others("lib/cash.py", "projects/common/cash.py", "cash.py"))
    assert "lib/cash.py and projects/common/cash.py and cash.py are not" in str(refused.value.got)
    assert "include: [ITS-DIRECTORY, lib, projects/common]" in str(refused.value.next_step)


@pytest.mark.parametrize(
    ("logged", "path"),
    [
        ("model.py", "projects/other/model.py"),
        ("utils.py", "projects/other/deep/utils.py"),
        ("utils.py", "projects/doubler/tests/utils.py"),
        ("__init__.py", "lib/tills/__init__.py"),
        ("cash.py", "lib/petty_cash.py"),
        ("tills/cash.py", "lib/cash.py"),
    ],
)
def test_what_only_has_the_same_name_is_not_a_copy(logged, path):
    assert check(logged, others(path)) == ()


@pytest.mark.parametrize(
    "config",
    ["projects/config.yaml", "lib/config.yaml", "lib/tills/config.yaml", "config.yaml"],
)
def test_a_config_yaml_of_something_else_makes_no_project(config):
    with pytest.raises(VerificationError, match="leave out"):
        check("cash.py", others(config, "lib/tills/cash.py", "projects/common/cash.py"))


def test_projects_may_lie_deeper_than_one_directory():
    projects = {
        f"ml/{project}/config.yaml": b""
        for project in ("doubler", "ads/tripler", "feed/other", "feed")
    }
    for other in ("ads/tripler", "feed/other"):
        assert check("cash.py", projects | {f"ml/{other}/cash.py": b""}) == ()
    with pytest.raises(VerificationError, match="leave out"):
        check("cash.py", projects | {"ml/feed/cash.py": b""})


def test_another_project_is_known_where_the_models_own_is_not_committed_yet():
    other = {"projects/other/config.yaml": b"", "projects/other/cash.py": b""}
    assert check("cash.py", other) == ()
