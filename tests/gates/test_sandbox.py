"""adroit_publish.gates.sandbox: each kind shows the same view and keeps the same limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adroit_publish.errors import RefusedError
from adroit_publish.gates import interpreter, sandbox
from tests.support.requirements import require, require_sandbox
from tests.support.serving_bundles import REPOSITORY

CONFINED = ("bubblewrap", "namespaces")


@pytest.fixture(params=CONFINED)
def kind(request: pytest.FixtureRequest) -> sandbox.Kind:
    chosen: sandbox.Kind = request.param
    require_sandbox(chosen)
    return chosen


def run(kind: sandbox.Kind, bundle: Path, code: str, **options: Any) -> sandbox.CompletedRun:
    options = {"timeout_s": 30.0, **options}
    return sandbox.run(["-c", code], bundle=bundle, kind=kind, **options)


def answer(kind: sandbox.Kind, bundle: Path, code: str) -> Any:
    done = run(kind, bundle, f"import json, os\n{code}\nprint(json.dumps(answer))")
    assert done.exit_code == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_only_the_view_is_there(kind: sandbox.Kind, tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    seen = answer(
        kind,
        tmp_path,
        "answer = {path: sorted(os.listdir(path)) for path in ('/', '/etc', '/opt/adroit',"
        " '/tmp', os.environ['HOME'])}",
    )
    shown = interpreter.interpreter_of(sys.executable).directories
    roots = {path.parts[1] for path in shown}
    temporary = {path.parts[2] for path in shown if path.parts[1] == "tmp"}
    system = {"usr", "bin", "sbin", "lib", "lib32", "lib64", "etc", "opt", "proc", "dev", "tmp"}
    assert set(seen["/"]) <= system | roots
    assert set(seen["/etc"]) <= {"alternatives", "group", "hosts", "ld.so.cache", "passwd"}
    assert seen["/opt/adroit"] == ["bundle.json"]
    assert set(seen["/tmp"]) == {"home"} | temporary
    assert seen["/tmp/home"] == []


def test_nothing_shown_can_be_written(kind: sandbox.Kind, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("weights")
    (tmp_path / "model").chmod(0o777)  # so that nothing but the mount stands against it
    (tmp_path / "model/weights").chmod(0o666)
    failed = answer(
        kind,
        tmp_path,
        """
import subprocess, sys
answer = []
subprocess.run("mount -o remount,rw / ; mount -o remount,bind,rw /opt/adroit/model;"
               "unshare -Urm mount -o remount,bind,rw /opt/adroit/model", shell=True)
for path in ("/x", "/usr/x", "/etc/x", "/dev/x", "/opt/adroit/x", "/opt/adroit/model/weights",
             "/proc/sys/kernel/core_pattern", sys.prefix + "/x"):
    try: open(path, "w")
    except OSError as error: answer.append(path)
""",
    )
    assert len(failed) == 8
    code = (
        "import sys\n"
        "paths = ['/', '/usr', '/etc/passwd', '/proc', '/dev', sys.prefix, '/opt/adroit/model']\n"
        "answer = [path for path in paths if not os.statvfs(path).f_flag & os.ST_RDONLY]"
    )
    assert answer(kind, tmp_path, code) == []
    assert (tmp_path / "model/weights").read_text() == "weights"


def test_there_are_no_other_processes_capabilities_or_networks(
    kind: sandbox.Kind, tmp_path: Path
) -> None:
    seen = answer(
        kind,
        tmp_path,
        """
import socket
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
answer = {"pids": [n for n in os.listdir("/proc") if n.isdigit()],
          "caps": {status[c].strip() for c in ("CapInh", "CapPrm", "CapEff", "CapBnd")}.pop(),
          "nnp": status["NoNewPrivs"].strip(), "fds": sorted(os.listdir("/proc/self/fd"))[:4],
          "nets": [name for _, name in socket.if_nameindex()], "host": socket.gethostname(),
          "session": os.getsid(0) }
""",
    )
    assert len(seen["pids"]) <= 2  # bubblewrap has a first process of its own
    assert int(seen["caps"], 16) == 0
    assert seen["nnp"] == "1"
    assert seen["fds"] == ["0", "1", "2", "3"]  # 3 is the listing itself
    assert seen["nets"] == ["lo"]
    assert seen["host"] == "adroit"


def test_the_environment_is_a_handful(
    kind: sandbox.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    seen = answer(kind, tmp_path, "answer = dict(os.environ)")
    allowed = {"HOME", "LANG", "OLDPWD", "PATH", "PWD", "TMPDIR", "TZ", "LC_CTYPE"}
    prefixes = ("PYTHON", "MLFLOW_DISABLE", "OMP_", "OPENBLAS_", "MKL_")
    assert {name for name in seen if not name.startswith(prefixes)} <= allowed
    assert "canary" not in seen.values()


def test_root_becomes_a_user_that_owns_nothing(kind: sandbox.Kind, tmp_path: Path) -> None:
    require(os.geteuid() == 0, "only root can give its identity away")
    tmp_path.chmod(0o700)  # as a temporary directory is: its parts are shown, not itself
    secret = tmp_path / "model"
    secret.mkdir()
    (secret / "weights").write_text("weights")
    assert answer(kind, tmp_path, "answer = os.getuid()") == 65432
    (secret / "weights").chmod(0o600)  # nobody else could read it: then root stays, powerless
    code = "answer = [os.getuid(), open('/opt/adroit/model/weights').read()]"
    assert answer(kind, tmp_path, code) == [0, "weights"]


def test_user_lookups_and_scratch_space_work(kind: sandbox.Kind, tmp_path: Path) -> None:
    code = """
import getpass, multiprocessing, pathlib, pwd, tempfile
pathlib.Path.home().joinpath("cache").write_text("x")
multiprocessing.Lock()
answer = [pwd.getpwuid(os.getuid()).pw_dir, tempfile.gettempdir()]
"""
    assert answer(kind, tmp_path, code) == ["/tmp/home", "/tmp"]


@pytest.mark.parametrize("kind", [*CONFINED, "plain"])
def test_a_process_that_does_not_end_is_ended_with_its_children(
    kind: sandbox.Kind, tmp_path: Path
) -> None:
    require_sandbox(kind)
    mark = f"adroit-test-{os.getpid()}-{time.monotonic_ns()}"
    code = f"import os, time\nmark = {mark!r}\nos.fork()\nos.fork()\ntime.sleep(600)"
    started = time.monotonic()
    done = run(kind, tmp_path, code, timeout_s=1.0)
    assert done.timed_out
    assert time.monotonic() - started < 20
    assert _alive(mark) == []


@pytest.mark.parametrize("kind", [*CONFINED, "plain"])
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_the_process_that_started_it(
    kind: sandbox.Kind, ending: signal.Signals, tmp_path: Path
) -> None:
    require_sandbox(kind)
    (tmp_path / "bundle").mkdir()
    mark = f"adroit-test-{os.getpid()}-{time.monotonic_ns()}"
    inside = f"import time\nmark = {mark!r}\ntime.sleep(600)"
    starter = (
        "from pathlib import Path; from adroit_publish.gates import sandbox\n"
        f"sandbox.run(['-c', {inside!r}], bundle=Path({str(tmp_path / 'bundle')!r}), kind={kind!r},"
        " timeout_s=600)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter],
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # which SIGKILL leaves no time to tidy
        stderr=subprocess.DEVNULL,
    )
    # The starter's own command line holds the mark too, and so may a shell's or a wrapper's.
    _until(lambda: any(_is_inside(pid) for pid in _alive(mark)))
    process.send_signal(ending)
    process.wait(20)
    _until(lambda: _alive(mark) == [])


def test_memory_has_a_limit_and_reservations_do_not_count(
    kind: sandbox.Kind, tmp_path: Path
) -> None:
    code = "import mmap\nmmap.mmap(-1, 8 << 30, prot=mmap.PROT_READ)\n"
    assert run(kind, tmp_path, code, memory_bytes=1 << 30).exit_code == 0
    done = run(kind, tmp_path, code + "bytearray(2 << 30)", memory_bytes=1 << 30)
    assert b"MemoryError" in done.stderr


def test_output_is_bounded_from_both_ends(kind: sandbox.Kind, tmp_path: Path) -> None:
    code = "import os\nfor n in range(200): os.write(1, b'o' * 99999); os.write(2, b'e' * 99999)"
    done = run(kind, tmp_path, code + "\nos.write(2, b'last words')")
    assert len(done.stdout) == sandbox.STDOUT_BYTES + 1
    assert len(done.stderr) == sandbox.STDERR_BYTES
    assert done.stderr.endswith(b"last words")


def test_the_signal_that_ended_it_is_named(kind: sandbox.Kind, tmp_path: Path) -> None:
    done = run(kind, tmp_path, "import ctypes; ctypes.string_at(0)")
    assert sandbox.signal_name(done.exit_code) == "SIGSEGV"
    assert sandbox.signal_name(run(kind, tmp_path, "raise SystemExit(3)").exit_code) is None


def test_it_works_in_a_chroot_whose_root_is_no_mount(tmp_path: Path) -> None:
    require(os.geteuid() == 0, "only root can change its root")
    require_sandbox("namespaces")
    # A chroot on a tmpfs of a mount namespace of its own, made of the host's directories.
    script = """
        mount -t tmpfs chroot "$1"; mkdir "$1/root"; cd "$1/root"
        top() { printf '/%s' "$(printf '%s' "$1" | cut -d/ -f2)"; }
        python=$(readlink -f "$3")
        for path in /usr /etc /dev /proc /home /opt /tmp "$(top "$python")" "$(top "$2")"; do
            [ -d $path ] && ! [ -d ./$path ] || continue
            mkdir ./$path; mount --rbind $path ./$path
        done
        for path in /bin /sbin /lib /lib32 /lib64; do
            if [ -L $path ]; then cp -P $path .$path
            elif [ -d $path ]; then mkdir .$path; mount --bind $path .$path; fi
        done
        exec chroot . sh -c 'cd "$1" && exec "$2" -c "$3"' sh "$2" "$3" "$4"
    """
    code = (
        "from adroit_publish.gates import sandbox\n"
        "print(sandbox.works('namespaces'), sandbox.available())"
    )
    (tmp_path / "chroot").mkdir()
    arguments = [str(tmp_path / "chroot"), str(REPOSITORY), sys.executable, code]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", *arguments],
        capture_output=True,
        check=False,
    )
    if b"cannot change root filesystem propagation" in done.stderr:
        pytest.skip("this is a chroot whose root is no mount; every other test shows it")
    assert done.stdout.decode().split() == ["True", "namespaces"], done.stderr.decode()


def test_an_environment_that_holds_the_home_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path(sys.prefix) / "home"))
    interpreter.interpreter_of.cache_clear()
    with pytest.raises(RefusedError, match="includes the home directory"):
        interpreter.interpreter_of(sys.executable)
    interpreter.interpreter_of.cache_clear()


def test_links_that_lead_to_the_interpreter_are_part_of_the_view(
    kind: sandbox.Kind, tmp_path: Path
) -> None:
    link = tmp_path / "bin/python"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    (tmp_path / "bundle").mkdir()
    done = sandbox.run(
        ["-I", "-c", "import sys; print(sys.executable)"],
        bundle=tmp_path / "bundle",
        python=str(link),
        kind=kind,
        timeout_s=30,
    )
    assert done.stdout.decode().strip() == str(link), done.stderr.decode()


def _alive(mark: str) -> list[int]:
    """Returns the processes of this machine whose command line holds the mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def _is_inside(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return command[0] == sys.executable.encode() and command[2].startswith(b"import time")


def _until(condition: Any, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)
