"""What an administrator says for everybody: defaults of ``@in_sagemaker``, and prices.

A TOML file that METAFLOW_SAGEMAKER_DEFAULTS names, in the environment or in Metaflow's
configuration:

    subnets = ["subnet-1"]
    security_groups = ["sg-1"]
    volume_kms_key = "arn:aws:kms:us-east-1:123456789012:key/1"
    tags = {cost-center = "ads"}

    [usd_per_hour]
    "ml.m5.large" = 0.1

The keys are the decorator's arguments. What a step says itself comes first; its ``tags`` and
``environment_variables`` are added to the file's.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .errors import SagemakerError

PRICES = "usd_per_hour"
MERGED = ("tags", "environment_variables")


def defaults_in(path: str | None, known: Collection[str]) -> dict[str, Any]:
    """Returns what the file says, by argument; nothing where no file is named.

    Args:
        path: The file.
        known: The decorator's arguments.

    Raises:
        SagemakerError: It cannot be read, or says something else.
    """
    if not path:
        return {}
    try:
        said = tomllib.loads(Path(path).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise SagemakerError(
            f"The defaults of @in_sagemaker cannot be read: {error}\n"
            f"  where: {path}\n"
            "  next:  mend the file, or what METAFLOW_SAGEMAKER_DEFAULTS names"
        ) from None
    unknown = sorted(set(said) - set(known) - {PRICES})
    if unknown:
        raise SagemakerError(
            f"@in_sagemaker has no {', '.join(unknown)}.\n"
            f"  where:  {path}\n"
            f"  wanted: {', '.join([*sorted(known), PRICES])}"
        )
    return said


def merged(name: str, default: Any, said: Any) -> Any:
    """Returns an argument that both the file and the step have something for."""
    if name in MERGED and isinstance(default, Mapping) and isinstance(said, Mapping):
        return {**default, **said}
    return said
