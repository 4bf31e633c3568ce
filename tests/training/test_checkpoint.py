"""Checkpoints: written whole, verified, never unpickled, refused when they do not fit."""

import errno
import json
import os
import shutil

import pytest
import torch

from bigbigan.config import Config, Model
from bigbigan.errors import CheckpointError, ConfigError
from bigbigan.training import checkpoint
from bigbigan.training.ema import Averages
from bigbigan.training.state import TrainingState
from tests.conftest import TINY_MODEL, make_step, tiny_model
from tests.training.test_step import make_batch


def make_state(seed=0):
    model = tiny_model().double().to(memory_format=torch.channels_last).train()  # as train.py lays it out
    step = make_step(model)
    averages = Averages(model.generator, model.encoder, 0.9, 0.5)
    return TrainingState(model, averages, step.optimizers.named()), step


def advance(state, step, updates, start=0):
    for i in range(start, start + updates):
        step.discriminator_update(make_batch(seed=i))
        step.encoder_generator_update(make_batch(seed=i))
        state.images_seen += 16
        state.iterations += 1
        state.averages.update(state.iterations)


CONFIG = Config(model=Model(**TINY_MODEL))


def equal(a, b):
    return all(torch.equal(a[f][k], b[f][k]) for f in a for k in a[f]) and all(a[f].keys() == b[f].keys() for f in a)


def test_resuming_is_bit_for_bit(tmp_path):
    straight, step = make_state()
    advance(straight, step, 6)
    state, step = make_state()
    advance(state, step, 3)
    checkpoint.save(tmp_path, state, CONFIG, keep=2)
    resumed, step = make_state()
    assert not equal(resumed.tensors(), state.tensors())
    assert checkpoint.resume(tmp_path, resumed, CONFIG).name == f"{48:012d}"
    assert equal(resumed.tensors(), state.tensors()) and resumed.iterations == 3
    advance(resumed, step, 3, start=3)
    assert equal(resumed.tensors(), straight.tensors())


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, named = [], {}
    fsync, rename = os.fsync, os.rename

    def noted(file):
        flushed.append(os.fstat(file).st_ino)
        fsync(file)

    def seen(old, new):
        named[new] = list(flushed), {path.stat().st_ino for path in (old, *old.iterdir())}
        rename(old, new)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "rename", seen)
    path = checkpoint.save(tmp_path / "checkpoints", make_state()[0], CONFIG, keep=2)
    before, written = named[path]
    assert len(written) == 5 and written <= set(before), "the folder, three files of tensors and state.json"
    assert path.parent.stat().st_ino in flushed[len(before) :], "and the new name itself"


def test_rotation_and_leftovers(tmp_path):
    state, step = make_state()
    (tmp_path / ".writing-000000000016").mkdir()
    for _ in range(4):
        advance(state, step, 1)
        checkpoint.save(tmp_path, state, CONFIG, keep=2)
    assert [p.name for p in checkpoint.complete(tmp_path)] == [f"{48:012d}", f"{64:012d}"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{48:012d}", f"{64:012d}"]


def test_a_checkpoint_ahead_pushes_out_none_of_those_before_it(tmp_path):
    """As one does that was damaged when the run resumed from the one before."""
    state, _ = make_state()
    for state.images_seen in (48, 16, 32):
        checkpoint.save(tmp_path, state, CONFIG, keep=1)
    assert [int(path.name) for path in checkpoint.complete(tmp_path)] == [32, 48]


def test_a_snapshot_stays_as_it_is_while_the_run_goes_on(tmp_path):
    state, step = make_state()
    advance(state, step, 1)
    state.recovery.times, state.recovery.factors = 1, {"encoder": 0.5}
    state.guard.spectra, state.guard.known = {"generator.linear": [1.0]}, {"scores"}
    taken = checkpoint.snapshot(state, CONFIG)
    content, tensors = json.dumps(taken.content), {k: v.clone() for k, v in taken.tensors["model.safetensors"].items()}
    advance(state, step, 1)
    state.recovery.factors["encoder"] = 0.25
    state.guard.spectra["generator.linear"].append(2.0)
    state.guard.known.add("diversity")
    assert json.dumps(taken.content) == content
    assert all(torch.equal(taken.tensors["model.safetensors"][k], v) for k, v in tensors.items())


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, caplog):
    state, step = make_state()
    for _ in range(2):
        advance(state, step, 1)
        newest = checkpoint.save(tmp_path, state, CONFIG, keep=2)
    damaged = newest / "averages.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    fresh, _ = make_state()
    assert checkpoint.resume(tmp_path, fresh, CONFIG).name == f"{16:012d}"
    assert "averages.safetensors: its checksum is not the one in state.json" in caplog.text
    for path in checkpoint.complete(tmp_path):
        (path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="none of its 2 checkpoints is sound"):
        checkpoint.resume(tmp_path, fresh, CONFIG)


@pytest.mark.parametrize("why", ["of another version", "no right to read it", "too many open files"])
def test_a_checkpoint_that_may_be_sound_ends_the_run_and_is_kept(tmp_path, monkeypatch, why):
    """An older one is not gone on from, since the run would overwrite the newer."""
    state, step = make_state()
    for _ in range(2):
        advance(state, step, 1)
        newest = checkpoint.save(tmp_path, state, CONFIG, keep=2)
    if why == "of another version":
        content = json.loads((newest / "state.json").read_text()) | {"format": checkpoint.FORMAT + 1}
        (newest / "state.json").write_text(json.dumps(content))
    else:
        number, right = errno.EACCES if "right" in why else errno.EMFILE, checkpoint.sha256

        def refused(file):
            if file.parent == newest:
                raise OSError(number, os.strerror(number))
            return right(file)

        monkeypatch.setattr(checkpoint, "sha256", refused)
    with pytest.raises(CheckpointError, match=f"{newest}: expected a checkpoint"):
        checkpoint.resume(tmp_path, make_state()[0], CONFIG)
    assert newest in checkpoint.complete(tmp_path)


def test_changed_hyper_parameters_are_refused_with_the_difference(tmp_path):
    state, step = make_state()
    advance(state, step, 1)
    checkpoint.save(tmp_path, state, CONFIG, keep=2)
    changed = Config(model=Model(**TINY_MODEL))
    changed.optim.encoder_lr, changed.run.images = 0.5, 7
    with pytest.raises(CheckpointError, match=r"optim.encoder_lr: 5e-05 → 0.5\n.*--run.accept_changes True"):
        checkpoint.resume(tmp_path, state, changed)
    changed.run.accept_changes = True
    assert checkpoint.resume(tmp_path, state, changed) is not None


def test_another_format_and_another_architecture_are_refused(tmp_path):
    state, step = make_state()
    advance(state, step, 1)
    path = checkpoint.save(tmp_path, state, CONFIG, keep=2)
    future = tmp_path / "future"
    shutil.copytree(path, future)
    content = json.loads((future / "state.json").read_text())
    (future / "state.json").write_text(json.dumps(content | {"format": 99}))
    with pytest.raises(CheckpointError, match="expected a checkpoint of format 1, found 99"):
        checkpoint.read(future)
    other = TrainingState(tiny_model(generator_width=3).double(), state.averages, state.optimizers)
    with pytest.raises(ValueError, match="weights are of another architecture than the config .* has shape"):
        other.load(checkpoint.read(path)[1], str(path))


def test_no_file_is_a_pickle(run_folder):
    names = {p.suffix for p in run_folder.rglob("*") if p.is_file()}
    assert names == {".safetensors", ".json", ".yaml", ".jsonl", ".png", ".md", ".html", ".lock"}


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "sgd", "radam", "nadamw", "rmsprop", "adopt"])
def test_any_optimiser_resumes_bit_for_bit(tmp_path, name):
    """What an optimiser keeps has names of its own, among them counts in a parameter group (lamb)."""

    def make():
        model = tiny_model(encoder_width=0.03125, encoder_blocks=(1, 1, 1, 1)).double().train()
        step = make_step(model, betas=(0.9, 0.999), name=name)
        averages = Averages(model.generator, model.encoder, 0.9, 0.5)
        return TrainingState(model, averages, step.optimizers.named()), step

    (straight, step), (state, other) = make(), make()
    before = {k: v.clone() for k, v in state.model.state_dict().items()}
    advance(straight, step, 4)
    advance(state, other, 2)
    checkpoint.save(tmp_path, state, CONFIG, keep=2)
    resumed, step = make()
    checkpoint.resume(tmp_path, resumed, CONFIG)
    advance(resumed, step, 2, start=2)
    assert equal(resumed.tensors(), straight.tensors())
    still = [k for k, p in straight.model.named_parameters() if torch.equal(p, before[k])]
    assert not [k for k in still if "bias" not in k], "all weights moved"


def test_a_void_update_of_any_optimiser_moves_nothing():
    model = tiny_model().double().train()
    step = make_step(model, betas=(0.9, 0.999), name="adamw", weight_decay=0.1)
    step.discriminator_update(make_batch())
    before = {k: v.clone() for k, v in model.discriminator.named_parameters()}
    batch = make_batch()
    batch.x[0, 0, 0, 0] = torch.nan
    step.discriminator_update(batch)
    assert all(torch.equal(p, before[k]) for k, p in model.discriminator.named_parameters())


def test_an_optimiser_that_there_is_not_is_one_sentence():
    with pytest.raises(ConfigError, match="--optim.name adamm: expected one of timm's optimisers: .*adamw"):
        make_step(tiny_model(), name="adamm")
