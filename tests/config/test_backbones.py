"""Another backbone from any preset: settings that only ResNet-v2 and RevNet have are left aside, with one line."""

import pytest
import torch

from bigbigan.config import Config, differences, flatten, parse
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN

BACKBONES = ["convnext_atto", "resnet18", "vit_tiny_patch16_224"]
NARROW = ["--model.encoder_mlp_width=16", "--model.encoder_mlp_layers=2"]
# preset → flags that give E images which every backbone takes (16 px and more), and the settings that are left aside
PRESETS = {
    "digits": (["--model.encoder_image_size=32"], "model.encoder_width 0.25, model.encoder_blocks 1 1 1 1"),
    "cifar10": ([], ""),
    "cifar10_small": ([], "model.encoder_width 0.5, model.encoder_blocks 2 2 2 1"),
    "bigan_mnist": (["--model.encoder_image_size=56"], ""),
    "digits_progressive": (["--grow.first_size=0", "--model.image_size=32"], ""),
    "small": (["--data.path=photos"], ""),
    "table1_cifar/resnet_x2": ([], "model.encoder_width 0.5"),
}


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("preset", PRESETS)
def test_any_backbone_works_from_any_preset(preset, backbone, capsys):
    flags, dropped = PRESETS[preset]
    config, _ = parse(["--config", preset, f"--model.encoder={backbone}", *flags, *NARROW])
    expected = f"{preset}: {dropped} not used, --model.encoder {backbone} has none\n" if dropped else ""
    assert capsys.readouterr().out == expected
    assert (config.model.encoder_width, config.model.encoder_blocks, config.model.encoder_stem) == (1.0, (), "auto")
    with torch.device("meta") if preset == "small" else torch.device("cpu"):
        encoder = BigBiGAN.from_config(config.model, discriminator=False).encoder
        x = torch.zeros(2, 3, encoder.image_size, encoder.image_size)
        assert encoder(x).mean.shape == (2, config.model.latent_dim)


def test_the_line_is_printed_by_one_process_of_a_launch(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    parse(["--model.encoder", "resnet18"])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("encoder", ["resnetv2_50", "revnet50", "none"])
def test_settings_stay_where_they_have_an_effect_or_there_is_no_e(encoder, capsys):
    config, _ = parse(["--model.encoder", encoder])
    assert config.model.encoder_width == 0.25 and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.encoder_width=0.5"], "encoder width 0.5: expected 1 for 'resnet18'"),
        (["--model.encoder-width", "0.5"], "encoder width 0.5: expected 1 for 'resnet18'"),
        (["--model.encoder_blocks", "1", "1", "1", "1"], "encoder blocks [1, 1, 1, 1]: expected none for 'resnet18'"),
    ],
)
def test_on_the_command_line_they_are_refused(flags, message):
    config, _ = parse(["--model.encoder=resnet18", *flags])
    with pytest.raises(ValueError) as error:
        BigBiGAN.from_config(config.model)
    assert message in str(error.value)


def test_a_stem_on_the_command_line_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse(["--model.encoder=resnet18", "--model.encoder_stem=stride1"])
    assert "--model.encoder_stem stride1: expected auto with --model.encoder resnet18" in capsys.readouterr().err


def test_a_run_that_grows_needs_the_encoder_that_grows(capsys):
    with pytest.raises(SystemExit):
        parse(["--config", "digits_progressive", "--model.encoder=convnext_atto"])
    err = capsys.readouterr().err
    assert "--model.encoder convnext_atto with --grow.first_size 4: expected --model.encoder progressive" in err
    assert "or add --grow.first_size 0" in err


def test_the_encoder_of_a_family_is_its_own():
    config = Config()
    config.model.encoder = "mlp"
    with pytest.raises(ConfigError, match="family biggan with --model.encoder mlp: expected --model.family mlp"):
        config.validate()


def test_a_setting_without_effect_does_not_keep_a_run_from_resuming():
    old = flatten(Config()) | {"model.encoder": "resnet18", "model.encoder_stem": "stride1"}  # an older version's
    new = Config()
    new.model.encoder = "resnet18"
    assert differences(old, new) == []
    new.model.encoder = old["model.encoder"] = "resnetv2_18"
    assert differences(old, new) == ["model.encoder_stem: stride1 → auto"]
