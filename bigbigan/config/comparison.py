"""Comparison of a checkpoint's settings with those of the run that resumes from it."""

import dataclasses
import os
from typing import Any

from bigbigan.config.cross_checks import RESNET_DEFAULTS, takes_resnet_settings
from bigbigan.config.schema import Config
from bigbigan.files import expanded

# Settings that a run may resume with other values of: how far to go, what to show, where and how fast to compute.
FREE_TO_CHANGE = {
    "run.name", "run.root", "run.images", "run.threads", "run.compile", "run.log_every", "run.sample_every", "run.grid",
    "run.checkpoint_every", "run.keep_checkpoints", "run.trackers", "run.accept_changes", "run.probe", "run.best",
    "run.evaluate_every", "run.evaluate_images", "run.selection_share", "run.stop_after", "run.timeout",
    "run.spectra_every", "run.on_nonfinite", "run.on_collapse", "run.recoveries", "run.choose_settings",
    "model.checkpointing", "data.workers", "data.cache", "data.cache_gib", "data.max_unreadable", "data.follow_links",
}  # fmt: skip

# What a setting that is younger than a checkpoint was then, where that is not its default now.
EARLIER = {"data.split_rule": "permutation"}


# Settings of older versions by which their runs go on, {name: the one in its place}: another unit, nothing to compare.
OLDER_UNITS = {"optim.ema_half_life": "optim.ema_decay"}


def older_settings(old: dict) -> dict[str, Any]:
    """Return the settings of older versions that a checkpoint's flat config holds, see `OLDER_UNITS`."""
    return {name: old[name] for name in OLDER_UNITS if name in old}


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return {"section.field": value} of a dataclass or a nested mapping."""
    items = dataclasses.asdict(tree) if dataclasses.is_dataclass(tree) else tree
    flat = {}
    for key, value in items.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def differences(old: dict, new: Config) -> list[str]:
    """Return a line "section.field: old → new" for each hyper-parameter that differs from a checkpoint's.

    old: the flat config of the checkpoint; one that it lacks is newer than the checkpoint, and was as `EARLIER` says
    or had its default.
    """
    before, after = flatten(Config()) | EARLIER | flatten(old), flatten(new)
    free = FREE_TO_CHANGE | set(OLDER_UNITS)
    if not takes_resnet_settings(new.model.encoder):
        free = free | _UNUSED
    free |= {newer for older, newer in OLDER_UNITS.items() if older in before}
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if key not in free and not _same(key, before.get(key), after.get(key))
    ]


# Of no effect with another backbone; an older version may have stored a value of them.
_UNUSED = {f"model.{name}" for name in RESNET_DEFAULTS}


def _same(key: str, before: Any, after: Any) -> bool:
    """Return whether two values are one: two paths of one folder or file are, however they are written."""
    if key == "data.path" and isinstance(before, str) and isinstance(after, str) and before and after:
        paths = [expanded(path) for path in (before, after)]
        if all(map(os.path.exists, paths)):
            return os.path.samefile(*paths)
    return _as_list(before) == _as_list(after)


def _as_list(value: Any) -> Any:
    """Return a tuple as the list that JSON made of it."""
    return list(value) if isinstance(value, tuple) else value
