from __future__ import annotations

import os
import pickle
import subprocess
import threading
from pathlib import Path

import pytest

from adroit_publish.bundle.content import Readable
from adroit_publish.config.project import excluded
from adroit_publish.errors import DirtyTree, SourceError
from adroit_publish.git import blobs as git_blobs
from adroit_publish.git.blobs import GitBlob
from adroit_publish.git.source import snapshot

IDENTITY = {
    "GIT_AUTHOR_NAME": "t",
    "GIT_AUTHOR_EMAIL": "t@example",
    "GIT_COMMITTER_NAME": "t",
    "GIT_COMMITTER_EMAIL": "t@example",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=directory,
        env=os.environ | IDENTITY,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def write(root: Path, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def commit_all(root: Path, message: str = "m") -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD")


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    write(
        root,
        {
            "projects/m/model.py": b"model",
            "projects/m/config.yaml": b"config",
            "projects/m/deep/er/x.py": b"x",
            "projects/common/c.py": b"common",
            "other/o.py": b"other",
            ".gitignore": b"*.log\n__pycache__/\n",
        },
    )
    (root / "projects/m/run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "projects/m/run.sh").chmod(0o755)
    commit_all(root)
    return root


def take(root: Path, *directories: str, excluded: tuple[str, ...] = (), allow_dirty=False):
    return snapshot(
        root,
        directories or ("projects/m",),
        is_excluded=lambda path: path in excluded,
        allow_dirty=allow_dirty,
    )


def contents(taken) -> dict[str, bytes]:
    found = {}
    for file in taken.files:
        with file.content.open() as stream:
            found[file.path] = stream.read()
            assert len(found[file.path]) == file.size_bytes == file.content.size_bytes
    return found


def test_the_files_are_those_of_the_commit_less_what_is_excluded(root):
    git(root, "remote", "add", "origin", "https://me:hunter2@host/team/repository.git")

    taken = take(root, "projects/m", "projects/common", excluded=("projects/m/config.yaml",))

    assert contents(taken) == {
        "projects/common/c.py": b"common",
        "projects/m/deep/er/x.py": b"x",
        "projects/m/model.py": b"model",
        "projects/m/run.sh": b"#!/bin/sh\n",
    }
    assert [file.path for file in taken.files if file.executable] == ["projects/m/run.sh"]
    assert (taken.commit, taken.branch, taken.dirty) == (git(root, "rev-parse", "HEAD"), "main", ())
    assert taken.remote_url == "https://host/team/repository.git"
    assert pickle.loads(pickle.dumps(taken)) == taken


def test_files_are_sorted_by_the_bytes_of_their_paths_and_overlaps_count_once(root):
    write(root, {"projects/m/a-b": b"", "projects/m/a/b": b"", "projects/m/a.b": b""})
    commit_all(root)
    taken = take(root, "projects", "projects/m", "projects/m/deep")
    paths = [file.path for file in taken.files]
    assert paths == sorted(set(paths), key=str.encode)
    assert "projects/m/a/b" in paths


def test_ignored_files_and_files_elsewhere_are_neither_packed_nor_reported(root):
    write(root, {"projects/m/x.log": b"", "projects/m/__pycache__/m.pyc": b"", "other/new": b""})
    assert "projects/m/x.log" not in contents(take(root))


def test_every_kind_of_dirt_is_named(root):
    write(root, {f"projects/m/{name}": b"1" for name in ("moved", "conflict", "gone")})
    commit_all(root)
    write(root, {"projects/m/model.py": b"2", "projects/m/new.py": b"", "projects/m/staged": b""})
    git(root, "add", "projects/m/staged")
    git(root, "mv", "projects/m/moved", "projects/m/moved2")
    (root / "projects/m/gone").unlink()
    write(root, {"projects/m/run.sh": b"changed"})
    git(root, "add", "projects/m/run.sh")

    with pytest.raises(DirtyTree) as dirty:
        take(root)

    assert dirty.value.got.splitlines() == [
        "'projects/m/gone' (deleted)",
        "'projects/m/model.py' (modified)",
        "'projects/m/moved' (deleted)",
        "'projects/m/moved2' (added, not committed)",
        "'projects/m/new.py' (untracked)",
        "'projects/m/run.sh' (staged, not committed)",
        "'projects/m/staged' (added, not committed)",
    ]
    assert "--allow-dirty" in dirty.value.next_step


def test_a_merge_conflict_is_dirt(root):
    git(root, "checkout", "-q", "-b", "side")
    write(root, {"projects/m/model.py": b"side"})
    commit_all(root)
    git(root, "checkout", "-q", "main")
    write(root, {"projects/m/model.py": b"main"})
    commit_all(root)
    with pytest.raises(subprocess.CalledProcessError):
        git(root, "merge", "side")
    with pytest.raises(DirtyTree) as dirty:
        take(root)
    assert dirty.value.got == "'projects/m/model.py' (in conflict)"


def test_a_long_list_of_dirty_files_is_cut(root):
    write(root, {f"projects/m/{n:03}": b"" for n in range(25)})
    with pytest.raises(DirtyTree) as dirty:
        take(root)
    assert dirty.value.got.splitlines()[-1] == "and 15 more"


def test_excluded_dirt_does_not_matter(root):
    write(root, {"projects/m/config.yaml": b"changed", "projects/m/n.md": b""})
    taken = take(root, excluded=("projects/m/config.yaml", "projects/m/n.md"))
    assert "projects/m/config.yaml" not in contents(taken)


def test_allow_dirty_takes_the_working_tree_and_says_which_files(root):
    write(root, {"projects/m/model.py": b"edited", "projects/m/new.sh": b"new"})
    (root / "projects/m/new.sh").chmod(0o755)
    (root / "projects/m/deep/er/x.py").unlink()

    taken = take(root, allow_dirty=True)

    found = contents(taken)
    assert found["projects/m/model.py"] == b"edited"
    assert found["projects/m/new.sh"] == b"new"
    assert "projects/m/deep/er/x.py" not in found
    assert taken.dirty == (
        "projects/m/deep/er/x.py",
        "projects/m/model.py",
        "projects/m/new.sh",
    )
    assert "projects/m/new.sh" in [file.path for file in taken.files if file.executable]


def test_allow_dirty_of_a_clean_tree_is_the_commit(root):
    assert take(root, allow_dirty=True) == take(root)


def test_a_commit_made_elsewhere_with_other_line_endings_gives_the_same_bytes(root, tmp_path):
    write(root, {".gitattributes": b"*.txt text eol=crlf\n", "projects/m/t.txt": b"a\nb\n"})
    commit_all(root)
    git(tmp_path, "clone", "-q", str(root), "clone")
    assert (tmp_path / "clone/projects/m/t.txt").read_bytes() == b"a\r\nb\r\n"
    assert contents(take(tmp_path / "clone"))["projects/m/t.txt"] == b"a\nb\n"


@pytest.mark.parametrize("kind", ["shallow", "detached", "worktree", "below the top"])
def test_every_kind_of_checkout_gives_the_same_files(root, tmp_path, kind):
    wanted = contents(take(root))
    write(root, {"other/o.py": b"second commit"})
    commit_all(root)
    place, branch = tmp_path / "place", "main"
    if kind == "shallow":
        git(tmp_path, "clone", "-q", "--depth=1", root.as_uri(), "place")
    elif kind == "detached":
        git(tmp_path, "clone", "-q", str(root), "place")
        git(place, "checkout", "-q", "--detach")
        branch = None
    elif kind == "worktree":
        git(root, "worktree", "add", "-q", "-b", "wt", str(place))
        branch = "wt"
    else:
        top = tmp_path / "top"
        top.mkdir()
        git(top, "init", "-q", "-b", "main")
        place = top / "sub dir"
        subprocess.run(["cp", "-r", str(root), str(place)], check=True)
        subprocess.run(["rm", "-rf", str(place / ".git")], check=True)
        commit_all(top)
    taken = take(place)
    assert contents(taken) == wanted
    assert taken.branch == branch


def test_dirt_below_the_top_is_found_and_taken(root):
    write(root, {"projects/m/model.py": b"edited"})
    below = root / "projects"
    with pytest.raises(DirtyTree) as dirty:
        take(below, "m")
    assert dirty.value.got == "'m/model.py' (modified)"
    assert contents(take(below, "m", allow_dirty=True))["m/model.py"] == b"edited"


@pytest.mark.parametrize("allow_dirty", [False, True])
def test_symlinks_are_refused_with_the_reason_unless_excluded(root, allow_dirty):
    (root / "projects/m/link").symlink_to("/etc/passwd")
    if not allow_dirty:
        commit_all(root)
    with pytest.raises(SourceError, match="symlink cannot be packed") as refused:
        take(root, allow_dirty=allow_dirty)
    assert "projects/m/link" in refused.value.where
    pattern = refused.value.next_step.partition("add ")[2].partition(" to `source: exclude`")[0]
    assert excluded("link", [pattern])  # a path as seen from projects/m
    take(root, excluded=("projects/m/link",), allow_dirty=allow_dirty)


def test_submodules_are_refused_with_the_reason(root, tmp_path):
    git(tmp_path, "clone", "-q", str(root), "other")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "other"),
        "projects/m/sub")  # fmt: skip
    commit_all(root)
    with pytest.raises(SourceError, match="submodule cannot be packed"):
        take(root)
    with pytest.raises(SourceError, match="no files in a directory"):
        take(root, "projects/m/sub")


def test_the_configuration_of_a_submodule_runs_no_command(root, tmp_path):
    git(tmp_path, "clone", "-q", str(root), "other")
    git(root, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "other"),
        "projects/m/sub")  # fmt: skip
    commit_all(root)
    inside = root / "projects/m/sub"
    write(inside, {".gitattributes": b"* filter=own\n"})
    git(inside, "config", "filter.own.clean", f"touch {tmp_path}/ran; cat")
    for path in (inside / "projects").rglob("*.py"):
        os.utime(path, (1, 1))
    take(root, excluded=("projects/m/sub",))
    assert not (tmp_path / "ran").exists()
    git(root, "status")
    assert (tmp_path / "ran").exists(), "the trap does not work"


def test_a_repository_inside_is_refused_also_when_dirt_is_allowed(root):
    write(root, {"projects/m/inner/f": b""})
    git(root / "projects/m/inner", "init", "-q")
    git(root / "projects/m/inner", "-c", "user.name=t", "commit", "-q", "--allow-empty", "-m", "m")
    with pytest.raises(DirtyTree):
        take(root)
    with pytest.raises(SourceError, match="repository cannot be packed"):
        take(root, allow_dirty=True)


@pytest.mark.parametrize("allow_dirty", [False, True])
def test_git_lfs_pointers_are_refused(root, allow_dirty):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5\n" % (b"0" * 64)
    write(root, {"projects/m/weights.bin": pointer})
    if not allow_dirty:
        commit_all(root)
    with pytest.raises(SourceError, match="Git LFS file cannot be packed") as refused:
        take(root, allow_dirty=allow_dirty)
    assert "weights.bin" in refused.value.where


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\\b", b"latin-\xe9"])
def test_names_that_no_bundle_may_hold_are_refused(root, name):
    name = name if isinstance(name, bytes) else name.encode()
    (root / "projects/m" / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(SourceError):
        take(root)
    commit_all(root)
    with pytest.raises(SourceError, match="name"):
        take(root)


@pytest.mark.parametrize("names", [("A.py", "a.py"), ("\u00e9", "e\u0301")])
def test_names_that_collide_elsewhere_are_refused(root, names):
    write(root, {f"projects/m/{name}": b"" for name in names})
    commit_all(root)
    with pytest.raises(SourceError, match="would be one"):
        take(root)


def test_odd_but_usable_names_are_packed(root):
    names = ["a b", "-x", ":(glob)x", "'\"", "\u4f60", "*", "a\u00e9", " lead"]
    write(root, {f"projects/m/{name}": name.encode() for name in names})
    commit_all(root)
    found = contents(take(root))
    assert all(found[f"projects/m/{name}"] == name.encode() for name in names)


def test_a_directory_whose_name_is_a_pattern_is_only_itself(root):
    write(root, {"projects/m*/x": b"only this"})
    commit_all(root)
    write(root, {"projects/m/model.py": b"dirty"})
    assert contents(take(root, "projects/m*")) == {"projects/m*/x": b"only this"}


def test_a_directory_that_is_missing_or_a_file_is_named(root):
    for directory in ("projects/none", "projects/m/model.py"):
        with pytest.raises(SourceError, match="no files in a directory") as missing:
            take(root, "projects/m", directory)
        assert str(missing.value.where).endswith(directory)
    (root / "projects/empty").mkdir()
    with pytest.raises(SourceError):
        take(root, "projects/empty")


@pytest.mark.parametrize("directory", ["../x", "/etc", "", "a//b"])
def test_a_directory_outside_of_the_root_is_refused(root, directory):
    with pytest.raises(SourceError):
        take(root, directory)


def test_what_is_no_repository_or_has_no_commit_is_refused_with_the_next_step(tmp_path):
    with pytest.raises(SourceError) as nothing:
        take(tmp_path)
    assert "clone" in nothing.value.next_step
    git(tmp_path, "init", "-q")
    with pytest.raises(SourceError, match="no commit yet"):
        take(tmp_path)
    git(tmp_path, "init", "-q", "--bare", "bare")
    with pytest.raises(SourceError):
        take(tmp_path / "bare")
    with pytest.raises(SourceError, match="does not exist"):
        take(tmp_path / "gone")


def test_settings_and_variables_of_the_user_change_nothing(root, tmp_path, monkeypatch):
    wanted = take(root)
    config = tmp_path / "config"
    config.write_text(
        "[status]\nshowUntrackedFiles = no\nrelativePaths = true\nbranch = true\nshort = true\n"
        "[core]\nquotePath = true\n[color]\nui = always\nstatus = always\n"
        "[diff]\nrenames = copies\n[submodule]\nrecurse = true\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    config.rename(tmp_path / ".gitconfig")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    monkeypatch.setenv("GIT_INDEX_FILE", "/nowhere")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "0")
    assert take(root) == wanted
    write(root, {"projects/m/new": b""})
    with pytest.raises(DirtyTree):
        take(root)


def test_nothing_in_the_repository_is_written_and_no_hook_runs(root, tmp_path):
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    monitor.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(monitor))
    os.utime(root / "projects/m/model.py", (1, 1))  # makes a plain `git status` refresh the index
    before = {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")}
    contents(take(root))
    assert {path: path.stat().st_mtime_ns for path in (root / ".git").rglob("*")} == before
    assert not (tmp_path / "ran").exists()


def test_replacement_objects_do_not_change_a_commit(root):
    blob = git(root, "rev-parse", "HEAD:projects/m/model.py")
    other = git(root, "rev-parse", "HEAD:other/o.py")
    git(root, "replace", blob, other)
    assert contents(take(root))["projects/m/model.py"] == b"model"


def test_a_blob_is_a_readable_by_reference_whatever_its_size(root, monkeypatch):
    data = bytes(range(256)) * 40
    write(root, {"projects/m/big": data})
    commit_all(root)
    blob = next(file.content for file in take(root).files if file.path.endswith("big"))
    assert isinstance(blob, Readable)
    for limit in (git_blobs.IN_MEMORY_BYTES, 1):
        monkeypatch.setattr(git_blobs, "IN_MEMORY_BYTES", limit)
        buffer = bytearray(3)
        with blob.open() as stream:
            assert stream.read(5) == data[:5]
            stream.seek(10_000)
            assert stream.readinto(buffer) == 3
        assert buffer == data[10_000:10_003]


def test_blobs_can_be_read_by_many_threads_and_by_a_forked_child(root):
    write(root, {f"projects/m/{n}": str(n).encode() * 999 for n in range(50)})
    commit_all(root)
    taken = take(root)
    wanted = contents(taken)
    results: list[dict[str, bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(contents(taken))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [wanted] * 6
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if all(contents(taken) == wanted for _ in range(10)) else 2
        finally:
            os._exit(status)
    assert all(contents(taken) == wanted for _ in range(10))
    assert os.waitpid(child, 0)[1] == 0


def test_a_blob_that_is_gone_is_an_error_and_the_next_one_is_read(root):
    good = take(root).files[0].content
    for size_bytes in (5, git_blobs.IN_MEMORY_BYTES + 1):
        with pytest.raises(SourceError):
            GitBlob(str(root), "0" * 40, size_bytes).open()
    with pytest.raises(SourceError):
        GitBlob(good.repository, good.oid, good.size_bytes + 1).open()
    assert good.open().read()
