"""Instance types of SageMaker's: what they have, and about what an hour of training costs. Pure.

Prices are AWS's list prices for training in us-east-1, of November 2026 or older: an estimate, told
as one. An administrator's file has those of the account (``defaults``).

Source: AWS, "Amazon SageMaker AI pricing", on-demand ML instances, training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Instance:
    """A type of instance.

    Attributes:
        cpus: Virtual CPUs.
        memory_gib: Its memory.
        gpus: Its GPUs.
        usd_per_hour: About what an hour costs.
    """

    cpus: int
    memory_gib: int
    gpus: int
    usd_per_hour: float


INSTANCES = {
    "ml.m5.large": Instance(2, 8, 0, 0.115),
    "ml.m5.xlarge": Instance(4, 16, 0, 0.23),
    "ml.m5.2xlarge": Instance(8, 32, 0, 0.461),
    "ml.m5.4xlarge": Instance(16, 64, 0, 0.922),
    "ml.m5.12xlarge": Instance(48, 192, 0, 2.765),
    "ml.m5.24xlarge": Instance(96, 384, 0, 5.53),
    "ml.c5.xlarge": Instance(4, 8, 0, 0.204),
    "ml.c5.2xlarge": Instance(8, 16, 0, 0.408),
    "ml.c5.4xlarge": Instance(16, 32, 0, 0.816),
    "ml.c5.9xlarge": Instance(36, 72, 0, 1.836),
    "ml.c5.18xlarge": Instance(72, 144, 0, 3.672),
    "ml.r5.large": Instance(2, 16, 0, 0.151),
    "ml.r5.xlarge": Instance(4, 32, 0, 0.302),
    "ml.r5.2xlarge": Instance(8, 64, 0, 0.605),
    "ml.r5.4xlarge": Instance(16, 128, 0, 1.21),
    "ml.r5.8xlarge": Instance(32, 256, 0, 2.419),
    "ml.r5.12xlarge": Instance(48, 384, 0, 3.629),
    "ml.r5.24xlarge": Instance(96, 768, 0, 7.258),
    "ml.g4dn.xlarge": Instance(4, 16, 1, 0.736),
    "ml.g4dn.2xlarge": Instance(8, 32, 1, 0.94),
    "ml.g4dn.4xlarge": Instance(16, 64, 1, 1.505),
    "ml.g4dn.8xlarge": Instance(32, 128, 1, 2.72),
    "ml.g4dn.12xlarge": Instance(48, 192, 4, 4.89),
    "ml.g5.xlarge": Instance(4, 16, 1, 1.408),
    "ml.g5.2xlarge": Instance(8, 32, 1, 1.515),
    "ml.g5.4xlarge": Instance(16, 64, 1, 2.03),
    "ml.g5.8xlarge": Instance(32, 128, 1, 3.06),
    "ml.g5.12xlarge": Instance(48, 192, 4, 7.09),
    "ml.g5.16xlarge": Instance(64, 256, 1, 5.12),
    "ml.g5.24xlarge": Instance(96, 384, 4, 10.18),
    "ml.g5.48xlarge": Instance(192, 768, 8, 20.36),
    "ml.p3.2xlarge": Instance(8, 61, 1, 3.825),
    "ml.p3.8xlarge": Instance(32, 244, 4, 14.688),
    "ml.p3.16xlarge": Instance(64, 488, 8, 28.152),
    "ml.p4d.24xlarge": Instance(96, 1152, 8, 37.688),
}


@dataclass(frozen=True)
class Needs:
    """What ``@resources`` asks for.

    Attributes:
        cpus: Virtual CPUs.
        memory_mib: Memory.
        gpus: GPUs.
    """

    cpus: float
    memory_mib: float
    gpus: int

    def __str__(self) -> str:
        return f"cpu={self.cpus:g}, memory={self.memory_mib:g}, gpu={self.gpus}"


def fits(instance: Instance, needs: Needs) -> bool:
    """Returns whether an instance has what is asked for."""
    enough = instance.cpus >= needs.cpus and instance.gpus >= needs.gpus
    return enough and instance.memory_gib * 1024 >= needs.memory_mib


def cheapest(needs: Needs) -> str | None:
    """Returns the type that has what is asked for at the lowest price; None where none has."""
    fitting = [name for name, instance in INSTANCES.items() if fits(instance, needs)]
    return min(fitting, key=lambda name: INSTANCES[name].usd_per_hour, default=None)


def cost_line(instance_type: str, count: int, billed_s: int, prices: Mapping[str, float]) -> str:
    """Returns what is told of a job's cost: billed seconds, and an estimate where a price is known.

    Args:
        instance_type: What it ran on.
        count: How many of them.
        billed_s: Seconds that SageMaker bills, for each instance.
        prices: USD an hour by type, that come before the list's.
    """
    known = INSTANCES.get(instance_type)
    price = prices.get(instance_type, known.usd_per_hour if known else None)
    line = f"billed {billed_s} s" + (f" x {count}" if count > 1 else "") + f" of {instance_type}"
    if price is None:
        return line
    return f"{line}, about {billed_s * count * price / 3600:.4f} USD"
