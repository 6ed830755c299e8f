"""A real Prometheus for tests: Debian's ``prometheus`` on loopback, scraping once a second.

    with prometheus_server(tmp_path, [server.url]) as prometheus:
        PrometheusTraffic(prometheus.url)

Its configuration, its targets and its data are in the directory it is given, its port is one that
the system picked, and it is ended with the context. Targets can be changed while it runs; it takes
up to five seconds to notice, at its start too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.object_servers import free_ports
from tests.support.requirements import require

_CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: adroit
    file_sd_configs: [{{files: ["{targets}"], refresh_interval: 1s}}]
"""


@dataclass(frozen=True)
class PrometheusServer:
    """A Prometheus that runs.

    Attributes:
        url: Its address.
        directory: Where it keeps everything.
    """

    url: str
    directory: Path

    def scrape(self, urls: Sequence[str]) -> None:
        """Makes ``urls`` its targets."""
        _write_targets(self.directory, urls)


@contextmanager
def prometheus_server(
    directory: Path, urls: Sequence[str], *, look_back_s: int = 300
) -> Iterator[PrometheusServer]:
    """Runs ``prometheus`` for as long as the context lasts.

    Args:
        directory: For its configuration and data; data of an earlier run are taken up.
        urls: The servers to scrape, as ``http://HOST:PORT``.
        look_back_s: For how long the last sample stands for a series that is not scraped any more.
    """
    program = shutil.which("prometheus")
    require(program, "prometheus (apt install prometheus)")
    directory.mkdir(parents=True, exist_ok=True)
    _write_targets(directory, urls)
    config = directory / "prometheus.yml"
    config.write_text(_CONFIG.format(targets=directory / "targets.json"))
    host = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={host}",
        f"--query.lookback-delta={look_back_s}s",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        server = PrometheusServer(f"http://{host}", directory)
        _wait_until_ready(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=30)


def _write_targets(directory: Path, urls: Sequence[str]) -> None:
    hosts = [url.removeprefix("http://") for url in urls]
    new = directory / "targets.new"
    new.write_text(json.dumps([{"targets": hosts}]))
    new.rename(directory / "targets.json")


def _wait_until_ready(server: PrometheusServer, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + 60
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            opener.open(server.url + "/-/ready", timeout=5).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError((server.directory / "log").read_text()) from None
            time.sleep(0.05)
