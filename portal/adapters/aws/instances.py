"""The instances that SageMaker has for this work: GPU, memory, what they compute in, what they cost.

GPU memory, threads and memory are AWS's and NVIDIA's own figures. Volta and Turing know no bfloat16 (NVIDIA,
compute capability 8.0 and later do). Prices are on-demand hosting in us-east-1 (see PRICED), those of g6,
g6e, p4d and p5 estimated from EC2's; other regions cost up to a third more, and AWS changes them: an
endpoint's own `price_hour` is what is counted with.
"""

from __future__ import annotations

from dataclasses import dataclass

from portal.services.ports import InstanceType

GIB = 2**30
PRICED = "us-east-1, October 2025"


@dataclass(frozen=True)
class _Gpu:
    """A GPU: memory in GiB; `slots` is how many parts at once keep it busy and fit beside the weights."""

    name: str
    memory: int
    bf16: bool
    slots: int


T4 = _Gpu("T4", 16, False, 4)
V100 = _Gpu("V100", 16, False, 6)
A10G = _Gpu("A10G", 24, True, 8)
L4 = _Gpu("L4", 24, True, 8)
L40S = _Gpu("L40S", 48, True, 16)
A100 = _Gpu("A100", 40, True, 16)
H100 = _Gpu("H100", 80, True, 32)

_ROWS: tuple[tuple[str, _Gpu, int, int, int, int, float], ...] = (
    # name, GPU, how many, threads, memory GiB, NVMe GB, price an hour
    ("ml.g4dn.xlarge", T4, 1, 4, 16, 125, 0.736),
    ("ml.g4dn.2xlarge", T4, 1, 8, 32, 225, 0.94),
    ("ml.g4dn.4xlarge", T4, 1, 16, 64, 225, 1.505),
    ("ml.p3.2xlarge", V100, 1, 8, 61, 0, 3.825),
    ("ml.g5.xlarge", A10G, 1, 4, 16, 250, 1.408),
    ("ml.g5.2xlarge", A10G, 1, 8, 32, 450, 1.515),
    ("ml.g5.4xlarge", A10G, 1, 16, 64, 600, 2.03),
    ("ml.g6.xlarge", L4, 1, 4, 16, 250, 1.127),
    ("ml.g6.2xlarge", L4, 1, 8, 32, 450, 1.222),
    ("ml.g6.4xlarge", L4, 1, 16, 64, 600, 1.654),
    ("ml.g6e.xlarge", L40S, 1, 4, 32, 250, 2.606),
    ("ml.g6e.2xlarge", L40S, 1, 8, 64, 450, 2.803),
    ("ml.g6e.4xlarge", L40S, 1, 16, 128, 600, 3.755),
    ("ml.p4d.24xlarge", A100, 8, 96, 1152, 8000, 25.251),
    ("ml.p5.48xlarge", H100, 8, 192, 2048, 30720, 63.296),
)


def offers() -> tuple[InstanceType, ...]:
    """What an endpoint on AWS may run on, the smallest GPU first."""
    return tuple(_offer(*row) for row in _ROWS)


def offered(name: str) -> InstanceType | None:
    """The instance of that name, if it is offered."""
    return next((each for each in offers() if each.name == name), None)


def _offer(
    name: str, gpu: _Gpu, count: int, threads: int, memory: int, disk: int, price: float
) -> InstanceType:
    what = f"NVIDIA {gpu.name}, {gpu.memory} GiB, {'bfloat16' if gpu.bf16 else 'float16 only'}"
    if count > 1:
        what = f"{count} x {what}; a worker computes on one of them"
    return InstanceType(
        name,
        what,
        threads=threads,
        memory=memory * GIB,
        device="cuda",
        gpu=gpu.name,
        gpu_memory=gpu.memory * GIB,
        slots=gpu.slots,
        price_hour=price,
        price_of=PRICED,
        bf16=gpu.bf16,
        disk=disk * 10**9,
    )
