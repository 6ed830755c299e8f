"""The gate that shows a published image runs: a container of exactly that image, by digest.

``predict_in_image`` lets a Docker engine pull the image and runs ``reporter`` in it, which starts
the image's server, where the model can reach no credentials, files or network. ``report`` judges
what it wrote. The engine is left as it was.

The container has no network but its own loopback, a read-only root with a bounded /tmp, no mounts,
no capability, no way to gain one, a user that owns nothing, the image's environment variables and
those of config.yaml (not the Docker config's proxies), and limits on memory, processes and time.
What it writes is streamed to here and bounded; the engine keeps no log of it.

Source: Docker Engine API, ``ImageCreate``, ``ContainerCreate``, ``ContainerAttach``.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from adroit_publish.bundle.record import Verification
from adroit_publish.errors import VerificationError
from adroit_publish.gates import docker_engine, report
from adroit_publish.gates.confinement import BUNDLE_ROOT, PROCESSES, SANDBOX_ID, SCRATCH_BYTES
from adroit_publish.gates.env_contract import ObservedEnv
from adroit_publish.gates.prediction import instructions, reporter_arguments
from adroit_publish.gates.sandbox import STDERR_BYTES, STDOUT_BYTES, CompletedRun

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

LABEL = "adroit.verification"
"""The label of every container made here: what a killed publish leaves can be found by it."""

_DRAIN_TIMEOUT_S = 10.0


def predict_in_image(
    reference: str,
    *,
    python: str,
    auth: Mapping[str, str] | None = None,
    model_env: Mapping[str, str] | None = None,
    check_env: Callable[[ObservedEnv], None] = lambda env: None,
    together_rtol: float | None = None,
    pulled: Callable[[int], None] = lambda size_bytes: None,
) -> Verification:
    """Runs an image once: its bundle has to load and to predict on the model's input example.

    Args:
        reference: ``host[:port]/repository@sha256:...``, as the engine can pull it.
        python: Path in the image of the interpreter that serves.
        auth: Docker's words for a login: ``username`` and ``password``, or ``identitytoken``; None
            to be anonymous. The Docker config is not asked.
        model_env: Environment variables that the model finds, next to the image's own.
        together_rtol: As for ``predict_in_sandbox``.

    Raises:
        VerificationError: The image does not start, or as ``predict_in_sandbox``.
        RefusedError: No Docker engine answers, or the registry denies it the image.
        StoreError: The image cannot be pulled, or the engine fails; may be tried again.
    """
    if "@sha256:" not in reference:
        raise ValueError(f"{reference} does not name an image by its digest")
    nonce = secrets.token_hex()
    told = instructions(nonce, model_env, together=together_rtol is not None)
    with (
        docker_engine.connected(
            "the image cannot be run before it is published",
            "or give --verify process: the same in a sandbox here, without the image's own env",
        ) as client,
        _image(client, reference, auth, pulled),
        _container(client, reference, python, told) as container,
    ):
        done = _run(container, reference, python)
    return report.judged(done, nonce, check_env, together_rtol)


@contextmanager
def _image(
    client: DockerClient,
    reference: str,
    auth: Mapping[str, str] | None,
    pulled: Callable[[int], None],
) -> Iterator[None]:
    """Has the image in the engine for a while; one that was there before stays."""
    import docker

    try:
        client.images.get(reference)
        there = True
    except docker.errors.ImageNotFound:
        there = False
        docker_engine.pull(client, reference, auth or {}, pulled)
    try:
        yield
    finally:
        # Another publish may be running it, or have removed it.
        with suppress(docker.errors.APIError):
            if not there:
                client.images.remove(reference)


@contextmanager
def _container(client: DockerClient, reference: str, python: str, told: str) -> Iterator[Container]:
    import docker
    from docker.types import LogConfig, Ulimit

    machine = client.info()
    memory_bytes = _memory_bytes(machine)
    cpu_s = math.ceil(report.TIMEOUT_S) * int(machine["NCPU"]) + 1
    container = client.containers.create(
        reference,
        entrypoint=[python, *reporter_arguments()],
        command=[str(BUNDLE_ROOT)],
        environment={"ADROIT_REPORTER": told},
        user=f"{SANDBOX_ID}:{SANDBOX_ID}",
        use_config_proxy=False,
        network_mode="none",
        hostname="adroit",
        read_only=True,
        tmpfs={"/tmp": f"rw,nosuid,nodev,mode=1777,size={SCRATCH_BYTES}"},
        shm_size=SCRATCH_BYTES,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        mem_limit=memory_bytes,
        memswap_limit=memory_bytes,
        pids_limit=PROCESSES,
        ulimits=[Ulimit(name="cpu", soft=cpu_s, hard=cpu_s), Ulimit(name="core", soft=0, hard=0)],
        log_config=LogConfig(type="none"),
        labels={LABEL: reference},
    )
    try:
        yield container
    finally:
        with suppress(docker.errors.NotFound):
            container.remove(force=True, v=True)


def _memory_bytes(machine: Mapping[str, Any]) -> int:
    """Returns the most memory of a container, /tmp included: the engine's."""
    return int(machine["MemTotal"])


def _run(container: Container, reference: str, python: str) -> CompletedRun:
    import docker
    import requests

    output = _Output(container)
    started = time.monotonic()
    try:
        container.start()
    except docker.errors.APIError as error:
        if not error.is_client_error():
            raise
        raise VerificationError(
            "The image does not start.",
            where=reference,
            got=docker_engine.words(error),
            wanted=f"an image with the interpreter {python}",
            next_step="correct `python` of the conda env in conda_envs.yaml, or its image",
        ) from error
    exit_code, timed_out = -1, False
    try:
        exit_code = int(container.wait(timeout=report.TIMEOUT_S)["StatusCode"])
    except requests.RequestException:
        # A read that times out; from a socket the SDK makes it the error of a lost connection.
        if time.monotonic() - started < report.TIMEOUT_S:
            raise
        timed_out = True
        with suppress(docker.errors.APIError):  # it may have ended just now
            container.kill()
    stdout, stderr = output.result()
    return CompletedRun("image", exit_code, stdout, stderr, timed_out)


class _Output(threading.Thread):
    """Reads what a container writes, from before its start; keeps as ``CompletedRun`` says."""

    def __init__(self, container: Container) -> None:
        super().__init__(daemon=True)
        self._pieces = container.attach(stdout=True, stderr=True, stream=True, demux=True)
        self._stdout, self._stderr = bytearray(), bytearray()
        self.start()

    def run(self) -> None:
        with suppress(OSError):  # the engine is gone, which whoever waits for it notices
            for stdout, stderr in self._pieces:
                self._stdout += (stdout or b"")[: STDOUT_BYTES + 1 - len(self._stdout)]
                self._stderr += stderr or b""
                del self._stderr[:-STDERR_BYTES]

    def result(self) -> tuple[bytes, bytes]:
        self.join(_DRAIN_TIMEOUT_S)
        return bytes(self._stdout), bytes(self._stderr)
