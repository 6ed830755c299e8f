"""What a test needs from the machine it runs on: skipped loudly, or failed where CI says so."""

from __future__ import annotations

import os

import pytest


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
