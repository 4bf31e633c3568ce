"""Names of presets: those from before configs/ had groups resolve to the same settings and the same run."""

import json

import pytest

from bigbigan.config import find_config, flatten, parse, presets
from bigbigan.config.presets import ALIASES, run_name
from bigbigan.errors import ConfigError
from tests.conftest import ROOT
from tests.helpers.settings import read_preset

# Settings of every preset under its old name: {"defaults": flat config, "presets": {name: what differs from it}}.
BEFORE = json.loads((ROOT / "tests" / "fixtures" / "presets.json").read_text())
ROWS = [
    "base", "deterministic_e", "high_res_e", "high_res_g", "low_res_g", "no_e", "no_unaries", "resnet101",
    "resnet_e_lr", "resnet_x2", "revnet", "revnet_x2", "revnet_x4", "revnet_x4_e_lr", "small_g_third",
    "small_g_two_thirds", "uniform_prior", "x_unary_only", "z_unary_only",
]  # fmt: skip
DIGITS_ROWS = [
    "base", "deterministic_e", "no_e", "no_unaries", "resnet_e_lr", "small_g_third", "uniform_prior",
    "x_unary_only", "z_unary_only",
]  # fmt: skip
OLD_NAMES = [
    "ali_digits", "bigan_digits", "bigan_digits_jlr", "bigan_digits_lr", "bigan_mnist", "cifar10",
    "cifar10_small", "digits", "digits_progressive", "imagenet128", "imagenet128_deep", "imagenet128_e256",
    "imagenet128_resnet101", "imagenet128_resnet50x2", "imagenet128_revnet50", "imagenet128_revnet50x2",
    "imagenet128_revnet50x4", "imagenet256_deep", "imagenet512_deep", "imagenet64", "imagenette64", "progan_a",
    "progan_b", "progan_c", "progan_celebahq", "progan_cifar10", "progan_d", "progan_e", "progan_e_star",
    "progan_f", "progan_g", "progan_h", "progan_lsun", "sagan128", "small",
    *(f"table1/{row}" for row in ROWS),
    *(f"table1_cifar/{row}" for row in ROWS),
    *(f"table1_digits/{row}" for row in DIGITS_ROWS),
]  # fmt: skip


# Settings of presets that have changed since.
SINCE = {
    "digits": {
        "model.grey": True, "optim.lower_after": 224_000, "optim.lower_images": 112_000, "run.images": 336_000,
        "run.sample_every": 33_600, "run.checkpoint_every": 67_200, "run.spectra_every": 33_600,
    },
    # as in BiGAN's code
    **dict.fromkeys(
        ("bigan_mnist", "bigan_digits", "bigan_digits_lr", "bigan_digits_jlr"),
        {"model.posterior": "sigmoid", "optim.eps": 2e-8},
    ),
}  # fmt: skip

# Presets that never had another name.
NEW = {"own", "bigbigan/cifar10_cpu", "bigbigan/mnist", *(n for n in presets() if n.startswith("table1_mnist/"))}

# What presets called images that only the user can name. They leave the path empty now, and it must be given.
WORDS = ("PHOTOS", "CELEBA", "CELEBA-HQ", "LSUN-BEDROOM")


def resolved(name: str) -> dict:
    """The config of `--config NAME`, flat, as JSON has it."""
    return json.loads(json.dumps(flatten(parse(["--config", name])[0])))


def test_the_list_of_old_names_is_complete():
    assert sorted(OLD_NAMES) == sorted(BEFORE["presets"]) and len(OLD_NAMES) == 82


@pytest.mark.parametrize("name", OLD_NAMES)
def test_an_old_name_gives_the_settings_and_the_run_that_it_gave(name):
    # Since then presets crop as TensorFlow draws the crop; imagenette64 asks for torchvision's way.
    crops = {} if name == "imagenette64" or "data.augment" in BEFORE["presets"][name] else {"data.augment": "tf_resnet"}
    before = BEFORE["defaults"] | BEFORE["presets"][name] | crops | SINCE.get(name, {})
    if before["data.path"] in WORDS:
        before["data.path"] = ""
    file = find_config(name)
    now = json.loads(json.dumps(flatten(read_preset(name)))) | {"run.name": run_name(file)}
    del before["optim.ema_half_life"]  # in another unit since: tests/config/test_units.py
    assert {key: now[key] for key in before} == before
    assert now["run.name"] == name.replace("/", "-")


def test_the_new_name_goes_on_with_the_run_of_the_old_one():
    assert set(ALIASES.values()) | {name for name in OLD_NAMES if name not in ALIASES} == set(presets()) - NEW
    for old, new in ALIASES.items():
        assert find_config(new) == find_config(old), "which decides the settings and the run's name"
    assert resolved("bigan/mnist") == resolved("bigan_mnist")
    assert len(set(ALIASES.values())) == len(ALIASES) and not set(ALIASES) & set(presets())


def test_a_file_of_ones_own_with_a_preset_s_name_has_its_own_run(tmp_path):
    (tmp_path / "mnist.yaml").write_text("base: bigan_mnist\n")
    assert resolved(str(tmp_path / "mnist.yaml"))["run.name"] == "mnist"


def test_a_moved_file_is_named():
    with pytest.raises(ConfigError, match="found no such file; there is a preset own/small"):
        find_config("configs/small.yaml")
