"""Every file that decides a bundle is that of the commit, or the record names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adroit
from adroit_publish import publish, republish
from adroit_publish.checkout import open_checkout
from adroit_publish.errors import DirtyTree, SourceError
from adroit_publish.places import open_store
from adroit_publish.publish.planning import plan
from adroit_publish.publish.prepare import prepare
from adroit_publish.publish.publish import publish as publish_job
from adroit_publish.publish.release import PublishOptions
from adroit_publish.stores.records import records
from tests.support.checkouts import commit, git, make_checkout

REPOSITORY = Path(__file__).parents[2]
CONFIG = "projects/doubler/config.yaml"


@pytest.fixture
def checkout(tmp_path, trained):
    return make_checkout(tmp_path / "repo", trained.tracking_uri, {"a": trained.good[0]})


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def other_handler(root: Path) -> None:
    edit(root / CONFIG, "adroit.serving.mlflow_handler", "projects.doubler.handler")
    (root / "projects/doubler/handler.py").write_text(
        "from adroit.serving.mlflow_handler import MlflowHandler\n"
    )
    git(root, "add", "projects/doubler/handler.py")
    git(root, "commit", "-q", "-m", "a handler, and not its config")


def other_kwarg(root: Path) -> None:
    line = "      model_name: doubler\n"
    edit(root / CONFIG, line, f"{line}      log_features_percent: 0.5\n")


def other_environment(root: Path) -> None:
    (root / "environment.yml").write_text("dependencies: [python=3.11, left-pad]\n")


def other_conda_env(root: Path) -> None:
    edit(root / "conda_envs.yaml", "plain:\n", "plain:\n  python: /usr/bin/python3\n")


def ignored_environment(root: Path) -> None:
    (root / ".gitignore").write_text(".adroit/\n.metaflow/\nenvironment.yml\n")
    git(root, "rm", "-q", "--cached", "environment.yml")
    git(root, "add", ".gitignore")
    git(root, "commit", "-q", "-m", "not for others")


def staged_config(root: Path) -> None:
    other_kwarg(root)
    git(root, "add", CONFIG)


def another_env_by_name(root: Path) -> None:
    text = (root / "conda_envs.yaml").read_text()
    (root / "conda_envs.yaml").write_text(text + "other:\n  environment: environment.yml\n")
    commit(root, "two envs")
    edit(root / "flavors.yaml", "conda_env: plain", "conda_env: other")


def another_project(root: Path) -> None:
    shutil.copytree(root / "projects/doubler", root / "projects/old/doubler")
    commit(root, "a copy")
    edit(root / "flavors.yaml", "projects/doubler", "projects/old/doubler")


DIRT = {
    other_handler: CONFIG,
    other_kwarg: CONFIG,
    staged_config: CONFIG,
    other_environment: "environment.yml",
    ignored_environment: "environment.yml",
    other_conda_env: "conda_envs.yaml",
    another_env_by_name: "flavors.yaml",
    another_project: "flavors.yaml",
}


@pytest.mark.parametrize("make_dirty", DIRT, ids=lambda function: function.__name__)
def test_a_file_that_decides_and_is_not_committed_is_refused_or_recorded(checkout, make_dirty):
    make_dirty(checkout)
    with pytest.raises(DirtyTree) as refused:
        publish("a", root=checkout, verify="none")
    assert f"'{DIRT[make_dirty]}' (" in refused.value.got
    release = publish("a", root=checkout, verify="none", allow_dirty=True)
    assert release.dirty == (DIRT[make_dirty],)
    store = open_store(open_checkout(checkout, {}).target(None))
    (record,) = records(store, store.get(release.version))
    assert record.document["dirty"] == [DIRT[make_dirty]]


def test_all_files_that_differ_are_named_together(checkout):
    other_kwarg(checkout)
    other_environment(checkout)
    other_conda_env(checkout)
    (checkout / "projects/doubler/features.py").write_text("SCALE = 3\n")
    everything = (
        "conda_envs.yaml",
        "environment.yml",
        CONFIG,
        "projects/doubler/features.py",
    )
    with pytest.raises(DirtyTree) as refused:
        publish("a", root=checkout, verify="none")
    assert all(f"'{path}' (modified)" in refused.value.got for path in everything)
    (row,) = plan(open_checkout(checkout), names=["a"])
    assert any(", ".join(everything) in note for note in row.notes)
    assert publish("a", root=checkout, verify="none", allow_dirty=True).dirty == everything


def test_a_republish_holds_to_it_as_well(checkout):
    publish("a", root=checkout, verify="none")
    other_kwarg(checkout)
    with pytest.raises(DirtyTree, match="config"):
        republish("a", root=checkout, verify="none")
    again = republish("a", root=checkout, verify="none", allow_dirty=True)
    assert (again.news, again.dirty) == (True, (CONFIG,))


def test_what_decides_nothing_may_be_dirty(checkout, trained):
    (checkout / "projects/doubler/notes.md").write_text("untracked")
    flavors = checkout / "flavors.yaml"
    text = flavors.read_text().replace(trained.good[0], trained.good[1])
    entry = f"b: {{config: {CONFIG}, conda_env: plain, version: {trained.good[0]}}}\n"
    flavors.write_text(
        "# edited\n" + text.replace("  version", "  artifact: model\n  version") + entry
    )
    assert publish("a", root=checkout, verify="none").dirty == ()
    assert publish("b", root=checkout, verify="none").dirty == ()


def test_a_symbolic_link_that_decides_is_refused(checkout):
    (checkout / "environment.yml").rename(checkout / "elsewhere.yml")
    (checkout / "environment.yml").symlink_to("elsewhere.yml")
    commit(checkout, "linked")
    for allow_dirty in (False, True):
        with pytest.raises(SourceError, match="symlink") as refused:
            publish("a", root=checkout, verify="none", allow_dirty=allow_dirty)
        assert "environment.yml" in str(refused.value.where)


def linked_file(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def linked_out_of_the_checkout(path: Path) -> None:
    outside = path.parents[3] / f"outside-{path.name}"
    path.rename(outside)
    path.symlink_to(outside)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def linked_directory(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to("elsewhere", target_is_directory=True)


def named_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("path", "replace"),
    [
        *((path, linked_file) for path in (CONFIG, "environment.yml", "conda_envs.yaml")),
        *((path, linked_file) for path in ("flavors.yaml", "adroit.toml")),
        (CONFIG, linked_out_of_the_checkout),
        (CONFIG, linked_directory),
        ("adroit.toml", dangling_link),
        (CONFIG, named_pipe),
        ("adroit.toml", named_pipe),
    ],
)
def test_what_decides_is_a_regular_file_and_no_link_is_followed(checkout, path, replace):
    replace(checkout / path)
    if replace is not named_pipe:
        commit(checkout, "replaced")
    with pytest.raises(SourceError, match=r"symlink|special file") as refused:
        publish("a", root=checkout, verify="none", allow_dirty=True)
    assert path in str(refused.value.where)
    assert "regular file" in refused.value.wanted
    assert "exclude" not in str(refused.value)
    plan_of = subprocess.run(
        [sys.executable, "-m", "adroit_publish", "plan"],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    kind = "special file" if replace is named_pipe else "symlink"
    assert f"is a {kind}" in plan_of.stdout + plan_of.stderr


def test_adroit_config_may_name_a_link(checkout, tmp_path):
    (tmp_path / "named.toml").symlink_to(checkout / "adroit.toml")
    elsewhere = {"ADROIT_CONFIG": str(tmp_path / "named.toml")}
    assert open_checkout(checkout, elsewhere).target(None).name == "local"


def test_a_committed_link_is_refused_where_git_checks_it_out_as_a_file(checkout, tmp_path):
    linked_file(checkout / "environment.yml")
    commit(checkout, "linked")
    git(tmp_path, "clone", "-q", "-c", "core.symlinks=false", checkout.as_uri(), "clone")
    assert (tmp_path / "clone/environment.yml").read_text() == "elsewhere"
    with pytest.raises(SourceError, match="symlink cannot decide") as refused:
        publish("a", root=tmp_path / "clone", verify="none")
    assert (refused.value.wanted, "exclude" in refused.value.next_step) == ("a regular file", False)


def test_a_pointer_of_git_lfs_decides_nothing(checkout):
    (checkout / "environment.yml").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
    )
    commit(checkout, "in LFS")
    with pytest.raises(SourceError, match="Git LFS file cannot decide"):
        publish("a", root=checkout, verify="none")


def test_what_was_decided_by_is_what_is_recorded(checkout):
    other_kwarg(checkout)
    options = PublishOptions(allow_dirty=True, verify="none")
    (job,) = prepare(open_checkout(checkout), ["a"], options)
    git(checkout, "checkout", "-q", CONFIG)
    with pytest.raises(SourceError, match="changed while"):
        publish_job(job)
    (job,) = prepare(open_checkout(checkout), ["a"], options)
    other_environment(checkout)
    with pytest.raises(SourceError, match="changed while"):
        publish_job(job)


# The same commit is the same version


def everywhere(root: Path, version: str, **options: object) -> None:
    release = publish("a", root=root, verify="none", **options)
    assert (release.version, release.dirty) == (version, ())


@pytest.mark.parametrize(
    "options",
    [
        ["-c", "core.autocrlf=true"],
        ["-c", "core.eol=crlf", "-c", "core.autocrlf=input"],
        ["--depth=1"],
        ["--sparse"],
        ["-c", "core.symlinks=false", "-c", "core.fileMode=false"],
    ],
    ids=" ".join,
)
def test_every_clone_of_a_commit_makes_the_same_version(checkout, tmp_path, options):
    version = publish("a", root=checkout, verify="none").version
    git(tmp_path, "clone", "-q", *options, checkout.as_uri(), "clone")
    everywhere(tmp_path / "clone", version)


def test_a_partial_clone_is_not_filled_behind_its_owners_back(checkout, tmp_path):
    (checkout / "projects/common").mkdir()
    (checkout / "projects/common/shared.py").write_text("A = 1\n")
    with (checkout / CONFIG).open("a") as file:
        file.write("source:\n  include: [projects/common]\n")
    commit(checkout, "an include")
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "config", "uploadpack.allowFilter", "true")
    options = ("--filter=blob:none", "--sparse")
    git(tmp_path, "clone", "-q", *options, checkout.as_uri(), "clone")
    clone, log = tmp_path / "clone", tmp_path / "fetched"
    git(clone, "sparse-checkout", "add", "projects/doubler")
    git(clone, "config", "remote.origin.uploadpack", f"echo >> {log}; git-upload-pack")
    with pytest.raises(SourceError, match="promisor") as refused:
        publish("a", root=clone, verify="none")
    assert "sparse-checkout add" in refused.value.next_step
    assert not log.exists()
    git(clone, "sparse-checkout", "add", "projects/common")
    assert log.exists()
    everywhere(clone, version)


def test_a_worktree_and_a_directory_below_the_top_make_the_same_version(checkout, tmp_path):
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "worktree", "add", "-q", "--detach", str(tmp_path / "worktree"))
    everywhere(tmp_path / "worktree", version)
    shutil.copytree(tmp_path / "worktree", tmp_path / "top/team", ignore=lambda *_: [".git"])
    git(tmp_path / "top", "init", "-q")
    shutil.rmtree(tmp_path / "top/team/.adroit")
    git(tmp_path / "top/team", "checkout", "-q", "--orphan", "main")
    edit(
        tmp_path / "top/team/flavors.yaml",
        version,
        git(checkout, "show", "HEAD:flavors.yaml").split("version: ")[1].split()[0],
    )
    commit(tmp_path / "top", "all")
    everywhere(tmp_path / "top/team", version)


def test_attributes_that_convert_what_is_checked_out_change_no_version(checkout, tmp_path):
    (checkout / "projects/doubler/features.py").write_text("SCALE = 2  # $Id$\n")
    commit(checkout, "an id")
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    (checkout / ".gitattributes").write_text(
        "*.py ident text eol=crlf\nenvironment.yml text working-tree-encoding=UTF-16 eol=crlf\n"
        "conda_envs.yaml text eol=crlf export-ignore\n"
        "config.yaml export-ignore working-tree-encoding=UTF-16\n"
    )
    git(checkout, "add", ".gitattributes")
    git(checkout, "commit", "-q", "-m", "attributes")
    git(tmp_path, "clone", "-q", checkout.as_uri(), "clone")
    clone = tmp_path / "clone"
    assert (clone / CONFIG).read_bytes() != (checkout / CONFIG).read_bytes()
    everywhere(clone, version)


def test_a_replaced_object_decides_nothing(checkout):
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    blob = git(checkout, "rev-parse", "HEAD:environment.yml")
    other = checkout / ".git/other"
    other.write_text("dependencies: [other]\n")
    git(checkout, "replace", blob, git(checkout, "hash-object", "-w", str(other)))
    everywhere(checkout, version)


@pytest.mark.parametrize("allow_dirty", [False, True])
def test_a_project_that_git_ignores_is_not_packed_as_nothing(checkout, allow_dirty):
    (checkout / ".gitignore").write_text(".adroit/\n.metaflow/\nprojects/\n")
    git(checkout, "rm", "-rq", "--cached", "projects")
    commit(checkout, "no projects")
    with pytest.raises(SourceError, match=r"no files in a directory|not in the commit"):
        publish("a", root=checkout, verify="none", allow_dirty=allow_dirty)


def test_variables_of_a_hook_lead_to_no_other_repository(checkout, tmp_path, monkeypatch, trained):
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    other = make_checkout(tmp_path / "other", trained.tracking_uri, {"a": trained.good[1]})
    (other / "environment.yml").write_text("dependencies: [other]\n")
    commit(other, "another env")
    for name, value in {
        "GIT_DIR": other / ".git",
        "GIT_WORK_TREE": other,
        "GIT_INDEX_FILE": other / ".git/index",
        "GIT_OBJECT_DIRECTORY": other / ".git/objects",
        "GIT_COMMON_DIR": other / ".git",
        "GIT_PREFIX": "projects/",
        "GIT_NAMESPACE": "other",
        "GIT_ATTR_SOURCE": "HEAD",
        "GIT_SHALLOW_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, str(value))
    everywhere(checkout, version)


# The runtime, where the checkout has it


def run_in(root: Path, code: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(root), str(REPOSITORY)])
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )


PUBLISH = """
from adroit_publish import publish
release = publish("a", verify="none", allow_dirty={allow_dirty})
print(release.version, *release.dirty)
"""


def published_in(root: Path, *, allow_dirty: bool = False) -> list[str]:
    done = run_in(root, PUBLISH.format(allow_dirty=allow_dirty))
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_runtime_in_the_checkout_is_that_of_the_commit(checkout, tmp_path):
    installed = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    ours = Path(adroit.__file__).parent
    shutil.copytree(ours, checkout / "adroit", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text(".adroit/\n.metaflow/\n__pycache__/\n")
    commit(checkout, "the runtime too")
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", checkout.as_uri(), "clone")
    assert b"\r\n" in (tmp_path / "clone/adroit/serving/server.py").read_bytes()
    assert published_in(tmp_path / "clone") == published_in(checkout) == [installed]

    git(checkout, "checkout", "-q", "flavors.yaml")
    with (checkout / "adroit/serving/server.py").open("a") as file:
        file.write("# edited\n")
    (checkout / "adroit/serving/more.py").write_text("")
    (checkout / "adroit/training/scratch.py").write_text("")
    refused = run_in(checkout, PUBLISH.format(allow_dirty=False))
    assert "'adroit/serving/more.py' (untracked)" in refused.stderr
    assert "'adroit/serving/server.py' (modified)" in refused.stderr
    version, *dirty = published_in(checkout, allow_dirty=True)
    assert version != installed
    assert dirty == ["adroit/serving/more.py", "adroit/serving/server.py"]


def test_a_runtime_that_is_installed_below_the_checkout_is_no_file_of_it(checkout):
    version = publish("a", root=checkout, verify="none").version
    git(checkout, "checkout", "-q", "flavors.yaml")
    ours = Path(adroit.__file__).parent
    shutil.copytree(ours, checkout / ".venv/adroit", ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".gitignore").write_text(".adroit/\n.metaflow/\n.venv/\n")
    commit(checkout, "an environment is ignored")
    code = f"import sys; sys.path.insert(0, {str(checkout / '.venv')!r})\n"
    done = run_in(checkout, code + PUBLISH.format(allow_dirty=False))
    assert done.stdout.split() == [version], done.stderr
