"""Count what a training iteration costs without making it: FLOPs and saved activations, on torch's meta device.

Meta tensors have a shape and no values, so that networks too large for this machine can be counted on it.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bigbigan.config import Config
from bigbigan.data import RealImages
from bigbigan.model import BigBiGAN
from bigbigan.networks.growing import growing_parts, set_level
from bigbigan.training.batch import Drawer
from bigbigan.training.growing_schedule import GrowthSchedule
from bigbigan.training.optim import Optimizers
from bigbigan.training.variants import build_step

META = torch.device("meta")
POINTS = 1000  # of a growing run's schedule at which its work is summed up


@dataclass(frozen=True)
class Cost:
    """What one iteration costs at one size of the networks.

    images: real images that it sees.  flops: of its forwards and backwards, a multiplication and an addition counted as
    two.  saved_bytes: the largest sum of activations that its backward passes need at a time, in float32.
    """

    images: int
    flops: int
    saved_bytes: int


class Outline:
    """The networks and the step of a run without values. config: its settings, of which `run` does not matter."""

    def __init__(self, config: Config):
        self.config = config
        with META:
            self.model = BigBiGAN.from_config(config.model).train()
        self.growth = GrowthSchedule.from_config(config)
        networks = [n for n in (self.model.encoder, self.model.generator) if n is not None]
        optimizers = [
            torch.optim.SGD([p for network in group for p in network.parameters()])
            for group in ([self.model.discriminator], networks)
        ]
        self.step = build_step(config, self.model, Optimizers(*optimizers), torch.enable_grad)
        self.step.apply_discriminator = self.step.apply_encoder_generator = self._drop_gradients

    def _drop_gradients(self, _broken: Tensor) -> None:
        """Stand in for the optimisers, whose work is not counted."""
        self.model.zero_grad(set_to_none=True)

    def cost(self, images_seen: int | None = None) -> Cost:
        """Count one iteration of all processes together, after `images_seen` images; at full size if None."""
        batch_size = self.growth.batch_size(images_seen or 0)
        if parts := growing_parts(self.model):
            last = float(self.growth.last)
            set_level(last if images_seen is None else self.growth.level(images_seen), *parts)
            batch_size = batch_size if images_seen is not None else self.growth.batch_sizes[-1]
        draw, saved = self._drawer(), SavedBytes()
        with CountedFlops() as counted, saved:
            self.step.iteration(repeat(outline_images(self.model, batch_size, META)), draw)
        return Cost(self.step.batches * batch_size, counted.total, saved.most)

    def flops_to_the_end(self) -> float:
        """Count the whole run, in which a growing network costs less at first."""
        total = self.config.run.images
        if not self.config.grow.first_size:
            cost = self.cost()
            return total / cost.images * cost.flops
        places = [int((i + 0.5) * total / POINTS) for i in range(POINTS)]
        known: dict[tuple, float] = {}
        for place in places:
            if (key := self._size_at(place)) not in known:
                cost = self.cost(place)
                known[key] = cost.flops / cost.images
        return sum(known[self._size_at(place)] for place in places) * total / POINTS

    def _size_at(self, images_seen: int) -> tuple[int, bool]:
        """Return what decides an iteration's work: the resolution that has begun, and whether it is being faded in."""
        level = self.growth.level(images_seen)
        return int(level), level > int(level)

    def _drawer(self) -> Drawer:
        m, latent_dim = self.config.model, self.model.generator.latent_dim
        drawer = Drawer(0, m.prior, latent_dim, m.classes, META, self.step.draws())

        def draw(real: RealImages, suffix: str = ""):
            batch = drawer(real, suffix)
            batch.x = self.model.generator.prepare(batch.x)
            return batch

        return draw


def outline_images(model: BigBiGAN, count: int, device: torch.device) -> RealImages:
    """Return images of E's full size, without a meaning and without a random number, on the device."""
    network = model.encoder or model.generator
    size = getattr(network, "full_size", None) or network.image_size
    ramp = torch.arange(size * size * 3, device=device).remainder(256).to(torch.uint8).reshape(1, 3, size, size)
    labels = torch.zeros(count, dtype=torch.long, device=device) if model.generator.classes else None
    return RealImages(ramp.expand(count, -1, -1, -1).contiguous(), labels, np.arange(count))


class CountedFlops(TorchDispatchMode):
    """Within this context, sum the FLOPs of products, convolutions and attention by torch's own formulas.

    torch's FlopCounterMode finds the same sum; it also follows modules, by hooks that gradient penalties do not allow.
    """

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if formula := flop_registry.get(func._overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


class SavedBytes:
    """Within this context, sum the activations that autograd keeps for backward passes. most: the largest sum."""

    def __init__(self):
        self.kept, self.bytes, self.most = Counter(), 0, 0
        self.hooks = saved_tensors_hooks(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)

    def __enter__(self) -> "SavedBytes":
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def add(self, key: int, size: int, change: int) -> None:
        """Count a storage that is kept once more (1) or once less (-1); its bytes count once."""
        before, self.kept[key] = self.kept[key], self.kept[key] + change
        if not before or not self.kept[key]:
            self.bytes += change * size
            self.most = max(self.most, self.bytes)


class _Kept:
    """A tensor that autograd keeps; what it took is given back when autograd drops it.

    Weights and views of them are not counted.
    """

    def __init__(self, meter: SavedBytes, tensor: Tensor):
        self.meter, self.tensor = meter, tensor
        storage, source = tensor.untyped_storage(), tensor if tensor._base is None else tensor._base
        self.key, self.size = storage._cdata, 0 if source.is_leaf and source.requires_grad else storage.nbytes()
        meter.add(self.key, self.size, 1)

    def __del__(self) -> None:
        self.meter.add(self.key, self.size, -1)
