"""BiGAN's permutation-invariant networks, MLPs on the pixels of an image (Donahue et al. 2017, section 4.2 and code).

Each has two hidden layers. Layers have no bias and batch norms neither gain nor bias; the eps of batch norm is 1e-8,
the slope of a leaky ReLU 0.2. Weights begin as N(0, 0.02²), or N(0, 0.02² · 1024/width) at another width than 1,024;
D's last layer begins at zero. Inside, pixels are in [0, 1].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.losses import Scores
from bigbigan.networks.interface import DiscriminatorInterface, GeneratorInterface
from bigbigan.networks.layers import CrossReplicaBatchNorm

LATENT_DIM = 50  # U(−1, 1) each
WIDTH, STD, EPS, SLOPE = 1024, 0.02, 1e-8, 0.2


class MLPGenerator(nn.Module, GeneratorInterface):
    """G draws images from latents: z → linear-BN-ReLU → linear-BN-ReLU, which sees z again → linear-sigmoid.

    width: units of each hidden layer.  grey: one plane, the same in all three channels.
    forward: z (N, Z) → (N, 3, S, S) in [−1, 1].
    """

    def __init__(self, latent_dim: int, image_size: int, width: int = WIDTH, grey: bool = False):
        super().__init__()
        self.latent_dim, self.image_size = latent_dim, image_size
        self.linear1, self.norm1 = _linear(latent_dim, width), _norm(width)
        self.linear2, self.skip_z, self.norm2 = _linear(width, width), _linear(latent_dim, width), _norm(width)
        self.linear3 = _linear(width, (1 if grey else 3) * image_size**2)

    def forward(self, z: Tensor, classes: None = None) -> Tensor:
        h = F.relu(self.norm1(self.linear1(z)))
        h = F.relu(self.norm2(self.linear2(h) + self.skip_z(z)))
        x = 2 * torch.sigmoid(self.linear3(h)) - 1
        return x.unflatten(1, (-1, self.image_size, self.image_size)).expand(-1, 3, -1, -1)

    def latent_weights(self) -> list[tuple[slice, Tensor]]:
        """Return the weights that z meets: those of the first layer, and below them those of the second's skip."""
        return [(slice(0, self.latent_dim), torch.cat([self.linear1.weight, self.skip_z.weight]))]


class MLPTrunk(nn.Module):
    """The hidden layers of E or D map images to features: x → linear-leaky ReLU → linear-BN-leaky ReLU.

    latent_dim: that of z, which the second layer sees too (D), or 0 (E).  grey: it sees the mean of the three channels.
    batch_norm: False: biases in place of the batch norm.
    forward: x (N, 3, S, S) in [−1, 1], z (N, latent_dim) or None → (N, width).
    """

    def __init__(
        self, image_size: int, width: int = WIDTH, grey: bool = False, *, latent_dim: int = 0, batch_norm: bool = True
    ):
        super().__init__()
        self.num_features, self.grey = width, grey
        self.linear1 = nn.Linear((1 if grey else 3) * image_size**2, width, bias=not batch_norm)
        self.linear2 = nn.Linear(width, width, bias=not batch_norm)
        self.norm = _norm(width) if batch_norm else nn.Identity()
        self.with_z = _linear(latent_dim, width) if latent_dim else None

    def forward(self, x: Tensor, z: Tensor | None = None) -> Tensor:
        pixels = (1 + (x.mean(1) if self.grey else x).flatten(1)) / 2
        h = self.linear2(F.leaky_relu(self.linear1(pixels), SLOPE))
        return F.leaky_relu(self.norm(h if self.with_z is None else h + self.with_z(z)), SLOPE)


class MLPDiscriminator(nn.Module, DiscriminatorInterface):
    """D gives one score: s_xz of a pair (x, z), or s_x of an image alone if it is not `joint`.

    batch_norm: as in BiGAN; then a score in training depends on the other pairs of the minibatch, so encoder pairs and
        generator pairs are scored apart, and the step moves the running statistics. Batch norm hides the scale of the
        latents, which does no harm where both kinds are in (−1, 1); ALI, whose posterior is not bounded, has none in D.
    forward: x (N, 3, S, S), z (N, Z) → Scores, (N,).
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        width: int = WIDTH,
        *,
        grey: bool = False,
        joint: bool = True,
        batch_norm: bool = True,
    ):
        super().__init__()
        self.latent_dim, self.image_size, self.joint, self.compares_images = latent_dim, image_size, joint, batch_norm
        self.f = MLPTrunk(image_size, width, grey, latent_dim=latent_dim if joint else 0, batch_norm=batch_norm)
        self.score = nn.Linear(width, 1, bias=not batch_norm)

    def score_layers(self) -> dict[str, nn.Module]:
        """Return the layer of the one score, which sees the last hidden layer."""
        return {"xz" if self.joint else "x": self.score}

    def forward(self, x: Tensor, z: Tensor | None = None, classes: None = None, drop: None = None) -> Scores:
        score = self.score(self.f(x, z)).squeeze(1)
        return Scores(None, None, score) if self.joint else Scores(score, None, None)


@torch.no_grad()
def initialise_normal(network: nn.Module, width: int) -> nn.Module:
    """Draw all weights of linear layers from N(0, 0.02² · 1024/width), set biases to 0, and return the network."""
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(0, STD * (WIDTH / width) ** 0.5)
            if layer.bias is not None:
                layer.bias.zero_()
    return network


def _linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def _norm(width: int) -> CrossReplicaBatchNorm:
    return CrossReplicaBatchNorm(width, EPS, affine=False)
