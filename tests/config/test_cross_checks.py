"""Settings that contradict each other are refused with both their flags, and those that agree are not."""

import pytest

from bigbigan.config import Config
from bigbigan.errors import ConfigError

UNIFORM = {"model.prior": "uniform", "model.posterior": "tanh"}
REGRESSOR = UNIFORM | {"model.joint": False}


def config_of(settings: dict) -> Config:
    config = Config()
    config.run.best, config.data.batch_size = "", 24
    for key, value in settings.items():
        section, name = key.split(".")
        assert hasattr(getattr(config, section), name), key
        setattr(getattr(config, section), name, value)
    return config


@pytest.mark.parametrize(
    ("agreed", "changed", "message"),
    [
        (
            REGRESSOR | {"model.encoder_image_size": 128},
            {"model.encoder_image_size": 256},
            "--model.joint False: expected .* --model.encoder_image_size 0, since E learns to predict z from G",
        ),
        (REGRESSOR, {"optim.augment": "diffaugment"}, "--optim.augment diffaugment: expected none with --model.joint"),
        (
            REGRESSOR | {"loss.latent_weight": 0.5},
            {"model.encoder": "none"},
            "--loss.latent_weight 0.5: expected --model.joint False, and an encoder",
        ),
        (
            {"model.checkpointing": True},
            {"run.compile": "default"},
            "--model.checkpointing True with --run.compile default: expected one of the two",
        ),
        ({"data.chunks": 12}, {"data.chunks": 24}, "--data.chunks 24: expected at most 12, so that a chunk has two"),
        ({"run.choose_settings": True, "data.batch_size": 25, "data.chunks": 2}, {"run.choose_settings": False}, "25"),
        (
            {"run.best": "fid", "run.evaluate_every": 100, "run.selection_share": 0.1},
            {"run.evaluate_every": 0},
            "--run.best fid: expected --run.evaluate_every too",
        ),
        (
            {"run.best": "fid", "run.evaluate_every": 100, "run.selection_share": 0.1},
            {"run.selection_share": 0.0},
            "--run.best fid with --run.selection_share 0: expected a share of the training images above 0",
        ),
        ({"run.name": "a/b..c"}, {"run.name": "a/../../b"}, "--run.name a/../../b: .* found a way out of it"),
        ({"run.name": "a"}, {"run.name": "/a"}, "--run.name /a: .* found a way out of it"),
        (
            {"optim.augment": "ada", "loss.form": "logistic"},
            {"loss.form": "lsgan", "model.family": "progressive"},
            "--optim.augment ada with --loss.form lsgan: expected hinge, joint_hinge or logistic",
        ),
        (
            {"optim.augment": "ada", "model.encoder": "none"},
            {"loss.form": "wgan_gp"},
            "--optim.augment ada with --loss.form wgan_gp: expected hinge",
        ),
        (
            {"optim.lower_images": 10, "optim.lower_after": 10, "optim.lower_factor": 0.1},
            {"optim.lower_factor": 0.0},
            "--optim.lower_images 10: expected --optim.lower_after and --optim.lower_factor above 0",
        ),
        (
            {"optim.augment": "diffaugment", "optim.augment_policy": "color, cutout"},
            {"optim.augment_policy": "color, blit"},
            "--optim.augment_policy color, blit: expected some of color, translation, cutout",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_contradict_each_other(agreed, changed, message):
    config_of(agreed).validate()
    with pytest.raises(ConfigError, match=message):
        config_of(agreed | changed).validate()


def test_several_processes_share_a_batch_and_the_images_of_statistics():
    """Each process needs two images for the statistics, and a batch is cut into processes × chunks of equal size."""
    config_of({"data.batch_size": 24, "data.chunks": 2, "run.statistics_images": 8}).validate(4)
    with pytest.raises(ConfigError, match="--data.batch_size 24: expected a multiple of processes × chunks = 5 × 2"):
        config_of({"data.batch_size": 24, "data.chunks": 2}).validate(5)
    with pytest.raises(ConfigError, match="--run.statistics_images 7: expected at least two for each of 4 processes"):
        config_of({"data.batch_size": 24, "run.statistics_images": 7}).validate(4)


def test_the_sizes_of_growing_batches_are_those_of_any_batch():
    growing = {"model.family": "progressive", "model.encoder": "progressive", "grow.first_size": 8}
    config_of(growing | {"grow.batch_sizes": (24, 12)}).validate(6)
    with pytest.raises(ConfigError, match="--grow.batch_sizes 12: expected a multiple of processes × chunks = 8 × 1"):
        config_of(growing | {"grow.batch_sizes": (24, 12)}).validate(8)
