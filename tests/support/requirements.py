"""What a test needs from the machine it runs on: skipped loudly, or failed where CI says so."""

from __future__ import annotations

import os
import shutil

import pytest

from adroit_publish.gates import sandbox


def require(condition: object, reason: str) -> None:
    """Lets the test go on only where the machine has what it needs.

    Args:
        condition: Anything truthy: what is needed is there.
        reason: What is missing and how to get it; shown in the summary of the run.

    With ``ADROIT_REQUIRE_SERVERS=1`` in the environment, as ``.ci/run`` sets it, a missing part
    fails the test: a check that quietly does not run is no check.
    """
    if condition:
        return
    if os.environ.get("ADROIT_REQUIRE_SERVERS") == "1":
        pytest.fail(f"required here, and missing: {reason}", pytrace=False)
    pytest.skip(reason)


def missing(reason: str) -> None:
    """Skips a test of a package that requirements.lock lacks; fails it under ``make zoo``.

    Args:
        reason: What is missing.
    """
    if os.environ.get("ADROIT_REQUIRE_ZOO") == "1":
        pytest.fail(f"required here, and missing: {reason}", pytrace=False)
    pytest.skip(reason)


def require_sandbox(kind: sandbox.Kind) -> None:
    """Lets the test go on only where this kind of sandbox works.

    A kernel may refuse one kind (user namespaces in a chroot, say). Where the other one works that
    is a plain skip; a machine without any, or without bubblewrap installed, lacks what CI needs.

    Args:
        kind: ``bubblewrap``, ``namespaces`` or ``plain``.
    """
    require(shutil.which("bwrap"), "bubblewrap is not installed (a Debian package)")
    require(sandbox.available() != "plain", "no sandbox works on this machine")
    if not sandbox.works(kind):
        pytest.skip(f"the kernel refuses {kind} here; {sandbox.available()} works")
