"""What one update consumes: real images, and the random numbers that belong to their places in the run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigbigan.data import RealImages, to_signed
from bigbigan.distributed import to_device
from bigbigan.latents import sample_prior
from bigbigan.noise import normal_noise, uniforms
from bigbigan.training.part import Draw


@dataclass
class Batch:
    """The images of one update on this process, n of them, and their share of the run's random numbers.

    x: (n, 3, S, S) in [−1, 1] at E's size.  z: (n, Z) ~ p(z).  noise: (n, Z) ~ N(0, I) for ẑ = E(x).
    x_classes, z_classes: (n,) of a conditional model, else None.  extra: what the parts of the step draw, (n, ...)
    each, by name.
    """

    x: Tensor
    z: Tensor
    noise: Tensor
    x_classes: Tensor | None = None
    z_classes: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.x)

    def chunks(self, count: int) -> Iterator["Batch"]:
        """Cut the batch into `count` batches of equal size, in order."""
        columns = (self.x, self.z, self.noise, self.x_classes, self.z_classes)
        pieces = [[None] * count if column is None else column.tensor_split(count) for column in columns]
        extra = {name: column.tensor_split(count) for name, column in self.extra.items()}
        for i, piece in enumerate(zip(*pieces, strict=True)):
            yield Batch(*piece, extra={name: column[i] for name, column in extra.items()})


@dataclass(frozen=True)
class Drawer:
    """Makes batches: which random numbers an image has depends on (seed, its place in the run) alone.

    draws: of the step's parts, see `Part.draws`.
    """

    seed: int
    prior: str
    latent_dim: int
    classes: int = 0
    device: torch.device = torch.device("cpu")
    draws: Mapping[str, Draw] = field(default_factory=dict)

    def __call__(self, real: RealImages, suffix: str = "") -> Batch:
        """Return the batch of `real`. suffix: tells apart several batches of the same places."""
        places = real.positions
        z = sample_prior(self.prior, self.seed, f"z{suffix}", places, self.latent_dim)
        noise = normal_noise(self.seed, "posterior", places, self.latent_dim)
        x_classes = z_classes = None
        if self.classes:
            x_classes = real.labels
            z_classes = torch.from_numpy(uniforms(self.seed, f"classes{suffix}", places, 1)[:, 0] * self.classes).long()
            z_classes = to_device(z_classes, self.device)
        x = to_signed(real.x).contiguous(memory_format=torch.channels_last)
        extra = {name: to_device(draw(self.seed, places, suffix), self.device) for name, draw in self.draws.items()}
        return Batch(x, to_device(z, self.device), to_device(noise, self.device), x_classes, z_classes, extra)
