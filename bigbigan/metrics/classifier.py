"""Train a classifier on labelled images: any network that yields features, and a linear layer."""

import logging
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.data import Crop, Images, Stream, evaluation_batches, to_signed
from bigbigan.data.ahead import decoding_processes
from bigbigan.distributed.collectives import rank, world_size
from bigbigan.distributed.gather import summed
from bigbigan.errors import MetricsError
from bigbigan.training.ema import standing_statistics

log = logging.getLogger(__name__)

TIMED = 20  # first steps, by which the time of all is foretold
LONG = 60  # seconds left from which it is said
STATISTICS_IMAGES = 8192  # that the batch norms' statistics are taken from after training
WARM_UP = 0.1  # share of the steps in which the learning rate rises


class Classifier(nn.Module):
    """Return features (N, trunk.num_features) and logits (N, classes) of images x (N, 3, S, S) in [−1, 1]."""

    def __init__(self, trunk: nn.Module, classes: int):
        super().__init__()
        self.trunk = trunk
        self.linear = nn.Linear(trunk.num_features, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        return features, self.linear(features)


def class_count(images: Images) -> int:
    """Return how many classes `images` have; MetricsError if they are not labelled with two or more."""
    if images.labels is None:
        raise MetricsError(
            f"classifier: expected labelled images, found none in {images.origin}; see --data.label_column"
        )
    count = max(len(images.class_names or []), int(images.labels.max()) + 1)
    if len(np.unique(images.labels)) < 2:
        raise MetricsError(f"classifier: expected at least two classes in {images.origin}, found one")
    return count


def train_classifier(
    trunk: nn.Module,
    images: Images,
    size: int,
    steps: int,
    batch_size: int = 128,
    rate: float = 3e-3,
    *,
    weight_decay: float = 0.0,
    augment: str = "none",
    flip: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    purpose: str = "",
) -> Classifier:
    """Train `trunk`, (N, 3, S, S) → (N, num_features), and a linear layer by cross-entropy with Adam.

    Returns the Classifier in evaluation mode.

    images: labelled.  size: S.  rate: the learning rate's peak, reached by a straight line and left by a half cosine.
    augment,
    flip: as in `Crop`; "none" is the centre square.  purpose: what a training of more than a minute is said to be for;
    "" says nothing.  A function of the trunk's weights, the images and `seed`; the
    global random state stays as it is. All processes of a job train together, each on its share of every batch. Raises
    MetricsError.
    """
    classes = class_count(images)
    batch_size = min(batch_size, len(images))
    device = torch.device(device)
    with torch.random.fork_rng([device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        # Channels last are a quarter faster on CPUs.
        classifier = Classifier(trunk, classes).to(device, memory_format=torch.channels_last)
        classifier.requires_grad_(True).train()
        fused = device.type in ("cpu", "cuda")
        adam = torch.optim.Adam(classifier.parameters(), lr=rate, weight_decay=weight_decay, fused=fused)
        crop, share = Crop(augment, flip), {"rank": rank(), "processes": world_size()}
        stream = Stream(images, size, seed, crop, **share, device=device, workers=decoding_processes())
        began = time.monotonic()
        for step, batch in enumerate(stream.batches(0, steps * batch_size, batch_size)):
            adam.param_groups[0]["lr"] = rate * _schedule((step + 1) / steps)
            loss = F.cross_entropy(classifier(to_signed(batch.x))[1], batch.labels, reduction="sum") / batch_size
            adam.zero_grad()
            loss.backward()
            _join_gradients(classifier)
            adam.step()
            if purpose and step == TIMED and rank() == 0:
                left = (time.monotonic() - began) / step * (steps - step)
                if left > LONG:
                    log.warning("a classifier of %d classes is trained %s: %d min", classes, purpose, round(left / 60))
        with torch.no_grad(), standing_statistics(classifier):
            some = min(STATISTICS_IMAGES, len(images)) // batch_size * batch_size
            for batch in stream.batches(0, some, batch_size):
                classifier(to_signed(batch.x))
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(classifier: Classifier, images: Images, size: int, batch_size: int = 256) -> float:
    """Return the share of `images` whose largest logit is their label's, over all processes."""
    device = next(classifier.parameters()).device
    mine = np.arange(rank(), len(images), world_size())
    right = seen = 0
    for pixels, indices in evaluation_batches(images.subset(mine), size, batch_size):
        guess = classifier(to_signed(pixels).to(device))[1].argmax(1).cpu().numpy()
        right += int((guess == images.labels[mine[indices]]).sum())
        seen += len(guess)
    right, seen = summed(torch.tensor([right, seen])).tolist()
    if not seen:
        raise MetricsError(f"accuracy: expected readable images in {images.origin}, found none")
    return right / seen


def _schedule(progress: float) -> float:
    """Return the learning rate's share of its peak at `progress` in (0, 1]."""
    return (
        progress / WARM_UP
        if progress < WARM_UP
        else 0.5 + 0.5 * math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))
    )


def _join_gradients(network: nn.Module) -> None:
    """Replace every process's gradient by the sum of all, in one collective."""
    if world_size() > 1:
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = summed(torch.cat([g.flatten() for g in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
