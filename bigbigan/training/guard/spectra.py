"""The three largest singular values of spectrally normalised weights (BigGAN, section 4.1)."""

import torch
from torch import Tensor

from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import spectral_layers

COUNT = 3


@torch.no_grad()
def singular_values(weight: Tensor, count: int = COUNT) -> list[float]:
    """Return the `count` largest singular values of a weight (out, ...), flattened to (out, in · area), largest first.

    They are the roots of the eigenvalues of the smaller Gram matrix, in float64: exact, and far cheaper than all
    singular values of a long matrix. NaN for a weight that is not finite.
    """
    exact = weight.flatten(1)
    exact = (exact if exact.device.type in ("cpu", "cuda") else exact.cpu()).double()
    gram = exact @ exact.mT if exact.shape[0] <= exact.shape[1] else exact.mT @ exact
    count = min(count, len(gram))
    if not bool(gram.isfinite().all()):
        return [float("nan")] * count
    return torch.linalg.eigvalsh(gram)[-count:].clamp(min=0).sqrt().flip(0).tolist()


def spectra(model: BigBiGAN) -> dict[str, list[float]]:
    """Return {layer: its largest singular values before normalisation} of G and D, in the order of their layers."""
    names = {module: name for name, module in model.named_modules()}
    return {
        names[layer]: singular_values(layer.weight)
        for network in (model.generator, model.discriminator)
        for layer in spectral_layers(network)
    }
