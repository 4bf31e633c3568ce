"""Compute mean and covariance of features batch by batch, on any number of processes, in float64."""

import torch
from torch import Tensor

from bigbigan.distributed.collectives import all_gather_rows, world_size
from bigbigan.distributed.gather import summed
from bigbigan.errors import MetricsError


class Moments:
    """Sum up count, mean (D,) and scatter Σ (x − mean)(x − mean)ᵀ (D, D) of rows, float64 on the CPU.

    Batches are joined by the update of Chan et al. 1979, which unlike E[xxᵀ] − mean meanᵀ loses no digits to a large
    mean.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def update(self, features: Tensor) -> None:
        """Take in features (n, D) of any float type."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise MetricsError(f"features: expected the shape (n, {len(self.mean)}), found {tuple(features.shape)}")
        if not len(features):
            return
        x = features.detach().to("cpu").double()
        total = self.count + len(x)
        mean = x.mean(0)
        difference = mean - self.mean
        x = x - mean
        self.scatter.addmm_(x.T, x)
        self.scatter.addr_(difference, difference, alpha=self.count * len(x) / total)
        self.mean += difference * (len(x) / total)
        self.count = total

    def joined(self) -> "Moments":
        """Return the moments of all processes' rows, the same on each. Raises MetricsError where one is not finite."""
        whole = Moments(len(self.mean))
        rows = summed_rows(torch.cat([self.mean.new_tensor([self.count]), self.mean]))  # (P, 1 + D)
        counts, means = rows[:, :1], rows[:, 1:]
        whole.count = int(counts.sum())
        whole.mean = (counts * means).sum(0) / max(whole.count, 1)
        between = self.mean - whole.mean
        whole.scatter = summed(self.scatter + self.count * torch.outer(between, between))
        # Looked at here and not batch by batch: so every process raises, and none waits for one that left.
        broken = int((~whole.mean.isfinite() | ~whole.scatter.diagonal().isfinite()).sum())
        if broken:
            raise MetricsError(
                f"features: expected finite numbers, found NaN or infinity in {broken} of {len(self.mean)} of them; "
                "look at the images or at the extractor"
            )
        return whole

    def covariance(self) -> Tensor:
        """Return the unbiased covariance (D, D), float64: scatter / (count − 1)."""
        if self.count < 2:
            raise MetricsError(f"covariance of features: expected at least 2 images, found {self.count}")
        return self.scatter / (self.count - 1)


def summed_rows(row: Tensor) -> Tensor:
    """Return (P, C) of a row (C,) on each of P processes, whatever devices the backend can move."""
    if world_size() > 1 and torch.distributed.get_backend() == "nccl":
        return all_gather_rows(row.to("cuda")).to("cpu")
    return all_gather_rows(row)
