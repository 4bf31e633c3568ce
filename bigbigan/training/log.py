"""Write the lines of stats.jsonl, print those of the terminal, and give trackers their numbers."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tqdm.auto import tqdm

from bigbigan.config.command import unless_nobody_reads
from bigbigan.files import write_text_whole
from bigbigan.training.pace import Pace, time_left
from bigbigan.training.records import figure_in_words, kind_of

TERMS = ("x", "z", "xz")


class RunLog:
    """The log of one run. On other processes than the main one every method does nothing.

    folder: the run's.  images_seen: at the start; lines that an interrupted run wrote after that moment are dropped.
    total: images to see.  full_size_at: images seen from which networks that grow have their full size.
    track: (values, images seen) → hands figures and texts to trackers, or None.
    A line of stats.jsonl is a JSON object with images_seen, iteration and kind: training, spectra, alarm, recovery,
    evaluation or closing.
    """

    def __init__(
        self,
        folder: Path,
        images_seen: int,
        total: int,
        main: bool = True,
        track: Callable[[dict[str, float | str], int], None] | None = None,
        full_size_at: int = 0,
    ):
        self.main, self.folder, self.track = main, folder, track
        self.total, self.last = total, (images_seen, time.perf_counter())
        self.full_size_at, self.pace = full_size_at, Pace(images_seen, total)
        if not main:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self.stats = folder / "stats.jsonl"
        drop_after(self.stats, images_seen)
        at = min(images_seen, total)
        self.bar = tqdm(total=total, initial=at, unit="img", unit_scale=True, disable=not sys.stderr.isatty())

    def say(self, text: str) -> None:
        """Print a line, above the progress bar if there is one."""
        if self.main:
            with unless_nobody_reads():
                tqdm.write(text, file=sys.stdout)
                sys.stdout.flush()

    def advance(self, images_seen: int) -> None:
        """Move the progress bar."""
        if self.main:
            with unless_nobody_reads(2):
                self.bar.update(min(images_seen, self.total) - self.bar.n)

    def training(self, values: dict[str, float], images_seen: int, iteration: int) -> None:
        """Write the means of the iterations since the last such line, with the speed; show the six mean scores."""
        if not self.main:
            return
        now = time.perf_counter()
        rate = (images_seen - self.last[0]) / max(now - self.last[1], 1e-9)
        self.last = (images_seen, now)
        self.pace.mark(images_seen)
        values = {"images_per_second": round(rate, 2)} | {name: round(value, 6) for name, value in values.items()}
        self.write("training", values, images_seen, iteration)
        scores = "  ".join(
            f"{term} {values[f'score_{term}_real']:+.2f}/{values[f'score_{term}_fake']:+.2f}"
            for term in TERMS
            if f"score_{term}_real" in values
        )
        if self.bar.disable:
            share = 100 * min(images_seen / self.total, 1)
            left = time_left(self.pace.seconds_left(), growing=images_seen < self.full_size_at)
            speed = f"{rate:8,.0f} img/s  {left:<16}"
            self.say(f"{images_seen:>12,} images {share:5.1f}%  {speed} scores real/fake  {scores}")
        else:
            with unless_nobody_reads(2):
                self.bar.set_postfix_str(f"real/fake {scores}")

    def evaluation(self, figures: dict[str, float], images_seen: int, iteration: int, images: str = "") -> None:
        """Write, say and track the figures of an evaluation on the way. images: which ones it looked at, in words."""
        if not self.main:
            return
        self.write("evaluation", figures | ({"evaluated_on": images} if images else {}), images_seen, iteration)
        self.say(f"{images_seen:>12,} images  " + "  ".join(figure_in_words(*figure) for figure in figures.items()))

    def note(self, kind: str, text: str, images_seen: int, iteration: int) -> None:
        """Write and say an alarm or a recovery, in place of the lines after `images_seen`.

        kind: "alarm" or "recovery".
        """
        if not self.main:
            return
        drop_after(self.stats, images_seen)
        self.last = (images_seen, time.perf_counter())
        self.pace.restart(images_seen)
        self.write(kind, {kind: text}, images_seen, iteration)
        self.say(f"{images_seen:>12,} images  {kind}: {text}")

    def write(self, kind: str, values: dict, images_seen: int, iteration: int) -> None:
        """Append a line to stats.jsonl; its numbers, and the text of an alarm or a recovery, go to the trackers too."""
        if not self.main:
            return
        record = {"images_seen": images_seen, "iteration": iteration, "kind": kind} | values
        with open(self.stats, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.track is not None:
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            text = {kind: values[kind]} if isinstance(values.get(kind), str) else {}
            self.track({"iteration": iteration} | numbers | text, images_seen)

    def has_evaluation(self, images_seen: int) -> bool:
        """Whether an evaluation at this moment was written down."""
        records = map(json.loads, self.stats.read_text().splitlines() if self.stats.is_file() else ())
        return any(record["images_seen"] == images_seen and kind_of(record) == "evaluation" for record in records)

    def close(self) -> None:
        """End the progress bar."""
        if self.main:
            self.bar.close()


def drop_after(stats: Path, images_seen: int) -> None:
    """Drop the lines of stats.jsonl that the run will write again.

    These are the lines after `images_seen`, the closing ones, and one that a kill cut short.
    """
    if not stats.is_file():
        return
    kept = []
    for line in stats.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            if record["images_seen"] <= images_seen and kind_of(record) != "closing":
                kept.append(line)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # a line cut short, or none of ours
    write_text_whole(stats, "".join(f"{line}\n" for line in kept))  # a kill must not cost the lines of days
