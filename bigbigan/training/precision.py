"""Say what bf16 costs on a processor without instructions for it, where it is several times slower than float32."""

import platform
import time

import torch

CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch's; without both, bf16 is emulated on x86
SIZE, LIMIT = 512, 0.4  # of the matrices that are timed; seconds after which no further round begins


def cpu_has_bf16() -> bool:
    """Return whether this processor has instructions for products in bf16; True where torch cannot tell."""
    checks = [getattr(torch.cpu, name) for name in CHECKS if hasattr(torch.cpu, name)]
    known = platform.machine().lower() in ("x86_64", "amd64") and checks
    return not known or any(check() for check in checks)


@torch.no_grad()
def slowdown(size: int = SIZE) -> float:
    """Measure in under a second how many times as long a product of matrices takes in bf16 as in float32, on this CPU.

    size: rows and columns of the matrices.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    begun, rounds = time.perf_counter(), 0
    while rounds < 2 or (rounds < 10 and time.perf_counter() - begun < LIMIT):
        for dtype in best:
            a = torch.ones(size, size, dtype=dtype)
            started = time.perf_counter()
            a @ a
            best[dtype] = min(best[dtype], time.perf_counter() - started)
        rounds += 1
    return best[torch.bfloat16] / best[torch.float32]


def bf16_note(device: torch.device, precision: str) -> str:
    """Return what bf16 costs on this CPU, for the start block; "" on another device, in float32, or where it is fast.

    precision: Accelerate's name.
    """
    if device.type != "cpu" or precision != "bf16" or cpu_has_bf16():
        return ""
    return (
        f"; this processor has no instructions for bf16, whose products take {slowdown():.1f} times as long as "
        "float32's here: --run.precision float32"
    )
