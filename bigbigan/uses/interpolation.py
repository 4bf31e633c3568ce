"""Interpolate between images: G on the path between the latents E(x₁) and E(x₂).

    python -m bigbigan.uses.interpolation digits --out interpolation.png

BigBiGAN encodes both images, so real images can be the ends of the path. A GAN without E interpolates between latents
of its prior: `latent_path` and `model.generate` do that.
"""

import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Literal

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.api import grid
from bigbigan.config.bounds import AtLeastOne, AtLeastTwo, NotNegative, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import classes_of, images_of, numbers
from bigbigan.uses.command_line import (
    UseOptions,
    at_encoder_size,
    classes_for,
    device_of,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

BATCH = 256  # images computed at a time

SPHERICAL = ("normal", "variable_normal", "sparse_normal", "censored_normal")
"""Priors whose latents have a typical length, which a straight line between two of them cuts short."""
NEARLY_PARALLEL = 1e-3  # sine of the angle below which slerp is computed as lerp


def lerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return the point (1 − t)·a + t·b of the straight line.

    a, b: (..., Z).  t: a finite number, or a tensor (..., 1); beyond 0 … 1 the line goes on.  Raises InputError.
    """
    return a + (b - a) * _checked(t)


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """Return the point at share t of the arc from a to b (Shoemake 1985; White 2016, arXiv 1609.04468, section 2.1).

    The direction is sin((1 − t)Ω)/sin Ω · â + sin(tΩ)/sin Ω · b̂ with Ω the angle between a and b; the length goes
    linearly from ‖a‖ to ‖b‖. The line is taken where no arc is shortest: parallel or opposite vectors, and zeros.
    a, b, t: as of `lerp`.  Raises InputError.
    """
    t = torch.as_tensor(_checked(t), dtype=a.dtype, device=a.device)
    one, two = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    cosine = (one * two).sum(-1, keepdim=True).clamp(-1, 1)
    lengths = [v.norm(dim=-1, keepdim=True) for v in (a, b)]
    line = (1 - cosine.square() < NEARLY_PARALLEL**2) | (lengths[0] * lengths[1] == 0)
    angle = torch.acos(torch.where(line, torch.zeros_like(cosine), cosine))
    direction = (torch.sin((1 - t) * angle) * one + torch.sin(t * angle) * two) / torch.sin(angle)
    return torch.where(line, lerp(a, b, t), direction * lerp(*lengths, t))


def _checked(t: float | Tensor) -> float | Tensor:
    """Return t. Raises InputError unless it is finite, and a number or of the shape (..., 1)."""
    if isinstance(t, Real):
        if not math.isfinite(t):
            raise InputError(f"t: expected a finite number, found {t}")
        return t
    t = numbers(t, "(..., 1), or a number", "t")
    if t.ndim and t.shape[-1] != 1:
        raise InputError(f"t: expected a number, or the shape (..., 1), found {tuple(t.shape)}")
    return t


@default_on_cpu()
def latent_path(a: Tensor, b: Tensor, steps: int = 9, path: Literal["lerp", "slerp"] = "slerp") -> Tensor:
    """Return `steps` latents from a to b, both ends included: (N, steps, Z). a, b: (N, Z). Raises InputError."""
    if path not in ("lerp", "slerp"):
        raise InputError(f"path: expected lerp or slerp, found {path!r}")
    a, b = numbers(a, "(N, Z)", "a"), numbers(b, "(N, Z)", "b")
    if a.shape != b.shape or a.ndim != 2:
        raise InputError(f"expected two sets of latents (N, Z), found {tuple(a.shape)} and {tuple(b.shape)}")
    check_argument("steps", steps, AtLeastTwo)
    a, b = (part if part.is_floating_point() else part.float() for part in (a, b))
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device)[:, None]
    return (lerp if path == "lerp" else slerp)(a[:, None], b[:, None], t)


def usual_path(prior: str) -> Literal["lerp", "slerp"]:
    """Return which path suits a prior: slerp for those of `SPHERICAL`, else lerp.

    N(0, I) in many dimensions has almost all its mass near ‖z‖ = √Z, and a line between two latents passes nearer to 0
    (White 2016). U(−1, 1) fills a cube, which holds every line between two of its points, but not every arc. A discrete
    prior has nothing between its values on either path.
    """
    return "slerp" if prior in SPHERICAL else "lerp"


@default_on_cpu()
def interpolate(
    model: BigBiGAN,
    x1: Tensor,
    x2: Tensor,
    steps: int = 9,
    *,
    path: Literal["auto", "lerp", "slerp"] = "auto",
    classes: Tensor | None = None,
) -> Tensor:
    """Return images on the paths between pairs of images: (N, steps, 3, S, S) in [−1, 1] at G's size.

    The first is G(E(x₁)) and the last G(E(x₂)), by the mean of E's posterior. Gradients pass to x₁ and x₂.
    model: with E and G; is put into evaluation mode.
    x1, x2: (N, 3, S', S') in [−1, 1] at E's size, N at least 1.
    path: "auto" for what suits the model's prior, see `usual_path`.
    classes: (N,) for G of a conditional model, one for each path.
    Raises InputError.
    """
    size, _ = model.eval().require("encoder").image_size, model.require("generator")
    x1, x2 = images_of(model, x1, size, "x1"), images_of(model, x2, size, "x2")
    classes = classes_of(model, classes, len(x1))
    kind = usual_path(model.prior) if path == "auto" else path
    z = latent_path(model.infer(x1, classes).mean, model.infer(x2, classes).mean, steps, kind)
    repeated = None if classes is None else classes.repeat_interleave(steps, 0)
    return model.generate(z.flatten(0, 1), repeated).unflatten(0, (-1, steps))


def pixel_blend(film: Tensor) -> Tensor:
    """Return the straight line in pixels between the first and last images of each path; film: (N, T, 3, S, S)."""
    t = torch.linspace(0, 1, film.shape[1], dtype=film.dtype, device=film.device).view(1, -1, 1, 1, 1)
    return lerp(film[:, :1], film[:, -1:], t)


@default_on_cpu()
@torch.no_grad()
def smoothness(model: BigBiGAN, film: Tensor) -> dict[str, float]:
    """Measure how long and how even paths of images are, in pixels and in E's AvePool feature.

    film: (N, T, 3, S, S) in [−1, 1].  With d the L2 distance of two images, or of their features:
    length: the mean over paths of Σ d(xₜ, xₜ₊₁) / d(x₁, x_T): 1 for a straight line, more for a detour.
    largest_step: the mean over paths of max d(xₜ, xₜ₊₁) / mean d(xₜ, xₜ₊₁): 1 for even steps, T − 1 for one jump.
    Returns {pixel_length, pixel_largest_step, feature_length, feature_largest_step}.
    The lengths are the idea of StyleGAN's perceptual path length (Karras et al. 2019, section 4.1) with E in place of
    VGG, over whole paths in place of short pieces.
    """
    if not isinstance(film, Tensor) or film.ndim != 5 or film.shape[1] < 2:
        found = tuple(film.shape) if isinstance(film, Tensor) else type(film).__name__
        raise InputError(f"film: expected (N, T, 3, S, S), T at least 2, as `interpolate` returns it; found {found}")
    film = images_of(model, film.flatten(0, 1), name="film").unflatten(0, film.shape[:2])
    features = _avepool(model, film.flatten(0, 1)).unflatten(0, film.shape[:2])
    figures = {}
    for name, points in (("pixel", film.flatten(2)), ("feature", features)):
        steps = (points[:, 1:] - points[:, :-1]).norm(dim=2)
        ends = (points[:, -1] - points[:, 0]).norm(dim=1)
        figures[f"{name}_length"] = float((steps.sum(1) / ends.clamp_min(1e-12)).mean())
        figures[f"{name}_largest_step"] = float((steps.amax(1) / steps.mean(1).clamp_min(1e-12)).mean())
    return figures


@default_on_cpu()
@torch.no_grad()
def distance_to_real(model: BigBiGAN, x: Tensor, real: Tensor) -> Tensor:
    """Return the L2 distance (N,) of each image's AvePool feature to the nearest of those of real images.

    x: (N, 3, S, S), real: (M, 3, S', S'), both in [−1, 1].
    """
    x, real = images_of(model, x), images_of(model, real, name="real")
    return torch.cdist(_avepool(model, x), _avepool(model, real)).amin(1)


def _avepool(model: BigBiGAN, x: Tensor) -> Tensor:
    """Return the AvePool features (N, C) of images (N, 3, S, S) of any size, computed in batches, on their device."""
    encoder = model.eval().require("encoder")
    return torch.cat([encoder.avepool(at_encoder_size(model, part)).float() for part in x.split(BATCH)])


@dataclass
class Interpolation(UseOptions):
    """Draw rows of images on the paths between pairs of held-out images, and print how smooth the paths are."""

    out: Path = Path("interpolation.png")
    """The picture: each row is an image, G on the path between both images' latents, the other image."""
    rows: AtLeastOne = 6
    """Pairs in the picture."""
    steps: AtLeastTwo = 9
    """Images on a path, both ends included."""
    path: Literal["auto", "lerp", "slerp"] = "auto"
    """lerp: a straight line; slerp: an arc; auto: what suits the model's prior."""
    pairs: AtLeastOne = 128
    """Pairs that the figures are of."""
    seed: NotNegative = 0
    """Decides which images are paired."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(Interpolation, run, "interpolation", argv)


@torch.inference_mode()
def run(options: Interpolation) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    train, test = open_data(options.data, model)
    size, device = model.require("encoder").image_size, device_of(model)
    x, labels = read_images(test, size, 2 * options.pairs, options.seed)
    n = len(x) // 2
    if n < 1:
        raise InputError(f"--data.path: expected at least two held-out images, found {len(x)}")
    one, two = x[:n].to(device), x[n : 2 * n].to(device)
    classes = classes_for(model, labels)
    parts = [part.split(max(1, BATCH // max(1, options.steps))) for part in (one, two)]
    labelled = [None] * len(parts[0]) if classes is None else classes[:n].split(len(parts[0][0]))
    film = torch.cat(
        [
            interpolate(model, a, b, options.steps, path=options.path, classes=some)
            for a, b, some in zip(*parts, labelled, strict=True)
        ]
    )
    ends = [model.for_discriminator(part)[:, None] for part in (one, two)]
    shown = torch.cat([ends[0], film, ends[1]], dim=1)[: options.rows]
    picture = write_picture(grid(shown.flatten(0, 1).cpu(), columns=shown.shape[1]), options.out)
    real = read_images(train, size, 5000, options.seed)[0].to(device)
    floor = distance_to_real(model, x.to(device), real).mean()
    lines = [f"{'':14}{'length':>16}{'largest step':>16}{'middle to real':>18}"]
    lines += [f"{'':14}{'pixels':>8}{'E':>8}{'pixels':>8}{'E':>8}{'held-out = 1':>18}"]
    kind = usual_path(model.prior) if options.path == "auto" else options.path
    for name, images in ((f"latents, {kind}", film), ("pixel blend", pixel_blend(film))):
        f = smoothness(model, images)
        middle = distance_to_real(model, images[:, options.steps // 2], real).mean() / floor
        lines.append(
            f"{name:14}{f['pixel_length']:8.2f}{f['feature_length']:8.2f}{f['pixel_largest_step']:8.2f}"
            f"{f['feature_largest_step']:8.2f}{float(middle):18.2f}"
        )
    return "\n".join([*lines, f"{n} pairs of held-out images, {options.steps} steps; picture: {picture}"])


if __name__ == "__main__":
    main()
