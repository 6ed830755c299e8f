"""Real registries for tests: Debian's ``docker-registry`` on loopback, with or without a login.

    with docker_registry(tmp_path) as server:
        Registry(server.host, Anonymous())

The server binds a port that the system picked, keeps its blobs in the directory it is given, and
is ended with the context.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.requirements import require

USERNAME, PASSWORD = "tester", "secret"
# bcrypt of PASSWORD, of the lowest cost that the registry accepts; no salt worth having.
_HTPASSWD = "tester:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n"
_CONFIG = """version: 0.1
log: {{level: info, accesslog: {{disabled: false}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "{host}"}}
"""
_LOGIN = 'auth: {{htpasswd: {{realm: tests, path: "{path}"}}}}\n'


@dataclass(frozen=True)
class RegistryServer:
    """A registry that runs.

    Attributes:
        host: Its name in references: ``127.0.0.1:PORT``.
        root: Where it keeps its blobs.
        log: Its log, with a line for every request.
    """

    host: str
    root: Path
    log: Path

    @property
    def url(self) -> str:
        """The address to ask."""
        return f"http://{self.host}"


@contextmanager
def docker_registry(directory: Path, *, login: bool = False) -> Iterator[RegistryServer]:
    """Runs ``docker-registry`` for as long as the context lasts.

    Args:
        directory: For its configuration, log and blobs.
        login: Whether USERNAME and PASSWORD have to be given.
    """
    program = shutil.which("docker-registry")
    require(program, "docker-registry (apt install docker-registry)")
    host = f"127.0.0.1:{_free_port()}"
    server = RegistryServer(host, directory / "blobs", directory / "registry.log")
    config = directory / "registry.yml"
    text = _CONFIG.format(root=server.root, host=host)
    if login:
        (directory / "htpasswd").write_text(_HTPASSWD)
        text += _LOGIN.format(path=directory / "htpasswd")
    config.write_text(text)
    with server.log.open("wb") as log:
        process = subprocess.Popen(
            [str(program), "serve", str(config)],
            stdout=log,
            stderr=log,
            env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
        )
    try:
        _wait_until_it_answers(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(server: RegistryServer, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection(server.host, timeout=5)
        try:
            connection.request("GET", "/v2/")
            if connection.getresponse().status in (200, 401):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(server.log.read_text()) from None
            time.sleep(0.05)
        finally:
            connection.close()
