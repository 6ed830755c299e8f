"""A version on this machine: pulled, every byte verified, and served until it is ended.

The server is a process of its own that runs the bundle's own runtime with this interpreter. It gets
a handful of environment variables and a home of its own, no credentials. That is not a sandbox, for
a server needs the network: what is served here is trusted as much as any program that is started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adroit_publish.bundle.version_names import PublishedVersion
from adroit_publish.checkout import Checkout
from adroit_publish.config.flavors import Flavor, publish_command
from adroit_publish.config.names import nearest
from adroit_publish.errors import ConfigError, VerificationError
from adroit_publish.stores.bundle_store import BundleStore, Published
from adroit_publish.stores.contract import Progress, unheard
from adroit_publish.versions.pull import pull

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_END_TIMEOUT_S = 30


def find_published(flavors: Mapping[str, Flavor], store: BundleStore, name: str) -> Published:
    """Returns the version called ``name``, or the one that the flavor ``name`` has.

    Raises:
        ConfigError: There is no such flavor or version, or the flavor is not published yet.
        VerificationError: The version's index is damaged.
    """
    flavor = flavors.get(name)
    if flavor is None and not PublishedVersion.matches(name):
        raise ConfigError(
            f"There is no flavor {name!r}, and it is not the name of a version.",
            where="flavors.yaml",
            wanted=f"one of: {nearest(name, flavors)}; or v<8 hex digits>-<12 hex digits>",
            next_step="python -m adroit_publish status, or python -m adroit_publish versions MODEL",
        )
    if flavor is None:
        return store.get(name)
    if not isinstance(flavor.version, PublishedVersion):
        raise ConfigError(
            f"The flavor {name} is not published yet.",
            where="flavors.yaml",
            got=flavor.version or "no version",
            wanted="a published version",
            next_step=publish_command(flavor),
        )
    return store.get(flavor.version)


def serve(
    checkout: Checkout,
    store: BundleStore,
    published: Published,
    port: int,
    progress: Progress = unheard,
    pulled: Callable[[], None] = lambda: None,
    *,
    flavor: str | None = None,
) -> None:
    """Serves a version on loopback until SIGINT or SIGTERM, which the server gets as well.

    Args:
        port: On 127.0.0.1; 0 for one that is free, which the server's log names.
        flavor: As for ``pull``.

    Raises:
        ConfigError: The port is taken.
        RefusedError: As ``pull``.
        StoreError: The store, or the disk, failed.
        VerificationError: The version's bytes are not what they should be, or it does not serve.
        KeyboardInterrupt: Ctrl-C ended it, and the server has ended.
    """
    _check_port(port)
    scratch = checkout.root / ".adroit"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="serve-", dir=scratch) as directory:
        root, home = Path(directory, "bundle"), Path(directory, "home")
        home.mkdir()
        pull(store, published, root, progress, flavor=flavor)
        pulled()
        command = [sys.executable, "-m", "adroit.serving", "--root", str(root)]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=_environment(root, home, published.version),
            stdin=subprocess.DEVNULL,
        )
        with _ended_with_us(process) as ended:
            code = process.wait()
    if code and not ended:
        raise VerificationError(
            "The version does not serve.",
            where=published.version,
            got=f"exit code {code}; its last lines of log say why",
            next_step=f"python -m adroit_publish show {published.version}",
        )


def _check_port(port: int) -> None:
    """Tells of a port that is taken before anything is pulled."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"Port {port} cannot be served on.",
                where="127.0.0.1",
                got=error.strerror,
                next_step="name another one with --port, or --port 0 for one that is free",
            ) from error


def _environment(root: Path, home: Path, version: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {
        "HOME": str(home),
        "PYTHONPATH": str(root / "runtime"),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ADROIT_VERSION": version,
    }


@contextmanager
def _ended_with_us(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Passes SIGTERM on, and yields what was; whatever ends the block, the process has ended."""
    passed: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        passed.append(number)
        process.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield passed
    except BaseException:  # Ctrl-C: a terminal has sent it SIGINT too, which ends it at once
        process.send_signal(signal.SIGTERM)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        try:
            process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
