"""Train the baselines of BiGAN's Table 1 that need no D of their own, on MNIST (Donahue et al. 2017, section 4).

    python benchmarks/bigan_baselines.py l2 [--images 24_000_000] [--data PATH]
    python benchmarks/bigan_baselines.py lr --gan runs/lr

`l2`, `l1`: the autoencoders. E and G minimise ‖x − G(E(x))‖² or ‖x − G(E(x))‖₁ of an image, pixels from 0 to 1.
`lr`: the latent regressor as the paper has it, trained after its GAN. A new E learns z from G(z), by the cross-entropy
of (1 + z)/2, while the G of the run `--gan` stands still.

Networks, batches, Adam and rates are those of `bigan/mnist`: constant rates for half of the length, then a fall to a
hundredth. BiGAN's code has neither of them and its paper gives no settings, so that much is a guess. The loss is one
term, so the L2 penalty and Adam's epsilon are half of the preset's. In bf16 where the processor has it. The accuracies
are those of `bigan_mnist.py`, with the running statistics of the batch norms.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
from torch import Tensor

import bigbigan
from benchmarks.bigan_mnist import PAPER, both, hidden, pixels, reconstruction
from bigbigan.config import Config, Data, find_config, read_yaml
from bigbigan.data import open_splits
from bigbigan.losses import latent_loss
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import set_momentum
from bigbigan.training.optim import build_optimizers
from bigbigan.training.precision import cpu_has_bf16
from bigbigan.training.schedule import rates, set_rates

POWERS = {"l1": 1, "l2": 2}
POINTS = 5  # measurements along training
Loss = Callable[[BigBiGAN, Tensor], Tensor]


def settings(images: int) -> Config:
    """Return the settings of `bigan/mnist` for that many images and a loss of one term."""
    config = read_yaml(find_config("bigan/mnist"), Config())
    config.optim.weight_decay, config.optim.eps = config.optim.weight_decay / 2, config.optim.eps / 2
    config.optim.lower_after = config.optim.lower_images = images // 2
    return config


def autoencoder_loss(power: int) -> Loss:
    """Return the mean over images of Σ |x − G(E(x))|^power, pixels from 0 to 1."""

    def loss(model: BigBiGAN, x: Tensor) -> Tensor:
        difference = (model.generate(model.infer(x).mean).float() - x)[:, 0].flatten(1) / 2
        return difference.abs().pow(power).sum(1).mean()

    return loss


def regression_loss(model: BigBiGAN, x: Tensor) -> Tensor:
    """Return E's error of new latents z ~ U(−1, 1) from G(z), as many as images x; nothing else of x counts."""
    z = torch.rand(len(x), model.generator.latent_dim) * 2 - 1
    with torch.no_grad():  # G with its running statistics
        drawn = model.generator.eval()(z)
    return latent_loss(model.infer(drawn.float()).mean.float(), z, bounded=True)


def train(model: BigBiGAN, x: Tensor, config: Config, loss: Loss, images: int) -> Iterator[int]:
    """Train on x (n, 3, 28, 28) in [−1, 1], and yield the number of images seen at each point."""
    optimizer = build_optimizers(model, config.optim).encoder_generator
    seen = measured = 0
    while seen < images:
        for chosen in torch.randperm(len(x)).split(config.data.batch_size):
            set_rates({"encoder_generator": optimizer}, rates(config.optim, seen))
            with torch.autocast("cpu", torch.bfloat16, enabled=cpu_has_bf16()):
                error = loss(model, x[chosen])
            error.backward()
            optimizer.step()
            optimizer.zero_grad()
            seen += len(chosen)
            if seen * POINTS // images > measured:
                measured = seen * POINTS // images
                yield seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("baseline", choices=["l2", "l1", "lr"])
    parser.add_argument("--gan", help="run, checkpoint or release whose G the latent regressor takes")
    parser.add_argument("--images", type=lambda text: int(text.replace("_", "")), default=24_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", default="ylecun/mnist")
    options = parser.parse_args()
    if (options.baseline == "lr") != bool(options.gan):
        parser.error("expected --gan RUN for lr, whose G it takes, and for nothing else")
    (x, labels), (test, truth) = (pixels(images) for images in open_splits(Data(path=options.data)))
    print(f"the paper, test images: {PAPER}")
    config = settings(options.images)
    torch.manual_seed(options.seed)
    model = BigBiGAN.from_config(config.model)
    set_momentum(model)
    if options.gan:
        model.generator = bigbigan.load(options.gan).generator.requires_grad_(False)
        set_momentum(model.generator, None)
    loss = regression_loss if options.gan else autoencoder_loss(POWERS[options.baseline])
    for seen in train(model.train(), x, config, loss, options.images):
        features = [hidden(model.encoder.trunk, part) for part in (x, test)]
        model.eval()
        error, pairs = reconstruction(model, test)
        model.train()
        print(f"{options.baseline}, {seen:,} images")
        print(f"  last hidden layer {both(features[0], labels, features[1], truth)}")
        print(f"  error of G(E(x)) {error:.2f}, random pairs {pairs:.2f}", flush=True)


if __name__ == "__main__":
    main()
