"""Measure the processor's best matrix rate, to which the benchmarks relate their times, and time work in turn."""

import time
from pathlib import Path

import torch
import torch.nn.functional as F


def matrix_rate(device: torch.device, dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Return the highest rate of a square matrix product and of a 3×3 convolution of 256 channels, in FLOP a second."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    n, s = (256, 64) if device.type == "cuda" else (32, 32)
    x = torch.randn(n, 256, s, s, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(256, 256, 3, 3, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
    work = [(lambda: a @ b, 2 * side**3), (lambda: F.conv2d(x, w, padding=1), 2 * n * s * s * 256 * 256 * 9)]
    return max(flop / best(run, device, seconds / 2) for run, flop in work)


def best(run, device: torch.device, seconds: float) -> float:
    """Return the shortest of as many calls of `run` as fit into `seconds`, at least three; the first is not counted."""
    run()
    synchronise(device)
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def alternate(ways: dict, device: torch.device, repeats: int) -> dict[str, list[float]]:
    """Time several pieces of work in turn: `repeats` rounds, after one that is not counted. Returns seconds by name."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            synchronise(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def describe(device: torch.device) -> str:
    """Return the hardware's name, for the head of a table."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    import platform

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{torch.get_num_threads()} threads of {names[0] if names else platform.machine()}"
