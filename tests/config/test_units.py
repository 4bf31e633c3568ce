"""Settings counted in images or updates, preset by preset, beside the paper's unit: see the table in docs/units.md."""

import math
import re
from fnmatch import fnmatch

import pytest

from bigbigan.config import Config, differences, flatten, older_settings, parse, presets, read_yaml
from bigbigan.errors import ConfigError
from bigbigan.training.schedule import Schedule, rates
from tests.conftest import ROOT
from tests.helpers.settings import read_preset


def preset(name: str, **changes) -> Config:
    config = read_preset(name)
    for key, value in changes.items():
        section, field = key.split("__")
        setattr(getattr(config, section), field, value)
    return config


def paper(*names: str) -> list[str]:
    return [name for name in presets() if name.startswith(names)]


# The decay of the averages in one update of E and G, as published: BigBiGAN section 3 and BigGAN; Progressive GAN's
# code, whose G_smoothing has one value at every batch size, and powers of it in the rows (a) to (c).
PUBLISHED_DECAYS = {
    **dict.fromkeys(paper("table1/", "bigbigan/imagenet1", "bigbigan/imagenet6", "biggan/"), 0.9999),
    **dict.fromkeys((f"progan/{row}" for row in ("d", "e", "e_star", "f", "g", "h")), 0.999),
    **dict.fromkeys(("progan/celebahq", "progan/lsun", "progan/cifar10"), 0.999),
    **dict.fromkeys(("progan/a", "progan/b"), 0.999**20),
    "progan/c": 0.999**5,
    **dict.fromkeys(paper("bigan/"), 0.0),  # no averages
}  # fmt: skip
# Of our own presets, which were tuned with a half-life in images: (images of an iteration, half-life then).
TUNED = {
    **dict.fromkeys(["digits", *paper("table1_digits/")], (3 * 64, 200_000)),
    **dict.fromkeys(["bigbigan/cifar10", "bigbigan/cifar10_small"], (3 * 256, 500_000)),
    **dict.fromkeys(
        ["bigbigan/cifar10_cpu", "bigbigan/mnist", *paper("table1_mnist/")], (3 * 64, 133_018)
    ),  # 0.999, BigGAN-like for a short run
    **dict.fromkeys(paper("table1_cifar/"), (3 * 64, 500_000)),
    "bigbigan/imagenette64": (3 * 128, 500_000),
    **dict.fromkeys(["own", "own/small"], (3 * 64, 250_000)),
    "progan/digits": (3 * 64, 100_000),
}


def rows_of_the_docs() -> list[tuple[str, str, str, str, str]]:
    """Return (preset, batches × batch size, E+G updates, decay, half-life) as docs/units.md has them."""
    found = {}
    for line in (ROOT / "docs" / "units.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and "×" in cells[1]:
            for pattern in re.findall(r"`([^`]+)`", cells[0]):
                names = [name for name in presets() if fnmatch(name, pattern)]
                assert names, pattern
                found |= {name: cells[1:5] for name in names if "*" not in pattern or name not in found}
    return [(name, *cells) for name, cells in found.items()]


@pytest.mark.parametrize("row", rows_of_the_docs(), ids=lambda row: row[0])
def test_the_table_of_the_docs(row):
    name, size, updates, decay, half_life = row
    config = preset(name)
    if exception := re.search(r"\(`(\w+)`: ([^)]+)\)", size):
        size = exception[2] if name.endswith(exception[1]) else size[: exception.start()].strip()
    of_growth = "," in re.sub(r"\d,\d{3}", "", size)  # by the images, or by the resolution
    if not of_growth:
        assert size == f"{config.batches} × {config.data.batch_size:,}"
        assert updates == f"{math.ceil(config.run.images / (config.batches * config.data.batch_size)):,}"
    value = config.optim.ema_decay
    assert float(decay.split(" = ")[0].split(",")[0]) == pytest.approx(value, abs=1e-7 if value != 0.999**20 else 1e-5)
    if value:
        assert int(half_life.replace(",", "")) == round(math.log(0.5) / math.log(value))


def test_every_preset_is_one_or_the_other():
    assert sorted(PUBLISHED_DECAYS.keys() | TUNED.keys()) == presets() and not PUBLISHED_DECAYS.keys() & TUNED.keys()


@pytest.mark.parametrize("name", sorted(PUBLISHED_DECAYS))
def test_the_averages_have_the_published_decay_per_update_of_e_and_g(name):
    assert 1 - preset(name).optim.ema_decay == pytest.approx(1 - PUBLISHED_DECAYS[name], rel=1e-3)


@pytest.mark.parametrize("name", sorted(TUNED))
def test_tuned_averages_are_what_they_were(name):
    images, half_life = TUNED[name]
    assert 1 - preset(name).optim.ema_decay == pytest.approx(1 - 0.5 ** (images / half_life), rel=1e-4)


@pytest.mark.parametrize(
    "changes",
    [{}, {"optim__d_steps": 1}, {"optim__d_steps": 5}, {"model__encoder": "none"}, {"data__batch_size": 64},
     {"model__joint": False}, {"optim__d_steps": 1, "optim__simultaneous": True}],
)  # fmt: skip
def test_the_average_of_a_run_takes_its_decay_in_each_update_whatever_an_iteration_holds(changes):
    """An average that starts at 0 and follows 1: after 6,931 updates it is half way, without a ramp-up."""
    import torch
    from torch import nn

    from bigbigan.training.ema import Averages

    config = preset("bigbigan/imagenet128", **changes)
    source = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.zeros_(source.weight)
    averages = Averages(source, None, config.optim.ema_decay, 1e9)
    nn.init.ones_(source.weight)
    for update in range(1, 6932):
        averages.update(update, config.batches * config.data.batch_size)
    assert averages.generator.weight.item() == pytest.approx(0.5, abs=1e-4)


# What the papers count, and what a preset must then have: (E+G updates, D updates of each, images of a batch).
LENGTHS = {
    "table1/base": (500_000, 2, 2048), "table1/no_e": (500_000, 2, 2048), "table1/high_res_e": (500_000, 2, 2048),
    "bigbigan/imagenet128": (500_000, 2, 2048), "biggan/sagan128": (1_000_000, 1, 256),
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_a_run_has_as_many_updates_as_published(name):
    config, (updates, d_steps, batch) = preset(name), LENGTHS[name]
    assert (config.optim.d_steps, config.data.batch_size) == (d_steps, batch)
    assert config.run.images == updates * config.batches * batch


# Progressive GAN counts real images shown to D, BiGAN epochs: the same as ours where E sees no images of its own.
PROGAN = paper(
    "progan/a", "progan/b", "progan/c", "progan/d", "progan/e", "progan/f", "progan/g", "progan/h", "progan/l"
)


@pytest.mark.parametrize("name", [name for name in PROGAN if name != "progan/digits"])
def test_progressive_gan_counts_real_images_of_d(name):
    config, row = preset(name), name.split("/")[1]
    assert config.batches == config.optim.d_steps, "an iteration counts the images of D's updates and no others"
    hold = 400_000 if row == "cifar10" else 800_000
    rampup = 40_000 if row in ("celebahq", "lsun") else 0
    assert config.optim.lr_rampup == rampup and (config.grow.hold_images, config.grow.fade_images) == (hold, hold)
    assert config.run.images == {"celebahq": 19, "lsun": 20, "cifar10": 20, "h": 20}.get(row, 10) * 1_000_000


def test_bigan_counts_epochs():
    config = preset("bigan/mnist")
    assert config.batches == 1 and config.optim.lower_after == config.optim.lower_images == 200 * 60_000
    assert config.run.images == 400 * 60_000
    assert rates(config.optim, 24_000_000)["generator"] == pytest.approx(2e-4 * 0.01)
    assert rates(config.optim, 12_000_000)["generator"] == 2e-4


def test_intervals_of_r1_and_ada_count_d_updates_and_their_images():
    """R1: D updates. ADA: real images of D updates, whatever E sees; see also tests/training/test_augmentation.py."""
    import torch

    from bigbigan.training.augmentation import DiscriminatorAugmentation
    from bigbigan.training.variants import R1

    assert [number for number in range(40) if not number % R1(1.0, 16).interval] == [0, 16, 32]
    ada = DiscriminatorAugmentation("ada", ("blit",), images=1000)
    for _ in range(8):
        ada.after({"augment_sign": torch.tensor(1.0)}, torch.tensor(0.0), 50)
    assert float(ada.p) == pytest.approx(400 / 1000)


def test_a_growing_run_reaches_full_size_after_its_phases():
    config = preset("progan/celebahq")
    schedule = Schedule.__new__(Schedule)
    from bigbigan.training.growing_schedule import GrowthSchedule

    schedule.growth = GrowthSchedule.from_config(config)
    # eight doublings from 4 to 1,024 px: a hold and a fade each
    assert schedule.growth.level(8 * 1_600_000) == schedule.growth.last > schedule.growth.level(8 * 1_600_000 - 16)


# Runs of older versions, whose unit was images of all updates


def test_an_older_half_life_goes_on_and_is_not_compared():
    config = preset("digits")
    old = flatten(config) | {"optim.ema_half_life": 123_456.0}
    del old["optim.ema_decay"]
    assert differences(old, config) == [] and older_settings(old) == {"optim.ema_half_life": 123_456.0}
    assert differences(old | {"optim.ema_decay": 0.5}, config) == [], "a checkpoint that went on by it has both"
    assert differences(flatten(config) | {"optim.ema_decay": 0.5}, config) == ["optim.ema_decay: 0.5 → 0.9993348"]


@pytest.mark.parametrize("flag", ["--optim.ema_half_life=1", "--optim.ema-half-life 14e6", "--optim.ema_half_life 5"])
def test_the_old_flag_is_told_its_new_name(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(flag.split())
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert "optim.ema_half_life is a setting of an older version; use --optim.ema_decay" in err and "0.5 **" in err


@pytest.mark.parametrize(
    "text",
    [
        "optim: {ema_half_life: 5}",
        "base: digits\noptim:\n  ema_half_life: 1e6\n",
        "optim: {betas: [0, 0.9], ema_half_life: 1}",
    ],
)
def test_a_file_with_the_old_name_is_told_the_new_one(tmp_path, text):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(
        ConfigError, match="mine.yaml: optim.ema_half_life is a setting of an older version; use --optim.e"
    ):
        read_yaml(tmp_path / "mine.yaml", Config())
