"""What an objective, a penalty, an augmentation or a regulariser may add to the two updates: a part, with its hooks."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bigbigan.losses import Scores
from bigbigan.noise import uniforms

if TYPE_CHECKING:
    from bigbigan.training.batch import Batch
    from bigbigan.training.step import Pairs, Step

Draw = Callable[[int, np.ndarray, str], Tensor]
"""(seed, places (n,) of images in the run, suffix) → random numbers (n, ...) on the CPU.

A batch that repeats the places of another has a suffix; a draw whose numbers must differ there adds it to its purpose.
"""


class Penalty(NamedTuple):
    """A further term of D's loss.

    name: it is reported under.  term: scalar with a graph.  times: the interval of a penalty that is computed in one of
    so many updates: `term` is multiplied by it, and term / times is reported.
    """

    name: str
    term: Tensor
    times: int = 1


class Part:
    """Does nothing. A part overrides the hooks that it needs; `Step` calls all of them and knows none by name."""

    def draws(self) -> dict[str, Draw]:
        """Name the random numbers that this part needs for each image; `Batch.extra` holds them under these names."""
        return {}

    def show(self, images: Tensor, batch: "Batch") -> Tensor:
        """Return the images (2n, 3, S, S) of both kinds of pairs, encoder pairs first, as F shall see them."""
        return images

    def noise(self, batch: "Batch") -> Tensor | None:
        """Return random numbers (n, 2, width) that D takes for the encoder pair and the generator pair of an image."""
        return None

    def penalties(self, step: "Step", pairs: "Pairs", batch: "Batch", number: int) -> list[Penalty]:
        """Return further terms of D's loss.

        number: of the D updates of the run before this one.
        """
        return []

    def report(self, encoder_pairs: Scores, generator_pairs: Scores, batch: "Batch") -> dict[str, Tensor]:
        """Return scalars of a chunk of a D update, which are averaged over chunks and processes."""
        return {}

    def after(self, values: dict[str, Tensor], broken: Tensor, images: int) -> dict[str, Tensor]:
        """Move this part's state after a D update, and return what it reports of that.

        values: what was reported, averaged over the processes.  broken: 0-dim; 1 if the update is void.  images: of
        this process.
        """
        return {}


def pair_uniforms(seed: int, purpose: str, places: np.ndarray, width: int) -> Tensor:
    """Return (n, 2, width) ~ U(0, 1), float32: for the encoder pair and the generator pair of each place."""
    return torch.from_numpy(uniforms(seed, purpose, places, 2 * width)).float().unflatten(1, (2, width))
