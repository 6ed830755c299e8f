"""A Metaflow flow as a program: its command line, its exit code, and the one message of a failure.

Metaflow ends every failure with exit code 1 and a traceback. So a step that fails writes its
outcome to a file that the main process named in the environment, says one message, and exits with
the code that forbids ``@retry``; the main process turns the outcome into the exit code.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from adroit_publish.cli.progress import (
    INTERRUPTED,
    LOG_VARIABLE,
    QUIET_VARIABLE,
    bars_for_steps,
)
from adroit_publish.edge.user import user_name
from adroit_publish.errors import EXIT_INTERRUPTED, PublishError, SourceError
from adroit_publish.git.repository import inert_variables

if TYPE_CHECKING:
    from rich.console import Console

OUTCOME_VARIABLE = "ADROIT_OUTCOME_FILE"
IN_GITHUB = "GITHUB_ACTIONS"
PLAIN_VARIABLE = "ADROIT_PLAIN"
"""Set by who puts a prefix of its own before each line."""
CHECKED_RUN = "adroit_publish.cli.flow.checked_run.run"
"""Takes the place of Metaflow's ``run``, once Metaflow knows the flow's parameters."""
_MOST_TASKS = 100_000


@contextmanager
def refusals_end_the_run() -> Iterator[None]:
    """Turns a PublishError in a step into one message and an exit that is not retried."""
    from metaflow.exception import METAFLOW_EXIT_DISALLOW_RETRY

    try:
        yield
    except PublishError as error:
        if not tell(error):
            print(error, flush=True)
        sys.exit(METAFLOW_EXIT_DISALLOW_RETRY)


def tell(error: PublishError) -> bool:
    """Leaves an error where the main process finds it; False where none waits on this machine."""
    path = Path(os.environ.get(OUTCOME_VARIABLE, ""))
    if not path.parent.is_dir() or path == Path():
        return False
    path.write_text(json.dumps({"exit_code": error.exit_code, "message": str(error)}))
    return True


def main(flow: Callable[..., object], *, command: str | None = None) -> NoReturn:
    """Runs the flow as a program: one message and the exit codes of the command line.

    Args:
        command: What Metaflow is to do where the command line names none of its commands; ``-v``
            then means more log.
    """
    asked = _metaflow_command(sys.argv[1:])
    if command and asked is None:
        sys.argv.insert(1, command)
        if "-v" in sys.argv:
            sys.argv.remove("-v")
            os.environ[LOG_VARIABLE] = "INFO"
    if LOG_VARIABLE in os.environ:
        logging.basicConfig(level=os.environ[LOG_VARIABLE])
    if OUTCOME_VARIABLE in os.environ or asked in ("step", "spin-step"):
        flow()  # the process of a step, which runs this file as well
        sys.exit(0)
    if user_name() in ("root", "unknown"):
        # Metaflow refuses both, and a bare container is often one of them.
        os.environ["USERNAME"] = "adroit"
    for name in ("RUN", "RESUME"):  # one flavor a task may be meant: a run has no other limit
        os.environ.setdefault(f"METAFLOW_{name}_MAX_NUM_SPLITS", str(_MOST_TASKS))
    with suppress(SourceError):
        # Metaflow asks git about the flow's directory: no command configured there is to run.
        os.environ |= inert_variables(Path(sys.argv[0]).resolve().parent)
    with tempfile.TemporaryDirectory(prefix="adroit-") as directory:
        outcome = Path(directory) / "outcome.json"
        os.environ[OUTCOME_VARIABLE] = str(outcome)
        with _github_group():
            code = _run(flow, outcome)
        if code == EXIT_INTERRUPTED:
            print(f"\n{INTERRUPTED}", file=sys.stderr)
        elif outcome.exists():
            told = json.loads(outcome.read_text())
            print(f"\n{told['message']}", file=sys.stderr)
            code = told["exit_code"]
        elif code and (hint := _datastore_hint()):
            print(f"\n{hint}", file=sys.stderr)
    sys.exit(code)


def _run(flow: Callable[..., object], outcome: Path) -> int | str | None:
    """Returns what Metaflow ends with, or 130; a step that left its outcome said why it failed."""
    from metaflow import cli, parameters
    from metaflow.exception import MetaflowException

    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True  # Metaflow cleans up and then ends with 1, as after any failure
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    code: int | str | None = 0
    try:
        with bars_for_steps() as console, parameters.flow_context(flow):
            if sys.stdout.isatty() or os.environ.keys() & {IN_GITHUB, PLAIN_VARIABLE}:
                _speak_plainly(console)
            cli.cli.lazy_subcommands["run"] = CHECKED_RUN
            cli.main(flow(use_cli=False), handle_exceptions=False)  # type: ignore[no-untyped-call]
    except SystemExit as stop:
        code = stop.code
    except KeyboardInterrupt:
        interrupted = True
    except PublishError as error:
        code = 1
        tell(error)
    except MetaflowException as error:
        code = 1
        if not (interrupted or outcome.exists()):
            cli.print_metaflow_exception(error)  # type: ignore[no-untyped-call]
    return EXIT_INTERRUPTED if interrupted else code


@contextmanager
def _github_group() -> Iterator[None]:
    """Folds the lines of the run in the log of a GitHub job; what came of it is in its summary."""
    if IN_GITHUB in os.environ:
        print("::group::Metaflow run", flush=True)
    yield
    if IN_GITHUB in os.environ:
        print("::endgroup::", flush=True)


def _speak_plainly(console: Console | None) -> None:
    """Prints what the steps say without Metaflow's 70 characters before each line.

    Of Metaflow's own lines those stay that say which run it is, or that something is wrong.

    Args:
        console: Prints lines above the bars; None where no bars are drawn.
    """
    from metaflow import cli

    quiet, in_github = QUIET_VARIABLE in os.environ, IN_GITHUB in os.environ

    def say(body: str = "", system_msg: bool = False, head: str = "", **more: Any) -> None:
        wrong = more.get("bad", False)
        if not wrong and system_msg and (head or quiet):
            return
        if in_github and body.lstrip().startswith(("::", "##[")):
            body = f"> {body}"  # what a model prints gives no commands to the runner
        if console:
            style = "red" if wrong else None
            console.print(body, style=style, markup=False, highlight=False, soft_wrap=True)
        else:
            print(body, flush=True)

    cli.logger = say  # type: ignore[assignment]
    os.environ["METAFLOW_QUIET"] = "1"  # it is about its own checks of the flow


def _metaflow_command(arguments: list[str]) -> str | None:
    """Returns the command of Metaflow that a command line names, by Metaflow's own parser."""
    from metaflow._vendor import click
    from metaflow.cli import start

    try:
        parser = start.make_parser(click.Context(start))  # type: ignore[no-untyped-call]
        words = parser.parse_args(list(arguments))[1]
    except click.UsageError:  # an option of the flow's own
        return None
    return words[0] if words else None


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
