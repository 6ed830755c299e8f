"""Where runs are logged: the tracking store, the user, and the experiment, made on demand.

The tracking store is the constructor's, else MLFLOW_TRACKING_URI, else this checkout's own:
``.adroit/mlflow.db`` beside adroit.toml or .git, the publish target ``local``. A sqlite store has
its models' files beside the database, wherever the flow is started.

An experiment's name is a pattern with ``{user}`` and ``{name}``: ADROIT_EXPERIMENT, else
``/Shared/mlflow/experiments/{user}@nextdoor.com/{name}`` on Databricks and ``{name}`` elsewhere.
``{name}`` is what the constructor was given, by default the flow's name. On Databricks the folder
above the experiment is made.

``{user}`` is METAFLOW_USER, then SUDO_USER, USERNAME and USER, as Metaflow has it, without the
domain of an e-mail address; else whom the tracking server knows us as. Where the two differ, a
message says so, and the environment's decides: a CI job may well train for somebody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from adroit.training import tracking
from adroit.training.databricks import DatabricksWorkspace, is_databricks
from adroit.training.errors import TrainingError

PATTERN_VARIABLE = "ADROIT_EXPERIMENT"
DATABRICKS_PATTERN = "/Shared/mlflow/experiments/{user}@nextdoor.com/{name}"
_USERS = ("METAFLOW_USER", "SUDO_USER", "USERNAME", "USER")
_MARKS = ("adroit.toml", ".git")


def tracking_uri_of(environ: Mapping[str, str]) -> str:
    """Returns where this process logs to when nobody says; see the module's text.

    Raises:
        TrainingError: Nothing says, and this is no checkout (a step that runs elsewhere, say).
    """
    if named := environ.get("MLFLOW_TRACKING_URI"):
        return named
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    starts = [Path(main).resolve().parent] if main else []
    for start in (*starts, Path.cwd()):
        for directory in (start, *start.parents):
            if any((directory / mark).exists() for mark in _MARKS):
                return f"sqlite:///{directory / '.adroit' / 'mlflow.db'}"
    raise TrainingError(
        "Nothing says which tracking server this run is logged to.",
        got="no MLFLOW_TRACKING_URI, and this is no checkout with a store of its own",
        next_step="export MLFLOW_TRACKING_URI=databricks (or the server's https address)",
    )


def check_tracking_uri(tracking_uri: str) -> None:
    """Raises what is wrong with an address before anything is sent there.

    Raises:
        TrainingError: It carries a password, which would be kept wherever the address is.
    """
    address = urlsplit(tracking_uri)
    if address.scheme in ("http", "https") and "@" in address.netloc:
        raise TrainingError(
            "The tracking server's address has a password in it.",
            where=f"{address.scheme}://...@{address.netloc.rpartition('@')[2]}",
            next_step="take it out, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        )


def ensure_experiment(tracking_uri: str, name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Returns the full name and the id of an experiment; makes it where there is none.

    Args:
        tracking_uri: The store.
        name: Fills ``{name}`` of the pattern; or a path from ``/``, a pattern of its own.
        environ: The process's environment.

    Raises:
        TrainingError: The store refuses us, cannot be reached or has the experiment deleted; the
            pattern is none; or it wants the user, and nobody says who that is.
    """
    workspace = DatabricksWorkspace(tracking_uri) if is_databricks(tracking_uri) else None
    known_as = workspace.user_name() if workspace else environ.get("MLFLOW_TRACKING_USERNAME")
    default = DATABRICKS_PATTERN if workspace else "{name}"
    pattern = name if name.startswith("/") else environ.get(PATTERN_VARIABLE) or default
    user = user_name(environ, known_as)
    if user is None and "{user}" in pattern:
        raise _nobody(pattern)
    full = _filled(pattern, user=str(user), name=name)
    if known_as and known_as.partition("@")[0] != user:
        print(
            f"The tracking server knows you as {known_as}, the environment as {user}: the run "
            f"goes to {full}. If that is not meant, set METAFLOW_USER, or log in as {user}.",
            file=sys.stderr,
        )
    if workspace:
        _make_folder(workspace, full)
    return full, _experiment_id(tracking_uri, full)


def user_name(environ: Mapping[str, str], known_as: str | None) -> str | None:
    """Returns the user for whom a run is logged, without the domain of an e-mail address.

    Args:
        environ: The process's environment.
        known_as: Whom the tracking server knows us as; None where it does not say.

    Returns:
        A name; None where neither says one, or only root.
    """
    for name in (*(environ.get(variable) for variable in _USERS), known_as):
        user = (name or "").partition("@")[0]
        if user and user != "root":
            return user
    return None


def _nobody(pattern: str) -> TrainingError:
    return TrainingError(
        "Nobody says whose run this is.",
        where=f"experiments named {pattern}",
        got="root, or nobody, in METAFLOW_USER and USER",
        next_step="export METAFLOW_USER=your.name",
    )


def _filled(pattern: str, *, user: str, name: str) -> str:
    try:
        full = pattern.format_map({"user": user, "name": name})
    except (KeyError, ValueError, IndexError, AttributeError) as error:
        raise TrainingError(
            "The pattern of experiments' names cannot be read.",
            where=PATTERN_VARIABLE,
            got=pattern,
            wanted="{user} and {name} in braces, and no other",
            next_step=f"export {PATTERN_VARIABLE}='{DATABRICKS_PATTERN}'",
        ) from error
    return full.rstrip("/")


def _make_folder(workspace: DatabricksWorkspace, experiment: str) -> None:
    folder = experiment.rpartition("/")[0]
    if not experiment.startswith("/"):
        raise TrainingError(
            "An experiment of Databricks is named by its path in the workspace.",
            got=experiment,
            wanted=DATABRICKS_PATTERN,
            next_step=f"unset {PATTERN_VARIABLE}, or let it begin with /",
        )
    if folder:
        workspace.make_directory(folder)


def _experiment_id(tracking_uri: str, name: str) -> str:
    """Finds or makes it; another task that makes it in the same moment does no harm."""
    location = _prepare_local(tracking_uri)
    with tracking.store(tracking_uri, patient=False) as client:
        from mlflow.exceptions import MlflowException

        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return str(client.create_experiment(name, location))
            except MlflowException:
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage != "active":
        raise TrainingError(
            "The experiment was deleted.",
            where=f"{tracking.shown(tracking_uri)}: {name}",
            next_step=f"mlflow experiments restore -x {experiment.experiment_id}, or another name",
        )
    return str(experiment.experiment_id)


def _prepare_local(tracking_uri: str) -> str | None:
    """Makes a sqlite store's directory; returns where its models go, None for a server's choice."""
    if not tracking_uri.startswith("sqlite:"):
        return None
    path = tracking_uri.removeprefix("sqlite:///").partition("?")[0]
    directory = Path(os.path.abspath(path)).parent
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / "artifacts").as_uri()
