"""Compute the Inception score, exp E_x KL(p(y|x) ‖ p(y)) (Salimans et al. 2016, section 4), batch by batch."""

import numpy as np
import torch
from torch import Tensor

from bigbigan.distributed.gather import summed
from bigbigan.errors import MetricsError
from bigbigan.metrics.sets import Comparison, Metric
from eval_linear.result import FigureInfo


class InceptionScore:
    """Sum up the mean and standard deviation of the score over `splits` parts of n images.

    An image's part depends on its position alone: a permutation drawn from `seed` is cut in equal stretches, as
    torch-fidelity does with the features of all images in memory. Here each part keeps three sums, because
    E KL(p ‖ q) = E Σ p log p − Σ q log q with q = E p.
    """

    def __init__(self, n: int, splits: int = 10, seed: int = 2020):
        if not 1 <= splits <= n:
            raise MetricsError(
                f"Inception score: expected at least one image in each of its {splits} parts, found {n} images"
            )
        self.part = np.empty(n, dtype=np.int64)
        order = np.random.RandomState(seed).permutation(n)
        for i in range(splits):
            self.part[order[i * n // splits : (i + 1) * n // splits]] = i
        self.counts = torch.zeros(splits, dtype=torch.float64)
        self.negentropy = torch.zeros(splits, dtype=torch.float64)  # Σ p log p
        self.probabilities: Tensor | None = None  # Σ p, (splits, K)

    def update(self, logits: Tensor, positions: np.ndarray) -> None:
        """Take in logits (m, K) of the images at `positions` (m,), integers in 0 … n − 1."""
        log_p = logits.detach().cpu().double().log_softmax(1)
        p = log_p.exp()
        part = torch.from_numpy(self.part[positions])
        if self.probabilities is None:
            self.probabilities = torch.zeros(len(self.counts), p.shape[1], dtype=torch.float64)
        self.probabilities.index_add_(0, part, p)
        self.negentropy.index_add_(0, part, torch.special.entr(p).sum(1).neg())
        self.counts.index_add_(0, part, torch.ones(len(p), dtype=torch.float64))

    def result(self) -> tuple[float, float]:
        """Return (mean, standard deviation over the parts) of all processes' images; between 1 and K."""
        if self.probabilities is None:
            raise MetricsError("Inception score: expected images on every process, found none")
        counts, negentropy, sums = summed(self.counts), summed(self.negentropy), summed(self.probabilities)
        if not (counts > 0).all():
            raise MetricsError(
                "Inception score: expected images in every part, found a part of which none could be read"
            )
        q = sums / counts[:, None]
        scores = (negentropy / counts + torch.special.entr(q).sum(1)).exp()
        if not scores.isfinite().all():
            raise MetricsError(
                "Inception score: expected finite logits, found NaN or infinity; look at the images or the extractor"
            )
        return float(scores.mean()), float(scores.std(unbiased=False))


def measure(sets: Comparison) -> dict[str, float]:
    """Return the Inception score of generated images, its standard deviation over parts, and that of real images."""
    mean, sd = sets.generated.score
    real = f"is_real_{sets.extractor}_{sets.split}_n{sets.real.moments.count}"
    return {f"is_{sets.extractor}_n{sets.n}": mean, f"is_sd_{sets.extractor}_n{sets.n}": sd, real: sets.real.score[0]}


METRIC = Metric((FigureInfo("is", "Inception score"),), measure, in_training=("is",))
