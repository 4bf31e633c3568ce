"""Hold what a metric of generated images compares, and what it is: a function and descriptions of its figures."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bigbigan.metrics.moments import Moments
from eval_linear.result import FigureInfo


@dataclass
class Statistics:
    """Hold what an extractor saw of a set of images.

    moments: of all features.  score: Inception score, (mean, sd).  kept: features (k, D) of some images, on the CPU.
    """

    moments: Moments
    score: tuple[float, float]
    kept: Tensor


@dataclass
class Comparison:
    """Hold generated and real images as one extractor sees them, and what the names of their figures say.

    extractor: its name.  split: what the real images are.  n: generated images.  device: where features are compared.
    """

    generated: Statistics
    real: Statistics
    extractor: str
    split: str
    n: int
    device: torch.device | str = "cpu"

    @property
    def end(self) -> str:
        """The end of a figure's name that looks at all generated images."""
        return f"{self.extractor}_{self.split}_n{self.n}"

    @property
    def end_of_kept(self) -> str:
        """The end of a figure's name that looks at the kept features alone."""
        return f"{self.extractor}_{self.split}_n{len(self.generated.kept)}"

    @cached_property
    def kept(self) -> tuple[Tensor, Tensor]:
        """The kept features of generated (n, D) and of real images (m, D), on the device."""
        return self.generated.kept.to(self.device), self.real.kept.to(self.device)


@dataclass
class Pixels:
    """Hold as many generated images as real ones: uint8 (n, 3, S, S) on the CPU; split, device as in `Comparison`."""

    generated: Tensor
    real: Tensor
    split: str
    seed: int
    device: torch.device | str


@dataclass(frozen=True)
class Metric:
    """Hold a metric of generated images: the descriptions of its figures, and the function that measures them.

    measure: Comparison or Pixels → {the figure's full name: value}; each name begins with that of one of `figures`.
    in_training: names of the figures, of those of features, that evaluations during training report too, so that
    `--run.best` can choose by them.
    """

    figures: tuple[FigureInfo, ...]
    measure: Callable[..., dict[str, float]]
    in_training: tuple[str, ...] = ()
