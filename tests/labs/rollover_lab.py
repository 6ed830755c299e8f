"""``make rollover-lab``: rollovers under load, from start to retired, and back from every state.

Two published versions of one model serve on three replicas each: containers by the digest of their
image where a Docker engine can run, processes elsewhere. A balancer sends every request where the
sitevar points, a Prometheus scrapes the replicas, two operators work in clones of their own, and
CI runs ``republish --stale`` in a third. Operators are killed where a state is one that a command
goes through. No request may fail, for a server of the pointed version always lives.

A table tells what was asked in each state; exit code 1: a request failed, or something is not as it
has to be. A few minutes; nothing is left behind.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adroit.sitevars import Sitevar
from adroit_publish.config.flavors import parse_flavors
from tests.labs.balancer import ConstantLoad, balancer
from tests.servers.live_servers import started
from tests.servers.prometheus_server import PrometheusServer, prometheus_server
from tests.support.checkouts import FLOW, Trained, commit, git, make_checkout, train_models
from tests.support.rehearse import clean

PYTHON = [sys.executable, "-m", "adroit_publish"]
MODEL = "doubler"
REPLICAS = 3
BACK_FROM = ("pointing", "pointed", "draining", "drained", "retiring", "held", "rolling back")
BODY = b'{"dataframe_records": [{"x": 1.0, "y": 2.0}]}'
ANSWER = b'{"predictions": [{"x": 2.0, "y": 4.0}]}'
HOW = ("--steps", "10,100", "--min-requests", "5", "--bake", "2s", "--quiet", "3s")
PATIENCE_S = 120
_KILLED_AT_THE_ACT = """
import os, sys
from adroit_publish.rollovers.world import RealWorld
RealWorld.act = lambda *_: os.kill(os.getpid(), 9)
from adroit_publish.cli.commands import main
main()
"""


class Violation(Exception):
    """Something is not as it has to be; the lab goes no further."""


@dataclass
class Fleet:
    """The replicas of one version.

    Attributes:
        launch: Runs one replica for as long as a context lasts, and gives its address.
        urls: Where they serve; empty while they are stopped.
    """

    launch: Callable[[], Any]
    urls: list[str] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        for _ in range(REPLICAS):
            self.urls.append(self._stack.enter_context(self.launch()))

    def stop(self) -> None:
        self.urls.clear()
        self._stack.close()


@dataclass
class Lab:
    """Everything that runs.

    Attributes:
        alice, bob, ci: Clones of one upstream.
        fleets: By flavor.
        address: By flavor where its balancer is.
        prometheus: What scrapes the replicas.
        load: What asks.
        rows: A row of the table for each label, as they came.
    """

    alice: Path
    bob: Path
    ci: Path
    fleets: Mapping[str, Fleet]
    address: Mapping[str, str]
    prometheus: PrometheusServer
    load: ConstantLoad
    rows: list[str] = field(default_factory=list)

    def run(self, clone: Path, *arguments: str, codes: Sequence[int] = (0,)) -> str:
        """Runs a command of an operator; raises Violation where it ends with another code."""
        return _run([*PYTHON, *arguments], clone, codes)[1]

    def at(self, label: str) -> None:
        """Counts what is asked from now on under another label."""
        self.load.label = label
        self.rows.append(label)
        print(f"==> {label}", flush=True)

    def rest(self, requests: int = 10) -> None:
        """Lets the load go on for a while in this state."""
        label = self.load.label
        _until(lambda: self.load.requests[label] >= requests, f"{requests} requests in {label}")

    @property
    def state(self) -> str:
        told = json.loads(self.run(self.alice, "rollover", "status", MODEL, "--json"))
        return str(told["rollover"]["state"])

    def points_at(self, flavor: str) -> None:
        said = json.loads(self.run(self.alice, "sitevar", "get", MODEL, "--json"))["pointer"]
        _check(said == flavor, f"the sitevar says {said}, where it has to say {flavor}")

    def scrape(self) -> None:
        self.prometheus.scrape([url for fleet in self.fleets.values() for url in fleet.urls])


def main() -> None:
    """Runs the whole lab and ends with what came of it."""
    for program in ("prometheus", "git"):
        if shutil.which(program) is None:
            sys.exit(f"rollover-lab: needs {program} (apt install {program})")
    began = time.monotonic()
    with opened(containers=can_run_containers()) as lab:
        problems = play(lab, BACK_FROM)
    print(f"{time.monotonic() - began:.0f} s")
    for problem in problems:
        print(f"VIOLATION  {problem}")
    sys.exit(1 if problems else 0)


def play(lab: Lab, back_from: Sequence[str], *, to_the_end: bool = True) -> list[str]:
    """Rolls over and back from each of some states, then to retired; returns what went wrong."""
    problems = []
    try:
        for state in back_from:
            roll_back_from(lab, state)
        if to_the_end:
            roll_over(lab)
        lab.run(lab.alice, "verify-ledger", MODEL)
    except Violation as violation:
        problems.append(str(violation))
    print(f"\n{'state':<34}{'requests':>10}{'failed':>8}")
    for label in lab.rows:
        failed = lab.load.failed.get(label, [])
        print(f"{label:<34}{lab.load.requests[label]:>10}{len(failed):>8}")
        problems += [f"{label}: {len(failed)} requests failed: {failed[0]}"] if failed else []
    return problems


# The rollovers.


def begin(lab: Lab, label: str) -> None:
    lab.at(f"{label}: started")
    places = ("--url", lab.address["new"], "--old-url", lab.address["old"])
    counted = ("--prometheus", lab.prometheus.url, "--replicas", str(REPLICAS))
    lab.run(lab.alice, "rollover", "start", "--from", "old", "--to", "new", *places, *counted, *HOW)


def advance(lab: Lab, label: str, until: str) -> None:
    """Advances as cron does, each time in the other operator's clone."""
    for clone in (lab.alice, lab.bob):
        more = ("--until", until, "--every", "0.3") if clone is lab.bob else ()
        lab.run(clone, "rollover", "advance", MODEL, *more, codes=(0, 10))
    _check(lab.state == until, f"{label}: {lab.state}, where it has to be {until}")
    lab.at(f"{label}: {until}")


def point_at_a_tenth(lab: Lab, label: str) -> None:
    lab.run(lab.bob, "rollover", "advance", MODEL, "--until", "verified", "--every", "0.3")

    def is_pointed() -> bool:
        lab.run(lab.alice, "rollover", "advance", MODEL, codes=(0, 10))
        return lab.state == "pointed"

    _until(is_pointed, f"{label}: pointed")
    lab.at(f"{label}: pointed at a tenth")
    lab.rest()


def roll_back_from(lab: Lab, state: str) -> None:
    label = f"back from {state}"
    begin(lab, label)
    if state == "pointing":
        lab.run(lab.bob, "rollover", "advance", MODEL, "--until", "verified", "--every", "0.3")
        _until(lambda: killed(lab, "advance"), f"{label}: an act to be killed at")
    else:
        point_at_a_tenth(lab, label)
    if state == "pointed":
        ci_republishes(lab)
    if state in ("draining", "drained", "retiring"):
        advance(lab, label, "draining" if state == "draining" else "drained")
        lab.points_at("new")
    if state == "drained":
        back_to_nothing_is_refused(lab, label)
    if state == "retiring":  # deleted here, and not pushed yet
        lab.run(lab.bob, "rollover", "finish", MODEL, codes=(10,))
    if state == "held":
        lab.run(lab.alice, "sitevar", "set", MODEL, "old=50", "new=50", "--why", "by hand")
        lab.run(lab.bob, "rollover", "advance", MODEL, codes=(0, 4))
    if state == "rolling back":
        _check(killed(lab, "rollback", "--why", "the lab says so"), f"{label}: it waits")
    _check(lab.state == state, f"{label}: it is {lab.state}")
    lab.rest()
    git(lab.bob, "checkout", "-q", "flavors.yaml")
    lab.at(f"{label}: rolled back")
    lab.run(lab.bob, "rollover", "rollback", MODEL, "--why", "the lab says so", "--push")
    lab.points_at("old")
    lab.rest()
    git(lab.alice, "pull", "-q", "--rebase")
    lab.run(lab.alice, "unhold", "new", "--push")
    git(lab.bob, "pull", "-q", "--rebase")


def back_to_nothing_is_refused(lab: Lab, label: str) -> None:
    """The old servers are stopped: no way back leads there, until they are started again."""
    lab.fleets["old"].stop()
    lab.at(f"{label}: the old ones stopped")
    lab.run(lab.bob, "rollover", "rollback", MODEL, "--why", "to nothing", codes=(4,))
    lab.points_at("new")
    lab.rest()
    lab.fleets["old"].start()
    lab.scrape()


def roll_over(lab: Lab) -> None:
    label = "to the end"
    begin(lab, label)
    ci = threading.Thread(target=_keeping, args=(ci_republishes, lab, failures := []))
    ci.start()
    try:
        point_at_a_tenth(lab, label)
        advance(lab, label, "draining")
        advance(lab, label, "drained")
    finally:
        ci.join()
    for failure in failures:
        raise failure
    lab.rest()
    git(lab.bob, "pull", "-q", "--rebase")
    lab.run(lab.bob, "rollover", "finish", MODEL, "--push")
    lab.at(f"{label}: retired")
    _check(lab.state == "retired", f"{label}: it is {lab.state}")
    lab.fleets["old"].stop()
    git(lab.alice, "pull", "-q", "--rebase")
    flavors = parse_flavors((lab.alice / "flavors.yaml").read_bytes())
    _check(list(flavors) == ["new"], f"flavors.yaml of the branch has {list(flavors)}")
    lab.rest()


def killed(lab: Lab, command: str, *more: str) -> bool:
    """Runs a command that is killed between what it puts on record and what it does.

    Returns:
        Whether it came to do it; else it waits for evidence.
    """
    program = [sys.executable, "-c", _KILLED_AT_THE_ACT, "rollover", command, MODEL, *more]
    return _run(program, lab.bob, (-9, 10))[0] == -9


def ci_republishes(lab: Lab) -> None:
    """A change of the source is merged, and CI does what it does on every merge."""
    source = lab.ci / "projects" / MODEL / "features.py"
    git(lab.ci, "pull", "-q", "--rebase")
    source.write_text(source.read_text() + "# merged\n")
    commit(lab.ci, "A change that makes both flavors stale")
    git(lab.ci, "push", "-q")
    before = (lab.ci / "flavors.yaml").read_bytes()
    republish = [sys.executable, str(FLOW.parent / "republish.py"), "--stale", "--commit"]
    _, said = _run(republish, lab.ci, (0,))
    left_alone = (lab.ci / "flavors.yaml").read_bytes() == before
    _check(left_alone, f"CI republished a flavor of a live rollover: {said}")


# What runs.


@contextmanager
def opened(*, containers: bool, trained: Trained | None = None) -> Iterator[Lab]:
    """Publishes both versions and runs everything, until the context ends."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="adroit-lab-")))
        stack.enter_context(_environment(directory))
        print("==> two versions are trained and published", flush=True)
        if trained is None:
            (directory / "trained").mkdir()
            trained = train_models(directory / "trained")
        running = _containers(stack, directory) if containers else None
        upstream = _published(directory, trained, running)
        alice, bob, ci = (_clone(upstream, name) for name in ("alice", "bob", "ci"))
        _run([*PYTHON, "sitevar", "set", MODEL, "old", "--why", "the first version"], alice, (0,))
        fleets = {
            flavor: Fleet(running.launch(alice, flavor) if running else _process(alice, flavor))
            for flavor in ("old", "new")
        }
        print("==> " + ("containers" if running else "processes"), flush=True)
        for fleet in fleets.values():
            stack.callback(fleet.stop)
            fleet.start()
        urls = [url for fleet in fleets.values() for url in fleet.urls]
        prometheus = stack.enter_context(prometheus_server(directory / "prometheus", urls))
        address = {
            flavor: stack.enter_context(balancer(lambda _key, at=fleet: at.urls))  # type: ignore[misc]
            for flavor, fleet in fleets.items()
        }
        live = Sitevar(f"file:{directory}/sitevars.json", refresh_s=0.2)
        front = balancer(lambda key: fleets[live.flavor(MODEL, key)].urls)
        load = ConstantLoad(stack.enter_context(front), BODY, ANSWER)
        yield Lab(alice, bob, ci, fleets, address, prometheus, stack.enter_context(load))


def _published(directory: Path, trained: Trained, running: Any) -> Path:
    """Returns a bare repository whose flavors are published."""
    root = directory / "first"
    make_checkout(root, trained.tracking_uri, {"old": trained.good[0], "new": trained.good[1]})
    config = (root / "adroit.toml").read_text()
    config = config.replace("file:.adroit/", f"file:{directory}/")
    if running:
        config += f'images = "{running.images}"\n'
        (root / "conda_envs.yaml").write_text("plain:\n  image: adroit-env/sklearn:1\n")
    (root / "adroit.toml").write_text(config)
    commit(root, "settings")
    for flavor in ("old", "new"):
        flow = [sys.executable, str(FLOW), "run", f"--flavor={flavor}"]
        _run([*flow, "--target=local"], root, (0,))
    commit(root, "published")
    git(directory, "clone", "-q", "--bare", "first", "bare.git")
    return directory / "bare.git"


def _clone(upstream: Path, name: str) -> Path:
    git(upstream.parent, "clone", "-q", str(upstream), name)
    clone = upstream.parent / name
    git(clone, "config", "user.name", name)
    git(clone, "config", "user.email", f"{name}@example.invalid")
    return clone


def _process(clone: Path, flavor: str) -> Callable[[], Any]:
    version = str(parse_flavors((clone / "flavors.yaml").read_bytes())[flavor].version)

    @contextmanager
    def launch() -> Iterator[str]:
        command = [*PYTHON, "serve", version, "--port", "0"]
        with started(command, environ=_environ(clone), cwd=clone) as server:
            yield server.url

    return launch


@dataclass
class _Containers:
    """A registry, and an engine that runs what it holds."""

    client: Any
    images: str

    def launch(self, clone: Path, flavor: str) -> Callable[[], Any]:
        version = str(parse_flavors((clone / "flavors.yaml").read_bytes())[flavor].version)
        shown = json.loads(_run([*PYTHON, "show", version, "--json"], clone, (0,))[1])
        image = f"{self.images}/{MODEL}@{shown['manifest']['digest']}"
        self.client.images.pull(image)

        @contextmanager
        def launch() -> Iterator[str]:
            container = self.client.containers.run(
                image, detach=True, network_mode="host", command=["--port=0"]
            )
            try:
                for line in container.logs(stream=True, follow=True):
                    if b'"ready"' in line:
                        yield f"http://127.0.0.1:{json.loads(line)['port']}"
                        break
                else:
                    raise Violation(container.logs().decode())
            finally:
                container.remove(force=True)

        return launch


def can_run_containers() -> bool:
    """Whether this machine can run an engine of its own, and a registry."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    programs = ("dockerd", "docker-registry")
    return os.geteuid() == 0 and all(shutil.which(name, path=path) for name in programs)


def _containers(stack: ExitStack, directory: Path) -> _Containers:
    from tests.servers.docker_engine import docker_engine, engine_client
    from tests.servers.registry_servers import docker_registry
    from tests.support.env_images import push_carved_env

    registry = stack.enter_context(docker_registry(directory))
    push_carved_env(registry, "adroit-env/sklearn:1")
    engine = stack.enter_context(docker_engine())
    client = stack.enter_context(engine_client(engine))
    client.images.pull(f"{registry.host}/adroit-env/sklearn:1")
    os.environ["DOCKER_HOST"] = engine.host
    return _Containers(client, f"{registry.host}/adroit")


@contextmanager
def _environment(directory: Path) -> Iterator[None]:
    """Nothing of the user's that could point to a real account, while the context lasts."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean() | {"PYTHONPATH": str(FLOW.parent), "METAFLOW_HOME": os.devnull})
    os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"] = str(directory)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _environ(clone: Path) -> dict[str, str]:
    return dict(os.environ) | {"METAFLOW_USER": clone.name}


def _run(command: Sequence[str], clone: Path, codes: Sequence[int]) -> tuple[int, str]:
    """Returns a command's exit code, which has to be one of some, and what it printed."""
    try:
        done = subprocess.run(
            command,
            cwd=clone,
            env=_environ(clone),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Violation(f"{' '.join(command)} took more than {PATIENCE_S} s") from error
    said = done.stdout + done.stderr
    name = " ".join(command[2:])
    _check(done.returncode in codes, f"{clone.name}: {name} ended with {done.returncode}: {said}")
    return done.returncode, done.stdout


def _keeping(act: Callable[[Lab], None], lab: Lab, failures: list[Violation]) -> None:
    try:
        act(lab)
    except Violation as violation:
        failures.append(violation)


def _until(condition: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        _check(time.monotonic() < give_up, f"{what}: not in {PATIENCE_S} s")
        time.sleep(0.05)


def _check(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Violation(otherwise)


if __name__ == "__main__":
    main()
