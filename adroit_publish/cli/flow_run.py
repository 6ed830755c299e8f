"""What the publish flow does besides Metaflow: its messages and its exit code.

Metaflow ends every failure with exit code 1 and a traceback. So a step that fails writes its
outcome to a file that the main process named in the environment, says one message, and exits with
the code that forbids ``@retry``; the main process turns the outcome into the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adroit_publish.cli.progress import bars_for_steps, step_listener
from adroit_publish.errors import EXIT_INTERRUPTED, ConfigError, PublishError
from adroit_publish.pipeline.prepare import Prepared, pending, prepare
from adroit_publish.pipeline.publish import publish
from adroit_publish.pipeline.record import user_name
from adroit_publish.pipeline.release import Failure, Options, PublishJob, Release
from adroit_publish.pipeline.workspace import find_root, read_workspace
from adroit_publish.pipeline.write_back import try_versions

OUTCOME_VARIABLE = "ADROIT_OUTCOME_FILE"
Outcome = Release | Failure


def prepare_flavors(
    flow_file: str, flavors: str | None, all_pending: bool, options: Options
) -> tuple[Prepared | None, ...]:
    """The ``start`` step: what has to be done for each flavor.

    Args:
        flow_file: The flow's file; its directory is the checkout where the current one is none.
        flavors: Names with commas between them, or None.
        all_pending: Take every flavor whose version is a run id.
        options: What was asked.

    Raises:
        PublishError: The request itself is refused, or every single flavor is.
    """
    root = find_root(Path.cwd(), Path(flow_file).resolve().parent)
    workspace = read_workspace(root)
    if all_pending == bool(flavors):
        raise ConfigError(
            "Say which flavors are to be published.",
            got="both --flavor and --pending" if flavors else "neither --flavor nor --pending",
            wanted="--flavor=NAME[,NAME...] or --pending",
        )
    names = pending(workspace) if all_pending else [n.strip() for n in str(flavors).split(",")]
    if all_pending and not names:
        print("No flavor waits to be published.")
        return (None,)  # Metaflow fans out over one thing at least
    prepared = prepare(workspace, [name for name in names if name], options)
    failures = [item for item in prepared if isinstance(item, Failure)]
    if len(failures) == len(prepared):
        raise _together(failures)
    for item in prepared:
        print(_prepared_line(item), flush=True)
    return prepared


def publish_one(
    item: Prepared | None, attempts_left: int, origin: dict[str, str]
) -> Outcome | None:
    """The ``publish`` step: one flavor, all the way.

    Args:
        item: What ``start`` found; anything but a job passes through.
        attempts_left: How often Metaflow would run this step again; a transient failure is raised
            for it to do so, any other is an outcome.
        origin: What the record says of the run.
    """
    if not isinstance(item, PublishJob):
        return item
    try:
        return publish(item, step_listener(), origin)
    except PublishError as error:
        if attempts_left and getattr(error, "transient", False):
            raise
        print(f"{item.flavor.name}: {error}", flush=True)
        return Failure(item.flavor.name, error)
    except Exception as error:  # noqa: BLE001  a bug in one flavor must not lose the others
        traceback.print_exc()
        got = f"{type(error).__name__}: {error}"
        return Failure(item.flavor.name, PublishError("This is a bug in the publisher.", got=got))


def write_back(flow_file: str, branches: Sequence[Outcome | None]) -> tuple[Outcome, ...]:
    """The ``record`` step: all new versions into flavors.yaml, in one edit.

    Returns:
        The outcomes; a release that flavors.yaml refused has become a failure.
    """
    outcomes = [item for item in branches if item is not None]
    root = find_root(Path.cwd(), Path(flow_file).resolve().parent)
    news = {
        item.flavor: (item.expected, item.version)
        for item in outcomes
        if isinstance(item, Release) and item.news
    }
    changed, refused = try_versions(root / "flavors.yaml", news) if news else ((), {})
    for flavor in changed:
        print(f"flavors.yaml: {flavor}: {news[flavor][1]}", flush=True)
    return tuple(
        Failure(item.flavor, refused[item.flavor]) if item.flavor in refused else item
        for item in outcomes
    )


def summarize(outcomes: Sequence[Outcome]) -> None:
    """The ``end`` step: says what came of every flavor and leaves the outcome for the exit code."""
    for item in outcomes:
        if isinstance(item, Failure):
            print(f"FAILED     {item.flavor}: {item.error.what}")
        elif item.news:
            print(f"published  {item.flavor}: {item.version}  {item.manifest_digest}")
        else:
            print(f"unchanged  {item.flavor}: {item.version}: nothing to do")
    failures = [item for item in outcomes if isinstance(item, Failure)]
    if failures and not _told(_together(failures)):
        sys.exit(1)  # nobody on this machine waits for the outcome: the run itself has to fail


@contextmanager
def refusals_end_the_run() -> Iterator[None]:
    """Turns a PublishError in a step into one message and an exit that is not retried."""
    from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY

    try:
        yield
    except PublishError as error:
        if not _told(error):
            print(error, flush=True)
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)


def _told(error: PublishError) -> bool:
    """Leaves an error where the main process finds it, if there is one on this machine."""
    path = Path(os.environ.get(OUTCOME_VARIABLE, ""))
    if not path.parent.is_dir() or path == Path():
        return False
    path.write_text(json.dumps({"exit_code": error.exit_code, "message": str(error)}))
    return True


def main(flow: Callable[[], object]) -> NoReturn:
    """Runs the flow as a program: one message and the exit codes of the command line.

    Args:
        flow: The flow's class.
    """
    is_step = "step" in sys.argv and not {"run", "resume"} & set(sys.argv)
    if OUTCOME_VARIABLE in os.environ or is_step:  # a step's process runs this file as well
        flow()
        sys.exit(0)
    if user_name() in ("root", "unknown"):
        # Metaflow refuses both, and a bare container is often one of them.
        os.environ["USERNAME"] = "adroit"
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True  # Metaflow cleans up and then ends with 1, as after any failure
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    with tempfile.TemporaryDirectory(prefix="adroit-") as directory:
        outcome = Path(directory) / "outcome.json"
        os.environ[OUTCOME_VARIABLE] = str(outcome)
        try:
            with bars_for_steps():
                flow()
            code: int | str | None = 0
        except SystemExit as stop:
            code = stop.code
        except KeyboardInterrupt:
            code = EXIT_INTERRUPTED
        if interrupted:
            code = EXIT_INTERRUPTED
        elif outcome.exists():
            told = json.loads(outcome.read_text())
            print(f"\n{told['message']}", file=sys.stderr)
            code = told["exit_code"]
        elif code and (hint := _datastore_hint()):
            print(f"\n{hint}", file=sys.stderr)
    sys.exit(code)


def _datastore_hint() -> str | None:
    """Returns what to type where Metaflow itself failed, and its datastore is not this machine."""
    from metaflow.metaflow_config import DATASTORE_SYSROOT_S3, DEFAULT_DATASTORE

    if DEFAULT_DATASTORE == "local":
        return None
    return (
        f"Metaflow's configuration keeps its runs in {DEFAULT_DATASTORE} "
        f"({DATASTORE_SYSROOT_S3}). If these credentials may not write there, keep them here: "
        f"METAFLOW_DEFAULT_DATASTORE=local METAFLOW_DEFAULT_METADATA=local "
        f"python {' '.join(sys.argv)}"
    )


def _prepared_line(item: Prepared) -> str:
    if isinstance(item, PublishJob):
        model = item.model
        places = " and ".join(filter(None, (item.target.bundles, item.target.images)))
        env = f"{item.env.env.name} {item.env.digest or '(not pinned)'}"
        moved = f"\n{item.flavor.name}: the env was {item.moved_from}" if item.moved_from else ""
        return (
            f"{item.flavor.name}: will publish {model.name} of run {model.run_id} to "
            f"{item.target.name} ({places}), conda env {env}{moved}"
        )
    if isinstance(item, Failure):
        return f"{item.flavor}: {item.error}"
    return f"{item.flavor}: {item.version} is up to date"


def _together(failures: Sequence[Failure]) -> PublishError:
    """Returns one error for all; its exit code is the first failure's."""
    if len(failures) == 1:
        return failures[0].error
    error = PublishError(
        f"{len(failures)} flavors were not published:\n"
        + "\n".join(f"{failure.flavor}: {failure.error}" for failure in failures)
    )
    error.exit_code = failures[0].error.exit_code
    return error
