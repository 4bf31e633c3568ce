"""All that a run is at one moment, as tensors by name and numbers: what a checkpoint writes and reads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor, nn

from bigbigan.data.fingerprint import DataRecord
from bigbigan.errors import CheckpointError
from bigbigan.model import BigBiGAN
from bigbigan.networks.weights import load_weights
from bigbigan.training.augmentation import DiscriminatorAugmentation
from bigbigan.training.ema import Averages

FILES = ("model.safetensors", "averages.safetensors", "optimizer.safetensors")


@dataclass
class Recovery:
    """What a run has recovered from.

    times: how often.  images_skipped: positions of the stream used by iterations that were rolled back; the stream goes
    on at images seen + images_skipped.  factors: by which the rates are multiplied, by network.
    """

    times: int = 0
    images_skipped: int = 0
    factors: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Return the entry "recovery" of state.json; {} if nothing happened."""
        if not self.times:
            return {}
        return {"times": self.times, "passed_over": self.images_skipped, "factors": self.factors}

    @classmethod
    def from_json(cls, entry: dict) -> "Recovery":
        """Read the entry "recovery" of state.json, {} if it has none. Raises ValueError for what cannot be one."""
        try:
            found = cls(entry.get("times", 0), entry.get("passed_over", 0), dict(entry.get("factors", {})))
            sound = type(found.times) is int and type(found.images_skipped) is int
            sound = sound and all(map(is_finite, found.factors.values()))
        except (AttributeError, TypeError, ValueError):
            sound = False
        if not sound:
            raise ValueError(f"recovery: expected times, passed_over and factors, found {entry!r}")
        return found


@dataclass
class GuardMemory:
    """What the guard remembers: from one look for signs of collapse to the next, and of its last roll-back.

    good_at: images seen at the last look without a sign.  known: names of the signs that have raised an alarm.
    spectra: {layer: its largest singular values} at the last look.  rolled_back_to: images seen of the checkpoint that
    the last roll-back returned to, -1 if there was none.
    """

    good_at: int = 0
    known: set[str] = field(default_factory=set)
    spectra: dict[str, list[float]] = field(default_factory=dict)
    rolled_back_to: int = -1

    def to_json(self) -> dict:
        """Return the entry "guard" of state.json; a singular value that is not finite is null there."""
        spectra = {name: [v if isfinite(v) else None for v in values] for name, values in self.spectra.items()}
        return {
            "good_at": self.good_at,
            "known": sorted(self.known),
            "spectra": spectra,
            "rolled_back_to": self.rolled_back_to,
        }

    @classmethod
    def from_json(cls, entry: object, images_seen: int) -> "GuardMemory":
        """Read the entry "guard" of state.json. Raises ValueError for what cannot be one.

        entry: None in a checkpoint of a version that did not keep it; then the checkpoint itself is taken for good.
        """
        if entry is None:
            return cls(images_seen)
        try:
            good_at, known, spectra = entry["good_at"], entry["known"], entry["spectra"]
            rolled_back_to = entry["rolled_back_to"]
            values = {name: [nan if v is None else v for v in row] for name, row in spectra.items()}
            sound = (
                type(good_at) is int
                and type(rolled_back_to) is int
                and type(known) is list
                and all(type(name) is str for name in known)
                and all(type(v) in (int, float) for row in values.values() for v in row)
                and all(row for row in values.values())
            )
        except (AttributeError, KeyError, TypeError):
            sound = False
        if not sound:
            raise ValueError(
                "guard: expected good_at and rolled_back_to, numbers of images, known, a list of names, and spectra, "
                f"lists of numbers by layer; found {entry!r:.200}"
            )
        return cls(good_at, set(known), values, rolled_back_to)


class TrainingState:
    """Holds what a checkpoint keeps: networks, averages, optimisers by name, counters, and all that decides later.

    augmentation: of what F sees; None if the run has none.  data: records of the splits "train" and "test", or None.
    threads: of the CPU, that the checkpoint's process computed with; 0 in one of an older version.
    threads_now: that this process computes with.
    device: that the checkpoint's process computed on, and in which precision, as "cpu, float32"; "" in one of an older
    version.  device_now: the same of this process; "" if it is not known.
    `older`: settings of an older version by which the run goes on, see `config.older_settings`.
    """

    def __init__(
        self,
        model: BigBiGAN,
        averages: Averages,
        optimizers: dict[str, torch.optim.Optimizer],
        augmentation: DiscriminatorAugmentation | None = None,
    ):
        self.model, self.averages, self.optimizers, self.augmentation = model, averages, optimizers, augmentation
        self.images_seen = 0
        self.iterations = 0
        self.recovery = Recovery()
        self.data: dict[str, DataRecord] | None = None
        self.guard = GuardMemory()
        self.threads = self.threads_now = 0
        self.device = self.device_now = ""
        self.older: dict[str, Any] = {}

    def numbers(self) -> dict:
        """Return what state.json keeps beside counters and settings; an entry that says nothing is left out."""
        augmentation = {} if self.augmentation is None else self.augmentation.state()
        entries = {"recovery": self.recovery.to_json(), "augmentation": augmentation, "guard": self.guard.to_json()}
        threads = self.threads_now or torch.get_num_threads()
        entries["device"] = self.device_now
        return {name: entry for name, entry in entries.items() if entry} | {"threads": threads}

    def load_numbers(self, content: dict) -> None:
        """Take up the counters and what `numbers` returned, from state.json. Raises ValueError for what cannot be."""
        self.images_seen, self.iterations = content["images_seen"], content["iterations"]
        self.recovery = Recovery.from_json(content.get("recovery", {}))
        self.guard = GuardMemory.from_json(content.get("guard"), self.images_seen)
        self.threads = content.get("threads", 0)
        if type(self.threads) is not int or self.threads < 0:
            raise ValueError(f"threads: expected a number of CPU threads, found {self.threads!r}")
        self.device = content.get("device", "")
        if type(self.device) is not str:
            raise ValueError(f"device: expected the name of a device and a precision, found {self.device!r}")
        if self.augmentation is not None:
            self.augmentation.load(content.get("augmentation", {}))

    def go_on_by(self, older: dict[str, Any]) -> None:
        """Restore settings that only older versions have, {} for none. Raises ValueError for an invalid value."""
        half_life = older.get("optim.ema_half_life", 0.0)
        if older and not (is_finite(half_life) and half_life > 0):
            raise ValueError(f"optim.ema_half_life: expected a number of images above 0, found {half_life!r}")
        self.older, self.averages.half_life_images = older, half_life

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return {file: {name: tensor on the CPU}} for the files of a checkpoint: copies, which stay as they are."""
        contents = (self.model.state_dict(), self.averages.networks.state_dict(), self._optimizer_tensors())
        return {
            file: {name: copied_to_host(value) for name, value in tensors.items()}
            for file, tensors in zip(FILES, contents, strict=True)
        }

    def load(self, tensors: dict[str, dict[str, Tensor]], where: str) -> None:
        """Take up what `tensors` returned. Raises ValueError for tensors of another architecture."""
        load_weights(self.model, tensors[FILES[0]], where)
        load_weights(self.averages.networks, tensors[FILES[1]], where)
        self._load_optimizers(dict(tensors[FILES[2]]))

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter, torch.optim.Optimizer]]:
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for label, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    yield f"{label}/{names[parameter]}/", parameter, optimizer

    def _named_groups(self) -> Iterator[tuple[str, dict, set[str]]]:
        """Yield the parameter groups with the keys of their state: numbers that are no settings, such as a count."""
        for label, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                settings = {*optimizer.defaults, "params", "name", "lr", "initial_lr"}
                kept = {key for key, value in group.items() if key not in settings and is_number(value)}
                yield f"{label}/group {group['name']}/", group, kept

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        """Return the optimisers' state by network parameter, whatever names the optimiser gives it."""
        of_parameters = {
            prefix + key: as_tensor(value)
            for prefix, parameter, optimizer in self._named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
            if value is not None
        }
        of_groups = {
            prefix + key: as_tensor(group[key]) for prefix, group, kept in self._named_groups() for key in kept
        }
        return of_parameters | of_groups

    def _load_optimizers(self, tensors: dict[str, Tensor]) -> None:
        by_prefix: dict[str, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            prefix, _, key = name.rpartition("/")
            by_prefix.setdefault(prefix + "/", {})[key] = value
        for prefix, parameter, optimizer in self._named_parameters():
            if prefix in by_prefix:
                found, read = by_prefix.pop(prefix), from_tensor
                if type(optimizer) is torch.optim.Adam:
                    check_adam(found, parameter, prefix)
                    read = copied_like  # its count of steps is a tensor
                optimizer.state[parameter] = {key: read(value, parameter) for key, value in found.items()}
        for prefix, group, _ in self._named_groups():
            group |= {key: from_tensor(value, group["params"][0]) for key, value in by_prefix.pop(prefix, {}).items()}
        if by_prefix:
            unknown = next(iter(by_prefix))
            raise CheckpointError(f"optimizer.safetensors: state of unknown parameters, such as {unknown}")


def check_adam(tensors: dict[str, Tensor], parameter: Tensor, name: str) -> None:
    """Raise CheckpointError unless these are Adam's state of `parameter`."""
    expected = {"step": (), "exp_avg": tuple(parameter.shape), "exp_avg_sq": tuple(parameter.shape)}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if found != expected:
        raise CheckpointError(f"optimizer.safetensors: {name} expected {expected}, found {found}")


def is_finite(value: object) -> bool:
    """Return whether a value of a JSON file is a finite number."""
    return type(value) in (int, float) and isfinite(value)


def is_number(value: object) -> bool:
    """Return whether a value is a plain number or a 0-dim tensor."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return plain or (isinstance(value, Tensor) and value.ndim == 0)


def as_tensor(value: Tensor | float) -> Tensor:
    """Return a tensor for a file. A plain number becomes int64 or float64, by which `from_tensor` knows it again."""
    if isinstance(value, Tensor):
        return value
    return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)


def from_tensor(value: Tensor, parameter: Tensor) -> Tensor | float:
    """Return what `as_tensor` was given."""
    plain = value.ndim == 0 and value.dtype in (torch.int64, torch.float64)
    return value.item() if plain else copied_like(value, parameter)


def copied_to_host(value: Tensor) -> Tensor:
    """Return a contiguous copy on the CPU."""
    return torch.empty(value.shape, dtype=value.dtype).copy_(value.detach())


def copied_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a copy on the parameter's device, in its memory format: fused optimisers walk both side by side."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
