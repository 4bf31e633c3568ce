"""Train the autoencoders of BiGAN's Table 1 on MNIST (Donahue et al. 2017, section 4.2), and measure their 1-NN.

    python benchmarks/autoencoder_mnist.py [--error l2] [--images 24_000_000] [--data PATH]

E and G of `bigan/mnist` minimise ‖x − G(E(x))‖² (l2) or ‖x − G(E(x))‖₁ (l1) of an image, pixels from 0 to 1, with the
preset's batches, Adam and rates: constant for half of the length, then falling to a hundredth. BiGAN's code has no
autoencoder and its paper gives no settings, so that much is a guess. The loss is one term, so the L2 penalty and
Adam's epsilon are half of the preset's. In bf16 where the processor has it. The accuracies are those of
`bigan_mnist.py`, with the running statistics of the batch norms.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
from bigan_mnist import PAPER, both, hidden, pixels, reconstruction
from torch import Tensor

from bigbigan.config import Config, Data, find_config, read_yaml
from bigbigan.data import open_splits
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import set_momentum
from bigbigan.training.optim import build_optimizers
from bigbigan.training.precision import cpu_has_bf16
from bigbigan.training.schedule import rates, set_rates

POWERS = {"l1": 1, "l2": 2}
POINTS = 10  # measurements along training


def settings(images: int) -> Config:
    """Return the settings of `bigan/mnist` for that many images and a loss of one term."""
    config = read_yaml(find_config("bigan/mnist"), Config())
    config.optim.weight_decay, config.optim.eps = config.optim.weight_decay / 2, config.optim.eps / 2
    config.optim.lower_after = config.optim.lower_images = images // 2
    return config


def train(model: BigBiGAN, x: Tensor, config: Config, power: int, images: int) -> Iterator[int]:
    """Train E and G on x (n, 3, 28, 28) in [−1, 1], and yield the number of images seen at each point."""
    optimizer = build_optimizers(model, config.optim).encoder_generator
    seen = measured = 0
    while seen < images:
        for chosen in torch.randperm(len(x)).split(config.data.batch_size):
            set_rates({"encoder_generator": optimizer}, rates(config.optim, seen))
            real = x[chosen]
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
                again = model.generate(model.infer(real).mean)
            difference = (again.float() - real)[:, 0].flatten(1) / 2
            difference.abs().pow(power).sum(1).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += len(chosen)
            if seen * POINTS // images > measured:
                measured = seen * POINTS // images
                yield seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--error", choices=list(POWERS), default="l2")
    parser.add_argument("--images", type=lambda text: int(text.replace("_", "")), default=24_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="ylecun/mnist")
    options = parser.parse_args()
    (x, labels), (test, truth) = (pixels(images) for images in open_splits(Data(path=options.data)))
    print(f"the paper, test images: {PAPER}")
    config = settings(options.images)
    torch.manual_seed(options.seed)
    model = BigBiGAN.from_config(config.model)
    set_momentum(model)
    model.train()
    for seen in train(model, x, config, POWERS[options.error], options.images):
        features = [hidden(model.encoder.trunk, part) for part in (x, test)]
        model.eval()
        error, pairs = reconstruction(model, test)
        model.train()
        print(f"{options.error}, {seen:,} images")
        print(f"  last hidden layer {both(features[0], labels, features[1], truth)}")
        print(f"  error of G(E(x)) {error:.2f}, random pairs {pairs:.2f}", flush=True)


if __name__ == "__main__":
    main()
