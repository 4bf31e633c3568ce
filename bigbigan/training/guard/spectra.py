"""The three largest singular values of the weights that spectral normalisation divides by the first (BigGAN, section
4.1)."""

import torch
from torch import Tensor

from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import spectral_layers

COUNT = 3


@torch.no_grad()
def singular_values(weight: Tensor, count: int = COUNT) -> list[float]:
    """σ0 ≥ σ1 ≥ … of weight (out, ...), flattened to (out, in · area): the `count` largest, fewer where there are no
    more.

    By the eigenvalues of the smaller Gram matrix in float64: exact, and far cheaper than all singular values of a long
    matrix. NaN for a weight that is not finite.
    """
    exact = weight.flatten(1)
    exact = (exact if exact.device.type in ("cpu", "cuda") else exact.cpu()).double()
    gram = exact @ exact.mT if exact.shape[0] <= exact.shape[1] else exact.mT @ exact
    count = min(count, len(gram))
    if not bool(gram.isfinite().all()):
        return [float("nan")] * count
    return torch.linalg.eigvalsh(gram)[-count:].clamp(min=0).sqrt().flip(0).tolist()


def spectra(model: BigBiGAN) -> dict[str, list[float]]:
    """Layer → its largest singular values before normalisation, for every spectrally normalised layer of G and D in
    order."""
    names = {module: name for name, module in model.named_modules()}
    return {
        names[layer]: singular_values(layer.weight)
        for network in (model.generator, model.discriminator)
        for layer in spectral_layers(network)
    }
