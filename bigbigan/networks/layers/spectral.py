"""Spectral normalisation, W/σ(W) (Miyato et al. 2018), with a power iteration that the training step advances.

The vectors u and v are buffers that a forward only reads, so a forward gives the same result under chunks,
recomputation, compilation and many processes. `advance_power_iteration` updates u and v of all layers of a network; the
training step calls it once before each update of that network.
"""

from collections import defaultdict
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.distributed.device import to_device

EPS = 1e-4  # BigGAN's value, for the norm of u and v
WARM_UP = 15  # power iterations at construction


class SpectralNorm(nn.Module):
    """Mixin that gives a layer with a `weight` of two or more dimensions the buffers u, v and `normalised_weight()`.

    u: (out,), v: (in · kernel area,), unit vectors in float32 or float64.
    """

    spectral_norm: bool

    def _init_spectral(self, enabled: bool) -> None:
        self.spectral_norm = enabled
        if enabled:
            rows, columns = self.weight.flatten(1).shape
            self.register_buffer("u", F.normalize(torch.randn(rows), dim=0, eps=EPS))
            self.register_buffer("v", F.normalize(torch.randn(columns), dim=0, eps=EPS))

    def sigma(self) -> Tensor:
        """Return σ = uᵀ W v, a scalar in at least float32 also under autocast; gradients flow to W alone."""
        with full_precision(self.weight.device.type):
            weight = self.weight.flatten(1)
            weight = weight if weight.dtype == torch.float64 else weight.float()
            return torch.dot(self.u.to(weight.dtype), torch.mv(weight, self.v.to(weight.dtype)))

    def normalised_weight(self) -> Tensor:
        """Return W/σ. As a product, whose gradient by σ takes two operations of W's size fewer than a quotient's."""
        return self.weight * self.sigma().reciprocal() if self.spectral_norm else self.weight


class SNConv2d(nn.Conv2d, SpectralNorm):
    def __init__(self, in_channels, out_channels, kernel_size, padding=0, bias=True, spectral_norm=True):
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self._init_spectral(spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.normalised_weight(), self.bias, padding=self.padding)


class SNLinear(nn.Linear, SpectralNorm):
    def __init__(self, in_features, out_features, bias=True, spectral_norm=True):
        super().__init__(in_features, out_features, bias=bias)
        self._init_spectral(spectral_norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normalised_weight(), self.bias)


class SNEmbedding(nn.Embedding, SpectralNorm):
    def __init__(self, num_embeddings, embedding_dim, spectral_norm=True):
        super().__init__(num_embeddings, embedding_dim)
        self._init_spectral(spectral_norm)

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.normalised_weight())


def full_precision(device: str):
    """Return a context that suspends autocast if it is on."""
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def spectral_layers(network: nn.Module) -> list[SpectralNorm]:
    """Return the spectrally normalised layers of `network`, in the order of its modules."""
    return [layer for layer in network.modules() if isinstance(layer, SpectralNorm) and layer.spectral_norm]


@torch.no_grad()
def advance_power_iteration(network: nn.Module, iterations: int = 1, batched: bool | None = None) -> None:
    """Update u ← Wv/‖Wv‖, v ← Wᵀu/‖Wᵀu‖ of every layer of `network`.

    batched: multiply all layers of one shape at once, which saves many small kernels but copies the weights together;
        None: on all devices but a CPU, where it takes several times as long (benchmarks/means.py), and torch's meta
        device, so that an outline counts what a CPU computes.
    """
    layers = spectral_layers(network)
    if not layers:
        return
    if batched is None:
        batched = layers[0].weight.device.type not in ("cpu", "meta")
    advance = _advance_by_shape if batched else _advance_each
    for _ in range(iterations):
        advance(layers)


def _advance_each(layers: list[SpectralNorm]) -> None:
    weights = [layer.weight.flatten(1).to(layer.v.dtype) for layer in layers]
    u = _normalised([torch.mv(w, layer.v) for w, layer in zip(weights, layers, strict=True)])
    v = _normalised([torch.mv(w.t(), vector) for w, vector in zip(weights, u, strict=True)])
    torch._foreach_copy_([layer.u for layer in layers] + [layer.v for layer in layers], [*u, *v])


def _normalised(vectors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return each vector divided by its norm, or by EPS if that is larger."""
    norms = torch._foreach_norm(vectors)
    return torch._foreach_div(vectors, torch._foreach_clamp_min(norms, EPS))


def _advance_by_shape(layers: list[SpectralNorm]) -> None:
    groups = defaultdict(list)
    for layer in layers:
        groups[layer.weight.flatten(1).shape].append(layer)
    old, new = [], []
    for group in groups.values():
        weight = torch.stack([layer.weight.flatten(1) for layer in group]).to(group[0].v.dtype)  # (L, out, in)
        u = F.normalize(weight @ torch.stack([layer.v for layer in group]).unsqueeze(2), dim=1, eps=EPS)
        v = F.normalize(weight.mT @ u, dim=1, eps=EPS)
        old += [layer.u for layer in group] + [layer.v for layer in group]
        new += [*u.squeeze(2), *v.squeeze(2)]
    torch._foreach_copy_(old, new)


@torch.no_grad()
def clamp_sigma(network: nn.Module, largest: float = 0.0, ratio: float = 0.0) -> None:
    """Limit the largest singular value of every layer: W ← W − max(0, σ0 − σ_clamp) u0 v0ᵀ (BigGAN, section 4.1).

    By the layer's u and v (BigGAN's v is our u). σ_clamp is `largest`, or `ratio` times the second largest singular
    value; layers that have only one are then left alone.
    """
    for layer in spectral_layers(network):
        weight = layer.weight.flatten(1)
        if ratio and min(weight.shape) == 1:
            continue
        excess = F.relu(layer.sigma() - (ratio * _second_sigma(layer) if ratio else largest))
        layer.weight.sub_((excess * torch.outer(layer.u, layer.v)).to(weight.dtype).view_as(layer.weight))


def _second_sigma(layer: SpectralNorm, iterations: int = 20) -> Tensor:
    """Return the second largest singular value, by power iteration on W − σ0 u0 v0ᵀ.

    It starts from a vector that depends on the shape alone, so that a resumed run repeats it.
    """
    weight, sigma = layer.weight.flatten(1).to(layer.v.dtype), layer.sigma().to(layer.v.dtype)
    start = torch.randn(weight.shape[1], generator=torch.Generator().manual_seed(0))
    v = to_device(start.to(layer.v.dtype), layer.v.device)
    for _ in range(iterations):
        u = F.normalize(weight @ v - sigma * layer.u * (layer.v @ v), dim=0)
        v = weight.mT @ u - sigma * layer.v * (layer.u @ u)
        second = v.norm()
        v = F.normalize(v, dim=0)
    return second


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Set orthogonal weights and zero biases (1809.11096, section 3), then let the power iteration converge."""
    if next(network.parameters()).is_meta:  # an outline without values
        return
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.Embedding)):
            nn.init.orthogonal_(layer.weight)
            if getattr(layer, "bias", None) is not None:
                nn.init.zeros_(layer.bias)
    advance_power_iteration(network, WARM_UP)
