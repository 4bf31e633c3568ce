"""The 19 rows of BigBiGAN's Table 1 as presets: each has the columns that the paper prints, and differs by nothing
else."""

import sys
from dataclasses import asdict
from functools import cache
from unittest import mock

import pytest
import torch

from bigbigan.config import Config, Model, find_config, flatten, lineage, parse, preset_name, presets, read_yaml
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN
from tests.helpers.settings import read_preset

# row → backbone, times the base's channels, E px, q(z|x), E's rate over G's, G's channels, G px, s_x, s_z, p(z), as in
# the paper.
PAPER = {
    "base":               ("resnetv2_50", 1, 128, "gaussian", 1, 96, 128, True, True, "normal"),
    "deterministic_e":    ("resnetv2_50", 1, 128, "deterministic", 1, 96, 128, True, True, "normal"),
    "uniform_prior":      ("resnetv2_50", 1, 128, "tanh", 1, 96, 128, True, True, "uniform"),
    "x_unary_only":       ("resnetv2_50", 1, 128, "gaussian", 1, 96, 128, True, False, "normal"),
    "z_unary_only":       ("resnetv2_50", 1, 128, "gaussian", 1, 96, 128, False, True, "normal"),
    "no_unaries":         ("resnetv2_50", 1, 128, "gaussian", 1, 96, 128, False, False, "normal"),
    "small_g_third":      ("resnetv2_50", 1, 128, "gaussian", 1, 32, 128, True, True, "normal"),
    "small_g_two_thirds": ("resnetv2_50", 1, 128, "gaussian", 1, 64, 128, True, True, "normal"),
    "no_e":               ("none", 1, 128, "gaussian", 1, 96, 128, True, True, "normal"),
    "high_res_e":         ("resnetv2_50", 1, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "low_res_g":          ("resnetv2_50", 1, 256, "gaussian", 1, 96, 64, True, True, "normal"),
    "high_res_g":         ("resnetv2_50", 1, 256, "gaussian", 1, 96, 256, True, True, "normal"),
    "resnet101":          ("resnetv2_101", 1, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "resnet_x2":          ("resnetv2_50", 2, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "revnet":             ("revnet50", 1, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "revnet_x2":          ("revnet50", 2, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "revnet_x4":          ("revnet50", 4, 256, "gaussian", 1, 96, 128, True, True, "normal"),
    "resnet_e_lr":        ("resnetv2_50", 1, 256, "gaussian", 10, 96, 128, True, True, "normal"),
    "revnet_x4_e_lr":     ("revnet50", 4, 256, "gaussian", 10, 96, 128, True, True, "normal"),
}  # fmt: skip
# What the paper's pixels and channels of G become in a group, and its base's backbone and channels.
GROUPS = {
    "table1": ({64: 64, 128: 128, 256: 256}, {32: 32, 64: 64, 96: 96}, None, 1),
    "table1_cifar": ({64: 16, 128: 32, 256: 64}, {32: 11, 64: 21, 96: 32}, None, 0.25),
    "table1_mnist": ({128: 28, 256: 28}, {32: 3, 96: 8}, "resnetv2_18", 0.25),
    "table1_digits": ({128: 8, 256: 8}, {32: 3, 96: 8}, "resnetv2_18", 0.25),
}
SMALL = {  # the rows at 28 and 8 px
    "base", "deterministic_e", "uniform_prior", "x_unary_only", "z_unary_only", "no_unaries", "small_g_third", "no_e",
    "resnet_e_lr",
}  # fmt: skip
SHOWN = {
    "model.encoder", "model.encoder_width", "model.encoder_image_size", "model.posterior", "optim.encoder_lr",
    "model.generator_width", "model.image_size", "loss.unary_x", "loss.unary_z", "model.prior",
}  # fmt: skip
ROWS = [(group, row) for group in GROUPS for row in PAPER if group in ("table1", "table1_cifar") or row in SMALL]


def columns(group: str, config: Config) -> tuple:
    """The config as a line of the paper's table."""
    sizes, widths, backbone, channels = GROUPS[group]
    m, o = config.model, config.optim
    pixels = {ours: paper for paper, ours in reversed(sizes.items())}
    return (
        "resnetv2_50" if backbone and m.encoder == backbone else m.encoder,
        m.encoder_width / channels,
        pixels[m.encoder_image_size or m.image_size],
        m.posterior,
        round(o.encoder_lr / o.generator_lr, 6),
        {ours: paper for paper, ours in widths.items()}[m.generator_width],
        pixels[m.image_size],
        config.loss.unary_x,
        config.loss.unary_z,
        m.prior,
    )


def test_every_group_has_its_rows():
    for group in GROUPS:
        found = {name.split("/")[1] for name in presets() if name.startswith(f"{group}/")}
        assert found == {row for g, row in ROWS if g == group}
    assert len(PAPER) == 19


@pytest.mark.parametrize(("group", "row"), ROWS)
def test_a_row_has_the_papers_columns_and_differs_by_nothing_else(group, row):
    config, base = read_preset(f"{group}/{row}"), read_preset(f"{group}/base")
    config.validate()
    expected = PAPER[row]
    if group in ("table1_mnist", "table1_digits"):  # E has the base's pixels in every row
        expected = (*expected[:2], 128, *expected[3:])
    assert columns(group, config) == expected
    old, new = flatten(base), flatten(config)
    free = SHOWN | ({"model.generator_attention", "model.discriminator_attention"} if PAPER[row][6] != 128 else set())
    if row == "no_e":  # as many iterations, each of two batches instead of three
        assert new.pop("run.images") == -(-2 * old["run.images"] // 3)
    assert {key for key in new if old[key] != new[key]} <= free
    file = find_config(f"{group}/{row}")
    assert row == "base" or len([line for line in file.read_text().splitlines() if not line.startswith("#")]) <= 6


def test_the_papers_base_is_imagenet128_and_the_older_presets_are_rows():
    same = {
        "base": "imagenet128", "resnet_e_lr": "imagenet128_e256", "resnet101": "imagenet128_resnet101",
        "resnet_x2": "imagenet128_resnet50x2", "revnet": "imagenet128_revnet50", "revnet_x2": "imagenet128_revnet50x2",
        "revnet_x4_e_lr": "imagenet128_revnet50x4",
    }  # fmt: skip
    for row, preset in same.items():
        assert flatten(read_preset(f"table1/{row}")) == flatten(read_preset(preset)), row


def generator_parameters(ch: int, pixels: int) -> int:
    """BigGAN's G with 120 latents and one label, counted from the paper's tables."""
    tables = {64: (16, 16, 8, 4, 2), 128: (16, 16, 8, 4, 2, 1), 256: (16, 16, 8, 8, 4, 2, 1)}[pixels]
    c = [ch * m for m in tables]
    slots = len(c)  # the first layer and each block
    attention = {64: 32, 128: 64, 256: 128}[pixels]
    piece = 120 // slots
    first, condition = 120 - piece * (slots - 1), piece + 128
    total = 128 + first * 16 * c[0] + 16 * c[0]
    for i, (a, b) in enumerate(zip(c, c[1:], strict=False)):
        total += 9 * a * b + b + 9 * b * b + b + a * b + b + 2 * condition * (a + b)
        if 8 * 2**i == attention:
            total += 2 * b * (b // 8) + 2 * b * (b // 2) + 1
    return total + 2 * c[-1] + 27 * c[-1] + 3


TRUNKS = {  # counted in tests/networks/test_networks.py and tests/networks/test_revnet.py
    ("resnetv2_50", 1): (23_500_352, 2048), ("resnetv2_50", 2): (93_891_712, 4096),
    ("resnetv2_101", 1): (42_492_480, 2048),
    ("revnet50", 1): (5_408_640, 2048), ("revnet50", 2): (21_505_792, 4096), ("revnet50", 4): (85_765_632, 8192),
}  # fmt: skip


def encoder_parameters(row: str) -> int:
    backbone, width, posterior = PAPER[row][0], PAPER[row][1], PAPER[row][3]
    trunk, features = TRUNKS[backbone, width]
    layer = lambda a, b: a * b + b  # noqa: E731
    first = (
        layer(features, 4096) + layer(4096, 4096) + (layer(features, 4096) if features != 4096 else 0)
    )  # with its shortcut
    return trunk + first + 2 * layer(4096, 4096) + layer(4096, 240 if posterior == "gaussian" else 120)


@cache
def built(settings: tuple) -> BigBiGAN:
    """Rows of the same networks share them."""
    with (
        mock.patch("bigbigan.networks.generator.initialise"),
        mock.patch("bigbigan.networks.discriminator.initialise"),
        torch.device("meta"),
    ):
        return BigBiGAN.from_config(Model(**dict(settings)))


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("group", "row"), ROWS)
def test_every_row_builds(group, row):
    model = built(tuple(asdict(read_preset(f"{group}/{row}").model).items()))
    assert (model.encoder is None) == (row == "no_e")
    if group == "table1":
        assert parameters(model.generator) == generator_parameters(PAPER[row][5], PAPER[row][6])
        assert model.encoder is None or parameters(model.encoder) == encoder_parameters(row)


def test_parameters_of_the_docs():
    """The counts that docs/variants/bigbigan.md prints are those of the formulas."""
    from tests.conftest import ROOT

    printed = {}
    for line in (ROOT / "docs" / "variants" / "bigbigan.md").read_text().splitlines():
        if line.startswith("| ") and "`table1/" in line:
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            printed[cells[1].strip("`").removeprefix("table1/")] = cells[3], cells[4]
    assert list(printed) == list(PAPER)
    for row, (e, g) in printed.items():
        assert e == ("none" if row == "no_e" else f"{encoder_parameters(row):,}")
        assert g == f"{generator_parameters(PAPER[row][5], PAPER[row][6]):,}"


def test_a_preset_of_a_group_is_called_by_its_whole_name():
    config, options = parse(["--config", "table1_digits/no_unaries", "--optim.encoder_lr", "0.5"])
    assert config.run.name == "table1_digits-no_unaries" and config.optim.encoder_lr == 0.5
    assert preset_name(find_config(options.config)) == "table1_digits/no_unaries"
    assert [preset_name(file) for file, _ in lineage(find_config("table1/revnet_x4_e_lr"))] == [
        "table1/revnet_x4_e_lr", "table1/revnet_x4", "table1/revnet", "table1/high_res_e", "table1/base",
        "bigbigan/imagenet128",
    ]  # fmt: skip


def test_a_row_that_changes_the_same_settings_at_every_size_is_the_same_file():
    for row in ("deterministic_e", "uniform_prior", "x_unary_only", "z_unary_only", "no_unaries"):
        texts = [find_config(f"{group}/{row}").read_text().splitlines() for group in GROUPS]
        settings = {tuple(line for line in text if not line.startswith("#")) for text in texts}
        assert len(settings) == 1, f"{row}, but for its bill"


def test_a_dot_means_beside_the_file(tmp_path):
    (tmp_path / "base.yaml").write_text("base: table1/base\nmodel: {latent_dim: 7}\n")
    (tmp_path / "row.yaml").write_text("base: ./base\noptim: {eps: 1e-3}\n")
    assert [file.name for file, _ in lineage(tmp_path / "row.yaml")][:2] == ["row.yaml", "base.yaml"]
    assert read_yaml(tmp_path / "row.yaml", Config()).model.latent_dim == 7
    (tmp_path / "row.yaml").write_text("base: ./nothing\n")
    with pytest.raises(ConfigError, match=r"row.yaml: base ./nothing.yaml: expected a YAML file .* found no such file"):
        read_yaml(tmp_path / "row.yaml", Config())


def test_a_preset_may_stand_on_one_of_another_folder_of_configs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["bigbigan.config.presets"], "preset_folder", lambda: tmp_path / "configs")
    for name, text in {"a/x": "base: ../b/y", "b/y": "model: {latent_dim: 7}", "a/out": "base: ../../z"}.items():
        (tmp_path / "configs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / f"{name}.yaml").write_text(text)
    (tmp_path / "z.yaml").write_text("model: {latent_dim: 9}")
    assert read_yaml(find_config("a/x"), Config()).model.latent_dim == 7
    with pytest.raises(ConfigError, match="base '../../z': expected a preset's name"):
        read_yaml(find_config("a/out"), Config())


def test_files_stand_on_files_beside_them_and_on_presets(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.yaml").write_text("base: cifar10\nloss: {unary_x: false}\noptim: {betas: [0.1, 0.9]}\n")
    (tmp_path / "b.yaml").write_text("base: below/c.yaml\nmodel: {latent_dim: 7}\noptim: {eps: 1e-3}\n")
    (tmp_path / "a.yaml").write_text("base: b.yaml\nmodel: {latent_dim: 9}\noptim: {betas: [0.2, 0.8]}\n")
    config, under = read_yaml(tmp_path / "a.yaml", Config()), read_preset("cifar10")
    changed = {key: value for key, value in flatten(config).items() if flatten(under)[key] != value}
    assert changed == {"loss.unary_x": False, "optim.betas": (0.2, 0.8), "optim.eps": 1e-3, "model.latent_dim": 9}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "base: a.yaml"}, "a.yaml: base a.yaml: expected a file that stands on others, found a circle: a → a"),
        ({"a": "base: b.yaml", "b": "base: c.yaml", "c": "base: b.yaml"}, "found a circle: a → b → c → b"),
        (
            {"a": "base: ../a.yaml"},
            "base '../a.yaml': expected a preset's name, or a YAML file in the same folder or under it",
        ),
        ({"a": "base: /etc/a.yaml"}, "base '/etc/a.yaml': expected a preset's name"),
        ({"a": "base: ../configs/digits"}, "base '../configs/digits': expected a preset's name"),
        ({"a": "base: [digits]"}, r"base \['digits'\]: expected a preset's name"),
        ({"a": "base: ''"}, "base '': expected a preset's name"),
        (
            {"a": "base: table1/bas"},
            r"a.yaml: base table1/bas: expected one of .*table1/NAME \(19\).*; did you mean table1/base",
        ),
        ({"a": "base: b.yaml"}, "base b.yaml: expected a YAML file or one of the presets .* found no such file"),
        ({"a": f"base: {'b' * 300}.yaml"}, "expected a file that can be read, found File name too long"),
        ({"a": "base: b.yaml", "b": "model: {latent_dm: 3}"}, "b.yaml: model.latent_dm: expected a setting"),
        (
            {"a": "base: b.yaml", "b": "run: {name: !!python/name:os.system }"},
            "b.yaml: expected plain values, found the tag",
        ),
    ],
)
def test_a_base_that_cannot_be_is_one_sentence(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as found:
        read_yaml(tmp_path / "a.yaml", Config())
    assert "\n" not in str(found.value)


def test_a_preset_cannot_be_named_from_outside():
    with pytest.raises(ConfigError, match="expected one of"):
        find_config("../configs/digits")
