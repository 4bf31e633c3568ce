"""--model.init_from: each flag of the model is taken and seen in the built networks, or refused with the difference."""

import dataclasses
import typing

import pytest
import torch

from bigbigan.config import Config, Model, parse
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN
from bigbigan.networks.weights import load_weights
from bigbigan.release.format import write_release
from bigbigan.release.load import _free_settings, adopt_architecture, card, load_model
from tests.conftest import TINY_MODEL, tiny_model

FIELDS = {f.name: f for f in dataclasses.fields(Model)}
# A value that differs from the model's, where adding one to a number or taking another word of a Literal would not do.
OTHERS = {
    "init_from": None, "encoder": "resnetv2_34", "encoder_image_size": 16, "encoder_blocks": (2, 1, 1, 1),
    "image_size": 16, "encoder_stem": "stride2", "mlp_layers": 4, "encoder_mlp_layers": 4, "latent_dim": 12,
    "prior": "bernoulli", "architecture": "biggan_deep",
}  # fmt: skip
TAKEN = {"init_from", "checkpointing", "prior", "encoder_image_size"}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A model that is tiny in every setting, with the blocks given as numbers."""
    folder = tmp_path_factory.mktemp("release")
    write_release(folder, tiny_model(encoder_blocks=(1, 1, 1, 1)), card({}, 1))
    return folder


def adopted(source, tmp_path, *flags: str, **settings):
    """The model's settings and its built networks, with the command line `flags`, or `settings` as if it set them."""
    if settings:
        config, given = Config(model=Model(init_from=str(source), **settings)), {f"model.{name}" for name in settings}
    else:
        config, options = parse([f"--model.init_from={source}", *flags])
        given = options.flags
    model = adopt_architecture(config, tmp_path / "checkpoints", given)
    built = BigBiGAN.from_config(config.model)
    load_weights(built, model.state_dict(), str(source))
    return config.model, built


def other_value(name: str, value):
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        hint = typing.get_type_hints(Model)[name]
        return next(word for word in typing.get_args(hint) if word != value)
    return value + 1


@pytest.mark.parametrize("name", FIELDS)
def test_a_flag_is_taken_or_refused(release, tmp_path, name):
    own = load_model(release).config
    value = other_value(name, getattr(own, name))
    if value is None:
        return
    try:
        config, built = adopted(release, tmp_path, **{name: value})
    except ConfigError as error:
        assert name not in TAKEN and f"--model.{name}" in str(error), error
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        assert shown in str(error), "what was found"
        return
    assert name in TAKEN, f"{name} was taken"
    assert getattr(config, name) == value and getattr(built.config, name) == value
    if name == "encoder_image_size":
        assert built.encoder.image_size == 16 and built.encode(torch.zeros(2, 3, 16, 16))["z_mean"].shape == (2, 8)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "init_from"])
def test_a_flag_that_says_what_the_model_is_passes(release, tmp_path, name):
    own = load_model(release).config
    config, _ = adopted(release, tmp_path, **{name: getattr(own, name)})
    assert dataclasses.replace(config, init_from="") == own


def test_zeros_that_stand_for_a_default_pass_where_they_name_the_same(tmp_path):
    write_release(tmp_path / "wide", tiny_model(latent_dim=40), card({}, 1))  # 20 per slot of an 8 px generator
    assert adopted(tmp_path / "wide", tmp_path, "--model.latent_dim=0")[0].latent_dim == 40
    assert adopted(tmp_path / "wide", tmp_path, "--model.encoder_image_size=8")[0].encoder_image_size == 8
    write_release(tmp_path / "narrow", tiny_model(), card({}, 1))
    with pytest.raises(ConfigError, match=r"expected --model.latent_dim 8 \(found 40\)"):
        adopted(tmp_path / "narrow", tmp_path, "--model.latent_dim=0")


def test_what_a_file_sets_is_replaced(release, tmp_path):
    (tmp_path / "mine.yaml").write_text("base: digits\nmodel: {image_size: 64, generator_attention: 32}\n")
    assert adopted(release, tmp_path, f"--config={tmp_path / 'mine.yaml'}")[0].image_size == 8


def test_all_differences_are_named_at_once_and_what_could_be_done(release, tmp_path):
    with pytest.raises(ConfigError) as found:
        adopted(release, tmp_path, "--model.image_size=16", "--model.generator_width=9", "--model.prior=bernoulli")
    message = str(found.value)
    assert message.startswith(f"--model.init_from {release}: its weights are of one architecture")
    assert "--model.image_size 8 (found 16)" in message and "--model.generator_width 2 (found 9)" in message
    assert "prior" not in message and "--model.encoder_image_size" in message and "without --model.init_from" in message


def test_what_the_weights_of_e_do_not_fit_is_refused(release, tmp_path):
    with pytest.raises(ConfigError, match="--model.encoder_stem stride2: .*the encoder's weights.*has shape"):
        adopted(release, tmp_path, "--model.encoder_stem=stride2")
    with pytest.raises(ConfigError, match=r"--model.encoder_image_size 64\b.*what the encoder's weights fit"):
        adopted(release, tmp_path, "--model.encoder_image_size=64")  # whose stem is another one by itself
    config, _ = adopted(release, tmp_path, "--model.encoder_image_size=64", "--model.encoder_stem=stride1")
    assert (config.encoder_image_size, config.encoder_stem) == (64, "stride1")


def test_a_prior_that_the_posterior_cannot_be_of_is_refused(release, tmp_path):
    with pytest.raises(ConfigError, match="--model.prior uniform with --model.posterior gaussian: expected"):
        adopted(release, tmp_path, prior="uniform")  # not by a command line, which would be refused by itself


def test_settings_of_the_run_are_checked_against_the_architecture(tmp_path):
    write_release(tmp_path / "gan", tiny_model(encoder="none"), card({}, 1))
    with pytest.raises(ConfigError, match="expected --loss.unary_x True"):
        adopted(tmp_path / "gan", tmp_path, "--loss.unary_x=False")
    assert "encoder_image_size" not in _free_settings(load_model(tmp_path / "gan").config)


def test_a_run_that_resumes_compares_with_its_own_checkpoint(release, tmp_path, run_folder):
    config, options = parse([f"--model.init_from={release}", "--model.latent_dim=9"])
    with pytest.raises(ConfigError, match=r"this run's checkpoint .*expected --model.latent_dim 8 \(found 9\)"):
        adopt_architecture(config, run_folder / "checkpoints", options.flags)
    flags = [f"--model.{k}={v}" for k, v in TINY_MODEL.items()]
    config, options = parse([f"--model.init_from={release}", *flags])
    assert adopt_architecture(config, run_folder / "checkpoints", options.flags) is None
