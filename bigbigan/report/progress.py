"""Say where a run stands: how much of it is done, how long it still takes, and the commands that go on with it."""

import math
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from bigbigan.files import read_json
from bigbigan.report.tables import finite, number
from bigbigan.training.pace import STRETCHES, seconds_per_image, time_left
from bigbigan.training.records import kind_of

RELOADS = (5, 60)  # seconds: an unfinished page loads itself anew no more and no less often
PATIENCE = 3  # times the usual wait for the next page, after which the page says that no news came


@dataclass
class Progress:
    """Hold where a run stands.

    seen, total: images; total None where it is not known.  stage: "training" or "stopped", as the run says of itself;
    "" if the page is written by another command.  each: seconds an image at the speed of late, None without a log.
    every: images from one page to the next, 0 if it is not known.  full_size_at: images seen from which a growing
    network has its full size, 0 of others.
    """

    seen: int
    total: int | None
    stage: str
    each: float | None
    every: int
    full_size_at: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing more comes by itself."""
        return self.stage != "training" and self.total is not None and self.seen >= self.total

    @property
    def complete(self) -> bool:
        """Whether all images have been seen."""
        return self.total is not None and self.seen >= self.total

    @property
    def share(self) -> float:
        """The share of the images that has been seen, in [0, 1]."""
        return min(self.seen / self.total, 1.0) if self.total else 0.0

    @property
    def left(self) -> str:
        """The time left, such as "4 min left", or ""."""
        if self.each is None or not self.total:
            return ""
        return time_left((self.total - self.seen) * self.each, growing=self.seen < self.full_size_at)

    def sentence(self) -> str:
        """Return where the run stands in a sentence."""
        if self.finished:
            return f"Finished at {number(self.seen)} images."
        if self.complete:
            return f"Trained to the end, {number(self.seen)} images; the closing figures are being measured."
        if not self.total:
            return f"{number(self.seen)} images seen."
        begins = {"training": "In training: ", "stopped": "Stopped at "}.get(self.stage, "Not finished: ")
        left = f"; {self.left}" if self.left else ""
        return f"{begins}{number(self.seen)} of {number(self.total)} images, {100 * self.share:.1f}\u00a0%{left}."

    def reload(self) -> dict[str, object] | None:
        """Return when an unfinished page loads itself anew, and when it says that no news came; None if finished."""
        if self.finished or not self.total:
            return None
        between = min((self.each or 0) * self.every, 1e9)  # seconds from one page to the next
        wait, late = min(max(between / 2, RELOADS[0]), RELOADS[1]), max(60, PATIENCE * between)
        return {"seconds": round(wait), "written": round(time.time()), "late": round(late), "stage": self.stage}


def progress(folder: Path, records: list[dict], config: dict, stage: str) -> Progress:
    """Return where a run stands, by its log, its newest checkpoint and its config."""
    run = config.get("run") or {}
    total = run.get("images") if finite(run.get("images")) and run["images"] > 0 else None
    saved = (_newest_state(folder) or {}).get("images_seen")
    seen = max([int(record["images_seen"]) for record in records] + [int(saved) if finite(saved) else 0])
    stretches, before = [], 0
    for record in records:
        if kind_of(record) == "training" and finite(record.get("images_per_second")):
            images, before = record["images_seen"] - before, record["images_seen"]
            if images > 0 and record["images_per_second"] > 0:
                stretches.append((images, images / record["images_per_second"]))
    every = run.get("sample_every")
    every = int(every) if finite(every) else 0
    return Progress(seen, total, stage, seconds_per_image(stretches[-STRETCHES:]), every, _full_size_at(config))


def _full_size_at(config: dict) -> int:
    """Return the images seen from which a growing network has its full size; 0 of others."""
    grow, size = config.get("grow") or {}, (config.get("model") or {}).get("image_size")
    values = [size, *(grow.get(name) for name in ("first_size", "hold_images", "fade_images"))]
    if not all(map(finite, values)) or not 0 < values[1] <= values[0]:
        return 0
    size, first, hold, fade = values
    return round(math.log2(size / first) * (hold + fade))


def training_command(folder: Path, config: dict) -> str:
    """Return the command that goes on with the run, or begins one where the folder has no config.yaml."""
    known = f" --config {shlex.quote(str(folder / 'config.yaml'))}" if config else ""
    return f"bigbigan-train{known}"


@dataclass
class Probing:
    """Hold a sentence on why nothing has been probed, and the command that does; "" where none would work yet."""

    text: str
    command: str


def probing(folder: Path, config: dict, at: Progress) -> Probing:
    """Return what probes the run in this state: nothing before its first checkpoint."""
    command = f"bigbigan-probe {shlex.quote(str(folder))}"
    state = _newest_state(folder)
    if state is None and not (folder / "release" / "config.json").is_file():
        return Probing("Not probed yet: there is no checkpoint to probe", "")
    if (config.get("model") or {}).get("encoder") == "none":
        command += " --parts generation" + " classes" * bool((config.get("model") or {}).get("classes"))
    return Probing("Not probed yet" if at.complete else "Not probed yet; of the newest checkpoint", command)


def _newest_state(folder: Path) -> dict | None:
    """Return state.json of the newest checkpoint; None without one."""
    for path in sorted((folder / "checkpoints").glob("*/state.json"), reverse=True):
        try:
            return read_json(path)
        except (OSError, ValueError):
            continue
    return None
