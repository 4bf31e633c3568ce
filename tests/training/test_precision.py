"""bf16 on a CPU without instructions for it: never chosen, and its price is told."""

import re
import time
from types import SimpleNamespace

import pytest
import torch

from bigbigan.config import Config
from bigbigan.errors import ConfigError
from bigbigan.training import launch, precision, start
from bigbigan.training.state import TrainingState
from tests.conftest import tiny_model, train


def set_capability(monkeypatch, has: bool) -> None:
    for module in (precision, launch):
        monkeypatch.setattr(module, "cpu_has_bf16", lambda: has)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="the choice on a CPU")
@pytest.mark.parametrize(
    ("has", "told", "asked", "expected"),
    [(False, "bf16", "auto", "no"), (True, "bf16", "auto", "bf16"), (False, "no", "auto", "no"),
     (True, "no", "auto", "no"), (False, "no", "bf16", "bf16"), (False, "bf16", "float32", "no")],
)  # fmt: skip
def test_auto_never_takes_an_emulated_bf16(monkeypatch, has, told, asked, expected):
    set_capability(monkeypatch, has)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    config = Config()
    config.run.precision = asked
    assert launch.chosen_precision(config) == expected


@pytest.mark.parametrize(("told", "expected"), [("true", "no"), ("false", "bf16")])
def test_auto_takes_bf16_of_a_gpu_that_is_used(monkeypatch, told, expected):
    set_capability(monkeypatch, False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", told)
    assert launch.chosen_precision(Config()) == expected


@pytest.mark.parametrize(
    ("device", "name", "has", "noted"),
    [("cpu", "bf16", False, True), ("cpu", "bf16", True, False), ("cpu", "no", False, False),
     ("meta", "bf16", False, False)],
)  # fmt: skip
def test_the_price_is_measured_and_told(monkeypatch, device, name, has, noted):
    set_capability(monkeypatch, has)
    monkeypatch.setattr(precision, "slowdown", lambda: 7.96)
    trainer = SimpleNamespace(
        device=torch.device(device),
        accelerator=SimpleNamespace(mixed_precision=name),
        stream=SimpleNamespace(cached=None),
        state=SimpleNamespace(device="", device_now=""),
    )
    line = start.device_line(trainer)
    assert ("take 8.0 times as long as float32's here: --run.precision float32" in line) == noted
    assert line.startswith(f"{device}, {'float32' if name == 'no' else 'bf16'}")


def test_the_factor_is_that_of_the_times(monkeypatch):
    clock = iter(range(10**6))  # a step a call: each product takes 1
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert precision.slowdown(8) == 1.0
    monkeypatch.undo()
    started = time.process_time()
    assert precision.slowdown() > 0 and time.process_time() - started < 5


def test_capabilities_are_torchs(monkeypatch):
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    for first, second in ((False, False), (True, False), (False, True)):
        for check, has in zip(precision.CHECKS, (first, second), strict=True):
            monkeypatch.setattr(torch.cpu, check, lambda has=has: has, raising=False)
        assert precision.cpu_has_bf16() == (first or second)
    monkeypatch.setattr(precision.platform, "machine", lambda: "arm64")
    assert precision.cpu_has_bf16()


@pytest.mark.run
def test_the_start_block_of_a_run_tells_it(tmp_path, monkeypatch):
    set_capability(monkeypatch, False)
    out, _ = train(tmp_path, "--run.precision=bf16", "--run.images=24", "--dry-run", "--run.name=run")
    assert re.search(r"device +cpu, bf16.*take \d+\.\d times as long as float32's here", out), out


@pytest.mark.parametrize(
    ("size", "stem", "beyond"),
    [(8, "stride2", True), (8, "stride1", False), (16, "stride2", False), (16, "imagenet", True)],
)
def test_bf16_on_a_cpu_refuses_strides_beyond_the_map(size, stem, beyond):
    """oneDNN's gradients of such convolutions are wrong in bf16. Those of our encoders take the map as one window."""
    model = tiny_model(image_size=size, encoder="resnetv2_18", encoder_stem=stem, encoder_blocks=(1, 1, 1, 1))
    cpu, meta = torch.device("cpu"), torch.device("meta")
    precision.check_convolutions(model, cpu, "bf16")
    ours = model.encoder.trunk.stages[3].blocks[0].conv1
    plain = torch.nn.Conv2d(ours.in_channels, ours.out_channels, 3, stride=2, padding=1, bias=False)
    model.encoder.trunk.stages[3].blocks[0].conv1 = plain
    precision.check_convolutions(model, cpu, "no")
    precision.check_convolutions(model, meta, "bf16")
    if not beyond:
        precision.check_convolutions(model, cpu, "bf16")
        return
    found = "found stride 2 on 1×1 in encoder.trunk.stages.3.blocks.0.conv1; train with --run.precision float32"
    with pytest.raises(ConfigError, match=found):
        precision.check_convolutions(model, cpu, "bf16")
    assert not any(layer._forward_pre_hooks for layer in model.modules())


def test_layers_that_pad_beforehand_are_not_refused():
    model = tiny_model(image_size=16, encoder="tf_mobilenetv3_small_minimal_100", encoder_width=1.0)
    assert precision.strided_beyond_map(model) == ""


@pytest.mark.run
def test_a_run_in_bf16_is_refused_before_it_writes(tmp_path):
    """timm's NFNets have convolutions of their own, which are not replaced."""
    flags = ["--model.encoder=test_nfnet", "--model.encoder_width=1", "--run.precision=bf16", "--run.name=run"]
    _, err = train(tmp_path, *flags, code=2)
    expected = "expected convolutions with strides up to the size of their maps, since a CPU's gradients of others"
    assert f"error: --run.precision bf16: {expected} are wrong in bf16, found stride 2 on 1×1 in encoder.trunk" in err
    assert not list(tmp_path.glob("**/checkpoints/0*"))


@pytest.mark.run
@pytest.mark.skipif(torch.accelerator.is_available(), reason="the choice on a CPU")
def test_a_resumed_run_says_that_the_precision_chosen_for_it_is_another(tmp_path, monkeypatch):
    set_capability(monkeypatch, True)
    flags = ["--run.name=a", "--run.probe=False", "--run.threads=1"]
    first, _ = train(tmp_path, *flags, "--run.images=48")
    same, _ = train(tmp_path, *flags, "--run.images=96")
    other, _ = train(tmp_path, *flags, "--run.images=144", env={"ACCELERATE_MIXED_PRECISION": "bf16"})
    said = "until here the run computed on cpu, float32, so it no longer equals an uninterrupted one"
    assert ["resumed from" in out for out in (first, same, other)] == [False, True, True]
    assert [said in out for out in (first, same, other)] == [False, False, True]


def test_a_checkpoint_whose_device_is_no_name_is_refused():
    state = TrainingState(tiny_model(), None, {})
    with pytest.raises(ValueError, match="device: expected the name of a device and a precision, found 3"):
        state.load_numbers({"images_seen": 0, "iterations": 0, "device": 3})
