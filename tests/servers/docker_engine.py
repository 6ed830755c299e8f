"""A real Docker engine for tests: Debian's ``dockerd``, all of its own in one directory.

    with docker_engine() as engine:
        docker.DockerClient(base_url=engine.host)

It has its own data, state, socket and mount namespace, makes no bridge and touches no firewall, so
that an engine that already runs on the machine is neither used nor disturbed: containers get the
host's network or none. Needs root. Works in a chroot, whose root is no mount as runc wants one: the
engine then runs in a bind of it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import docker
import requests

from tests.support.requirements import require

_SEARCH_PATH = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_START_S = 60
_STOP_S = 60
# Mounts of the engine stay in its namespace and end with it. In a chroot `mount` on / fails, for
# it is no mount; entering our own namespace again is the way to the root that is one.
_IN_ITS_OWN_NAMESPACE = """
mount --make-rprivate / 2>/dev/null ||
    nsenter --mount=/proc/self/ns/mnt mount --make-rprivate /
mountpoint -q / && exec "$@"
mount --rbind / "$0"
exec chroot "$0" "$@"
"""


@dataclass(frozen=True)
class Engine:
    """An engine that runs.

    Attributes:
        host: What DOCKER_HOST has to be: ``unix://...``.
        log: Its log.
    """

    host: str
    log: Path


@contextmanager
def docker_engine() -> Iterator[Engine]:
    """Runs an engine for as long as the context lasts; nothing of it is left."""
    require(os.geteuid() == 0, "only root can run a Docker engine")
    require(shutil.which("dockerd", path=_SEARCH_PATH), "dockerd (apt install docker.io)")
    # Not below pytest's own directories: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="adroit-engine-") as name:
        directory = Path(name)
        (directory / "root").mkdir()
        engine = Engine(f"unix://{directory}/socket", directory / "log")
        with engine.log.open("wb") as log:
            process = subprocess.Popen(
                _command(directory, engine.host),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": _SEARCH_PATH},
                start_new_session=True,
            )
        try:
            _wait_until_it_answers(engine, process)
            yield engine
        finally:
            _stop(process)


def _command(directory: Path, host: str) -> list[str]:
    return [
        *("setpriv", "--pdeathsig", "TERM"),
        *("unshare", "--mount", "--propagation", "unchanged"),
        *("sh", "-euc", _IN_ITS_OWN_NAMESPACE, str(directory / "root")),
        *("dockerd", "--host", host, "--bridge=none", "--iptables=false", "--ip6tables=false"),
        *("--data-root", str(directory / "data"), "--exec-root", str(directory / "state")),
        *("--pidfile", str(directory / "pid"), "--group", "root"),
    ]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise


def _wait_until_it_answers(engine: Engine, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + _START_S
    while True:
        try:
            with _closing(docker.DockerClient(base_url=engine.host, version="auto")) as client:
                client.ping()
                return
        except (docker.errors.DockerException, requests.RequestException):
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(engine.log.read_text()) from None
            time.sleep(0.1)


@contextmanager
def _closing(client: docker.DockerClient) -> Iterator[docker.DockerClient]:
    try:
        yield client
    finally:
        client.close()


@contextmanager
def engine_client(engine: Engine) -> Iterator[docker.DockerClient]:
    """Gives a client of the engine, closed with the context."""
    with _closing(docker.DockerClient(base_url=engine.host, version="auto")) as client:
        yield client
