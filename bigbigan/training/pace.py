"""Estimate how long a run still takes, from its recent speed and from what its pauses take."""

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

STRETCHES = 12  # of training that the speed is taken from
MEMORY = 0.75  # weight of a stretch beside the one after it: the newest four make two thirds


class Pace:
    """Estimate the time left of a run.

    images_seen: at the start.  total: images to see.
    """

    def __init__(self, images_seen: int, total: int):
        self.total = total
        self.stretches: deque[tuple[int, float]] = deque(maxlen=STRETCHES)
        self.pauses: dict[str, tuple[int, float]] = {}
        self.restart(images_seen)

    def restart(self, images_seen: int) -> None:
        """Begin a stretch here: at the start of a run, and after a roll-back."""
        self.seen, self.since = images_seen, time.perf_counter()

    @contextmanager
    def pause(self, name: str, every: int) -> Iterator[None]:
        """Time what comes every so many images and is no training, such as an evaluation."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self.since += seconds
        self.pauses[name] = (every, seconds)

    def mark(self, images_seen: int) -> None:
        """End a stretch of training here, and begin the next."""
        now = time.perf_counter()
        if images_seen > self.seen:
            self.stretches.append((images_seen - self.seen, now - self.since))
        self.restart(images_seen)

    def seconds_left(self) -> float | None:
        """Return the seconds from the last mark to the end of training; None before the first mark."""
        each = seconds_per_image(self.stretches)
        if each is None:
            return None
        left = max(0, self.total - self.seen)
        return left * each + sum(-(-left // every) * seconds for every, seconds in self.pauses.values())


def seconds_per_image(stretches: Sequence[tuple[float, float]]) -> float | None:
    """Return the seconds of an image at the speed of late; None without a stretch.

    stretches: (images, seconds), the oldest first. The first one compiles and fills caches: it counts only while there
    is no other.
    """
    counted = list(stretches)[1:] or list(stretches)
    weights = [MEMORY**age for age in reversed(range(len(counted)))]
    images = sum(weight * stretch[0] for weight, stretch in zip(weights, counted, strict=True))
    seconds = sum(weight * stretch[1] for weight, stretch in zip(weights, counted, strict=True))
    return seconds / images if images else None


def time_left(seconds: float | None, growing: bool = False) -> str:
    """Return seconds as "4 min left", to the unit that matters; "" for None or none left.

    growing: whether larger, slower networks are to come, so that it takes longer than at the speed of now.
    """
    if seconds is None or not 0.5 <= seconds < math.inf:
        return ""
    minutes = round(seconds / 60)
    hours = round(seconds / 3600)
    if seconds < 100:
        text = f"{round(seconds)} s"
    elif minutes < 60:
        text = f"{minutes} min"
    elif minutes < 600:
        text = f"{minutes // 60} h {minutes % 60} min"
    else:
        text = f"{hours} h" if hours < 48 else f"{hours // 24} d {hours % 24} h"
    return f"{'over ' * growing}{text} left"
