"""BiGAN's permutation-invariant networks (Donahue et al. 2017, section 4.2, as in its code): MLPs on the pixels of an
image.

Two hidden layers each. No layer has a bias, no batch norm a gain or a bias; its eps is 1e-8, a leaky ReLU's slope 0.2;
all weights begin as N(0, 0.02²), or as N(0, 0.02² · 1024/width) where there are not its 1,024 units. Inside, the pixels
are in [0, 1].
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
    """z → width-BN-ReLU → width-BN-ReLU, to which z is given again → as many sigmoids as there are pixels.

    grey: one plane, in all three channels alike.  forward: z (N, Z) → (N, 3, S, S) in [−1, 1].
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


class MLPTrunk(nn.Module):
    """x → width-LReLU → width-BN-LReLU, to which z is given if there is one: E without its last layer, or D without its
    score.

    grey: it sees the mean of the three channels.  batch_norm: False for none, and biases in its place.
    forward: x (N, 3, S, S) in [−1, 1], z (N, latent_dim) → (N, width).
    """

    def __init__(
        self, image_size: int, width: int = WIDTH, grey: bool = False, latent_dim: int = 0, batch_norm: bool = True
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
    """D: one score of the pair (x, z), s_xz; of x alone, s_x, if it is not `joint`.

    batch_norm: BiGAN has one, so that in training a score depends on the other pairs of its kind, which are seen apart
    from those of the other kind; `Step` moves its running statistics. It hides how large a kind's latents are, which
    does no harm where both are in (−1, 1); ALI, whose posterior is not bounded, has none in D.
    forward: x (N, 3, S, S), z (N, Z) → Scores, (N,) each.
    """

    def __init__(
        self, latent_dim: int, image_size: int, width: int = WIDTH, grey: bool = False, joint: bool = True, batch_norm: bool = True
    ):  # fmt: skip
        super().__init__()
        self.latent_dim, self.image_size, self.joint, self.compares_images = latent_dim, image_size, joint, batch_norm
        self.f = MLPTrunk(image_size, width, grey, latent_dim if joint else 0, batch_norm)
        self.score = nn.Linear(width, 1, bias=not batch_norm)

    def forward(self, x: Tensor, z: Tensor | None = None, classes: None = None, drop: None = None) -> Scores:
        score = self.score(self.f(x, z)).squeeze(1)
        return Scores(None, None, score) if self.joint else Scores(score, None, None)


@torch.no_grad()
def initialise_normal(network: nn.Module, width: int) -> nn.Module:
    """N(0, 0.02² · 1024/width) for all weights of linear layers, 0 for biases; → the network."""
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
