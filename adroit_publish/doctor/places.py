"""What ``doctor`` finds at the places of a target, and where a publish to it is verified.

A check returns what it found, or raises the PublishError that a publish would end with; it writes
nothing. Most ask the network, and may take as long as that does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from adroit_publish.aws import session as aws
from adroit_publish.config.targets import Target
from adroit_publish.custody.signature import check_signing_key
from adroit_publish.doctor.checkout import Check, failed
from adroit_publish.edge import urls as addresses
from adroit_publish.errors import PublishError, RefusedError, SourceError
from adroit_publish.gates import sandbox
from adroit_publish.mlflow.tracking import check_tracking_store, tracking_client
from adroit_publish.places import credentials_of, open_store, prove_account
from adroit_publish.publish.verification import choose_verification
from adroit_publish.registry.client import Registry
from adroit_publish.registry.ecr import parse_ecr_host
from adroit_publish.registry.errors import failure
from adroit_publish.registry.image_reference import registry_host
from adroit_publish.rollovers.sitevars import sitevars_of
from adroit_publish.stores.s3.objects import S3Objects

REGISTRY_GIVE_UP_S = 4.0


@dataclass(frozen=True)
class MetaflowSettings:
    """Metaflow's configuration, as Metaflow reads it.

    Attributes:
        file: Its configuration file, whether it is there or not.
        datastore: Where runs keep their artifacts: ``local``, ``s3``, ...
        bucket: ``s3://...``, if it names one.
        metadata: Where runs are recorded: ``local`` or ``service``.
        user: Whom Metaflow takes us for; None where it refuses to run.
        user_is_set: Whether that is its own setting, METAFLOW_USER.
    """

    file: Path
    profile: str | None
    datastore: str
    bucket: str | None
    s3_endpoint: str | None
    metadata: str
    user: str | None
    user_is_set: bool
    ui_url: str | None


def aws_account(name: str, target: Target) -> Check:
    """Holds the account of the AWS credentials against the target's."""
    if target.account is not None:
        prove_account(target, target.account)
        return Check(name, "ok", f"the credentials are of {target.account}, as they have to be")
    if not asks_aws(target):
        return Check(name, "not needed", f"target {target.name} has no place at AWS")
    account = aws.caller_account(aws.session(target.profile))
    credentials = f"the credentials are of {account}; target {target.name} would take any account's"
    return Check(name, "warning", credentials, f'account = "{account}" in adroit.toml')


def bundle_store(name: str, target: Target) -> Check:
    """Lists the models of the bundle store; a directory also has to be one that can be written."""
    store = open_store(target)
    models = list(store.models())
    if target.on_this_machine:
        _check_writable(Path(target.bundles.removeprefix("file:")))
    return Check(name, "ok", f"{store.location}, models: {', '.join(models) or 'none yet'}")


def signatures(name: str, target: Target) -> Check:
    """Holds the signing key against the keys that the target accepts."""
    if not (target.signing_key or target.require_signature):
        return Check(name, "not needed", f"target {target.name} neither signs nor demands it")
    check_signing_key(target)
    accepted = ", ".join(target.require_signature) or "not asked for"
    return Check(name, "ok", f"signed by {target.signing_key}; accepted: {accepted}")


def image_registry(name: str, target: Target) -> Check:
    """Asks the registry whether it lets us in."""
    if target.images is None:
        return Check(name, "not needed", f"target {target.name} has no images")
    host = registry_host(target.images)
    credentials = credentials_of(target, host)
    registry = Registry(host, credentials, target.images_endpoint, give_up_s=REGISTRY_GIVE_UP_S)
    what = "The registry could not be asked who we are"
    answer = registry.call("GET", "/v2/", (), what)
    if answer.status != 200:
        raise failure(answer, what, host)
    return Check(name, "ok", target.images)


def sitevar(name: str, target: Target) -> Check:
    """Reads the sitevar, or that of every region."""
    if not target.sitevar_addresses:
        return Check(name, "not needed", f"target {target.name} has no sitevars")
    told = [
        f"{address}, models: {', '.join(sitevars.pointers()) or 'none yet'}"
        for address, sitevars in zip(
            target.sitevar_addresses.values(),
            sitevars_of(target, open_store(target)).values(),
            strict=True,
        )
    ]
    return Check(name, "ok", "; ".join(told))


def databricks(name: str, target: Target) -> Check:
    """Looks for credentials of the workspace, as a publish does; nothing is asked of it yet."""
    if not addresses.is_databricks(target.tracking_uri):
        return Check(name, "not needed", f"target {target.name} logs to no Databricks workspace")
    from adroit.training.databricks import EXPORTS
    from adroit_publish.artifacts.databricks_workspace import Workspace

    try:
        return Check(name, "ok", f"credentials for {Workspace(target.tracking_uri).host}")
    except PublishError as error:
        error.next_step = EXPORTS
        raise


def tracking_server(name: str, target: Target) -> Check:
    """Asks the tracking server for next to nothing; a store of this machine is only looked at."""
    uri = target.tracking_uri
    shown = addresses.without_credentials(uri)
    if addresses.is_databricks(uri):
        return _databricks_workspace(name, target)
    if addresses.is_local(uri):
        check_tracking_store(uri)
    else:
        with tracking_client(uri, patient=False) as client:
            client.search_experiments(max_results=1)
    return Check(name, "ok", shown)


def tracking_imports(target: Target) -> tuple[str, ...]:
    """Returns the modules with which the tracking store is asked that take long to import."""
    if addresses.is_databricks(target.tracking_uri):
        return ("databricks.sdk.config",)
    return () if addresses.is_local(target.tracking_uri) else ("mlflow.tracking",)


def process_sandbox(name: str, target: Target | None) -> Check:
    """Tries what a model is run in by ``--verify process``."""
    kind = sandbox.available()
    if kind != "plain":
        return Check(name, "ok", f"{kind} confines the model")
    missing = sandbox.refuse_plain("this machine")
    if target is not None and not target.on_this_machine:
        raise missing
    missing.wanted = f"{missing.wanted}; a local target does with a process that is not confined"
    return failed(name, missing, "warning")


def docker_engine(name: str, target: Target) -> Check:
    """Asks for the Docker engine that ``--verify image`` runs the image on."""
    if target.images is None:
        return Check(name, "not needed", f"target {target.name} has no images")
    choose_verification("image", target)
    return Check(name, "ok", f"{os.environ.get('DOCKER_HOST', 'the local engine')} answers")


def metaflow_configuration(name: str, settings: MetaflowSettings) -> Check:
    """Tells which configuration Metaflow goes by."""
    missing = "" if settings.file.is_file() else " (not there: Metaflow's own defaults)"
    profile = settings.profile or "default"
    records = f"datastore {settings.datastore}, metadata {settings.metadata}"
    return Check(name, "ok", f"profile {profile}, {settings.file}{missing}: {records}")


def metaflow_datastore(name: str, settings: MetaflowSettings, target: Target | None) -> Check:
    """Shows that Metaflow may use its bucket: that it is the target's account's, if one is said."""
    if settings.datastore != "s3" or not settings.bucket:
        return Check(name, "ok", f"runs are kept in {settings.datastore}")
    account = target.account if target else None
    S3Objects(settings.bucket, account=account, endpoint=settings.s3_endpoint).check()
    return Check(name, "ok", f"runs are kept in {settings.bucket}")


def metaflow_user(name: str, settings: MetaflowSettings) -> Check:
    """Looks whom Metaflow takes us for; it refuses root and nobody."""
    if settings.user is None:
        reason = "root, or nobody: Metaflow refuses to train; a publish runs as adroit"
        return Check(name, "warning", reason, "export METAFLOW_USER=your.name")
    source = "METAFLOW_USER" if settings.user_is_set else "as logged in"
    return Check(name, "ok", f"{settings.user} ({source})")


def metaflow_ui(name: str, settings: MetaflowSettings) -> Check:
    """Looks for the UI that runs are linked to."""
    if not settings.ui_url:
        return Check(name, "not needed", "METAFLOW_UI_URL is not set: runs have no link")
    return Check(name, "ok", settings.ui_url)


def _databricks_workspace(name: str, target: Target) -> Check:
    from adroit.training.databricks import DatabricksWorkspace
    from adroit.training.errors import TrainingError

    try:
        workspace = DatabricksWorkspace(target.tracking_uri)
    except TrainingError:
        return Check(name, "not needed", "not asked: there are no credentials for it")
    try:
        return Check(name, "ok", f"{workspace.host}, as {workspace.user_name()}")
    except TrainingError as error:
        facts = {"where": error.where, "got": error.got, "wanted": error.wanted}
        raise SourceError(error.what, **facts, next_step=error.next_step) from error


def asks_aws(target: Target) -> bool:
    """Tells whether a publish to the target asks anything of AWS."""
    uris = (target.bundles, *target.sitevar_addresses.values())
    at_ecr = target.images is not None and (
        target.images_auth == "ecr" or parse_ecr_host(registry_host(target.images)) is not None
    )
    return (
        target.account is not None or at_ecr or any(uri.startswith(("s3:", "ssm:")) for uri in uris)
    )


def _check_writable(directory: Path) -> None:
    nearest = next(parent for parent in (directory, *directory.parents) if parent.exists())
    if not nearest.is_dir() or not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        raise RefusedError(
            "The bundle store's directory cannot be used.",
            where=directory,
            got=f"{nearest} is not a directory that this user may write",
            next_step="mend its permissions, or choose another target",
        )
