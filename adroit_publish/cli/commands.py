"""``adroit-publish``: its commands, and how each one ends.

To add a command, write it in a module of this room and enter it in ``COMMANDS``.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import NoReturn

import click

from adroit_publish.cli.diff.command import diff
from adroit_publish.cli.doctor import doctor
from adroit_publish.cli.entry.flows import publish, republish
from adroit_publish.cli.entry.help import Commands, with_examples
from adroit_publish.cli.entry.names import PROGRAM, complete, completion, know_names
from adroit_publish.cli.entry.projects import check, new
from adroit_publish.cli.ledger import history, verify_ledger
from adroit_publish.cli.planning import hold, plan, unhold
from adroit_publish.cli.progress import INTERRUPTED, LOG_VARIABLE, QUIET_VARIABLE
from adroit_publish.cli.published import promote, pull, status, verify, versions
from adroit_publish.cli.rollover import rollover
from adroit_publish.cli.serving import build_env, manifest, predict, serve
from adroit_publish.cli.show.command import show
from adroit_publish.cli.sitevars import sitevar
from adroit_publish.errors import EXIT_INTERRUPTED, EXIT_OK, PublishError

COMMANDS = (
    *(new, check, publish, republish),
    *(versions, show, status, verify, pull, promote, diff, history, verify_ledger),
    *(plan, hold, unhold),
    *(serve, predict, manifest, build_env),
    *(rollover, sitevar),
    *(doctor, completion),
)
GO_ON = ("pull", "promote", "verify", "build-env", "check", "rollover advance")
"""What may take long; typed again after Ctrl-C, it goes on."""


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, commands=COMMANDS
)
@click.option("--quiet", is_flag=True, help="no bars and no stages: results, warnings and errors")
@click.option("--verbose", is_flag=True, help="what the libraries log, too")
def cli(quiet: bool, verbose: bool) -> None:
    """Publish models; look at what is published, check every byte of it, serve it.

    NO_COLOR=1 in the environment switches colours off. Exit codes: 0 done, or nothing to do; 2 bad
    usage or input file; 3 run, artifact or git; 4 refused; 5 store or network, run it again; 6
    verification failed; 10 there is something to do (plan) or to wait for; 130 interrupted.
    """
    if quiet:
        os.environ[QUIET_VARIABLE] = "1"
    if verbose:
        os.environ[LOG_VARIABLE] = "INFO"
        logging.basicConfig(level=logging.INFO)


with_examples(cli, PROGRAM)
know_names(cli)


def main() -> NoReturn:
    """Runs the command line; ends with the exit codes of ``adroit_publish.errors``."""
    code = EXIT_OK
    if complete(cli):
        sys.exit(code)
    try:
        # Not cli.main(): it has an exit code of its own for a reader that has gone.
        with cli.make_context(PROGRAM, sys.argv[1:]) as context:
            cli.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except PublishError as error:
        print(error, file=sys.stderr)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        code = EXIT_INTERRUPTED
        if " ".join(sys.argv[1:]).startswith(GO_ON):
            print(f"\n{INTERRUPTED}", file=sys.stderr)
    except BrokenPipeError:
        # Whoever reads has seen enough; Python must not complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
