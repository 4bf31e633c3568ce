"""Hand what a run writes down to Accelerate's trackers: settings, figures, alarms and grids.

A tracker that fails, as without a network, is named once and left out from then on: it never ends a run.
"""

import importlib
import json
import logging
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from PIL import Image

from bigbigan.config import Config, flatten
from bigbigan.files import read_json, write_text_whole

PROJECT = "bigbigan"
IDS = "trackers.json"  # in the run folder: by which a resumed run goes on with what it began in a tracker
log = logging.getLogger(__name__)


class Trackers:
    """The trackers of `run.trackers` on the main process.

    accelerator: was started with their names.  folder: the run's.  images_seen: at the start of this session.
    """

    def __init__(self, accelerator: Accelerator, config: Config, folder: Path, images_seen: int):
        self.active: list[GeneralTracker] = []
        settings = {name: as_setting(value) for name, value in flatten(config).items()}
        for name in map(str, accelerator.log_with):
            self.attempt(name, lambda name=name: self._open(name, config.run.name, folder, images_seen))
        for tracker in list(self.active):
            self.attempt(tracker.name, lambda tracker=tracker: tracker.store_init_configuration(settings))

    def _open(self, name: str, run_name: str, folder: Path, images_seen: int) -> None:
        kind = LOGGER_TYPE_TO_CLASS[name]
        place = (str(folder),) if kind.requires_logging_directory else ()
        tracker = kind(PROJECT, *place, **init_arguments(name, run_name, folder, images_seen))
        tracker.start()
        self.active.append(tracker)
        if name == "wandb":  # it takes no step twice, which a roll-back and a resumed run come to
            tracker.tracker.define_metric("images_seen")
            tracker.tracker.define_metric("*", step_metric="images_seen")

    def attempt(self, name: str, work: Callable[[], object]) -> None:
        """Do some work for a tracker; one that raises is named once and left out from then on."""
        try:
            work()
        except Exception as error:  # a tracker's package may raise anything
            reason = (str(error).strip() or "without a reason").splitlines()[0]
            log.warning(
                "--run.trackers %s failed and is left out from here on (%s: %s)", name, type(error).__name__, reason
            )
            self.active = [tracker for tracker in self.active if tracker.name != name]

    def figures(self, values: dict[str, float | str], images_seen: int) -> None:
        """Send figures, and texts such as alarms, over images seen."""
        for tracker in list(self.active):
            self.attempt(tracker.name, lambda tracker=tracker: _log(tracker, values, images_seen))

    def pictures(self, paths: dict[str, Path], images_seen: int) -> None:
        """Send PNG files by their names to the trackers that take pictures: tensorboard, wandb and trackio."""
        for tracker in list(self.active):
            self.attempt(tracker.name, lambda tracker=tracker: _log_pictures(tracker, paths, images_seen))

    def close(self) -> None:
        """End the run in the trackers."""
        for tracker in list(self.active):
            self.attempt(tracker.name, tracker.finish)
        self.active = []


def _log(tracker: GeneralTracker, values: dict, images_seen: int) -> None:
    if tracker.name == "wandb":
        tracker.log(values | {"images_seen": images_seen})
    else:
        tracker.log(values, step=images_seen)


def _log_pictures(tracker: GeneralTracker, paths: dict[str, Path], images_seen: int) -> None:
    images = {name: np.asarray(Image.open(path).convert("RGB")) for name, path in paths.items()}
    if tracker.name == "tensorboard":
        tracker.log_images({name: image[None] for name, image in images.items()}, images_seen, dataformats="NHWC")
        tracker.tracker.flush()
    elif tracker.name in ("wandb", "trackio"):
        package = importlib.import_module(tracker.name)
        _log(tracker, {name: package.Image(image) for name, image in images.items()}, images_seen)


def init_arguments(name: str, run_name: str, folder: Path, images_seen: int) -> dict[str, object]:
    """Return the arguments by which a tracker names the run, and goes on with the one that this run folder began."""
    if name == "wandb":
        return {"name": run_name, "id": _run_id(folder, name), "resume": "allow"}
    if name == "trackio":
        return {"name": run_name, "resume": "allow"}
    if name == "tensorboard" and images_seen:
        return {"purge_step": images_seen + 1}  # what an interrupted session wrote after this moment comes again
    return {}


def _run_id(folder: Path, name: str) -> str:
    """Return the id of this run in a tracker, from the run folder, or a new one that is written there."""
    path = folder / IDS
    try:
        known = read_json(path)
    except (OSError, ValueError):  # none yet, or a damaged file
        known = {}
    if not isinstance(known.get(name), str):
        known[name] = secrets.token_hex(4)
        write_text_whole(path, json.dumps(known) + "\n")
    return known[name]


def as_setting(value: object) -> bool | int | float | str:
    """Return a setting as trackers take it: numbers, booleans and texts as they are, anything else as text."""
    return value if isinstance(value, bool | int | float | str) else str(value)
