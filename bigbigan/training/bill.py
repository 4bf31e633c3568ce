"""What a run would cost on this machine: work, speed, time, memory, disk. Printed by --dry-run."""

import resource
import sys
import time
from typing import TYPE_CHECKING

import psutil
import torch

from bigbigan.distributed import all_reduce, world_size
from bigbigan.errors import ConfigError
from bigbigan.files import counted, significant
from bigbigan.training.outline import Cost, Outline
from bigbigan.training.start import block

if TYPE_CHECKING:
    from bigbigan.training.trainer import Trainer

AFFORDABLE = 60.0  # seconds that an iteration may take, by its FLOPs, to be measured
EFFICIENCY = 0.2  # share of the rate of large products that an iteration reaches at least, for that estimate
LIMIT = 10.0  # seconds after which no further iteration is measured
ITERATIONS = 5  # measured at most, after a first one that warms up


def bill_block(trainer: "Trainer") -> str:
    """Return what the run would cost from here on. Trains a few iterations in memory, so the trainer is spent after it.

    Every process must call this.
    """
    outline = Outline(trainer.config)
    seen, total = trainer.clock.seen, trainer.config.run.images
    cost = outline.cost(seen)
    share = max(0.0, 1 - seen / total)
    to_the_end = outline.flops_to_the_end() * share
    rows = [("work", f"{flops(cost.flops)} an iteration of {cost.images:,} images, {flops(to_the_end)} to the end")]
    if why := unaffordable(trainer, cost):
        estimate = duration(to_the_end / world_size() / (product_rate(trainer) * EFFICIENCY))
        rows.append(("speed", f"not measured: {why}"))
        rows.append(
            ("time", f"about {estimate} to the end, at {EFFICIENCY:.0%} of this device's rate of matrix products")
        )
        rows.append(("memory", f"at least {gib(least_memory(trainer, cost))}"))
    else:
        rate, count = measure(trainer, cost)
        rows.append(("speed", f"{rate:,.0f} images/s here, over {counted(count, 'iteration')}, with their images"))
        if trainer.config.grow.first_size and outline.growth.first != outline.growth.last:
            rows.append(("time", "not computed: the run grows, and slows down as it does"))
        else:
            left = duration(max(0, total - seen) / rate)
            rows.append(("time", f"{left} to the end, besides pictures, checkpoints, evaluations and the last probe"))
        rows.append(("memory", peak_memory(trainer.device)))
    return block("what it would cost", [*rows, ("disk", disk(trainer))])


def unaffordable(trainer: "Trainer", cost: Cost) -> str:
    """Return why an iteration is not made to be measured, "" if it is: memory, or time by its FLOPs."""
    need, free = least_memory(trainer, cost), free_memory(trainer.device)
    estimate = cost.flops / world_size() / (product_rate(trainer) * EFFICIENCY)
    decision = torch.tensor([float(need > 0.8 * free), float(estimate > AFFORDABLE)], device=trainer.device)
    too_large, too_long = all_reduce(decision).tolist()
    if too_large:
        return f"it needs at least {gib(need)}, found {gib(free)} free; raise --data.chunks or lower --data.batch_size"
    if too_long:
        return f"by its FLOPs an iteration would take about {duration(estimate)} on this device"
    return ""


def least_memory(trainer: "Trainer", cost: Cost) -> float:
    """Return the bytes that an iteration needs on this process: what is kept for backwards, gradients, Adam's moments.

    The weights and averages are there already. bf16 keeps about half.
    """
    weights = sum(p.nbytes for p in trainer.model.parameters())
    half = 0.5 if trainer.accelerator.mixed_precision == "bf16" else 1.0
    return 3 * weights + half * cost.saved_bytes / world_size()


def free_memory(device: torch.device) -> float:
    """Return the free bytes of the device, or of this machine for each of the processes on a CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available / world_size()


@torch.no_grad()
def product_rate(trainer: "Trainer") -> float:
    """Return the FLOP/s of a product of matrices of 1,024 in the run's precision."""
    dtype = torch.bfloat16 if trainer.accelerator.mixed_precision == "bf16" else torch.float32
    a = torch.ones(1024, 1024, device=trainer.device, dtype=dtype)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best


def measure(trainer: "Trainer", cost: Cost) -> tuple[float, int]:
    """Train a few iterations; return the images a second of all processes together, and how many were timed."""
    phase = trainer.schedule.at(trainer.clock.seen)
    trainer.schedule.apply(phase)
    reals = trainer.open_window().batches(phase.batch_size)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
    times: list[float] = []
    while len(times) <= ITERATIONS and (len(times) < 2 or sum(times) < LIMIT):
        started = time.perf_counter()
        try:
            trainer.step.iteration(reals, trainer.draw, trainer.state.iterations + len(times))
        except torch.OutOfMemoryError:
            raise ConfigError(
                f"--data.batch_size {phase.batch_size} --data.chunks {trainer.config.data.chunks}: expected an "
                "iteration that fits in the device's memory, found that it does not; raise --data.chunks"
            ) from None
        trainer.averages.update(trainer.state.iterations + len(times) + 1, cost.images)
        trainer.step.health.found(wait=True)  # waits for the device
        seconds = torch.tensor([time.perf_counter() - started], device=trainer.device)
        times.append(float(all_reduce(seconds)) / world_size())
    timed = times[1:]
    return cost.images * len(timed) / sum(timed), len(timed)


def peak_memory(device: torch.device) -> str:
    """Return the most memory that the process has used."""
    if device.type == "cuda":
        return f"peak {gib(torch.cuda.max_memory_allocated(device))} of tensors on {device}"
    unit = 1 if sys.platform == "darwin" else 1024
    return f"peak {gib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)} resident, of a process"


def disk(trainer: "Trainer") -> str:
    """Return the sizes of what the run leaves in its folder, without pictures and curves."""
    run, state = trainer.config.run, trainer.state
    model, averages = (sum(t.nbytes for t in net.state_dict().values() if torch.is_tensor(t))
                       for net in (state.model, state.averages.networks))  # fmt: skip
    moments = 2 * sum(p.nbytes for p in state.model.parameters())  # Adam's
    each, kept = model + averages + moments, run.keep_checkpoints + bool(run.best)
    return f"{mib(each)} a checkpoint × {kept} kept + {mib(model)} of release = {mib(each * kept + model)}"


def flops(number: float) -> str:
    """Return a number of FLOPs in the unit of its size, such as 3.68 GFLOP."""
    for unit, size in (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9)):
        if number >= size:
            return f"{significant(number / size)} {unit}FLOP"
    return f"{significant(number / 1e6)} MFLOP"


def duration(seconds: float) -> str:
    """Return a time in two units, such as 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{significant(hours / 24)} days"


def gib(size: float) -> str:
    """Return bytes in GiB."""
    return f"{size / 2**30:,.2f} GiB"


def mib(size: float) -> str:
    """Return bytes in MiB."""
    return f"{size / 2**20:,.1f} MiB"
