"""Everything stateful, by name: written so that no kill leaves a torn state, read without unpickling, refused when it
does not fit.

A checkpoint is a folder `checkpoints/<images seen>/` of safetensors and one JSON file:
    model.safetensors      raw E, G, D with u, v and running statistics
    averages.safetensors   averaged E and G with their sampling statistics
    optimizer.safetensors  Adam's state by parameter name
    state.json             format, counters, config, SHA-256 of the files above
"""

import json
import logging
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.config import Config, differences, flatten
from bigbigan.distributed import all_gather_rows, copy_from_main
from bigbigan.errors import CheckpointError, Outside
from bigbigan.files import check_inside, read_json, sha256
from bigbigan.training.state import FILES, Recovery, TrainingState

FORMAT = 1
log = logging.getLogger(__name__)


def save(folder: Path, state: TrainingState, config: Config, keep: int) -> Path:
    """Write `folder/<images seen>/`: first beside, then fsync, then one rename; then drop all but the newest `keep` up
    to it.

    Raises OSError where the file system fails; the checkpoints before it are then as they were.
    """
    target = folder / f"{state.images_seen:012d}"
    beside = folder / f".writing-{target.name}"
    _make_room(folder, beside)
    checksums = {}
    for file, tensors in state.tensors().items():
        try:
            save_file(tensors, beside / file)
        except SafetensorError as error:  # its name for a full disk
            raise OSError(f"{beside / file}: {error}") from None
        checksums[file] = sha256(beside / file)
    content = {
        "format": FORMAT,
        "images_seen": state.images_seen,
        "iterations": state.iterations,
        "torch": torch.__version__,
        "sha256": checksums,
        "config": flatten(config),
    }
    if recovered := state.recovery.to_json():
        content["recovery"] = recovered
    if state.augmentation is not None and (adapted := state.augmentation.state()):
        content["augmentation"] = adapted
    (beside / "state.json").write_text(json.dumps(content, indent=2) + "\n")
    _publish(beside, target)
    # One that lies ahead was passed over as damaged when the run resumed: it does not count, and must not push this one
    # out.
    for old in [path for path in complete(folder) if int(path.name) <= state.images_seen][:-keep]:
        _remove(old)
    return target


def keep_best(folder: Path, checkpoint: Path, figure: str, value: float) -> Path:
    """Copy `checkpoint` to `folder`/<images seen>/ with best.json, which says by which figure; then drop the one kept
    before."""
    target = keep(folder, checkpoint, "best.json", {"figure": figure, "value": value})
    for old in complete(folder):
        if old != target:
            _remove(old)
    return target


def keep(folder: Path, checkpoint: Path, note: str = "", content: dict | None = None) -> Path:
    """Copy `checkpoint` to `folder`/<images seen>/, with a file `note` if it has a name; rotation elsewhere leaves it
    alone."""
    target, beside = folder / checkpoint.name, folder / f".writing-{checkpoint.name}"
    _make_room(folder, beside)
    for file in checkpoint.iterdir():
        try:
            os.link(file, beside / file.name)  # a checkpoint's files are never written again, so both may share them
        except OSError:
            shutil.copyfile(file, beside / file.name)
    if note:
        (beside / note).write_text(json.dumps(content) + "\n")
    _publish(beside, target)
    return target


def drop_after(folder: Path, images_seen: int) -> None:
    """Remove the checkpoints of `folder` that lie ahead of `images_seen`."""
    for ahead in complete(folder):
        if int(ahead.name) > images_seen:
            _remove(ahead)


def _make_room(folder: Path, beside: Path) -> None:
    """An empty `beside` in `folder`, without what a kill left there."""
    folder.mkdir(parents=True, exist_ok=True)
    _fsync(folder.parent)
    for leftover in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):
        shutil.rmtree(leftover)
    beside.mkdir()


def _publish(beside: Path, target: Path) -> None:
    """Bring `beside` to the disk, then give it its name in one rename; a damaged `target` of that name makes way."""
    for path in (*beside.iterdir(), beside):
        _fsync(path)
    _remove(target)
    os.rename(beside, target)
    _fsync(target.parent)


def _remove(checkpoint: Path) -> None:
    """Rename, then delete: a kill on the way leaves nothing half-deleted under a checkpoint's name."""
    if checkpoint.exists():
        doomed = checkpoint.with_name(f".removing-{checkpoint.name}")
        os.rename(checkpoint, doomed)
        shutil.rmtree(doomed)


def best_value(folder: Path, figure: str) -> float | None:
    """The value of `figure` that the checkpoint kept in `folder` has, None if there is none by this figure."""
    for kept in complete(folder):
        try:
            note = json.loads((kept / "best.json").read_text())
            if note["figure"] == figure:
                return float(note["value"])
        except (OSError, json.JSONDecodeError, KeyError, TypeError, ValueError):
            continue  # kept by hand, or damaged: whatever comes next is better
    return None


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first; what a kill left half-written has another name and is not among
    them."""
    if not folder.is_dir():
        return []
    named = (p for p in folder.iterdir() if p.name.isascii() and p.name.isdigit())
    return sorted((p for p in named if (p / "state.json").is_file()), key=lambda p: int(p.name))


def read(folder: Path, files: tuple[str, ...] = FILES) -> tuple[dict, dict[str, dict[str, Tensor]]]:
    """A checkpoint folder → (state.json, {file: tensors}), verified against the checksums. Raises CheckpointError."""
    try:
        if folder.is_symlink() and folder.name.isdigit():  # a checkpoint among a run's
            check_inside(folder, folder.parent)
        for file in ("state.json", *files):
            check_inside(folder / file, folder)
        content = read_json(folder / "state.json")
        if content.get("format") != FORMAT:
            raise CheckpointError(
                f"{folder}: expected a checkpoint of format {FORMAT}, found {content.get('format')!r}; "
                "it needs another version of bigbigan"
            )
        for key, kind in (("images_seen", int), ("iterations", int), ("sha256", dict), ("config", dict)):
            if type(content.get(key)) is not kind or (kind is int and content[key] < 0):
                raise CheckpointError(
                    f"{folder}/state.json: {key}: expected {kind.__name__}, found {content.get(key)!r}"
                )
        for file in files:
            if sha256(folder / file) != content["sha256"].get(file):
                raise CheckpointError(
                    f"{folder / file}: its checksum is not the one in state.json; the file is damaged"
                )
        return content, {file: load_file(folder / file) for file in files}
    except CheckpointError:
        raise
    except Outside as error:
        raise CheckpointError(str(error)) from None
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: expected a complete checkpoint, found {type(error).__name__}: {error}"
        ) from None


def resume(folder: Path, state: TrainingState, config: Config, device: torch.device | str = "cpu") -> Path | None:
    """Load the newest sound checkpoint of `folder` into `state` → its path, or None if there is none.

    A damaged one is named in the log and the one before it is taken. Changed hyper-parameters are refused unless the
    config accepts them. Every process must call this: all go on from the same checkpoint, and with the main process's
    weights.
    device: of the collectives.
    """
    path = _resume_here(folder, state, config)
    found = all_gather_rows(torch.tensor([state.images_seen], device=device)).flatten().tolist()
    if len(set(found)) > 1:
        raise CheckpointError(
            f"{folder}: expected the same newest checkpoint on every process, found those at {found} images; "
            "all machines need the same --run.root, on a file system that they share"
        )
    for network in (state.model, state.averages.networks):
        copy_from_main([*network.parameters(), *network.buffers()])
    return path


def _resume_here(folder: Path, state: TrainingState, config: Config) -> Path | None:
    checkpoints = complete(folder)
    for path in reversed(checkpoints):
        try:
            content, tensors = read(path)
        except CheckpointError as error:
            log.warning("%s; trying the checkpoint before it", error)
            continue
        changed = differences(content["config"], config)
        if changed and not config.run.accept_changes:
            raise CheckpointError(
                f"{path}: its hyper-parameters differ from this run's:\n  " + "\n  ".join(changed) + "\n"
                "expected the same ones to resume; choose another --run.name, or override with --run.accept_changes True"
            )
        try:
            state.load(tensors, str(path))
        except ValueError as error:
            raise CheckpointError(
                f"{error}; another architecture cannot be resumed, choose another --run.name"
            ) from None
        state.images_seen, state.iterations = content["images_seen"], content["iterations"]
        state.recovery = Recovery.from_json(content.get("recovery", {}))
        _load_augmentation(state, content, path)
        return path
    if checkpoints:
        raise CheckpointError(
            f"{folder}: none of its {len(checkpoints)} checkpoints is sound; remove the folder to start afresh"
        )
    return None


def _load_augmentation(state: TrainingState, content: dict, path: Path) -> None:
    if state.augmentation is None:
        return
    try:
        state.augmentation.load(content.get("augmentation", {}))
    except ValueError as error:
        raise CheckpointError(
            f"{path}/state.json: {error}; remove the checkpoint to go on from the one before it"
        ) from None


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
