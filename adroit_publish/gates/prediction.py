"""The gate that shows a bundle is served, where it can do no harm: in a sandbox."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from adroit_publish.bundle.record import Verification
from adroit_publish.gates import report, reporter, sandbox
from adroit_publish.gates.env_contract import ObservedEnv


def predict_in_sandbox(
    layout: Path,
    *,
    python: str = sys.executable,
    allow_plain: bool,
    model_env: Mapping[str, str] | None = None,
    check_env: Callable[[ObservedEnv], None] = lambda env: None,
    together_rtol: float | None = None,
    _kind: sandbox.Kind | None = None,
) -> Verification:
    """Starts the server of the bundle in ``layout`` in a sandbox, and asks it.

    Args:
        layout: The directory that holds model/, runtime/, source/ and bundle.json. It is shown
            read-only, except under ``plain``, which can only ask the model to leave it alone.
        allow_plain: Whether a process that is not confined will do where nothing better is.
        check_env: As for ``report.judged``.
        together_rtol: How far answers to many at once may differ from those to one after the
            other, relative; None: nobody asks many at once.

    Returns:
        What was seen; of a model without an input example, that the server started.

    Raises:
        VerificationError: The bundle does not load, does not predict, or its answer cannot be
            sent; or the run ended without a report.
        RefusedError: There is no sandbox here and ``allow_plain`` is False, or the interpreter's
            environment includes the home directory.
    """
    kind = _kind or sandbox.available(python)
    if kind == "plain" and not allow_plain:
        raise sandbox.refuse_plain(layout)
    nonce = secrets.token_hex()
    done = sandbox.run(
        [*reporter_arguments(), str(sandbox.bundle_root(layout, kind))],
        bundle=layout,
        python=python,
        kind=kind,
        timeout_s=report.TIMEOUT_S,
        given=instructions(nonce, model_env, together=together_rtol is not None).encode(),
    )
    return report.judged(done, nonce, check_env, together_rtol)


def reporter_arguments() -> list[str]:
    """Returns what follows an interpreter on the command line; the bundle's root comes after it."""
    return ["-I", "-c", Path(reporter.__file__).read_text()]


def instructions(nonce: str, model_env: Mapping[str, str] | None, *, together: bool = False) -> str:
    """Returns what a reporter is told, and hides from the model."""
    told = {"nonce": nonce, "model_env": dict(model_env or {}), "together": together}
    return json.dumps(told)
