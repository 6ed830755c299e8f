"""The command lines that confine a process: what it sees, what it may use, who it is.

Every kind shows the same view: the interpreter's environment and the system's libraries at their
own paths, the bundle at /opt/adroit, all read-only; an empty /tmp of bounded size with HOME in
it; a /proc of the sandbox's own processes; a /dev without devices. There is no network but a
loopback of its own, no other process, no capability and no way to gain one. ``Task`` is what to
run; ``bubblewrap``, ``namespaces`` and ``plain`` turn it into a command line. Nothing here runs
anything.

Limits are per process, by prlimit. Memory is RLIMIT_DATA, which counts private writable memory:
RLIMIT_AS would also count what numpy and torch reserve and never touch, and the weights they map.
A cgroup would count the tree, but an ordinary user seldom has one.

Source: namespaces(7), user_namespaces(7), capabilities(7), pivot_root(2), getrlimit(2).
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.gates.interpreter import SYSTEM_DIRECTORIES, SYSTEM_FILES, Interpreter

BUNDLE_ROOT = Path("/opt/adroit")
SEARCH_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
SANDBOX_ID = 65432  # a user and group that own nothing
SCRATCH_BYTES = 1 << 30  # /tmp, and the largest single file
PROCESSES = 4096  # threads count, and an ordinary user's other threads may count with them


@dataclass(frozen=True)
class Task:
    """One process to confine.

    Attributes:
        bundle: The directory shown as /opt/adroit.
        workspace: An empty directory of this run's own; ``write_etc`` puts files there.
        memory_bytes: Most private writable memory of one process.
        cpu_s: Most CPU seconds of one process.
        drop_user: Whether root becomes ``SANDBOX_ID`` inside.
    """

    interpreter: Interpreter
    arguments: tuple[str, ...]
    bundle: Path
    workspace: Path
    memory_bytes: int
    cpu_s: int
    drop_user: bool


def bubblewrap(task: Task) -> list[str]:
    """Returns the command line that confines ``task`` by bubblewrap."""
    command = ["bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--hostname", "adroit"]
    if os.geteuid() != 0:
        command += ["--unshare-user", "--disable-userns"]
        command += ["--uid", str(SANDBOX_ID), "--gid", str(SANDBOX_ID)]
    elif task.drop_user:
        for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
            command += ["--cap-add", capability]
    command += ["--proc", "/proc", "--dev", "/dev"]
    for scratch in ("/dev/shm", "/tmp"):
        command += ["--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", scratch]
    command += ["--perms", "0777", "--dir", "/tmp/home"]
    for source, path in _shown(task):
        command += [*_parents(path), "--ro-bind", str(source), str(path)]
    for target, path in _links(task):
        command += [*_parents(path), "--symlink", target, str(path)]
    for read_only in ("/proc", "/dev", "/"):
        command += ["--remount-ro", read_only]
    command += ["--chdir", "/", "--"]
    if os.geteuid() == 0 and task.drop_user:
        command += _become_nobody(task)
    return command + _limited(task)


def namespaces(task: Task) -> list[str]:
    """Returns the command line that confines ``task`` by util-linux and chroot alone.

    As root the namespaces are plain ones, which also works inside a chroot, where the kernel
    refuses user namespaces; anyone else gets them through a user namespace. The root is changed
    by chroot, not pivot_root: that needs the present root to be a mount, which a chroot's is
    not. Without capabilities or an open descriptor there is no way out of a chroot, and in one
    no user namespace can be made to gain capabilities again.
    """
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--net", "--ipc"]
    command += ["--uts", "--fork", "--kill-child", "--propagation", "unchanged"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    inside = [*_become_nobody(task), *_limited(task)]
    return [*command, "sh", "-euc", _mount_script(task), "sandbox", *inside]


def plain(task: Task) -> list[str]:
    """Returns the command line for a process that is limited and not confined."""
    dies_with_us = ["setpriv", "--pdeathsig", "KILL", "--no-new-privs"]
    there = shutil.which("setpriv", path=SEARCH_PATH) is not None
    return [*(dies_with_us if there else ()), *_limited(task)]


def write_etc(workspace: Path) -> None:
    """Writes the few files of /etc that name lookups need; none is the machine's own."""
    etc = workspace / "etc"
    etc.mkdir()
    user = f"adroit:x:{SANDBOX_ID}:{SANDBOX_ID}:adroit:/tmp/home:/bin/sh\n"
    (etc / "passwd").write_text(f"root:x:0:0:root:/tmp/home:/bin/sh\n{user}")
    (etc / "group").write_text(f"root:x:0:\nadroit:x:{SANDBOX_ID}:\n")
    (etc / "hosts").write_text("127.0.0.1 localhost\n")
    for file in etc.iterdir():
        file.chmod(0o644)


def _parents(path: Path) -> list[str]:
    # Made by hand, because those that bwrap makes are 0700.
    parents = reversed(path.parents[:-1])
    return [word for parent in parents for word in ("--dir", str(parent))]


def _shown(task: Task) -> list[tuple[Path, Path]]:
    """What is bound, outermost first; the bundle by its parts, for its directory may be 0700."""
    own = [path for path in SYSTEM_DIRECTORIES if path.is_dir() and not path.is_symlink()]
    own += [path for path in SYSTEM_FILES if path.exists()]
    own += task.interpreter.directories
    made = [(path, Path("/etc") / path.name) for path in (task.workspace / "etc").iterdir()]
    bundle = [(path, BUNDLE_ROOT / path.name) for path in sorted(task.bundle.iterdir())]
    return [*((path, path) for path in own), *made, *bundle]


def _links(task: Task) -> list[tuple[str, Path]]:
    # On a merged-/usr system /bin and /lib are links into /usr.
    system = [(str(path.readlink()), path) for path in SYSTEM_DIRECTORIES if path.is_symlink()]
    return [*system, *task.interpreter.links]


def _become_nobody(task: Task) -> list[str]:
    command = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    command += ["--pdeathsig", "KILL"]  # given again: a change of user clears it
    if os.geteuid() == 0 and task.drop_user:
        command += [f"--reuid={SANDBOX_ID}", f"--regid={SANDBOX_ID}", "--clear-groups"]
    elif os.geteuid() == 0:
        command += ["--clear-groups"]
    return command


def _limited(task: Task) -> list[str]:
    wanted = {
        "data": (resource.RLIMIT_DATA, task.memory_bytes),
        "cpu": (resource.RLIMIT_CPU, task.cpu_s),
        "nproc": (resource.RLIMIT_NPROC, PROCESSES),
        "fsize": (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
        "core": (resource.RLIMIT_CORE, 0),
    }
    command = [str(task.interpreter.executable), *task.arguments]
    if shutil.which("prlimit", path=SEARCH_PATH) is None:
        return command
    limits = [f"--{name}={_at_most(limit, value)}" for name, (limit, value) in wanted.items()]
    return ["prlimit", *limits, *command]


def _at_most(limit: int, value: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return value if hard == resource.RLIM_INFINITY else min(value, hard)


def _mount_script(task: Task) -> str:
    """Returns the shell script that builds the view on ``workspace/root`` and enters it."""
    root = task.workspace / "root"
    python = shlex.quote(str(task.interpreter.executable))
    lines = [f"{python} -I -S -c {shlex.quote(_LOOPBACK)}", _PRIVATE_MOUNTS]
    lines += [f"root={shlex.quote(str(root))}", _EMPTY_ROOT, _PROC_DEV_TMP]
    for source, path in _shown(task):
        lines.append(f"show {shlex.join((str(source), str(path)))}")
    for target, path in _links(task):
        lines.append(f'mkdir -p "$root"{shlex.quote(str(path.parent))}')
        lines.append(f'ln -s {shlex.quote(target)} "$root"{shlex.quote(str(path))}')
    lines += [_READ_ONLY, _ENTER]
    return "\n".join(lines)


# A new network namespace has a loopback that is down; no tool for it is on every machine.
# Source: netdevice(7), SIOCSIFFLAGS with IFF_UP.
_LOOPBACK = """
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))
"""

# Nothing mounted here may reach the host's namespace. In a chroot whose root is no mount, entering
# our own mount namespace again is the way to the root that is one.
_PRIVATE_MOUNTS = """
mount --make-rprivate / 2>/dev/null ||
    nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
"""

_EMPTY_ROOT = """
mkdir "$root"
mount -t tmpfs -o mode=0755,size=1m,nosuid,nodev adroit "$root"
show() {
    if [ -d "$1" ]; then mkdir -p "$root$2"
    else mkdir -p "$root${2%/*}"; : >"$root$2"; fi
    mount --rbind "$1" "$root$2"
}
"""

# A bind is made read-only by a remount of its own, and so is every mount below it. Where the
# source forbids to execute, that has to be said again.
_READ_ONLY = """
while read -r _ _ _ _ where _; do
    where=$(printf '%b_' "$where"); where=${where%_}
    case $where in
    "$root/proc" | "$root/dev/"* | "$root/tmp") ;;
    "$root"/*)
        mount -o remount,bind,ro,nosuid,nodev "$where" 2>/dev/null ||
            mount -o remount,bind,ro,nosuid,nodev,noexec "$where" ;;
    esac
done </proc/self/mountinfo
"""

# A container may forbid a fresh /proc; then there is none, never the host's. It is read-only,
# for a root without capabilities could still write the machine's settings.
_PROC_DEV_TMP = """
umask 0
mkdir "$root/proc" "$root/dev" "$root/tmp"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc" 2>/dev/null &&
    mount -o remount,bind,ro,nosuid,nodev,noexec "$root/proc"
mkdir "$root/dev/shm"
for device in null zero full random urandom; do
    if [ -e "/dev/$device" ]; then
        : >"$root/dev/$device"
        mount --bind "/dev/$device" "$root/dev/$device"
    fi
done
for scratch in /dev/shm /tmp; do
    mount -t tmpfs -o mode=1777,size=SCRATCH_BYTES,nosuid,nodev adroit "$root$scratch"
done
mkdir "$root/tmp/home"
ln -s /proc/self/fd "$root/dev/fd"
umask 022
""".replace("SCRATCH_BYTES", str(SCRATCH_BYTES))

_ENTER = """
hostname adroit 2>/dev/null || :
mount -o remount,bind,ro,nosuid,nodev "$root"
cd /
exec chroot "$root" "$@"
"""


def dropping_user_is_possible(bundle: Path, interpreter: Interpreter) -> bool:
    """Returns whether another user could read all that is shown, and root can become one."""
    if os.geteuid() != 0 or not _maps(SANDBOX_ID):
        return False
    shown: Sequence[Path] = [*interpreter.directories, interpreter.executable, *bundle.iterdir()]
    below = (path for part in bundle.iterdir() for path in part.rglob("*"))
    return all(_open_to_all(path) for path in (*shown, *below))


def _open_to_all(path: Path) -> bool:
    wanted = 0o005 if path.is_dir() else 0o004
    return path.stat().st_mode & wanted == wanted


def _maps(user_id: int) -> bool:
    try:
        rows = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return False
    return any(int(first) <= user_id < int(first) + int(count) for first, _, count in rows)
