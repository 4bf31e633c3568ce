"""Fit the paper's linear probe: Adam from zero weights, which are averaged, with all learning rates in one pass.

Table 1 of BigBiGAN: 5,000 steps at 0.01. Table 2: 100,000 steps, the rate of five chosen on held-out training images.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BATCH = 2048
EMA = 0.9999
PROTOCOLS = {"adam_5k": (5_000, (1e-2,)), "adam_100k": (100_000, (1e-4, 3e-4, 1e-3, 3e-3, 1e-2))}  # name: steps, rates


class AdamProbe:
    """Train one linear classifier for each learning rate together, so that a batch is read once for all of them.

    They lie on the first batch's device. Weights start at zero, and what is evaluated is their moving average (0.9999).
    """

    def __init__(self, features: int, classes: int, rates: tuple[float, ...], device: torch.device | str = "cpu"):
        self.rates, self.classes = rates, classes
        self.weights = [
            torch.zeros(features + 1, classes, device=device, requires_grad=True) for _ in rates
        ]  # last row: bias
        self.averages = [torch.zeros_like(weight) for weight in self.weights]
        self.optimizer = torch.optim.Adam(
            [{"params": [w], "lr": rate} for w, rate in zip(self.weights, rates, strict=True)]
        )

    def step(self, x: Tensor, y: Tensor) -> None:
        """Make one Adam update of every classifier on x (B, C), y (B,).

        The loss is the sum of their mean cross-entropies, which serves since they share no weight.
        """
        logits = (_with_one(x) @ torch.cat(self.weights, dim=1)).unflatten(1, (len(self.rates), self.classes))
        loss = F.cross_entropy(logits.flatten(0, 1), y.repeat_interleave(len(self.rates)), reduction="sum") / len(x)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, [w.detach() for w in self.weights], 1 - EMA)

    @torch.no_grad()
    def logits(self, x: Tensor, rate: int) -> Tensor:
        """Return the logits (m, classes) of the averaged classifier number `rate` for x (m, C)."""
        return torch.cat(
            [_with_one(part) @ self.averages[rate] for part in x.to(self.averages[rate].device).split(8192)]
        )

    def best(self, x: Tensor, y: Tensor) -> int:
        """Return the classifier with the highest accuracy on x (m, C), y (m,); of equal ones the lowest rate."""
        scores = [
            float((self.logits(x, r).argmax(1) == y.to(self.averages[r].device)).float().mean())
            for r in range(len(self.rates))
        ]
        return int(np.argmax(scores))


def shuffled(x: Tensor, y: Tensor, seed: int, batch: int = BATCH) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield endless batches of features: each epoch a new permutation, without its last short batch."""
    generator = torch.Generator().manual_seed(seed)
    batch = min(batch, len(x))
    while True:
        for at in torch.randperm(len(x), generator=generator)[: len(x) // batch * batch].split(batch):
            yield x[at], y[at]


def train_adam_probe(batches: Iterator[tuple[Tensor, Tensor]], probe: AdamProbe, steps: int) -> AdamProbe:
    """Train the probe on `steps` batches of (features (B, C), labels (B,)), and return it."""
    for _ in range(steps):
        probe.step(*next(batches))
    return probe


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)
