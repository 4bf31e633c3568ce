"""Classify with few labels, with variations of the labelled images that G draws (GenRep: Jahanian et al. 2021).

    python -m bigbigan.uses.few_shot digits --out few_shot.png

A variation of an image x is G(E(x) + ε) with ε ~ N(0, σ²): GenRep (arXiv 2106.05258) draws its views near a latent so.
LASIUM (Khodadadeh et al. 2020, arXiv 2006.10236) makes whole tasks without labels: see `tasks`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bigbigan.api import check_seed, encode, generate, grid
from bigbigan.config.bounds import AtLeastOne, Bounds, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import classes_of, labels_of, signed_values
from bigbigan.uses.command_line import (
    UseOptions,
    bar,
    draw_classes,
    draw_latents,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

NEAR, FAR = 0.2, 0.5  # σ of GenRep's views and of LASIUM's members, in units of the prior N(0, I)


@default_on_cpu()
def variations(
    model: BigBiGAN, x: Tensor, count: int = 20, noise: float = NEAR, *, seed: int = 0, classes: Tensor | None = None
) -> Tensor:
    """Draw variations G(E(x) + ε), ε ~ N(0, noise² I), of images: float (N, count, 3, S, S) in [−1, 1] on the CPU.

    E(x) is the mean of E's posterior.
    x: (N, 3, S', S') in [−1, 1], as `bigbigan.as_tensor` returns images.  count: of each image, at least 1.
    noise: σ ≥ 0, in units of the latents; 0 repeats the reconstruction. The uniform prior's latents stay in [−1, 1].
    seed: decides ε.
    classes: (N,) of a conditional model; None draws one at random for each image.  Raises InputError.
    """
    _check(noise, seed, count=count)
    z = encode(signed_values(x), model, "z_mean", value_range=(-1, 1), progress=False)
    return _near(model, z, count, noise, seed, classes_of(model, classes, len(z)))


@default_on_cpu()
def tasks(
    model: BigBiGAN, ways: int = 5, shots: int = 1, noise: float = FAR, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Draw a few-shot task without labels, as LASIUM does with GANs: (images, their latents).

    A class is a latent z of the prior, and its members are G(z + ε), ε ~ N(0, noise² I): images (ways, shots, 3, S, S)
    in [−1, 1], latents of the classes (ways, Z), on the CPU. A learner that is trained on many such tasks is LASIUM's.
    A conditional G draws the members of one class with one of its own classes, drawn at random.
    ways, shots: at least 1.  noise, seed: as in `variations`.  Raises InputError.
    """
    _check(noise, seed, ways=ways, shots=shots)
    z = draw_latents(model, ways, "few-shot classes", seed).cpu()
    return _near(model, z, shots, noise, seed, None), z


def _check(noise: float, seed: int, **counts: int) -> None:
    """Raise InputError for a noise or seed that cannot be, or a count below 1."""
    for name, count in counts.items():
        check_argument(name, count, AtLeastOne)
    check_argument("noise", noise, Annotated[float, Bounds(least=0)]), check_seed(seed)


def _near(model: BigBiGAN, z: Tensor, count: int, noise: float, seed: int, classes: Tensor | None) -> Tensor:
    """Return G of `count` latents near each of z (N, Z): (N, count, 3, S, S). classes: None for a random one each."""
    shift = torch.randn(len(z), count, z.shape[1], generator=torch.Generator().manual_seed(int(seed)))
    classes = draw_classes(model, len(z), seed) if classes is None else classes
    repeated = None if classes is None else classes.repeat_interleave(count, 0)
    near = (z[:, None] + noise * shift).flatten(0, 1)
    near = near.clamp(-1, 1) if model.prior == "uniform" else near  # G has seen nothing beyond
    return generate(near, model, classes=repeated).unflatten(0, (len(z), count))


def accuracy(labelled: np.ndarray, y: np.ndarray, more: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Fit a logistic regression to labelled images and variations of them, and return its test accuracy.

    It is scikit-learn's, with an L2 penalty and C = 1. The variations of an image weigh as much as the image, together.
    labelled: features (n, C) with classes y (n,).  more: features (n, count, C) of their variations; count may be 0.
    x_test, y_test: (m, C) and (m,).
    """
    count = more.shape[1]
    x = np.concatenate([labelled, more.reshape(-1, labelled.shape[1])])
    weights = np.concatenate([np.ones(len(y)), np.full(len(y) * count, 1 / max(1, count))])
    fitted = LogisticRegression(max_iter=1000).fit(x, np.concatenate([y, y.repeat(count)]), weights)
    return float(fitted.score(x_test, y_test))


@default_on_cpu()
def draw_labelled(y: Tensor, shots: int, seed: int) -> Tensor:
    """Return the places of `shots` images of each class, drawn at random: int64 (K·shots,), in the order of classes.

    y: (n,) classes; −1 is none.  shots: at least 1.  Raises InputError for a class with fewer images.
    """
    check_argument("shots", shots, AtLeastOne), check_seed(seed)
    y = labels_of(y, len(y), "y")
    if not bool((y >= 0).any()):
        raise InputError("y: expected at least one class, found none")
    generator = torch.Generator().manual_seed(int(seed))
    chosen = []
    for c in y[y >= 0].unique().tolist():
        places = (y == c).nonzero()[:, 0]
        if len(places) < shots:
            raise InputError(f"shots: expected at most {len(places)}, the images of class {c}; found {shots}")
        chosen.append(places[torch.randperm(len(places), generator=generator)[:shots]])
    return torch.cat(chosen)


@dataclass
class FewShot(UseOptions):
    """Fit linear classifiers to a few labelled images, with and without variations of them, and print the accuracies.

    The classifier sees E's AvePool feature, standardised by all training images, which needs no labels. Most of the
    time goes into the variations: classes × sum of --shots × --draws × --count images for each σ are drawn and encoded.
    """

    shots: Annotated[tuple[int, ...], Bounds(least=1)] = (1, 5, 10)
    """Labelled images of each class."""
    noise: Annotated[tuple[float, ...], Bounds(least=0)] = (NEAR, FAR)
    """σ of the variations."""
    count: AtLeastOne = 20
    """Variations of each labelled image."""
    draws: AtLeastOne = 10
    """Draws of the labelled images that each accuracy is the mean of."""
    train_images: AtLeastOne = 10_000
    """Training images that labelled ones are drawn from, at most."""
    test_images: AtLeastOne = 2_000
    """Held-out images that the accuracy is of, at most."""
    out: Path = Path("few_shot.png")
    """The picture: each row is a labelled image, its reconstruction, and variations of it at the last σ."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(FewShot, run, "few_shot", argv)


def run(options: FewShot) -> str:
    """Write the picture and return the figures as text."""
    if options.draws < 1 or not options.shots:
        raise InputError(f"expected at least one draw and one number of shots, found {options.draws}, {options.shots}")
    model = ready(options.model, options.device or None)
    train, test = open_data(options.data, model)
    size = model.require("encoder").image_size
    x, y = read_images(train, size, options.train_images)
    x_test, y_test = read_images(test, size, options.test_images)
    if y is None or y_test is None:
        raise InputError("--data.path: expected images with labels in both splits, found none")
    picture = write_picture(_sheet(model, x, y, options), options.out)
    names = ["pixels", "AvePool"] + [f"AvePool, {options.count} variations, σ = {s:g}" for s in options.noise]
    lines = [f"{'top-1, %':<36}" + "".join(f"{f'{k} a class':>16}" for k in options.shots)]
    scores = _scores(model, (x, y, x_test, y_test), options)
    for name, row in zip(names, 100 * scores, strict=True):
        ends = [f" ± {sd:.1f}" for sd in row.std(1, ddof=1)] if options.draws > 1 else [""] * len(row)
        lines.append(
            f"{name:<36}" + "".join(f"{f'{m:.1f}{end}':>16}" for m, end in zip(row.mean(1), ends, strict=True))
        )
    end = f"mean ± standard deviation of {options.draws} draws; {len(x_test):,} held-out images; picture: {picture}"
    return "\n".join([*lines, end])


def _scores(model: BigBiGAN, images: tuple[Tensor, ...], options: FewShot) -> np.ndarray:
    """Return the accuracies (2 + σ's, shots, draws) of pixels, of AvePool, and of AvePool with variations by each σ."""
    x, y, x_test, y_test = images
    pixels, pixels_test = _standardised(*(model.for_discriminator(part).flatten(1).numpy() for part in (x, x_test)))
    scaler, seen = StandardScaler(), sys.stderr.isatty()
    features = scaler.fit_transform(_features(model, x, seen))
    features_test = scaler.transform(_features(model, x_test, seen))
    scores = np.empty((2 + len(options.noise), len(options.shots), options.draws))
    work = [(i, shots, draw) for i, shots in enumerate(options.shots) for draw in range(options.draws)]
    with bar(options.draws * sum(options.shots), "fits", "label a class") as shown:
        for i, shots, draw in work:
            at = draw_labelled(y, shots, draw)
            labels, own = y[at].numpy(), features[at]
            none = [np.empty((len(at), 0, rows.shape[1])) for rows in (pixels, features)]
            scores[0, i, draw] = accuracy(pixels[at], labels, none[0], pixels_test, y_test.numpy())
            scores[1, i, draw] = accuracy(own, labels, none[1], features_test, y_test.numpy())
            for j, noise in enumerate(options.noise):
                classes = y[at] if model.classes else None
                drawn = variations(model, x[at], options.count, noise, seed=draw, classes=classes)
                more = scaler.transform(_features(model, drawn.flatten(0, 1))).reshape(len(at), options.count, -1)
                scores[2 + j, i, draw] = accuracy(own, labels, more, features_test, y_test.numpy())
            shown.update(shots)
    return scores


def _standardised(rows: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both matrices, standardised by the columns of the first."""
    scaler = StandardScaler().fit(rows)
    return scaler.transform(rows), scaler.transform(others)


def _features(model: BigBiGAN, x: Tensor, progress: bool = False) -> np.ndarray:
    """Return AvePool features (n, C) of images (n, 3, S, S) of any size."""
    return encode(x, model, "avepool_feat", value_range=(-1, 1), progress=progress).numpy()


def _sheet(model: BigBiGAN, x: Tensor, y: Tensor, options: FewShot):
    """Return rows of an image, its reconstruction and variations of it; one image of each of the first classes."""
    at = draw_labelled(y, 1, 0)[:8]
    classes = y[at] if model.classes else None
    drawn = variations(model, x[at], 8, options.noise[-1] if options.noise else FAR, classes=classes)
    plain = variations(model, x[at], 1, 0.0, classes=classes)
    rows = torch.cat([model.for_discriminator(x[at])[:, None], plain, drawn], dim=1)
    return grid(rows.flatten(0, 1), columns=rows.shape[1])


if __name__ == "__main__":
    main()
