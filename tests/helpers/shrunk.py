"""Presets with networks, images and batches of the smallest size, which keep every variant of the preset."""

from contextlib import nullcontext
from itertools import repeat

import torch

from bigbigan.config import Config, presets
from bigbigan.data import RealImages
from bigbigan.model import BigBiGAN
from bigbigan.networks.factory import resolve_latent_dim
from bigbigan.networks.growing import growing_parts, set_level
from bigbigan.training.batch import Batch, Drawer
from bigbigan.training.ema import Averages
from bigbigan.training.optim import build_optimizers
from bigbigan.training.outline import outline_images
from bigbigan.training.variants import build_step
from tests.helpers.settings import read_preset

BATCH = 8


def shrunk(name: str) -> Config:
    """Return the settings of a preset in small. What decides the operations of an iteration stays as it is."""
    config = read_preset(name)
    m = config.model
    ratio = m.encoder_image_size // m.image_size
    if m.family == "biggan":
        m.image_size, m.latent_dim, m.embedding_dim = 8, 8, 4
        m.generator_width = m.discriminator_width = 2
        m.generator_attention = 8 * (m.generator_attention > 0)
        m.discriminator_attention = 4 * (m.discriminator_attention > 0)
    else:
        m.image_size, m.latent_dim, m.feature_base, m.feature_limit = 16, 8, 32, 16
        m.minibatch_group = min(m.minibatch_group, BATCH // 2)
        config.grow.first_size = 4 * (config.grow.first_size > 0)
    m.encoder_image_size = ratio * m.image_size if ratio > 1 else 0
    m.classes, m.mlp_width, m.mlp_layers = min(m.classes, 3), 16, 2
    m.encoder_mlp_width, m.encoder_mlp_layers = 16, 2
    if m.encoder.startswith(("resnetv2", "revnet")):
        m.encoder_width, m.encoder_blocks = 0.125, (1, 1, 1, 1)
        m.encoder = m.encoder.replace("101", "50")  # which differ in the number of blocks
    config.data.batch_size, config.data.chunks, config.grow.batch_sizes = BATCH, min(config.data.chunks, 2), ()
    config.data.path, config.run.choose_settings = "digits", False
    config.model = resolve_latent_dim(m)
    return config


def different() -> dict[str, Config]:
    """Return {preset: settings in small}, one preset of those that make the same operations in an iteration."""
    found = {}
    for name in presets():
        config = shrunk(name)
        o = config.optim
        switches = [value > 0 for value in (o.dropout, o.sigma_clamp, o.sigma_clamp_ratio, o.weight_decay)]
        choices = (o.name, o.d_steps, o.simultaneous, o.augment, o.sigma_networks)
        key = (config.model, config.loss, choices, switches, config.data.chunks, config.grow.first_size)
        found.setdefault(repr(key), (name, config))
    return dict(found.values())


def changed(name: str, settings: dict) -> Config:
    """Return a preset in small with other settings, {"section.field": value}."""
    config = shrunk(name)
    for key, value in settings.items():
        section, field = key.split(".")
        assert hasattr(getattr(config, section), field), key
        setattr(getattr(config, section), field, value)
    config.validate()
    return config


class Small:
    """Networks, averages, step and images of settings on a device, built as a run builds them.

    level: of networks that grow; None for their full size.
    """

    def __init__(self, config: Config, device: torch.device, level: float | None = None):
        torch.manual_seed(0)
        self.config, self.device = config, device
        self.model = BigBiGAN.from_config(config.model).to(device, memory_format=torch.channels_last).train()
        generator, encoder = self.model.generator, self.model.encoder
        self.averages = Averages(generator, encoder, config.optim.ema_decay, config.optim.ema_rampup)
        if level is not None:
            set_level(level, *growing_parts(self.model, self.averages.networks))
        self.step = build_step(config, self.model, build_optimizers(self.model, config.optim), nullcontext)
        m = config.model
        self.drawer = Drawer(0, m.prior, generator.latent_dim, m.classes, device, self.step.draws())
        self.images = outline_images(self.model, BATCH, device)

    def draw(self, real: RealImages, suffix: str = "") -> Batch:
        """Return the batch of real images, as `Trainer.draw`."""
        batch = self.drawer(real, suffix)
        batch.x = self.model.generator.prepare(batch.x)
        return batch

    def iterate(self, number: int = 0) -> dict[str, torch.Tensor]:
        """Make an iteration and move the averages; return what the iteration reports. number: of those before it."""
        values = self.step.iteration(repeat(self.images), self.draw, number)
        self.averages.update(number + 1, self.step.batches * BATCH)
        return values
