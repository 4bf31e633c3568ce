"""Orthogonal regularisation, the form of BigGAN that spares the norms (1809.11096, section 3.1)."""

import torch
from torch import Tensor, nn


def orthogonal_penalty(weight: Tensor) -> Tensor:
    """Return ‖WWᵀ ⊙ (1 − I)‖²_F, the squared products of all pairs of different filters; weight: (out, ...)."""
    gram = weight.flatten(1) @ weight.flatten(1).mT
    return gram.square().sum() - gram.diagonal().square().sum()


@torch.no_grad()
def add_orthogonal_gradient(network: nn.Module, strength: float) -> None:
    """Add the gradient of strength · Σ penalty to the gradients of all convolutions and linear layers of `network`.

    With W's filters as rows it is 4 (WWᵀ − diag) W, computed as W (WᵀW) where that is cheaper. Embeddings have none.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.weight.grad is not None:
            w = layer.weight.flatten(1)
            product = w @ (w.mT @ w) if len(w) > w.shape[1] else (w @ w.mT) @ w
            product -= w.square().sum(1, keepdim=True) * w
            layer.weight.grad.add_(product.view_as(layer.weight), alpha=4 * strength)
