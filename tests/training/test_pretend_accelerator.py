"""Training on a pretend accelerator: every tensor on the device, no wait within an iteration, the results of a CPU."""

import json
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator

import bigbigan
from bigbigan.data import Crop, Stream, open_images
from bigbigan.metrics import Recipe, own_classifier
from bigbigan.networks.growing import growing_parts
from bigbigan.training.ema import Averages, averaged_model
from bigbigan.training.guard.collapse import CollapseProbe
from bigbigan.training.objectives import Joint
from bigbigan.training.schedule import Schedule
from bigbigan.training.state import TrainingState
from bigbigan.training.step import Report, Step
from bigbigan.training.trainer import Window
from bigbigan.training.variants import augmentation_of
from tests.conftest import train
from tests.helpers import pretend
from tests.helpers.pretend import on_pretend_accelerator
from tests.helpers.shrunk import BATCH, Small, changed, different

PRESETS = different()
CPU = torch.device("cpu")


def check_iterations(small: Small, times: int = 1) -> None:
    """Fail if one of the first iterations makes the host wait."""
    with pretend.waits() as found:
        for number in range(times):
            small.iterate(number)
    assert not len(found), str(found)


@pytest.mark.parametrize("name", PRESETS)
@on_pretend_accelerator
def test_an_iteration_stays_on_the_device_and_never_waits(name):
    check_iterations(Small(PRESETS[name], pretend.DEVICE))


VARIANTS = {
    "ada": {"optim.augment": "ada", "optim.ada_images": 100},
    "diffaugment": {"optim.augment": "diffaugment"},
    "r1": {"loss.r1": 1.0},
    "wgan_gp": {
        "loss.form": "wgan_gp",
        "model.family": "progressive",
        "model.encoder": "progressive",
        "model.grey": False,
    },
    "classes, dropout": {"model.classes": 3, "optim.dropout": 0.3, "loss.form": "logistic"},
    "BigGAN's remedies": {"loss.orthogonal": 1e-4, "optim.sigma_clamp": 1.0, "optim.sigma_networks": "both"},
    "clamped by the second value": {"optim.sigma_clamp_ratio": 1.0},
    "chunks, checkpointing": {"data.chunks": 2, "model.checkpointing": True},
}


@pytest.mark.parametrize("variant", VARIANTS)
@on_pretend_accelerator
def test_so_does_every_variant(variant):
    check_iterations(Small(changed("digits", VARIANTS[variant]), pretend.DEVICE), 2)  # ADA moves p in the second


@on_pretend_accelerator
def test_another_optimiser_than_fused_adam_waits_once_an_update():
    """As `step.apply` says: it has no flag that leaves a void update out."""
    small = Small(changed("digits", {"optim.name": "adamw"}), pretend.DEVICE)
    with pretend.waits() as found:
        small.iterate()
    assert len(found) == 3, str(found)
    assert all("(apply)" in where for _, where in found.found), str(found)


@pytest.mark.parametrize("name", ["digits", "biggan/sagan128", "progan/digits", "bigan/digits_jlr"])
@on_pretend_accelerator
def test_an_iteration_reports_what_it_reports_on_a_cpu(name):
    config = changed(name, {})
    here, there = Small(config, pretend.DEVICE), Small(config, CPU)
    for number in range(2):
        ours, theirs = here.iterate(number), there.iterate(number)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert value.device == pretend.DEVICE, key
        torch.testing.assert_close(value.cpu(), theirs[key], rtol=1e-3, atol=1e-4, msg=key)


@on_pretend_accelerator
def test_networks_grow_on_the_device():
    config = changed("progan/digits", {"grow.hold_images": 2 * BATCH, "grow.fade_images": 2 * BATCH})
    small = Small(config, pretend.DEVICE)
    networks = [small.model, small.averages.networks]
    schedule = Schedule(config, networks, small.step.optimizers.named())
    for number in range(9):
        with pretend.waits() as found:
            schedule.apply(schedule.at(number * BATCH))
            small.iterate(number)
        assert not len(found), str(found)
    assert growing_parts(small.model)[0].level == 2.0


@on_pretend_accelerator
def test_what_a_checkpoint_keeps_comes_back_to_the_device():
    """Networks, averages, the optimiser's state and ADA's, after which the next iteration is the same."""
    config = changed("digits", VARIANTS["ada"])
    ours, theirs = Small(config, pretend.DEVICE), Small(config, pretend.DEVICE)
    ours.iterate()
    states = [
        TrainingState(small.model, small.averages, small.step.optimizers.named(), augmentation_of(small.step))
        for small in (ours, theirs)
    ]
    kept = {file: {k: t.clone() for k, t in tensors.items()} for file, tensors in states[0].tensors().items()}
    assert all(t.device == CPU for tensors in kept.values() for t in tensors.values())
    states[1].load(kept, "here")
    augmentation_of(theirs.step).load(augmentation_of(ours.step).state())
    reports = [small.iterate(1) for small in (ours, theirs)]
    assert all(torch.equal(reports[0][key], reports[1][key]) for key in reports[0])


@pytest.mark.parametrize("name", ["digits", "biggan/sagan128", "bigbigan/imagenet128_revnet50", "bigan/digits"])
@on_pretend_accelerator
def test_sampling_statistics_and_the_verbs_work_there_as_on_a_cpu(name):
    images = torch.rand(6, 3, 8, 8) * 1.8 - 0.9
    images = images if name != "bigan/digits" else images.repeat(1, 1, 2, 2)
    found = []
    for device in (pretend.DEVICE, CPU):
        small = Small(changed(name, {}), device)
        batch = small.draw(small.images)
        small.averages.update_sampling_statistics([(batch.x, batch.z, batch.z_classes)] * 2)
        model = averaged_model(small.model, small.averages)
        classes = np.arange(6) % 3 if small.config.model.classes else None
        outputs = {} if model.encoder is None else bigbigan.encode(images, model, batch_size=4)
        z = torch.linspace(-0.9, 0.9, 6 * model.generator.latent_dim).view(6, -1)
        outputs["samples"] = bigbigan.generate(z, model, classes=classes, batch_size=4)
        outputs |= bigbigan.discriminate(images, z, model, classes=classes, batch_size=4)
        if model.encoder is not None:
            outputs["again"] = bigbigan.reconstruct(images, model, classes=classes, use_sample=True)
        found.append(outputs)
    assert found[0].keys() == found[1].keys()
    for key, value in found[0].items():
        torch.testing.assert_close(value, found[1][key], rtol=1e-3, atol=1e-3, msg=key)


@on_pretend_accelerator
def test_the_guard_looks_at_networks_on_the_device():
    digits, found = open_images("digits"), []
    for device in (pretend.DEVICE, CPU):
        small = Small(changed("digits", {}), device)
        probe = CollapseProbe(small.model, digits, digits, "normal", 0, 8, objective=small.step.objective)
        spectra, figures = probe.measure()
        found.append(np.concatenate([*spectra.values(), [*figures.values()]]))
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cache", ["device", "none"])
@on_pretend_accelerator
def test_the_stream_of_images_never_waits(cache):
    """Kept on the device and cut there, or decoded on the host and copied without a wait from pinned memory."""
    digits = open_images("digits")
    streams = [Stream(digits, 16, 0, Crop("tf_resnet", True), device=d, cache=cache) for d in (pretend.DEVICE, CPU)]
    with pretend.waits() as found:
        ours = next(streams[0].batches(0, BATCH, BATCH))
    assert not len(found), str(found)
    assert ours.x.device == ours.labels.device == pretend.DEVICE
    assert torch.equal(ours.x.cpu(), next(streams[1].batches(0, BATCH, BATCH)).x)


@pytest.mark.run
@pytest.mark.parametrize("flags", [("--optim.augment=ada",), ("--config=progan/digits",)])
def test_a_whole_run_trains_resumes_and_evaluates_on_the_device(flags, tmp_path):
    on_device(root=str(tmp_path), flags=flags)


@on_pretend_accelerator
def on_device(root, flags):
    """Train by the real command; count the waits within what an iteration does."""
    if "--config=progan/digits" in flags:
        small = ("feature_base=32", "feature_limit=16", "mlp_width=16", "mlp_layers=2", "encoder_mlp_width=16")
        flags += (*(f"--model.{s}" for s in small), "--model.image_size=16", "--model.encoder=progressive")
        flags += ("--grow.hold_images=24", "--grow.fade_images=24")
    flags += ("--run.name=here", "--run.evaluate_every=96", "--run.evaluate_images=40", "--run.spectra_every=48")
    flags += ("--run.statistics_images=16", "--run.checkpoint_every=48", "--run.sample_every=48", "--run.probe=False")
    waited = []

    def counted(method):
        def call(*args, **kwargs):
            with pretend.waits() as found:
                result = method(*args, **kwargs)
            waited.append(found)
            return result

        return call

    with (
        mock.patch.object(Accelerator, "device", pretend.DEVICE),
        mock.patch.object(own_classifier, "Recipe", partial(Recipe, width=0.125, epochs=0, min_steps=2)),
        mock.patch.object(Step, "iteration", counted(Step.iteration)),
        mock.patch.object(Averages, "update", counted(Averages.update)),
        mock.patch.object(Window, "add", counted(Window.add)),
        mock.patch.object(Schedule, "apply", counted(Schedule.apply)),
    ):
        for images in (48, 96):
            out, err = train(root, *flags, f"--run.images={images}", env={"BIGBIGAN_CACHE": root})
            assert "pretend:0" in out, out
    assert "resumed from" in out, out + err
    lines = [json.loads(line) for line in (Path(root) / "here/stats.jsonl").read_text().splitlines()]
    assert {"training", "spectra", "evaluation"} <= {line["kind"] for line in lines}
    assert len(waited) == 4 * 4 and not any(map(len, waited)), "\n".join(map(str, waited))


# The pretend accelerator itself: what it counts and refuses, and that faults planted in a step are seen.

CALLS = {
    "item": (lambda t: t[0].item(), "the host reads a value"),
    "float": (lambda t: float(t[0]), "the host reads a value"),
    "int": (lambda t: int(t[0]), "the host reads a value"),
    "bool": (lambda t: bool(t[0] > 0), "the host reads a value"),
    "if": (lambda t: 1 if t.isfinite().all() else 0, "the host reads a value"),
    "equal": (lambda t: torch.equal(t, t), "the host reads a value"),
    "cpu": (lambda t: t.cpu(), "a copy to the host"),
    "to": (lambda t: t.to("cpu"), "a copy to the host"),
    "tolist": (lambda t: t.tolist(), "a copy to the host"),
    "copy_": (lambda t: torch.zeros(3).copy_(t), "a copy to the host"),
    "nonzero": (lambda t: t.nonzero(), "a shape depends on content"),
    "mask": (lambda t: t[t > 0], "a shape depends on content"),
    "unique": (lambda t: t.unique(), "a shape depends on content"),
    "to the device": (lambda t: torch.ones(3).to(t.device), "a copy from memory of the host"),
    "tensor": (lambda t: torch.tensor([1.0], device=t.device), "a copy from memory of the host"),
    "host index": (lambda t: t[torch.tensor([0, 1])], "a copy from memory of the host"),
}


@pytest.mark.parametrize("call", CALLS)
@on_pretend_accelerator
def test_each_kind_of_wait_is_counted(call):
    tensor = torch.ones(3).to(pretend.DEVICE)
    function, what = CALLS[call]
    with pretend.waits() as found:
        function(tensor)
    assert found.kinds() and all(kind.startswith(what) for kind in found.kinds()), str(found)
    assert all("test_pretend_accelerator.py" in where for _, where in found.found), str(found)


@on_pretend_accelerator
def test_work_that_stays_on_the_device_is_not_counted():
    layer, x = torch.nn.Linear(3, 3).to(pretend.DEVICE), torch.ones(2, 3).to(pretend.DEVICE)
    with pretend.waits() as found:
        y = layer(x) * 2 + torch.tensor(1.0)  # a number without dimensions goes along with the operation
        torch.where(y > 0, y, 0).lerp(x, 0.5).sum().backward()
        bigbigan.distributed.to_device(torch.ones(3), pretend.DEVICE)
        torch.ones(3).to(pretend.DEVICE, non_blocking=True)
    assert not len(found), str(found)
    assert layer.weight.grad.device == pretend.DEVICE


@on_pretend_accelerator
def test_tensors_of_two_devices_are_refused():
    tensor = torch.ones(3).to(pretend.DEVICE)
    for wrong in (lambda: tensor + torch.ones(3), lambda: torch.stack([tensor, torch.ones(3)]), tensor.numpy):
        with pytest.raises((RuntimeError, TypeError), match="same device|to numpy"):
            wrong()


FAULTS = {  # (owner, method, what it returns in its place, of its result)
    "item in the report": (Report, "add", lambda _, args: args[2].detach().sum().item()),
    "cpu after the forward": (Step, "scores", lambda result, _: (result[0].terms()[0].cpu(), result)[1]),
    "a wait in the backward pass": (
        Step, "discriminator_forward",
        lambda result, _: result[0].register_hook(lambda grad: None if bool(grad > 0) else grad) and result,
    ),
    "a constant on the CPU": (
        Joint, "latents", lambda result, _: (result[0], result[1] + torch.zeros(result[1].shape)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
@on_pretend_accelerator
def test_a_fault_planted_in_a_step_is_seen(fault):
    owner, name, change = FAULTS[fault]
    method = getattr(owner, name)

    def planted(*args, **kwargs):
        result = method(*args, **kwargs)
        changed_result = change(result, args)
        return result if owner is Report else changed_result

    small = Small(changed("digits", {}), pretend.DEVICE)
    with (
        mock.patch.object(owner, name, planted),
        pytest.raises((AssertionError, RuntimeError), match="the host|to the host|same device"),
    ):
        check_iterations(small)
    check_iterations(small)
