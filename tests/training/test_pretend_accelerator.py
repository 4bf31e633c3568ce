"""Training on a pretend accelerator: every tensor on the device, no wait within an iteration, the results of a CPU."""

import copy
from contextlib import nullcontext
from itertools import repeat

import numpy as np
import pytest
import torch

from bigbigan.data import RealImages
from bigbigan.model import BigBiGAN
from bigbigan.networks.growing import growing_parts, set_level
from bigbigan.training.batch import Drawer
from bigbigan.training.ema import Averages
from bigbigan.training.optim import build_optimizers
from bigbigan.training.outline import outline_images
from bigbigan.training.variants import build_step
from tests.helpers import pretend
from tests.helpers.pretend import on_pretend_accelerator
from tests.helpers.shrunk import BATCH, different

PRESETS = different()


class Small:
    """Networks, averages, step and images of settings, as a run builds them, on a device."""

    def __init__(self, config, device, level: float | None = None):
        torch.manual_seed(0)
        self.config, self.device = config, device
        self.model = BigBiGAN.from_config(config.model).to(device, memory_format=torch.channels_last).train()
        self.averages = Averages(self.model.generator, self.model.encoder, config.optim.ema_decay, 0.3)
        if level is not None:
            set_level(level, *growing_parts(self.model, self.averages.networks))
        self.step = build_step(config, self.model, build_optimizers(self.model, config.optim), nullcontext)
        self.drawer = Drawer(
            0, config.model.prior, self.model.generator.latent_dim, config.model.classes, device, self.step.draws()
        )
        self.images = outline_images(self.model, BATCH, device)

    def draw(self, real: RealImages, suffix: str = ""):
        batch = self.drawer(real, suffix)
        batch.x = self.model.generator.prepare(batch.x)
        return batch

    def iterate(self, number: int = 0) -> dict:
        values = self.step.iteration(repeat(self.images), self.draw, number)
        self.averages.update(number + 1, self.step.batches * BATCH)
        return values


@pytest.mark.parametrize("name", PRESETS)
@on_pretend_accelerator
def test_an_iteration_stays_on_the_device_and_never_waits(name):
    small = Small(PRESETS[name], pretend.DEVICE)
    small.iterate()
    with pretend.waits() as found:
        small.iterate(1)
    assert not len(found), str(found)
