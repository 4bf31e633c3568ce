"""What a person sees of a run: start block, progress, grids, stats.jsonl, trackers."""

import json
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from bigbigan.training.pictures import save_grid

NOTES = ("spectra", "alarm", "recovery")  # lines that hold one of these are neither of the log nor of an evaluation
SHOWN = ("score_x_real", "score_x_fake", "score_z_real", "score_z_fake", "score_xz_real", "score_xz_fake")


class Monitor:
    """The main process's view of a run; on other processes every method does nothing.

    folder: the run's.  total: images to see.  track: a function (values, images seen) for Accelerate's trackers.
    """

    def __init__(self, folder: Path, images_seen: int, total: int, main: bool = True, track=None):
        self.folder, self.main, self.track = folder, main, track
        self.total, self.last = total, (images_seen, time.perf_counter())
        if not main:
            return
        for name in ("samples", "reconstructions"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.stats = folder / "stats.jsonl"
        _drop_after(self.stats, images_seen)
        self.bar = tqdm(
            total=total, initial=min(images_seen, total), unit="img", unit_scale=True, disable=not sys.stderr.isatty()
        )

    def say(self, text: str) -> None:
        if self.main:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def advance(self, images_seen: int) -> None:
        if self.main:
            self.bar.update(min(images_seen, self.total) - self.bar.n)

    def log(self, values: dict[str, float], images_seen: int, iteration: int) -> None:
        """One line of stats.jsonl; on the bar, or as a plain line where there is no terminal, the six mean scores."""
        if not self.main:
            return
        now = time.perf_counter()
        rate = (images_seen - self.last[0]) / max(now - self.last[1], 1e-9)
        self.last = (images_seen, now)
        record = {"images_seen": images_seen, "iteration": iteration, "images_per_second": round(rate, 2)}
        record |= {name: round(value, 6) for name, value in values.items()}
        self.write(record)
        scores = "  ".join(
            f"{name[6:-5]} {values[name]:+.2f}/{values[name[:-4] + 'fake']:+.2f}"
            for name in SHOWN
            if name.endswith("real") and name in values
        )
        if self.bar.disable:
            share = 100 * min(images_seen / self.total, 1)
            self.say(f"{images_seen:>12,} images {share:5.1f}%  {rate:8,.0f} img/s  scores real/fake  {scores}")
        else:
            self.bar.set_postfix_str(f"real/fake {scores}")
        if self.track is not None:
            self.track({k: v for k, v in record.items() if k != "images_seen"}, images_seen)

    def figures(self, values: dict[str, float], images_seen: int, iteration: int) -> None:
        """An evaluation's figures: a line of stats.jsonl, of the trackers, and one to read."""
        if not self.main:
            return
        self.write({"images_seen": images_seen, "iteration": iteration} | values)
        self.say(f"{images_seen:>12,} images  " + "  ".join(f"{name} {value:.4g}" for name, value in values.items()))
        if self.track is not None:
            self.track(values, images_seen)

    def missing_outputs(self, images_seen: int, looking: bool, evaluating: bool) -> list[bool]:
        """Of the grids and the figures that are due at this moment, those which are not there yet."""
        looked = all(
            (self.folder / name / f"{images_seen:012d}.png").is_file() for name in ("samples", "reconstructions")
        )
        records = map(json.loads, self.stats.read_text().splitlines() if self.stats.is_file() else ())
        others = {"loss_d", *NOTES}
        evaluated = any(record["images_seen"] == images_seen and not others & record.keys() for record in records)
        return [looking and not looked, evaluating and not evaluated]

    def write(self, record: dict) -> None:
        if self.main:
            with open(self.stats, "a") as file:
                file.write(json.dumps(record) + "\n")

    def note(self, kind: str, text: str, images_seen: int, iteration: int) -> None:
        """An alarm or a recovery: a line of stats.jsonl in place of those after `images_seen`, and a sentence."""
        if not self.main:
            return
        _drop_after(self.stats, images_seen)
        self.last = (images_seen, time.perf_counter())
        self.write({"images_seen": images_seen, "iteration": iteration, kind: text})
        self.say(f"{images_seen:>12,} images  {kind}: {text}")

    def samples(self, images: Tensor, images_seen: int, columns: int) -> Path | None:
        """images (N, 3, S, S) in [−1, 1] → samples/<images seen>.png."""
        if not self.main:
            return None
        return save_grid(images, self.folder / "samples" / f"{images_seen:012d}.png", columns)

    def reconstructions(self, x: Tensor, reconstructed: Tensor, images_seen: int, columns: int) -> Path | None:
        """Pairs input | reconstruction, side by side, `columns` pairs a row → reconstructions/<images seen>.png."""
        if not self.main:
            return None
        pairs = torch.stack([F.interpolate(x, reconstructed.shape[-1], mode="area"), reconstructed], dim=1).flatten(
            0, 1
        )
        return save_grid(pairs, self.folder / "reconstructions" / f"{images_seen:012d}.png", 2 * columns, pairs=True)

    def close(self) -> None:
        if self.main:
            self.bar.close()


def _drop_after(stats: Path, images_seen: int) -> None:
    """Lines that an interrupted run wrote after its last checkpoint will be written again."""
    if not stats.is_file():
        return
    kept = []
    for line in stats.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
            if (
                record["images_seen"] <= images_seen and "n_test" not in record
            ):  # the closing figures will be measured again
                kept.append(line)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # a line cut short by a kill, or none of ours
    beside = stats.with_name(f".{stats.name}.tmp")  # a kill must not cost the lines of days
    beside.write_text("".join(f"{line}\n" for line in kept))
    beside.replace(stats)
