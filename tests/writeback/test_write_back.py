from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from adroit_publish.errors import ConfigError, PublishError, RefusedError, StoreError
from tests.support.git_clones import write_versions

OLD = "0b5c5b2f6f0c4f6b9d0a3c1e2f4a5b6c"
NEW = "v5f2b9c01-3f0c9a1b2c3d"
TEXT = f"# head\na:\n  version: {OLD}  # a\nb:\n  version:\nc: {{version: '{OLD}'}}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flavors.yaml"
    path.write_text(TEXT)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.parent.iterdir())


def test_several_versions_are_one_edit(path: Path) -> None:
    path.chmod(0o640)
    assert write_versions(path, {"a": (OLD, NEW), "b": (None, NEW)}) == ("a", "b")
    wanted = TEXT.replace(OLD, NEW, 1).replace("version:\n", f"version: {NEW}\n")
    assert path.read_text() == wanted
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(path) == ["flavors.yaml"]


def test_where_nothing_changes_nothing_is_written(path: Path) -> None:
    before = path.stat()
    assert write_versions(path, {"a": ("f" * 32, OLD)}) == ()
    assert write_versions(path, {}) == ()
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_refused_flavor_does_not_hold_up_the_others(path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        write_versions(path, {"b": (OLD, NEW), "a": (OLD, NEW)})
    assert (caught.value.got, caught.value.wanted) == ("no version", OLD)
    assert path.read_text() == TEXT.replace(OLD, NEW, 1)


def test_all_flavors_that_were_not_set_are_named(path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        write_versions(path, {"b": (OLD, NEW), "zz": (None, NEW), "c": (None, NEW)})
    for fact in ("'b'", "'c'", "'zz'", "no version", OLD):
        assert fact in str(caught.value)
    assert path.read_text() == TEXT


def test_a_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to(path)
    assert write_versions(link, {"a": (OLD, NEW)}) == ("a",)
    assert link.is_symlink()
    assert path.read_text() == TEXT.replace(OLD, NEW, 1)
    assert names(link) == ["link.yaml"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(path: Path) -> None:
    kept = [".flavors.yaml.swp", ".flavors.yaml.mine.tmp", ".other.0123456789abcdef.tmp"]
    for name in [*kept, ".flavors.yaml.0123456789abcdef.tmp"]:
        (path.parent / name).write_text("half")
    write_versions(path, {"a": (OLD, NEW)})
    assert names(path) == sorted([*kept, "flavors.yaml"])


def test_a_missing_file_and_a_bad_one_are_config_errors(path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        write_versions(path.with_name("none.yaml"), {"a": (OLD, NEW)})
    path.write_bytes(b"a: 1\na: 2\n")
    with pytest.raises(ConfigError, match=r"flavors\.yaml:2"):
        write_versions(path, {"a": (OLD, NEW)})
    assert path.read_bytes() == b"a: 1\na: 2\n"


@pytest.mark.parametrize(
    ("call", "code", "error"),
    [
        ("fsync", errno.ENOSPC, StoreError),
        ("fsync", errno.EIO, StoreError),
        ("rename", errno.EACCES, RefusedError),
        ("rename", errno.EROFS, RefusedError),
    ],
)
def test_a_failing_disk_leaves_the_old_file_and_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[PublishError]
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(error, match=os.strerror(code)) as caught:
        write_versions(path, {"a": (OLD, NEW)})
    assert caught.value.next_step
    assert path.read_text() == TEXT
    assert names(path) == ["flavors.yaml"]


def test_a_file_that_outgrows_the_disk_leaves_the_old_one(path: Path) -> None:
    path.write_text(TEXT + "# x\n" * 5000)
    before = path.read_bytes()
    script = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.support.git_clones import write_versions\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"write_versions(Path(sys.argv[1]), {{'a': ('{OLD}', '{NEW}')}})\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "StoreError: flavors.yaml could not be written; it is as it was." in run.stderr
    assert path.read_bytes() == before
    assert names(path) == ["flavors.yaml"]


def test_the_directory_is_synced_after_the_rename(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append("fsync directory" if is_directory else "fsync file")
        real_fsync(descriptor)

    def rename(*names: str, **directories: int) -> None:
        done.append("rename")
        real_rename(*names, **directories)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    write_versions(path, {"a": (OLD, NEW)})
    assert done == ["fsync file", "rename", "fsync directory"]


def test_an_editor_that_saves_meanwhile_is_not_overwritten(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_fchmod, saved = os.fchmod, "# saved by an editor\n" + TEXT

    def save_once(descriptor: int, mode: int) -> None:
        real_fchmod(descriptor, mode)
        if path.read_text() == TEXT:
            path.write_text(saved)

    monkeypatch.setattr(os, "fchmod", save_once)
    assert write_versions(path, {"a": (OLD, NEW)}) == ("a",)
    assert path.read_text() == saved.replace(OLD, NEW, 1)
    assert names(path) == ["flavors.yaml"]


def test_a_writer_waits_for_the_lock_on_the_directory(path: Path) -> None:
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.support.git_clones import write_versions\n"
        "print('ready', flush=True)\n"
        f"print(write_versions(Path(sys.argv[1]), {{'a': ('{OLD}', '{NEW}')}}), flush=True)\n"
    )
    directory = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
        assert select.select([writer.stdout], [], [], 0.5)[0] == []
        edited = TEXT.replace("# head", "# changed while the writer waited")
        path.write_text(edited)
        os.close(directory)
        assert writer.stdout.readline() == "('a',)\n"
    assert path.read_text() == edited.replace(OLD, NEW, 1)
