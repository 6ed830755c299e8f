"""Whether this machine can publish: one check for each thing that a publish relies on.

Nothing is written. Each check stands alone: what fails is told in its row and stops no other. The
network is waited for a few seconds; what has not answered by then counts as away. What a check
says comes from the code that publishes, so that the two cannot come to differ.

The tracking server is asked when the others are done: MLflow's settings are environment variables,
which the others read.
"""

from __future__ import annotations

import importlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from adroit_publish.checkout import Checkout, find_root
from adroit_publish.config.flavors import Flavor
from adroit_publish.config.targets import Target, explain_choice
from adroit_publish.doctor import checkout as here
from adroit_publish.doctor import places as places
from adroit_publish.doctor.checkout import Check, State, failed
from adroit_publish.doctor.places import MetaflowSettings
from adroit_publish.edge.text import printable
from adroit_publish.edge.urls import without_credentials
from adroit_publish.errors import (
    EXIT_OK,
    ConfigError,
    PublishError,
    RefusedError,
    SourceError,
    StoreError,
)

ANSWER_TIMEOUT_S = 7.0
_KEEP_RECORDS_HERE = "METAFLOW_DEFAULT_DATASTORE=local METAFLOW_DEFAULT_METADATA=local"
_MEND = "mend that, then run this again"
_CHECK_NETWORK = "check the network, the VPN and the proxy, then run this again"


@dataclass(frozen=True)
class Probe:
    """A check that is still to be made.

    Attributes:
        away: The kind of error that it is if there is no answer.
        next_step: What to do then; None: what the error says.
        imports: What it imports that takes long; that is no part of the time it may take.
        where: What it asks, as a user knows it.
    """

    name: str
    look: Callable[[str], Check]
    away: type[PublishError] = StoreError
    worst: State = "problem"
    next_step: str | None = None
    imports: tuple[str, ...] = ()
    where: str | None = None


def examine(
    start: Path,
    flag: str | None,
    environ: Mapping[str, str],
    metaflow: MetaflowSettings | ConfigError,
) -> tuple[Check, ...]:
    """Returns every check, in an order in which problems are best mended.

    Args:
        start: The checkout, or a directory below it.
        flag: What ``--target`` says, if it was given.
        metaflow: Metaflow's configuration, or why it cannot be read.
    """
    try:
        root = find_root(start)
    except ConfigError as error:
        root, missing = start, error
        checkout = Checkout(start, environ)
        probes = [Probe("flavors.yaml", partial(_raising, missing))]
    else:
        checkout = Checkout(root, environ)
        probes = [Probe("flavors.yaml", partial(here.flavors_file, checkout=checkout))]
    chosen, target = _choose(checkout, flag)
    probes = [Probe("packages", here.packages), *probes, *_files(checkout)]
    probes += [Probe("target", lambda name: chosen), *_of_target(target)]
    probes += _verification(target, environ) + _git(root, target) + _metaflow(metaflow, target)
    checks = ask(probes, ANSWER_TIMEOUT_S) + ask(_tracking(target), ANSWER_TIMEOUT_S)
    return tuple(
        replace(
            check, found=_shown(check.found), next_step=check.next_step and _shown(check.next_step)
        )
        for check in checks
    )


def exit_code(checks: Sequence[Check]) -> int:
    """Returns 0 where there is no problem, else the exit code of the first one."""
    return next((check.exit_code for check in checks if check.state == "problem"), EXIT_OK)


def ask(probes: Sequence[Probe], timeout_s: float) -> list[Check]:
    """Makes all checks at once and returns them in their order.

    Threads that hang for longer than ``timeout_s`` are left behind: they end with the process.
    """
    made: dict[int, Check] = {}

    def look(number: int, probe: Probe) -> None:
        made[number] = _made(probe)

    threads = [
        threading.Thread(target=look, args=(number, probe), daemon=True)
        for number, probe in enumerate(probes)
    ]
    for module in {module for probe in probes for module in probe.imports}:
        with suppress(ImportError):  # which the check itself will meet
            importlib.import_module(module)
    end = time.monotonic() + timeout_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return [
        made.get(number) or _failure(probe, _late(probe, timeout_s))
        for number, probe in enumerate(probes)
    ]


def _made(probe: Probe) -> Check:
    try:
        return probe.look(probe.name)
    except PublishError as error:
        return _failure(probe, error)
    except Exception as error:  # noqa: BLE001 - one check may not take the others with it
        failure = f"this check itself failed: {type(error).__name__}"  # its text may hold anything
        return Check(probe.name, "problem", failure, "report it", probe.away.exit_code)


def _late(probe: Probe, timeout_s: float) -> PublishError:
    late = f"There was no answer within {timeout_s:g} s."
    return probe.away(late, where=probe.where, next_step=_CHECK_NETWORK)


def _failure(probe: Probe, error: PublishError) -> Check:
    check = failed(probe.name, error, probe.worst)
    return replace(check, next_step=probe.next_step or check.next_step or _MEND)


def _flavors(checkout: Checkout) -> Mapping[str, Flavor]:
    try:
        return checkout.flavors
    except ConfigError:
        return {}  # which has a row of its own


def _choose(checkout: Checkout, flag: str | None) -> tuple[Check, Target | None]:
    try:
        targets = checkout.targets
    except ConfigError:
        return Check("target", "not needed", "not chosen: adroit.toml has problems"), None
    try:
        target, why = explain_choice(targets, flag=flag, environ=checkout.environ)
    except ConfigError as error:
        return failed("target", error), None
    return Check("target", "ok", f"{target.name}: {why}"), target


def _files(checkout: Checkout) -> list[Probe]:
    flavors = _flavors(checkout)
    return [
        Probe("conda_envs.yaml", partial(here.conda_envs_file, checkout=checkout, flavors=flavors)),
        Probe("config.yaml", partial(here.config_files, checkout=checkout, flavors=flavors)),
        Probe("adroit.toml", partial(here.targets_file, checkout=checkout)),
    ]


def _of_target(target: Target | None) -> list[Probe]:
    if target is None:
        return _unchosen("AWS account", "bundle store", "image registry", "sitevar", "signatures")
    slow = ("boto3",) if places.asks_aws(target) else ()
    account = partial(places.aws_account, target=target)
    store = partial(places.bundle_store, target=target)
    registry = partial(places.image_registry, target=target)
    sitevar = partial(places.sitevar, target=target)
    return [
        Probe("AWS account", account, imports=slow, where="AWS"),
        Probe("bundle store", store, where=target.bundles),
        Probe("image registry", registry, where=target.images),
        Probe("sitevar", sitevar, where="; ".join(target.sitevar_addresses.values()) or None),
        Probe("signatures", partial(places.signatures, target=target), where=target.signing_key),
    ]


def _verification(target: Target | None, environ: Mapping[str, str]) -> list[Probe]:
    # An image target's publishes are verified in its images, unless --verify says otherwise.
    worst: State = "problem" if target and target.images is None else "warning"
    process = partial(places.process_sandbox, target=target)
    sandbox = Probe("sandbox", process, RefusedError, worst)
    if target is None:
        return [sandbox, *_unchosen("Docker engine")]
    slow = ("docker",) if target.images else ()
    image, host = partial(places.docker_engine, target=target), environ.get("DOCKER_HOST")
    return [sandbox, Probe("Docker engine", image, RefusedError, imports=slow, where=host)]


def _git(root: Path, target: Target | None) -> list[Probe]:
    upstream = partial(here.git_upstream, root=root, target=target)
    return [
        Probe("git checkout", partial(here.git_checkout, root=root), SourceError),
        Probe("git upstream", upstream, SourceError, "warning"),
    ]


def _metaflow(metaflow: MetaflowSettings | ConfigError, target: Target | None) -> list[Probe]:
    if isinstance(metaflow, ConfigError):
        return [Probe("Metaflow", partial(_raising, metaflow))]
    slow = ("boto3",) if metaflow.datastore == "s3" else ()
    datastore = partial(places.metaflow_datastore, settings=metaflow, target=target)
    return [
        Probe("Metaflow", partial(places.metaflow_configuration, settings=metaflow)),
        Probe("Metaflow datastore", datastore, StoreError, "warning", _KEEP_RECORDS_HERE, slow),
        Probe("Metaflow user", partial(places.metaflow_user, settings=metaflow)),
        Probe("Metaflow UI", partial(places.metaflow_ui, settings=metaflow)),
    ]


def _tracking(target: Target | None) -> list[Probe]:
    if target is None:
        return _unchosen("Databricks login", "tracking server")
    slow, uri = places.tracking_imports(target), target.tracking_uri
    login = partial(places.databricks, target=target)
    server = partial(places.tracking_server, target=target)
    return [
        Probe("Databricks login", login, RefusedError, imports=slow, where=uri),
        Probe("tracking server", server, SourceError, where=uri),
    ]


def _unchosen(*names: str) -> list[Probe]:
    def look(name: str) -> Check:
        return Check(name, "not needed", "not looked at: no target is chosen")

    return [Probe(name, look) for name in names]


def _raising(error: PublishError, name: str) -> Check:
    raise error


def _shown(text: str) -> str:
    """Returns a text without what may not be shown, whoever wrote it: logins, signed queries."""
    text = re.sub(r"(\w+://[^\s?]+)\?\S*", r"\1?...", without_credentials(text))
    return printable(text, keep_lines=True)
