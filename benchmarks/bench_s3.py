"""P2: what our S3 client costs, beside boto3 and s5cmd, against a server that only drains.

    python benchmarks/bench_s3.py [--runs 3]

2 GiB in one file, and 200 files of 5 MiB with four threads; digests known beforehand, as they are
in a publish. Prints a table in Markdown and one line of JSON. s5cmd is measured where it is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adroit_publish.bundle.content import Concatenation
from adroit_publish.bundle.digest import sha256_of
from adroit_publish.stores.s3 import objects as s3
from adroit_publish.stores.s3 import parts as s3_parts
from adroit_publish.stores.s3.body import crc32_of

LARGE_BYTES = 2 << 30
SMALL_BYTES, SMALL_FILES, THREADS = 5 << 20, 200, 4
BUCKET = "drain"
STARTED = b"<R><Bucket>drain</Bucket><Key>k</Key><UploadId>u</UploadId></R>"
DONE = b'<CompleteMultipartUploadResult><ETag>"e"</ETag></CompleteMultipartUploadResult>'


@dataclass(frozen=True)
class File:
    """A file by reference."""

    path: Path
    size_bytes: int

    def open(self) -> BinaryIO:
        return self.path.open("rb", buffering=0)


def drain() -> None:
    """Answers every request as S3 would, and throws its body away; prints its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_drain_one, args=(client,), daemon=True).start()


def _drain_one(client: socket.socket) -> None:
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(1 << 20)
    stream = client.makefile("rb")
    while start := stream.readline():
        headers = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.partition(b":")
            headers[name.strip().lower()] = value.strip()
        if b"expect" in headers:
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        left = int(headers.get(b"content-length", 0))
        while left:
            count = stream.readinto(memoryview(buffer)[: min(left, len(buffer))])
            if not count:
                return
            left -= count
        method = start.split(b" ")[0]
        status, body = b"404 Not Found" if method == b"HEAD" else b"200 OK", b""
        if method == b"POST":
            body = STARTED if b"uploads" in start else DONE
        client.sendall(
            b'HTTP/1.1 %b\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n%b' % (status, len(body), body)
        )


def main() -> None:
    """Measures, and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    server = subprocess.Popen(
        [sys.executable, __file__, "--drain"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        with tempfile.TemporaryDirectory() as directory:
            ways = _ways(endpoint, _files(Path(directory)))
            seconds: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(runs):
                for name, way in ways.items():
                    start = time.monotonic()
                    way()
                    seconds[name].append(time.monotonic() - start)
    finally:
        server.kill()
        server.wait()
    medians = {name: round(statistics.median(times), 2) for name, times in seconds.items()}
    print("| way | seconds |\n|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median} |")
    print(json.dumps(medians))


def _files(directory: Path) -> tuple[File, list[File]]:
    block = os.urandom(1 << 20)
    large = directory / "large"
    with large.open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(block)
    small = [directory / f"small{number}" for number in range(SMALL_FILES)]
    for path in small:
        path.write_bytes(os.urandom(SMALL_BYTES))
    return File(large, LARGE_BYTES), [File(path, SMALL_BYTES) for path in small]


def _ways(endpoint: str, files: tuple[File, list[File]]) -> dict[str, Callable[[], object]]:
    import boto3

    large, small = files
    client = boto3.client("s3", endpoint_url=endpoint)
    ours = s3.S3Objects(f"s3://{BUCKET}/bundles", endpoint=endpoint)
    whole, proved = Concatenation([large]), Concatenation([large])
    digest = sha256_of(whole)
    step = s3_parts.PART_BYTES
    proved.part_crc32s = [  # type: ignore[attr-defined]
        crc32_of(whole, start, start + step) for start in range(0, LARGE_BYTES, step)
    ]
    known = [(Concatenation([file]), sha256_of(Concatenation([file]))) for file in small]

    def put_small(number: int) -> None:
        content, small_digest = known[number]
        if ours.stat(f"k{number}", checksum=True) is None:
            ours.create(f"k{number}", content, small_digest)

    def together(function: Callable[[int], Any]) -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(function, range(SMALL_FILES)))

    def upload(number: int) -> Any:
        return client.upload_file(str(small[number].path), BUCKET, f"k{number}")

    ways: dict[str, Callable[[], object]] = {
        "2 GiB, ours, parts proved when they were hashed": lambda: ours.create("k", proved, digest),
        "2 GiB, ours, parts hashed once more": lambda: ours.create("k", whole, digest),
        "2 GiB, boto3 upload_file": lambda: client.upload_file(str(large.path), BUCKET, "k"),
        "200 x 5 MiB, ours, asked for first": lambda: together(put_small),
        "200 x 5 MiB, boto3 upload_file, one after the other": lambda: list(
            map(upload, range(SMALL_FILES))
        ),
        "200 x 5 MiB, boto3 upload_file, four threads": lambda: together(upload),
    }
    if program := shutil.which("s5cmd"):
        copy = [program, "--endpoint-url", endpoint, "cp"]
        ways["2 GiB, s5cmd"] = lambda: subprocess.run(
            [*copy, str(large.path), f"s3://{BUCKET}/k"], check=True, capture_output=True
        )
        ways["200 x 5 MiB, s5cmd"] = lambda: subprocess.run(
            [*copy, f"{large.path.parent}/small*", f"s3://{BUCKET}/"],
            check=True,
            capture_output=True,
        )
    return ways


if __name__ == "__main__":
    drain() if sys.argv[1:] == ["--drain"] else main()
