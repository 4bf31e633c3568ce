"""Measure BiGAN on MNIST as its authors did (Donahue et al. 2017, Table 1, and the log of their code).

    python benchmarks/bigan_mnist.py runs/mnist [CHECKPOINT ...] [--data PATH]

The accuracy of the nearest neighbour, by ‖a − b‖, in E's last hidden layer and in E(x): of the 10,000 test images among
the 60,000 training images (the paper), and of the 10,000 training images that its code holds out among the other 50,000
(the log). Ours are trained on all 60,000, theirs in the log on the 50,000. Beside it the same of the pixels and of an
untrained E, whose batch norms take the statistics of 2,000 images. The log's figure of z is taken before the sigmoid,
which E(x) is not. Of a run whose D sees images alone, such as the latent regressor's, D's last hidden layer too. Then
‖x − G(E(x))‖ of test images, pixels from 0 to 1, and the same of random pairs of a test image and a reconstruction.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
from torch import Tensor, nn

import bigbigan
from bigbigan.config import Data
from bigbigan.data import evaluation_batches, open_splits, to_signed
from bigbigan.model import BigBiGAN

PAPER = "BiGAN 97.39, D 97.30, LR 97.44, JLR 97.13, autoencoders 97.58 (l2) and 97.63 (l1)"
LOG = "untrained 96.84; after 1, 25, 200, 400 epochs 92.56, 96.28, 97.14, 97.35; in z 92.10; error 5.95, pairs 9.60"
HELD_OUT, SEED = 10_000, 42  # training images, and how the code draws them


def pixels(images) -> tuple[Tensor, Tensor]:
    """Return images as float (n, 3, 28, 28) in [−1, 1], and their labels (n,)."""
    x = torch.cat([batch for batch, _ in evaluation_batches(images, 28, 1000)])
    return to_signed(x), torch.as_tensor(images.labels)


def accuracy(references: Tensor, labels: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Return the share in % of queries (m, C) whose nearest reference (n, C) has their label."""
    squares, right = references.square().sum(1), 0
    for part, own in zip(queries.split(1000), truth.split(1000), strict=True):
        right += int((labels[(squares - 2 * part @ references.T).argmin(1)] == own).sum())
    return 100 * right / len(queries)


def both(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> str:
    """Return the accuracies of the paper's test and of the log's."""
    order = np.random.RandomState(SEED).permutation(len(train))
    kept, out = order[:-HELD_OUT], order[-HELD_OUT:]
    return (
        f"{accuracy(train, labels, test, truth):6.2f} % of test images, "
        f"{accuracy(train[kept], labels[kept], train[out], labels[out]):6.2f} % of held-out training images"
    )


@torch.no_grad()
def hidden(layers: nn.Module, x: Tensor, batch_statistics: bool = False) -> Tensor:
    """Return the last hidden layer, (n, C).

    batch_statistics: normalise by the mean and the variance of 2,000 images in place of the running ones.
    """
    layers.train(batch_statistics)
    found = torch.cat([layers(part) for part in x.split(2000)])
    layers.eval()
    return found


@torch.no_grad()
def reconstruction(model: BigBiGAN, x: Tensor) -> tuple[float, float]:
    """Return the mean ‖x − G(E(x))‖, and that of random pairs."""
    again = torch.cat([model.generate(model.infer(part).mean) for part in x.split(1000)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return tuple(float(((x - y)[:, 0].flatten(1) / 2).norm(dim=1).mean()) for y in (again, again[order]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--data", default="ylecun/mnist")
    options = parser.parse_args()
    (x, labels), (test, truth) = (pixels(images) for images in open_splits(Data(path=options.data)))
    print(f"the paper, test images:                    {PAPER}")
    print(f"the log, held-out training images:         {LOG}")
    print(
        f"pixels                                     {both(x[:, 0].flatten(1), labels, test[:, 0].flatten(1), truth)}"
    )
    for i, name in enumerate(options.checkpoints):
        model = bigbigan.load(name)
        if not i:
            torch.manual_seed(0)
            untrained = BigBiGAN.from_config(model.config).encoder
            features = [hidden(untrained.trunk, part, batch_statistics=True) for part in (x, test)]
            print(f"untrained, last hidden layer               {both(features[0], labels, features[1], truth)}")
        features = [hidden(model.encoder.trunk, part) for part in (x, test)]
        with torch.no_grad():
            means = [torch.cat([model.infer(p).mean for p in part.split(1000)]) for part in (x, test)]
        print(f"{name}")
        print(f"  last hidden layer                        {both(features[0], labels, features[1], truth)}")
        print(f"  E(x)                                     {both(means[0], labels, means[1], truth)}")
        with torch.no_grad():
            before = [model.encoder.linear(part) for part in features]
        print(f"  E(x) before the sigmoid or tanh          {both(before[0], labels, before[1], truth)}")
        if not model.discriminator.joint:
            features = [hidden(model.discriminator.f, part) for part in (x, test)]
            print(f"  D's last hidden layer                    {both(features[0], labels, features[1], truth)}")
        print("  error of G(E(x)) {:.2f}, random pairs {:.2f}".format(*reconstruction(model, test)), flush=True)


if __name__ == "__main__":
    main()
