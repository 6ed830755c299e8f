"""The gate that shows a bundle loads and predicts, where it can do no harm: in a sandbox.

``predict_in_sandbox`` runs ``adroit.serving.predict_once`` from the bundle's own runtime in a
sandbox; ``report`` judges what it wrote.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from adroit_publish.bundle.record import Verification
from adroit_publish.gates import sandbox
from adroit_publish.gates.env_contract import ObservedEnv
from adroit_publish.gates.report import TIMEOUT_S, judged


def predict_in_sandbox(
    layout: Path,
    *,
    python: str = sys.executable,
    allow_plain: bool,
    timeout_s: float = TIMEOUT_S,
    memory_bytes: int | None = None,
    check_env: Callable[[ObservedEnv], None] = lambda env: None,
    _kind: sandbox.Kind | None = None,
) -> Verification:
    """Loads the bundle in ``layout`` in a sandbox and predicts on the model's input example.

    Args:
        layout: The directory that holds model/, runtime/, source/ and bundle.json. It is shown
            read-only, except under ``plain``, which can only ask the model to leave it alone.
        python: The interpreter that serves.
        allow_plain: Whether a process that is not confined will do where nothing better is.
        timeout_s: Wall-clock seconds for all of it.
        memory_bytes: Most memory; None for the machine's.
        check_env: Told what the interpreter's environment holds before the prediction is judged;
            what it raises goes first, for it says why a model did not load.

    Returns:
        What was seen. A model without an input example is loaded, and ``predicted`` is False.

    Raises:
        VerificationError: The bundle does not load, does not predict, or its outputs are not
            what the signature says; or the process ended without a report.
        RefusedError: There is no sandbox here and ``allow_plain`` is False, or the interpreter's
            environment includes the home directory.
    """
    kind = _kind or sandbox.available(python)
    if kind == "plain" and not allow_plain:
        raise sandbox.refuse_plain(layout)
    arguments = ["-m", "adroit.serving.predict_once", str(sandbox.bundle_root(layout, kind))]
    done = sandbox.run(
        arguments,
        bundle=layout,
        python=python,
        kind=kind,
        timeout_s=timeout_s,
        memory_bytes=memory_bytes,
    )
    return judged(done, timeout_s, check_env)
