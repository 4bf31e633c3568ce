"""Refine the reconstruction of an image: optimise z from E(x) on, so that G(z) comes nearer to x.

    python -m bigbigan.uses.inversion digits --out inversion.png

E gives a latent in one pass, and its reconstruction keeps what E found worth keeping. Some steps of gradient descent
from there bring back the pixels, as Zhu et al. (2016, arXiv 1609.03552, section 4) begin with an encoder's guess.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
from torch import Tensor
from tqdm.auto import trange

from bigbigan.api import grid
from bigbigan.config.bounds import AtLeastOne, AtLeastTwo, NotNegative, Positive, Strength, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.metrics.reconstruction import error_of_random_pairs
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import classes_of, images_of, latents_of
from bigbigan.uses.command_line import (
    UseOptions,
    at_encoder_size,
    bar_settings,
    classes_for,
    device_of,
    draw_latents,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

BOUNDS = {
    "uniform": (-1, 1), "bernoulli": (0, 1), "signed_bernoulli": (-1, 1), "categorical": (-1, 1),
    "censored_normal": (0, None),
}  # fmt: skip
"""Where a latent stays, by the model's prior: the smallest interval that holds the prior's values."""


@dataclass
class Inversion:
    """Hold the course of an optimisation of N latents.

    start: the latents begun with, (N, Z).  z: those with the lowest loss.  images: G(z), (N, 3, S, S).
    before, after: mean squared pixel error of G(start) and of G(z), (N,), in [−1, 1]² units.
    steps: the step numbers at which the pictures were taken, 0 being the start.
    film: G(z) at these steps, (N, len(steps), 3, S, S).  errors: the pixel errors at these steps, (N, len(steps)).
    """

    start: Tensor
    z: Tensor
    images: Tensor
    before: Tensor
    after: Tensor
    steps: list[int]
    film: Tensor
    errors: Tensor


@default_on_cpu()
@torch.inference_mode(False)  # it learns, whatever mode it is called in
def invert(
    model: BigBiGAN,
    x: Tensor,
    steps: int = 200,
    *,
    start: Tensor | None = None,
    lr: float = 0.05,
    feature_weight: float = 0.0,
    prior_weight: float = 0.01,
    domain_weight: float = 0.0,
    pictures_at: Sequence[int] = (),
    classes: Tensor | None = None,
    progress: bool = False,
) -> Inversion:
    """Optimise latents so that G(z) becomes x, from E(x) on, and return the best latents with the course.

    Minimises, for each image and by Adam,
        mean (x − G(z))²  +  feature_weight · mean (f(x) − f(G(z)))² / mean f(x)²
        + prior_weight · mean z²  +  domain_weight · mean (z − E(G(z)))²,
    with means over pixels, features and latents. f is E's AvePool feature. The last term is the domain regulariser of
    in-domain inversion (Zhu et al. 2020, arXiv 2004.00049, equation 5), the feature term its perceptual loss with E in
    place of VGG. The third is −log p(z) of N(0, I), but for a constant and a factor. It is left out for other priors,
    whose latents are kept in their bounds instead, see `BOUNDS`.
    x: (N, 3, S, S) in [−1, 1] at E's size, N at least 1; without E at G's size.
    steps: 0 only measures the start.  lr: Adam's rate, in the unit of z.
    start: (N, Z) in place of the mean of E's posterior; a GAN without E needs it, such as zeros.
    pictures_at: steps whose pictures are kept beside the first and the last; those beyond `steps` are left out.
    classes: (N,) of a conditional model.  progress: show a bar at a terminal.
    Weights and gradients stay as they are; the networks are put into evaluation mode.  Raises InputError.
    """
    generator = model.eval().require("generator")
    check_argument("steps", steps, NotNegative), check_argument("lr", lr, Positive)
    weights = {"feature_weight": feature_weight, "prior_weight": prior_weight, "domain_weight": domain_weight}
    for name, weight in weights.items():
        check_argument(name, weight, Strength)
    network = generator if model.encoder is None else model.encoder
    x = images_of(model, x, network.image_size)
    classes = classes_of(model, classes, len(x))
    if start is None:
        with torch.no_grad():
            model.require("encoder")
            start = model.infer(x, classes).mean
    start = latents_of(model, start, "start")
    if start.shape != (len(x), generator.latent_dim):
        raise InputError(f"start: expected the shape {(len(x), generator.latent_dim)}, found {tuple(start.shape)}")
    loss = _Loss(model, x, feature_weight, prior_weight, domain_weight, classes)
    bounds = BOUNDS.get(model.prior)
    z = start.detach().clone()
    z = (z if bounds is None else z.clamp(*bounds)).requires_grad_()
    optimizer = torch.optim.Adam([z], lr)
    for step in pictures_at:
        check_argument("pictures_at", step, NotNegative)
    kept = sorted({0, steps, *(int(step) for step in pictures_at if step <= steps)})
    film, errors = [], []
    best, lowest = z.detach().clone(), torch.full((len(x),), float("inf"), device=z.device)
    for step in trange(steps + 1, desc="inversion", **bar_settings(progress)):
        total, images, pixels = loss(z)
        better = total.detach() < lowest
        lowest = torch.where(better, total.detach(), lowest)
        best = torch.where(better[:, None], z.detach(), best)
        if step in kept:
            film.append(images.detach()), errors.append(pixels.detach())
        if step == steps:
            break
        (z.grad,) = torch.autograd.grad(total.sum(), z)  # each latent's loss depends on itself alone
        optimizer.step()
        if bounds is not None:
            z.data.clamp_(*bounds)
    with torch.no_grad():
        _, images, after = loss(best)
    return Inversion(start.detach(), best, images, errors[0], after, kept, torch.stack(film, 1), torch.stack(errors, 1))


class _Loss:
    """Compute the loss of `invert` for each image: z (N, Z) → (loss (N,), G(z), pixel error (N,))."""

    def __init__(self, model: BigBiGAN, x: Tensor, feature: float, prior: float, domain: float, classes: Tensor | None):
        if (feature or domain) and model.encoder is None:
            raise InputError("model: expected one with an encoder for feature_weight and domain_weight, found a GAN")
        self.model, self.classes = model, classes
        self.feature, self.domain = feature, domain
        self.prior = prior if model.prior in ("normal", "variable_normal") else 0.0
        with torch.no_grad():
            self.target = model.for_discriminator(x)  # E may see larger images than G draws
            self.features = model.encoder.avepool(x) if feature else None

    def __call__(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = self.model.generate(z, self.classes)
        pixels = (images - self.target).square().flatten(1).mean(1)
        total = pixels + self.prior * z.square().mean(1)
        if self.feature or self.domain:
            seen = at_encoder_size(self.model, images)
            avepool = self.model.encoder.avepool(seen)
        if self.feature:
            scale = self.features.square().mean(1).clamp_min(1e-12)
            total = total + self.feature * (avepool - self.features).square().mean(1) / scale
        if self.domain:
            back = self.model.encoder.head(avepool, self.classes).mean
            total = total + self.domain * (z - back).square().mean(1)
        return total, images, pixels


@dataclass
class InversionCommand(UseOptions):
    """Refine the reconstructions of held-out images, draw the steps, and print the errors before and after."""

    out: Path = Path("inversion.png")
    """The picture: each row is an image, then G(z) after 0, 1, 2, 5, 10, ... steps."""
    rows: AtLeastOne = 8
    """Images in the picture."""
    images: AtLeastTwo = 100
    """Images that the figures are of."""
    steps: NotNegative = 200
    """Steps of Adam."""
    lr: Positive = 0.05
    """Adam's rate, in the unit of z."""
    feature_weight: Strength = 0.0
    """Weight of the error in E's AvePool feature, relative to the feature's square."""
    prior_weight: Strength = 0.01
    """Weight of mean z², which keeps z near a normal prior, whose mean z² is 1."""
    domain_weight: Strength = 0.0
    """Weight of mean (z − E(G(z)))², which keeps z where E would see it."""
    seed: NotNegative = 0
    """Decides which images are taken, and the random starts."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(InversionCommand, run, "inversion", argv)


def run(options: InversionCommand) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    test = open_data(options.data, model)[1]
    x, labels = read_images(test, model.require("encoder").image_size, options.images, options.seed)
    x = x.to(device_of(model))
    classes = classes_for(model, labels)
    shown = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if step < options.steps]
    settings = {
        "lr": options.lr,
        "feature_weight": options.feature_weight,
        "prior_weight": options.prior_weight,
        "domain_weight": options.domain_weight,
        "pictures_at": shown,
        "classes": classes,
        "progress": True,
    }
    starts = {
        "E(x)": None,
        "a random z": draw_latents(model, len(x), "inversion", options.seed),
    }
    courses = {name: invert(model, x, options.steps, start=start, **settings) for name, start in starts.items()}
    refined = courses["E(x)"]
    rows = torch.cat([model.for_discriminator(x)[:, None], refined.film], dim=1)[: options.rows]
    picture = write_picture(grid(rows.flatten(0, 1).cpu(), columns=rows.shape[1]), options.out)
    images = model.for_discriminator(x)
    pairs = error_of_random_pairs(images) / images[0].numel()
    lines = [
        f"mean squared pixel error of {len(x)} held-out images after steps of Adam, 1 = random pairs of images "
        f"({float(pairs):.3f}); the mean of z²:",
        f"  {'start':12}" + "".join(f"{step:>7}" for step in refined.steps) + f"{'z² before':>12}{'after':>7}",
    ]
    for name, course in courses.items():
        errors = "".join(f"{float(e):7.3f}" for e in course.errors.mean(0) / pairs)
        before = float(course.start.square().mean())
        lines.append(f"  {name:12}{errors}{before:12.2f}{float(course.z.square().mean()):7.2f}")
    better = float((refined.after < refined.before).float().mean())
    return "\n".join([*lines, f"{better:.0%} of the images came nearer; picture: {picture}"])


if __name__ == "__main__":
    main()
