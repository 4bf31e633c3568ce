"""Checkpoints of a run: no kill leaves a torn one, reading one never unpickles, and one that does not fit is refused.

A checkpoint is a folder `checkpoints/<images seen>/` of safetensors and one JSON file:
    model.safetensors      raw E, G, D with u, v and running statistics
    averages.safetensors   averaged E and G with their sampling statistics
    optimizer.safetensors  the optimisers' state by parameter name
    data.json              hashes of the names and states of the files of the data, to say how many changed
    state.json             format, counters, config, SHA-256 of the files above, fingerprint and class names of the
                           data, and what the guard and ADA remember

A checkpoint is made in two parts: `snapshot` copies the state, and `write` writes the copy, which a `CheckpointWriter`
does in a thread while training goes on.
"""

import copy
import errno
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.config import Config, differences, flatten, older_settings
from bigbigan.data.fingerprint import (
    PICTURES,
    DataRecord,
    data_changes,
    new_times,
    records_from_json,
    records_to_hashes,
    records_to_json,
)
from bigbigan.distributed import all_gather_rows, copy_from_main
from bigbigan.errors import CheckpointError, Outside
from bigbigan.files import check_inside, give_usual_rights, read_json, sha256, write_text_whole
from bigbigan.training.state import FILES, TrainingState

FORMAT = 1
DATA = "data.json"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """A copy in host memory of what a checkpoint holds.

    tensors: {file: {name: tensor}}.  content: of state.json, but for the checksums.  data: records by split, or None.
    """

    images_seen: int
    tensors: dict[str, dict[str, Tensor]]
    content: dict
    data: dict[str, DataRecord] | None


def snapshot(state: TrainingState, config: Config) -> Snapshot:
    """Copy the state of a run into host memory, so that it can be written while the run goes on."""
    content = {
        "format": FORMAT,
        "images_seen": state.images_seen,
        "iterations": state.iterations,
        "torch": torch.__version__,
        "sha256": {},
        "config": flatten(config) | state.older,
        **copy.deepcopy(state.numbers()),
    }
    return Snapshot(state.images_seen, state.tensors(), content, state.data)


def save(folder: Path, state: TrainingState, config: Config, keep: int) -> Path:
    """Write a checkpoint of the state at once; as `write`."""
    return write(folder, snapshot(state, config), keep)


def write(folder: Path, taken: Snapshot, keep: int) -> Path:
    """Write a checkpoint, folder/<images seen>/, and drop all but the newest `keep` up to it; return its path.

    It is written beside, flushed to the disk and renamed. Raises OSError where the file system fails; the checkpoints
    before it are then as they were.
    """
    target = folder / f"{taken.images_seen:012d}"
    beside = folder / f".writing-{target.name}"
    _make_room(folder, beside)
    checksums = {}
    for file, tensors in taken.tensors.items():
        try:
            save_file(tensors, beside / file)
        except SafetensorError as error:  # its name for a full disk
            raise OSError(f"{beside / file}: {error}") from None
        give_usual_rights(beside / file)
        checksums[file] = sha256(beside / file)
    content = taken.content | {"sha256": checksums}
    if taken.data is not None:
        content["data"] = records_to_json(taken.data)
        (beside / DATA).write_text(json.dumps(records_to_hashes(taken.data)))
    (beside / "state.json").write_text(json.dumps(content, indent=2) + "\n")
    _publish(beside, target)
    # A checkpoint ahead of this one was damaged when the run resumed: it does not count, and must not push this one
    # out.
    for old in [path for path in complete(folder) if int(path.name) <= taken.images_seen][:-keep]:
        _remove(old)
    return target


def record_recovery(checkpoint: Path, state: TrainingState) -> None:
    """Write what was recovered from into the checkpoint that the run went back to: a kill cannot undo it then.

    state.json is replaced as a whole; copies of the checkpoint in other folders keep theirs.
    """
    file = checkpoint / "state.json"
    content = read_json(file) | {"recovery": state.recovery.to_json(), "guard": state.guard.to_json()}
    write_text_whole(file, json.dumps(content, indent=2) + "\n", sync=True)


def saved_config(folder: Path) -> dict | None:
    """Return the flat config of the newest readable checkpoint of `folder`, without its tensors; None without one."""
    try:
        checkpoints = complete(folder)
    except OSError:
        return None  # no folder that can be; whoever writes there reports it
    for path in reversed(checkpoints):
        try:
            check_inside(path / "state.json", path)
            return _read_state(path)["config"]
        except (OSError, ValueError):  # a CheckpointError and Outside too: `resume` names the damage
            continue
    return None


def keep_best(folder: Path, checkpoint: Path, figure: str, value: float, chosen_on: str) -> Path:
    """Copy a checkpoint to folder/<images seen>/ with best.json, drop the one kept before, and return the copy.

    best.json holds the figure's name, its value, and which images it was measured on (`chosen_on`, in words).
    """
    target = keep(folder, checkpoint, "best.json", {"figure": figure, "value": value, "chosen_on": chosen_on})
    for old in complete(folder):
        if old != target:
            _remove(old)
    return target


def keep(folder: Path, checkpoint: Path, note: str = "", content: dict | None = None) -> Path:
    """Copy a checkpoint to folder/<images seen>/, where the rotation of checkpoints does not reach it; return the copy.

    note, content: name and content of a JSON file that is added; "" for none.
    """
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
    """Make an empty folder `beside` in `folder`, and remove what a kill left there."""
    folder.mkdir(parents=True, exist_ok=True)
    _fsync(folder.parent)
    for leftover in (*folder.glob(".writing-*"), *folder.glob(".removing-*")):
        shutil.rmtree(leftover)
    beside.mkdir()


def _publish(beside: Path, target: Path) -> None:
    """Flush `beside` to the disk and rename it to `target`; a damaged `target` is removed first."""
    for path in (*beside.iterdir(), beside):
        _fsync(path)
    _remove(target)
    os.rename(beside, target)
    _fsync(target.parent)


def _remove(checkpoint: Path) -> None:
    """Rename a checkpoint, then delete it: a kill leaves nothing half-deleted under a checkpoint's name."""
    if checkpoint.exists():
        doomed = checkpoint.with_name(f".removing-{checkpoint.name}")
        os.rename(checkpoint, doomed)
        shutil.rmtree(doomed)


def best_value(folder: Path, figure: str) -> float | None:
    """Return the value by which the checkpoint in `folder` was kept; None if none was kept by this figure."""
    notes = [note for note in map(choice, complete(folder)) if note is not None and note["figure"] == figure]
    return notes[0]["value"] if notes else None


def choice(checkpoint: Path) -> dict | None:
    """Return what best.json says of a kept checkpoint: "figure", "value" and "chosen_on", in words; None without one.

    A version that did not write "chosen_on" chose by test images.
    """
    try:
        note = read_json(checkpoint / "best.json")
        chosen_on = note.get("chosen_on", "test images")
        return {"figure": str(note["figure"]), "value": float(note["value"]), "chosen_on": str(chosen_on)}
    except (OSError, KeyError, TypeError, ValueError):
        return None  # kept by hand, or damaged: whatever comes next is better


class Unread(CheckpointError):
    """A checkpoint that cannot be read now, and may be sound."""


def complete(folder: Path) -> list[Path]:
    """Return the checkpoints in `folder`, oldest first. What a kill left half-written has another name."""
    if not folder.is_dir():
        return []
    named = (p for p in folder.iterdir() if p.name.isascii() and p.name.isdigit())
    return sorted((p for p in named if (p / "state.json").is_file()), key=lambda p: int(p.name))


def read(folder: Path, files: tuple[str, ...] = FILES) -> tuple[dict, dict[str, dict[str, Tensor]]]:
    """Read and verify a checkpoint folder → content of state.json, {file: tensors}.

    Raises CheckpointError for a damaged one; Unread for one that is not known to be damaged: of another version of
    bigbigan, or where the machine or its rights keep it from being read.
    """
    try:
        if folder.is_symlink() and folder.name.isdigit():  # a checkpoint among a run's
            check_inside(folder, folder.parent)
        for file in ("state.json", *files):
            check_inside(folder / file, folder)
        content = _read_state(folder)
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
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR):
            raise Unread(f"{folder}: expected a checkpoint that can be read, found {error}") from None
        raise CheckpointError(
            f"{folder}: expected a complete checkpoint, found {type(error).__name__}: {error}"
        ) from None


def _read_state(folder: Path) -> dict:
    """Return the content of state.json. Raises CheckpointError, OSError, ValueError."""
    content = read_json(folder / "state.json")
    if content.get("format") != FORMAT:
        kind = Unread if type(content.get("format")) is int else CheckpointError
        raise kind(
            f"{folder}: expected a checkpoint of format {FORMAT}, found {content.get('format')!r}; "
            "it needs another version of bigbigan"
        )
    for key, kind in (("images_seen", int), ("iterations", int), ("sha256", dict), ("config", dict)):
        if type(content.get(key)) is not kind or (kind is int and content[key] < 0):
            raise CheckpointError(f"{folder}/state.json: {key}: expected {kind.__name__}, found {content.get(key)!r}")
    return content


def resume(folder: Path, state: TrainingState, config: Config, device: torch.device | str = "cpu") -> Path | None:
    """Load the newest sound checkpoint of `folder` into `state` and return its path; None if there is no checkpoint.

    A damaged checkpoint is named in the log, and the one before it is taken; one that cannot be read now, or is of
    another version, ends the run and is kept. Hyper-parameters that differ from the checkpoint's, and data that
    changed, are refused unless `run.accept_changes`. Every process must call this: all resume from the same checkpoint,
    with the main process's weights.  device: of the collectives.  Raises CheckpointError.
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
        except Unread:
            raise  # an older one would be gone on from, and this one overwritten
        except CheckpointError as error:
            log.warning("%s; trying the checkpoint before it", error)
            continue
        _check_changes(path, content, state, config)
        try:
            state.load(tensors, str(path))
        except ValueError as error:
            raise CheckpointError(
                f"{error}; another architecture cannot be resumed, choose another --run.name"
            ) from None
        older = {} if config.run.accept_changes else older_settings(content["config"])
        _load_numbers(state, content, older, path)
        return path
    if checkpoints:
        raise CheckpointError(
            f"{folder}: none of its {len(checkpoints)} checkpoints is sound; remove the folder to start afresh"
        )
    return None


def _check_changes(path: Path, content: dict, state: TrainingState, config: Config) -> None:
    """Raise CheckpointError if hyper-parameters or data differ from the checkpoint's, unless `run.accept_changes`."""
    settings, data = differences(content["config"], config), _data_changes(path, content, state)
    differing = " and ".join(["hyper-parameters"] * bool(settings) + ["data"] * bool(data))
    lines = "".join(f"\n  {line}" for line in settings + data)
    if differing and not config.run.accept_changes:
        raise CheckpointError(
            f"{path}: its {differing} differ from this run's:{lines}\n"
            "expected the same ones to resume; choose another --run.name, or override with --run.accept_changes True"
        )
    if data:
        log.warning("%s: its data differ from this run's, as --run.accept_changes allows:%s", path, lines)


def _data_changes(path: Path, content: dict, state: TrainingState) -> list[str]:
    """Return how the data differ from those of the checkpoint; nothing if it does not say what they were."""
    if state.data is None or "data" not in content:
        return []
    try:
        check_inside(path / DATA, path)
        hashes = json.loads((path / DATA).read_text())
    except (OSError, ValueError, RecursionError) as error:  # a link that leads out, too
        log.warning("%s: not used to tell how many files of the data changed (%s)", path / DATA, error)
        hashes = {}
    try:
        before = records_from_json(content["data"], hashes)
    except ValueError as error:
        raise CheckpointError(
            f"{path}/state.json: data: {error}; remove the checkpoint to go on from the one before it"
        ) from None
    if new_times(before, state.data):
        log.warning(
            "%s: files of the data have other times of change than then; taken for the same, as a copy would be: their "
            "names, sizes and labels are the same, and so are the pixels of the images compared, up to %d of a split",
            path,
            PICTURES,
        )
    return data_changes(before, state.data)


def _load_numbers(state: TrainingState, content: dict, older: dict, path: Path) -> None:
    try:
        state.load_numbers(content)
        state.go_on_by(older)
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
