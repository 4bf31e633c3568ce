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

FIRST = 4  # images of the first look, which decides how many are measured
SHARE = 0.25  # seconds that a pass with one thread may take; five passes are made with each number of threads at most
LARGE = 0.75  # seconds of a pass over the first images from which networks are large enough for all cores
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
    seconds = time_passes(trainer, first, (1,), 2)[1]
    if seconds > LARGE:
        return most, f"all cores: {first} images take one of them {seconds:.1f} s"
    count = min(share, max(first, int(first * SHARE / max(seconds, 1e-6))))
    times = time_passes(trainer, count, (1, most), 4)
    said = ", ".join(f"{n} → {1e3 * t:.3g} ms" for n, t in times.items())
    return (most if times[1] > MARGIN * times[most] else 1), f"measured: {said} for {count} images"


def time_passes(trainer: "Trainer", count: int, numbers: tuple[int, ...], repeats: int) -> dict[int, float]:
    """Return {threads: seconds of the fastest pass over `count` images}, the mean over all processes.

    The numbers take turns, so that what else the machine does strikes both.
    """
    batch = trainer.draw(outline_images(trainer.model, count, trainer.device))
    best = dict.fromkeys(numbers, float("inf"))
    for repeat in range(repeats):
        for number in numbers:
            torch.set_num_threads(number)
            started = time.perf_counter()
            one_pass(trainer.step, batch)
            if repeat or repeats == 1:  # the first one warms up
                best[number] = min(best[number], time.perf_counter() - started)
    means = all_reduce(torch.tensor([best[number] for number in numbers])) / world_size()
    return dict(zip(numbers, means.tolist(), strict=True))


def one_pass(step, batch) -> None:
    """Make the forward and backward of both updates. Gradients go nowhere, so weights and statistics stay."""
    d = [p for p in step.model.discriminator.parameters() if p.requires_grad]
    others = [p for net in (step.model.encoder, step.model.generator) if net is not None for p in net.parameters()]
    for forward, parameters in ((step.discriminator_forward, d), (step.encoder_generator_forward, others)):
        with step.autocast():
            loss = forward(batch)[0]
        torch.autograd.grad(loss, [p for p in parameters if p.requires_grad], allow_unused=True)
