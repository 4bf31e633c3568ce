"""Choose with how many CPU threads a process computes: one, or all the cores that it has.

Two or more compute the two kinds of pairs side by side where the run allows it (`side_by_side`), else they share each
operation, which makes small networks slower. The number of threads may change the last bit of a sum, so a run that
resumes keeps the number that its newest checkpoint names.
"""

import time
from typing import TYPE_CHECKING

import torch

from bigbigan.distributed import all_gather_rows, all_reduce, cores, world_size
from bigbigan.files import significant
from bigbigan.training.outline import outline_images

if TYPE_CHECKING:
    from bigbigan.training.trainer import Trainer

# The whole measurement takes about 6 s at most: 2 s for small networks, more where a pass is long.
FIRST = 4  # images of the first passes, which decide how many are measured
SHARE = 0.25  # seconds up to which a pass with one thread is made with four times as many images
LARGE_G = 0.02  # seconds of G alone for the first images, from which networks are large enough for all cores
LARGE = 0.75  # the same for a whole pass
LIMIT = 1.0  # seconds after which no further round of passes begins
ROUNDS = 12  # of passes with each number; the least time of several is little moved by what else the machine does
MARGIN = 1.05  # times that all cores must be faster to be chosen, since noise must not choose


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
    elif trainer.saved or trainer.device.type != "cpu" or trainer.config.grow.first_size or fewest(most) == 1:
        chosen, why = most, "all cores of the process"
    else:
        chosen, why = measured(trainer, most)
    trainer.step.set_threads(chosen)
    trainer.state.threads_now = chosen
    return f"{chosen} ({why})"


def fewest(most: int) -> int:
    """Return the smallest number of cores that any process has; the measurement must be made by all or by none."""
    return int(all_gather_rows(torch.tensor([most])).min())


def measured(trainer: "Trainer", most: int) -> tuple[int, str]:
    """Time forwards and backwards with one thread and with `most`, and return the faster number and the times."""
    share = max(1, trainer.config.data.batch_size // world_size() // trainer.config.data.chunks)
    first = min(FIRST, share)
    if (seconds := time_generator(trainer, first)) > LARGE_G:
        return most, f"all cores: one takes {seconds:.3g} s for G({first} latents)"
    if (seconds := time_passes(trainer, first, (1,), 2)[1]) > LARGE:
        return most, f"all cores: one takes {seconds:.3g} s for {first} images"
    count = first
    while count < share and seconds < SHARE:  # short passes are mostly overhead, and say little of long ones
        count = min(share, 4 * count)
        seconds = time_passes(trainer, count, (1,), 1)[1]
    time_passes(trainer, count, (most,), 1)  # warms up the other threads
    times = time_passes(trainer, count, (1, most), ROUNDS)
    said = ", ".join(f"{n} → {significant(1e3 * t)} ms" for n, t in times.items())
    return (most if times[1] > MARGIN * times[most] else 1), f"measured: {said} for {count} images"


@torch.no_grad()
def time_generator(trainer: "Trainer", count: int) -> float:
    """Return the seconds of G's forward with one thread, the mean over all processes: a first look at its size."""
    batch, seconds = trainer.draw(outline_images(trainer.model, count, trainer.device)), 0.0
    trainer.step.set_threads(1)
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        with trainer.step.autocast():
            trainer.model.generator(batch.z, batch.z_classes)
        seconds = time.perf_counter() - started
    return float(all_reduce(torch.tensor([seconds]))) / world_size()


def time_passes(trainer: "Trainer", count: int, numbers: tuple[int, ...], rounds: int) -> dict[int, float]:
    """Return {threads: seconds of the fastest pass over `count` images}, the mean over all processes.

    The numbers take turns, so that other work on the machine slows both alike. The first round warms up; it counts
    where it took so long, on a busy machine, that there is no second one.
    """
    batch = trainer.draw(outline_images(trainer.model, count, trainer.device))
    times: list[list[float]] = []
    while len(times) < rounds and sum(map(sum, times)) < LIMIT:
        row = []
        for number in numbers:
            trainer.step.set_threads(number)
            started = time.perf_counter()
            one_pass(trainer.step, batch)
            row.append(time.perf_counter() - started)
        times.append((all_reduce(torch.tensor(row)) / world_size()).tolist())  # all processes go on, or none
    columns = zip(*(times[1:] or times), strict=True)
    return dict(zip(numbers, map(min, columns), strict=True))


def one_pass(step, batch) -> None:
    """Make the forward and backward of both updates, and drop the gradients: weights and statistics stay."""
    for gradients, learning in ((step.encoder_generator_gradients, False), (step.discriminator_gradients, True)):
        step.model.discriminator.requires_grad_(learning)
        gradients(batch)
        step.model.zero_grad(set_to_none=True)
