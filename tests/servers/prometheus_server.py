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
import ssl
import subprocess
import time
import urllib.error
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
    {further}
"""


@dataclass(frozen=True)
class PrometheusServer:
    """A Prometheus that runs.

    Attributes:
        url: Its address.
        directory: Where it keeps everything.
        pid: Its process.
    """

    url: str
    directory: Path
    pid: int

    def scrape(self, urls: Sequence[str]) -> None:
        """Makes ``urls`` its targets."""
        _write_targets(self.directory, urls)


@contextmanager
def prometheus_server(
    directory: Path,
    urls: Sequence[str],
    *,
    look_back_s: int = 300,
    further: str = "",
    web: str = "",
) -> Iterator[PrometheusServer]:
    """Runs ``prometheus`` for as long as the context lasts.

    Args:
        directory: For its configuration and data; data of an earlier run are taken up.
        urls: The servers to scrape, as ``http://HOST:PORT``.
        look_back_s: For how long the last sample stands for a series that is not scraped any more.
        further: Further configuration of the job, such as relabelling, on one line.
        web: Its web configuration: whom it lets in, and its certificate.
    """
    program = shutil.which("prometheus")
    require(program, "prometheus (apt install prometheus)")
    directory.mkdir(parents=True, exist_ok=True)
    _write_targets(directory, urls)
    config = directory / "prometheus.yml"
    config.write_text(_CONFIG.format(targets=directory / "targets.json", further=further))
    (directory / "web.yml").write_text(web)
    host = f"127.0.0.1:{free_ports(1)[0]}"
    command = [
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={host}",
        f"--query.lookback-delta={look_back_s}s",
        f"--web.config.file={directory / 'web.yml'}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        scheme = "https" if "tls_server_config" in web else "http"
        server = PrometheusServer(f"{scheme}://{host}", directory, process.pid)
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
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=anybody)
    )
    while True:
        try:
            opener.open(server.url + "/-/ready", timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:  # it runs, and does not let us in
                return
            time.sleep(0.05)
        except OSError:
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError((server.directory / "log").read_text()) from None
            time.sleep(0.05)
