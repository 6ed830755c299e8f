"""P1 and P3: 2 GiB of weights to a registry, and to a registry and S3 at once.

P1: hashing and pushing beside the yardstick, which hashes and then sends the blob in one PUT of
http.client; to docker-registry, and to a server that only drains (what the client itself costs).
Target: at most 1.3. P3: both places at once beside the slower one alone; target: at most 1.4.
Prints Markdown rows and JSON; a time is never a failure. ADROIT_BENCH_BYTES sets another size.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

SIZE_BYTES = int(os.environ.get("ADROIT_BENCH_BYTES", 2 << 30))
ROUNDS = 3
PIECE = 1 << 20


class Drain(BaseHTTPRequestHandler):
    """Takes every upload and keeps nothing but the lengths and digests it was told."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, str] = {}  # noqa: RUF012  one server, one table

    def do_HEAD(self) -> None:
        digest = self.path.rpartition("/")[2]
        size = self.kept.get(digest)
        headers = {"Docker-Content-Digest": digest, "Content-Length": size or "0"}
        self._answer(200 if size else 404, headers)

    def do_POST(self) -> None:
        self._answer(202, {"Location": "/upload", "Content-Length": "0"})

    def do_PUT(self) -> None:
        left = int(self.headers["Content-Length"])
        digest = self.path.rpartition("digest=")[2].replace("%3A", ":")
        self.kept[digest] = str(left)
        buffer = memoryview(bytearray(PIECE))
        while left:
            left -= self.rfile.readinto(buffer[: min(PIECE, left)])  # type: ignore[attr-defined]
        self._answer(201, {"Docker-Content-Digest": digest, "Content-Length": "0"})

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def draining_registry() -> Iterator[str]:
    """Runs the server that only drains and yields its ``host:port``."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drain)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()


def yardstick(path: Path, host: str) -> None:
    """Hashes a file, then sends it in one PUT; the least that any client has to do."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(buffer[:count])
    connection = http.client.HTTPConnection(host, blocksize=PIECE)
    connection.request("POST", "/v2/bench/yardstick/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    location = answer.headers["Location"].partition(host)[2] or answer.headers["Location"]
    joint = "&" if "?" in location else "?"
    with path.open("rb", buffering=0) as file:
        target = f"{location}{joint}digest=sha256:{hasher.hexdigest()}"
        length = {"Content-Length": str(path.stat().st_size)}
        connection.request("PUT", target, body=file, headers=length)
        assert connection.getresponse().status == 201


def ours(path: Path, *places: Any) -> None:
    """Hashes and uploads the file as a publish does."""
    from adroit_publish.artifacts.pull import LocalFile
    from adroit_publish.bundle.layer import LayerRecipe, PackedFile
    from adroit_publish.publish.upload import hash_and_upload

    content = LocalFile(str(path), path.stat().st_size)
    recipe = LayerRecipe("model", (PackedFile("opt/adroit/model/w", content),), alone=True)
    hash_and_upload((recipe,), places, lambda _place: lambda _size_bytes: None)


def seconds(path: Path, work: Callable[[], None]) -> float:
    """Runs ``work`` on a file that nobody has seen yet."""
    with path.open("r+b") as file:
        file.write(os.urandom(64))
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratios(
    name: str, target: float, path: Path, a: Callable[[], None], b: Callable[[], None]
) -> None:
    """Runs both in turn and prints the median of each and of the ratios pair by pair."""
    pairs = [(seconds(path, a), seconds(path, b)) for _ in range(ROUNDS)]
    first, second = (round(statistics.median(column), 2) for column in zip(*pairs, strict=True))
    ratio = round(statistics.median(one / other for one, other in pairs), 2)
    print(f"| {name} | {first} | {second} | {ratio} | {target} |", flush=True)
    print(json.dumps({"benchmark": name, "s": first, "peer_s": second, "ratio": ratio}))


def main() -> None:
    from adroit_publish.stores.bundle_store import BundleStore
    from adroit_publish.stores.s3.objects import S3Objects
    from tests.servers.eng_account import images
    from tests.servers.object_servers import ACCESS_KEY, SECRET_KEY, running_seaweed
    from tests.servers.registry_servers import RegistryServer, docker_registry

    os.environ |= {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "weights"
        with path.open("wb") as file:
            for _ in range(SIZE_BYTES // PIECE):
                file.write(os.urandom(PIECE))
        print("| what | ours, s | peer, s | ratio | target |\n|---|---|---|---|---|")
        with draining_registry() as host:
            server = RegistryServer(host, Path(scratch), Path(scratch))
            place = images(server, "bench/ours")
            ratios(
                "P1 draining", 1.3, path, lambda: ours(path, place), lambda: yardstick(path, host)
            )
        registry_directory = Path(scratch) / "registry"
        registry_directory.mkdir()
        with docker_registry(registry_directory) as registry, running_seaweed() as s3:
            place = images(registry, "bench/ours")
            ratios(
                "P1 docker-registry",
                1.3,
                path,
                lambda: ours(path, place),
                lambda: yardstick(path, registry.host),
            )
            store = BundleStore(S3Objects(f"s3://{s3.new_place()}", endpoint=s3.endpoint))

            def slower_alone() -> None:
                times = {}
                for each in (place, store):
                    times[each.location] = seconds(path, lambda each=each: ours(path, each))
                alone.append(max(times.values()))

            alone: list[float] = []
            together = []
            for _ in range(ROUNDS):
                slower_alone()
                together.append(seconds(path, lambda: ours(path, place, store)))
            ratio = round(statistics.median(x / y for x, y in zip(together, alone, strict=True)), 2)
            medians = [round(statistics.median(times), 2) for times in (together, alone)]
            print(f"| P3 both at once | {medians[0]} | {medians[1]} | {ratio} | 1.4 |")
            print(
                json.dumps(
                    {"benchmark": "P3", "s": medians[0], "peer_s": medians[1], "ratio": ratio}
                )
            )


if __name__ == "__main__":
    main()
