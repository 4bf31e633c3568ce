"""Choose with how many CPU threads a process computes: one, or all the cores that it has.

Small networks are faster with one. The number of threads may change the last bit of a sum, so a run that resumes keeps
the number that its newest checkpoint names.
"""

import os
import time
from typing import TYPE_CHECKING

import torch

from bigbigan.distributed import all_reduce, world_size
from bigbigan.training.outline import outline_images

if TYPE_CHECKING:
    from bigbigan.training.trainer import Trainer

# The whole measurement takes about 3 s at most.
FIRST = 4  # images of the first passes, which decide how many are measured
SHARE = 0.25  # seconds that a measured pass with one thread may take
LARGE_G = 0.02  # seconds of G alone for the first images, from which networks are large enough for all cores
LARGE = 0.75  # the same for a whole pass
LIMIT = 1.0  # seconds after which no further round of passes begins
MARGIN = 1.1  # times that all cores must be faster to be chosen, since noise must not choose


def cores() -> int:
    """Return the cores of each training process on this machine."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def set_threads(trainer: "Trainer") -> str:
    """Set the threads of a run that is about to begin or go on, and return how many and why, for its start block.

    `run.threads` above 0 wins; then the newest checkpoint's number; then a measurement, on a CPU. Nothing of the
    trainer changes, and no random number is drawn.
    """
    asked, before, most = trainer.config.run.threads, trainer.state.threads, cores()
    if asked:
        chosen, why = asked, "--run.threads"
        if trainer.saved and before not in (0, asked):
            why += f"; the run computed with {before} before, so it no longer equals an uninterrupted one bit for bit"
    elif trainer.saved and before:
        chosen, why = min(before, most), f"of the {before} that the run began with" * (before > most)
        why = why or "as before"
    elif trainer.saved or trainer.device.type != "cpu" or most == 1 or trainer.config.grow.first_size:
        chosen, why = most, "all cores of the process"
    else:
        chosen, why = measured(trainer, most)
    torch.set_num_threads(chosen)
    return f"{chosen} ({why})"


def measured(trainer: "Trainer", most: int) -> tuple[int, str]:
    """Time forwards and backwards with one thread and with `most`, and return the faster number and the times."""
    share = max(1, trainer.config.data.batch_size // world_size() // trainer.config.data.chunks)
    first = min(FIRST, share)
    if (seconds := time_generator(trainer, first)) > LARGE_G:
        return most, f"all cores: one takes {seconds:.3g} s for G({first} latents)"
    if (seconds := time_passes(trainer, first, (1,), 2)[1]) > LARGE:
        return most, f"all cores: one takes {seconds:.3g} s for {first} images"
    count = min(share, max(first, int(first * SHARE / max(seconds, 1e-6))))
    times = time_passes(trainer, count, (1, most), 3)
    said = ", ".join(f"{n} → {1e3 * t:.3g} ms" for n, t in times.items())
    return (most if times[1] > MARGIN * times[most] else 1), f"measured: {said} for {count} images"


@torch.no_grad()
def time_generator(trainer: "Trainer", count: int) -> float:
    """Return the seconds of G's forward with one thread, the mean over all processes: a first look at its size."""
    batch, seconds = trainer.draw(outline_images(trainer.model, count, trainer.device)), 0.0
    torch.set_num_threads(1)
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        with trainer.step.autocast():
            trainer.model.generator(batch.z, batch.z_classes)
        seconds = time.perf_counter() - started
    return float(all_reduce(torch.tensor([seconds]))) / world_size()


def time_passes(trainer: "Trainer", count: int, numbers: tuple[int, ...], rounds: int) -> dict[int, float]:
    """Return {threads: seconds of the fastest pass over `count` images}, the mean over all processes.

    The numbers take turns, so that what else the machine does strikes both. The first round warms up; it counts where
    it took so long, on a busy machine, that there is no second one.
    """
    batch = trainer.draw(outline_images(trainer.model, count, trainer.device))
    times: list[list[float]] = []
    while len(times) < rounds and sum(map(sum, times)) < LIMIT:
        row = []
        for number in numbers:
            torch.set_num_threads(number)
            started = time.perf_counter()
            one_pass(trainer.step, batch)
            row.append(time.perf_counter() - started)
        times.append((all_reduce(torch.tensor(row)) / world_size()).tolist())  # all processes go on, or none
    columns = zip(*(times[1:] or times), strict=True)
    return dict(zip(numbers, map(min, columns), strict=True))


def one_pass(step, batch) -> None:
    """Make the forward and backward of both updates. Gradients go nowhere, so weights and statistics stay."""
    d = [p for p in step.model.discriminator.parameters() if p.requires_grad]
    others = [p for net in (step.model.encoder, step.model.generator) if net is not None for p in net.parameters()]
    for forward, parameters in ((step.discriminator_forward, d), (step.encoder_generator_forward, others)):
        with step.autocast():
            loss = forward(batch)[0]
        torch.autograd.grad(loss, [p for p in parameters if p.requires_grad], allow_unused=True)
