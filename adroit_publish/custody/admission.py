"""What a project asks of a run before it gets a version: where it comes from, and its numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from adroit_publish.bundle.lineage import Lineage, differences
from adroit_publish.bundle.record import UNPROVEN
from adroit_publish.config.gates import GateResult
from adroit_publish.errors import RefusedError


def admit_lineage(
    run: Lineage, versions: Mapping[str, Lineage], *, where: str, accept: bool
) -> tuple[str, ...]:
    """Returns how a run differs from its model's versions, where that is accepted; a line each.

    Raises:
        RefusedError: It differs, and ``--accept-new-lineage`` was not given.
    """
    found = differences(run, versions)
    if found and not accept:
        raise RefusedError(
            "The run does not come from where the model's versions come from.",
            where=where,
            got="\n".join(f"{difference.what}: {difference.got}" for difference in found),
            wanted="\n".join(f"{difference.what}: {difference.wanted}" for difference in found),
            next_step="name the right run, or add --accept-new-lineage if this one is meant",
        )
    return tuple(map(str, found))


def admit_gates(
    results: Sequence[GateResult], *, where: str, unproven: Collection[str] = ()
) -> None:
    """Lets results pass; raises RefusedError where one stands in the way, and is not accepted.

    Args:
        unproven: Gates that only records say were accepted before.
    """
    failed = [result for result in results if not result.passed]
    if failed:
        accepted = "; ".join(f"{result.gate}=REASON" for result in failed)
        raise RefusedError(
            f"{len(failed)} of the gates of config.yaml are not passed.",
            where=where,
            got="\n".join(
                f"{result}{UNPROVEN if result.gate in unproven else ''}" for result in failed
            ),
            next_step=f'publish a better run, or add --accept-gate "{accepted}"',
        )
