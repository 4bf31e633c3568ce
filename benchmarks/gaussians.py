"""Repeat ALI's toy experiment (Dumoulin et al. 2017, section 4.3): do a GAN and ALI find all 25 Gaussians of a grid?

    python benchmarks/gaussians.py [--seeds 10] [--iterations 6000 20000 60000] [--folder runs/gaussians]
                                   [--picture docs/images/gaussians.png]

As in the paper: means on a 5×5 grid of spacing 2 with standard deviation 0.05; 2 latents; the same G and D for both but
for D's input; 10 runs of each with random learning rate, β₁ and deviation of the initial weights, the same for both
kinds with a seed; 10,000 samples, each assigned to its nearest mean; a mode with a sample is covered. Smaller than in
the paper: 128 units in G and E, 64 in D, no dropout, and 60,000 iterations in place of 200,000; a table after each of
`--iterations`. Both kinds are trained by `bigbigan.training.step`, on points as images of 1×1 px with two channels.

Finished runs are kept in the folder and not repeated, so the command may be stopped at any time.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from bigbigan.config import Config, Loss, Optim
from bigbigan.losses import Scores
from bigbigan.model import BigBiGAN
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.interface import DiscriminatorInterface, GeneratorInterface
from bigbigan.networks.layers import CrossReplicaBatchNorm
from bigbigan.training.batch import Batch
from bigbigan.training.optim import build_optimizers
from bigbigan.training.variants import build_step

GRID = torch.cartesian_prod(*[torch.arange(-4.0, 5.0, 2.0)] * 2)  # (25, 2)
DEVIATION, LATENTS, BATCH, SAMPLES = 0.05, 2, 100, 10_000
WIDTH, MAXOUT, PIECES = 128, 64, 2  # units of G and E, and of D, which has as many linear pieces for each
KINDS = ("GAN", "ALI")


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Draw points of the mixture, (count, 2)."""
    means = GRID[torch.randint(len(GRID), (count,), generator=generator)]
    return means + DEVIATION * torch.randn(count, 2, generator=generator)


class Trunk(nn.Module):
    """Map (N, inputs, ...) to (N, WIDTH) by two hidden layers with batch norm and ReLU."""

    num_features = WIDTH

    def __init__(self, inputs: int):
        super().__init__()
        self.linear1, self.norm1 = nn.Linear(inputs, WIDTH, bias=False), CrossReplicaBatchNorm(WIDTH)
        self.linear2, self.norm2 = nn.Linear(WIDTH, WIDTH, bias=False), CrossReplicaBatchNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.linear1(x.flatten(1))))
        return F.relu(self.norm2(self.linear2(h)))


class PointGenerator(nn.Module, GeneratorInterface):
    """Map z (N, 2) to points (N, 2, 1, 1)."""

    image_size, latent_dim = 1, LATENTS

    def __init__(self):
        super().__init__()
        self.trunk, self.linear = Trunk(LATENTS), nn.Linear(WIDTH, 2)

    def forward(self, z: Tensor, classes: None = None) -> Tensor:
        return self.linear(self.trunk(z)).view(-1, 2, 1, 1)


class PointDiscriminator(nn.Module, DiscriminatorInterface):
    """Score points (N, 2, 1, 1), with latents (N, 2) if `joint`, by two hidden layers of maxout."""

    image_size, latent_dim = 1, LATENTS

    def __init__(self, joint: bool):
        super().__init__()
        self.joint = joint
        self.linear1 = nn.Linear(2 + LATENTS * joint, MAXOUT * PIECES)
        self.linear2 = nn.Linear(MAXOUT, MAXOUT * PIECES)
        self.linear3 = nn.Linear(MAXOUT, 1)

    def forward(self, x: Tensor, z: Tensor | None = None, classes: None = None, drop: None = None) -> Scores:
        h = torch.cat([x.flatten(1), z], dim=1) if self.joint else x.flatten(1)
        for layer in (self.linear1, self.linear2):
            h = layer(h).unflatten(1, (MAXOUT, PIECES)).amax(2)
        score = self.linear3(h).squeeze(1)
        return Scores(None, None, score) if self.joint else Scores(score, None, None)


def build(kind: str, deviation: float) -> BigBiGAN:
    joint = kind == "ALI"
    encoder = Encoder(LATENTS, Trunk(2), image_size=1, mlp_layers=0, posterior="log_sigma") if joint else None
    model = BigBiGAN(PointGenerator(), encoder, PointDiscriminator(joint))
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def hyperparameters(seed: int) -> tuple[float, float, float]:
    """Draw the rate, β₁ and the deviation of the initial weights of a seed; the paper does not give its ranges."""
    rate, beta, deviation = np.random.default_rng(seed).random(3)
    return 10 ** (-3.3 + 0.8 * rate), 0.5 + 0.4 * beta, 10 ** (-2 + deviation)


def train(kind: str, seed: int, lengths: list[int]) -> Iterator[tuple[int, Tensor]]:
    """Train a model and yield each of `lengths`, in iterations, with the samples at that point, (10,000, 2)."""
    rate, beta, deviation = hyperparameters(seed)
    torch.manual_seed(seed)
    model = build(kind, deviation).train()
    optim = Optim(generator_lr=rate, discriminator_lr=rate, encoder_lr=rate, betas=(beta, 0.999), d_steps=1)
    optim.simultaneous = True
    step = build_step(Config(loss=Loss("logistic"), optim=optim), model, build_optimizers(model, optim), nullcontext)
    generator = torch.Generator().manual_seed(seed)
    data = draw(100_000, generator)
    for iteration in range(1, max(lengths) + 1):
        x = data[torch.randint(len(data), (BATCH,), generator=generator)].view(-1, 2, 1, 1)
        z, noise = torch.randn(2, BATCH, LATENTS, generator=generator)
        batch = Batch(x, z, noise)
        step.discriminator_update(batch)
        step.encoder_generator_update(batch)
        step.health.forget()
        if iteration in lengths:
            latents = torch.randn(SAMPLES, LATENTS, generator=generator.clone_state())  # leaves the training as it is
            with torch.no_grad():  # with the batch statistics of all samples
                yield iteration, model.generator(latents).flatten(1)


def figures(samples: Tensor) -> dict[str, float]:
    """Return the number of covered modes and the share of good samples.

    modes: modes that are the nearest mode of at least one sample (the paper's figure).  modes3: modes with at least one
    sample within 3 deviations.  within3: the share of samples within 3 deviations of a mode.
    """
    distance, mode = torch.cdist(samples, GRID).min(1)
    near = distance < 3 * DEVIATION
    return {"modes": len(mode.unique()), "modes3": len(mode[near].unique()), "within3": float(near.double().mean())}


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return a Markdown table of mean ± standard deviation (min to max) over the runs of each kind."""
    lines = [
        "| | runs | modes covered | modes with a sample within 3 sd | samples within 3 sd, % |",
        "|---|---|---|---|---|",
    ]
    for kind, rows in found.items():
        cells = []
        for name, scale in (("modes", 1), ("modes3", 1), ("within3", 100)):
            values = scale * np.array([row[name] for row in rows])
            cells.append(f"{values.mean():.1f} ± {values.std(ddof=1):.1f} ({values.min():.0f} to {values.max():.0f})")
        lines.append(f"| {kind} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def picture(samples: dict[str, list[Tensor]], path: Path, size: int = 84, gap: int = 4) -> None:
    """Draw the samples in [−5, 5]², darker where there are more: a row for each kind, a column for each run."""
    columns = max(map(len, samples.values()))
    sheet = np.full((len(samples) * (size + gap) - gap, columns * (size + gap) - gap), 255, np.uint8)
    for row, runs in enumerate(samples.values()):
        for column, points in enumerate(runs):
            counts, *_ = np.histogram2d(-points[:, 1].numpy(), points[:, 0].numpy(), bins=size, range=[[-5, 5]] * 2)
            shade = 235 * (1 - np.minimum(1, counts / 20) ** 0.5)
            top, left = row * (size + gap), column * (size + gap)
            sheet[top : top + size, left : left + size] = shade
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--iterations", type=int, nargs="+", default=[6_000, 20_000, 60_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/gaussians"))
    parser.add_argument("--picture", type=Path, default=None)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--runs", type=int, default=1000, help="end after so many new runs")
    o = parser.parse_args()
    torch.set_num_threads(1)
    o.folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, dict[str, list[Tensor]]] = {n: {kind: [] for kind in o.kinds} for n in sorted(o.iterations)}
    for seed in range(o.seeds):
        for kind in o.kinds:
            files = {n: o.folder / f"{kind}-{seed}-{n}.npy" for n in found}
            if not all(file.is_file() for file in files.values()):
                if o.runs < 1:
                    return
                o.runs, started = o.runs - 1, time.process_time()
                settings = "rate {:.2g}, β₁ {:.2f}, first weights {:.2g}".format(*hyperparameters(seed))
                print(f"{kind} {seed}: {settings}", flush=True)
                for n, points in train(kind, seed, o.iterations):
                    np.save(files[n], points.numpy())
                    seconds = time.process_time() - started
                    print(f"{kind} {seed}, {n:,}: {figures(points)}, {seconds:.0f} s of processor time", flush=True)
            for n, file in files.items():
                found[n][kind].append(torch.from_numpy(np.load(file)))
    for n, samples in found.items():
        print(f"\nafter {n:,} iterations")
        print(table({kind: [figures(points) for points in runs] for kind, runs in samples.items()}))
    if o.picture:
        picture(samples, o.picture)


if __name__ == "__main__":
    main()
