"""The outline of a run counts the FLOPs of the real step, and the presets' bills agree with it."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bigbigan.config import Config, find_config, presets
from bigbigan.config.cli import DEFAULT_PRESET
from bigbigan.config.help import header, hours_by_device
from bigbigan.files import significant
from bigbigan.training.batch import Drawer
from bigbigan.training.bill import duration, flops
from bigbigan.training.outline import CountedFlops, Outline, SavedBytes, outline_images
from tests.conftest import TINY_MODEL, make_step, tiny_model
from tests.helpers.settings import read_preset

UNITS = {"M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
FREE = (DEFAULT_PRESET, "own")  # whose bills are measured, or depend on the images
SMALL = [name for name in presets() if name.startswith(("bigan/", "bigbigan/cifar10", "table1_digits/"))]
LARGE = ["bigbigan/imagenet128_revnet50x4", "progan/a"]


def tiny_config(**settings) -> Config:
    config = Config()
    for key, value in TINY_MODEL.items():
        setattr(config.model, key, value)
    config.data.batch_size = 8
    for key, value in settings.items():
        section, name = key.split("__")
        setattr(getattr(config, section), name, value)
    return config


@pytest.mark.parametrize("settings", [{}, {"model__classes": 3}, {"optim__simultaneous": True, "optim__d_steps": 1}])
def test_the_outline_counts_what_the_real_step_does(settings):
    config = tiny_config(**settings)
    model = tiny_model(classes=config.model.classes)
    step = make_step(model, d_steps=config.optim.d_steps, simultaneous=config.optim.simultaneous)
    draw = Drawer(0, "normal", model.generator.latent_dim, config.model.classes, draws=step.draws())
    images = outline_images(model, 8, torch.device("cpu"))
    with FlopCounterMode(display=False) as counter:
        step.iteration(iter([images] * 3), draw)
    cost = Outline(config).cost()
    assert cost.flops == counter.get_total_flops() and cost.images == 8 * step.batches


@pytest.mark.parametrize("augment", ["ada", "diffaugment"])
def test_the_outline_knows_augmentations(augment):
    """`--dry-run` of preset own, which trains with ADA; torch has no autocast for the meta device."""
    plain, augmented = (Outline(tiny_config(optim__augment=name)).cost() for name in ("none", augment))
    assert augmented.flops >= plain.flops and augmented.saved_bytes > plain.saved_bytes


def test_chunks_save_memory_and_no_work():
    whole, parts = (Outline(tiny_config(data__chunks=chunks)).cost() for chunks in (1, 4))
    assert parts.flops == whole.flops and parts.saved_bytes < 0.5 * whole.saved_bytes


def test_flops_of_a_product_and_bytes_that_are_kept():
    weight, x = torch.ones(4, 5, requires_grad=True), torch.ones(3, 5)
    with CountedFlops() as counted, SavedBytes() as saved:
        y = (x @ weight.T).exp()  # keeps x once, the weight, which does not count, and its own result
        del x
        y.sum().backward()
    assert counted.total == 2 * 3 * 5 * 4 * 2  # and the gradient of the weight
    assert saved.most == 4 * (3 * 5 + 3 * 4) and saved.bytes in (0, saved.most)


def test_a_growing_run_costs_less_than_its_full_size():
    outline = Outline(read_preset("progan/digits"))
    cost, whole = outline.cost(), outline.flops_to_the_end()
    assert 0.2 < whole / (outline.config.run.images * cost.flops / cost.images) < 0.95


@pytest.mark.parametrize("name", presets())
def test_every_preset_carries_a_bill(name):
    found = header(find_config(name))
    assert len(found["bill"]) > 10
    assert found["computed"] or name.startswith(FREE), f"run: python benchmarks/bills.py {name} --write"


@pytest.mark.parametrize("name", [*SMALL, *LARGE])
def test_the_computed_bill_matches_the_code(name):
    text = header(find_config(name))["computed"]
    stated = re.match(r"([\d.]+) (\w)FLOP an iteration of ([\d,]+) images", text)
    outline = Outline(read_preset(name))
    cost = outline.cost()
    advice = f"run: python benchmarks/bills.py {name} --write"
    assert int(stated[3].replace(",", "")) == cost.images, advice
    assert float(stated[1]) * UNITS[stated[2]] == pytest.approx(cost.flops, rel=0.02), advice
    if hours := hours_by_device(text):
        whole = outline.flops_to_the_end()
        assert f"{flops(whole)} in all" in text, advice
        assert hours["A100"] == duration(whole / (0.4 * 312e12)), advice


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "5 s"),
        (89.6, "89.6 s"),
        (600, "10 min"),
        (7200, "2 h 0 min"),
        (172_800, "2 days"),
        (1e7, "116 days"),
        (1e9, "11,600 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.54e9, "3.54 GFLOP"), (5e6, "5 MFLOP"), (9.996e17, "1,000 PFLOP"), (1.482e21, "1,480 EFLOP")],
)
def test_flops_are_written_without_an_exponent(number, text):
    assert flops(number) == text


@pytest.mark.parametrize(
    ("number", "digits", "text"),
    [(1_234.6, 3, "1,230"), (0.15371, 4, "0.1537"), (23_456.7, 4, "23,460"), (999.96, 4, "1,000"), (0, 3, "0"),
     (float("nan"), 4, "nan")],
)  # fmt: skip
def test_significant_digits_need_no_exponent(number, digits, text):
    assert significant(number, digits) == text
