"""Compress images to their quantised latents, and measure bits against the error of the reconstruction.

    python -m bigbigan.uses.compression digits --out compression.png

E(x) is quantised with a step Δ, an entropy coder writes the whole numbers, and G draws them again. G keeps what an
image shows rather than its pixels, so the error stops falling at that of G(E(x)) however many bits are spent
(generative compression: Santurkar et al. 2017, arXiv 1703.01467). Beside it: JPEG, WebP, and principal components
quantised in the same way.
"""

import io
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
from PIL import Image
from scipy.stats import cauchy, norm
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from bigbigan.api import encode, generate, grid, to_pil
from bigbigan.config.bounds import AtLeastOne, Bounds, Positive, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.files import write_whole
from bigbigan.metrics.reconstruction import relative_error
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import numbers, picture_values, signed_values
from bigbigan.uses.command_line import (
    OURS,
    UseOptions,
    classes_for,
    open_data,
    picture_path,
    read_images,
    ready,
    run_command,
    write_picture,
)

TAIL = 0.01  # weight of the wide tail, so that no number costs an unbounded amount
EXACT = 2.0**53  # whole numbers that float64 tells apart
COMPONENTS = 256  # principal components, at most
KINDS = ("JPEG", "WebP")  # names of Pillow
QUALITIES = (1, 5, 10, 20, 40, 60, 80, 95)  # of JPEG and WebP
SMALLEST = {"optimize": True, "method": 6}  # slower, for smaller files: `optimize` is JPEG's option, `method` WebP's
SHEET = 256  # images that share a file, and so its header


class Coder(NamedTuple):
    """Hold the entropy coder's model of rows of numbers: column c is N(mean, stddev²), with a wide tail.

    mean, stddev: float64 (Z,), of training rows. Both ends know them, as they know E and G.
    """

    mean: np.ndarray
    stddev: np.ndarray

    @classmethod
    @default_on_cpu()
    def fit(cls, rows: Tensor | np.ndarray) -> "Coder":
        """Fit the model to training rows (n, Z), n ≥ 2. Raises InputError."""
        rows = _rows(rows)
        if rows.ndim != 2 or len(rows) < 2:
            raise InputError(f"rows: expected at least two, (n, Z), found the shape {rows.shape}")
        return cls(rows.mean(0), np.maximum(rows.std(0), 1e-9))

    @default_on_cpu()
    def quantise(self, rows: Tensor | np.ndarray, step: float) -> np.ndarray:
        """Return the whole numbers round((row − mean)/step), int64 (N, Z). Raises InputError."""
        check_argument("step", step, Positive)
        rows = _rows(rows)
        if rows.ndim != 2 or rows.shape[1:] != self.mean.shape:
            raise InputError(f"rows: expected the shape (N, {len(self.mean)}) of the coder's, found {rows.shape}")
        numbers = np.rint((rows - self.mean) / step)
        if not (np.abs(numbers) < EXACT).all():
            raise InputError(f"step: expected one that gives numbers below {EXACT:g}, found {step}")
        return numbers.astype(np.int64)

    def restore(self, numbers: np.ndarray, step: float) -> np.ndarray:
        """Return the rows, float64 (N, Z), in the middle of the steps of `quantise`."""
        return numbers * step + self.mean

    def bits(self, numbers: np.ndarray, step: float) -> np.ndarray:
        """Return −Σ log₂ P(number), float64 (N,): the length that an arithmetic coder with this model reaches.

        It writes a stream of images in this many bits and at most two more in all. The model was fitted on other
        images, so this is a cross-entropy: a length that can be had, and not the entropy of these images.
        """
        edges = (numbers[..., None] + np.array([-0.5, 0.5])) * (step / self.stddev)[:, None]
        flipped = np.where(edges.sum(-1, keepdims=True) > 0, -edges[..., ::-1], edges)  # precise in both tails
        mass = [np.diff(law.cdf(flipped))[..., 0] for law in (norm, cauchy)]
        return -np.log2((1 - TAIL) * mass[0] + TAIL * mass[1]).sum(1)


def _rows(rows: Tensor | np.ndarray) -> np.ndarray:
    """Return finite rows (n, Z) in float64. Raises InputError."""
    return numbers(rows, "(n, Z)", "rows").detach().cpu().double().numpy()


class Point(NamedTuple):
    """Hold one point of a curve. name: the method.  setting: of it.  bits: an image, mean.

    images: what it gives back, float (N, 3, S, S) in [−1, 1].
    """

    name: str
    setting: str
    bits: float
    images: Tensor


@default_on_cpu()
def compress(model: BigBiGAN, x: Tensor, coder: Coder, step: float, *, classes: Tensor | None = None) -> Point:
    """Quantise the latents of images and draw them again; bits an image and the reconstructions at G's size.

    x: (N, 3, S', S') in [−1, 1], as `bigbigan.as_tensor` returns images.  coder: fitted on E(x) of training images.
    step: Δ, in units of z, whose prior has variance 1 or so.  classes: (N,) of a conditional model, not counted.
    Raises InputError.
    """
    z = encode(signed_values(x), model, "z_mean", value_range=(-1, 1), progress=False)
    numbers = coder.quantise(z, step)
    images = generate(torch.from_numpy(coder.restore(numbers, step)).float(), model, classes=classes)
    return Point("G and E", f"Δ = {step:g}", float(coder.bits(numbers, step).mean()), images)


@default_on_cpu()
def principal_components(train: Tensor, x: Tensor, steps: tuple[float, ...]) -> list[Point]:
    """Compress images by their principal components, quantised and coded as `compress` does with latents.

    train, x: (n, 3, S, S) and (N, 3, S, S) in [−1, 1].  steps: Δ, in units of the first component's standard deviation.
    Raises InputError.
    """
    train, x = picture_values(train, name="train").detach().cpu(), picture_values(x).detach().cpu()
    if train.shape[1:] != x.shape[1:]:
        raise InputError(f"expected train and x of one size, found {tuple(train.shape)} and {tuple(x.shape)}")
    rows, ours = (part.flatten(1).double().numpy() for part in (train, x))
    pca = PCA(min(COMPONENTS, *rows.shape), random_state=0).fit(rows)
    coder, found = Coder.fit(pca.transform(rows)), pca.transform(ours)
    points = []
    for step in steps:
        width = step * float(coder.stddev[0])
        numbers = coder.quantise(found, width)
        back = torch.from_numpy(pca.inverse_transform(coder.restore(numbers, width))).float().clamp(-1, 1)
        points.append(Point("PCA", f"Δ = {step:g} sd", float(coder.bits(numbers, width).mean()), back.view_as(x)))
    return points


@default_on_cpu()
def files(x: Tensor, kind: str, qualities: tuple[int, ...] = QUALITIES, together: bool = False) -> list[Point]:
    """Compress images as files of Pillow, "JPEG" or "WebP"; bits are those of whole files, with headers.

    x: (N, 3, S, S) in [−1, 1]; grey ones are written as grey.
    qualities: of Pillow, 0 to 100.  together: write sheets of up to 256 images, which share a header.
    Raises InputError.
    """
    if kind not in KINDS:
        raise InputError(f"kind: expected {' or '.join(KINDS)}, found {kind!r}")
    for quality in qualities:
        check_argument("qualities", quality, Annotated[int, Bounds(least=0, most=100)])
    x = picture_values(x).detach().cpu()
    grey = bool((x == x[:, :1]).all())
    per = SHEET if together else 1
    tiles = [_tiled(part) for part in x.split(per)]
    points = []
    for quality in qualities:
        size, back = 0, []
        for tile, part in zip(tiles, x.split(per), strict=True):
            with io.BytesIO() as file:
                to_pil(tile).convert("L" if grey else "RGB").save(file, kind, quality=quality, **SMALLEST)
                size += file.tell()
                pixels = np.asarray(Image.open(file).convert("RGB"))
            sheet = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 127.5 - 1
            back.append(_cut(sheet, part))
        name = f"{kind}, {per} a file" if together else kind
        points.append(Point(name, f"quality {quality}", 8 * size / len(x), torch.cat(back)))
    return points


def _tiled(x: Tensor) -> Tensor:
    """Return images (N, 3, S, S) as one, (3, rows·S, columns·S), about square; the rest of the last row is black."""
    columns = math.ceil(math.sqrt(len(x)))
    rows = math.ceil(len(x) / columns)
    full = torch.cat([x, -torch.ones(rows * columns - len(x), *x.shape[1:])])
    return full.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)


def _cut(sheet: Tensor, like: Tensor) -> Tensor:
    """Return the images of `_tiled`: (N, 3, S, S), as many and as large as `like`."""
    size = like.shape[-1]
    tiles = sheet.unflatten(2, (-1, size)).unflatten(1, (-1, size)).permute(1, 3, 0, 2, 4)
    return tiles.flatten(0, 1)[: len(like)]


def errors(x: Tensor, images: Tensor) -> tuple[float, float]:
    """Return the mean squared error of images relative to that of random pairs, and their PSNR in dB (range 255).

    x, images: (N, 3, S, S) in [−1, 1], N ≥ 2. Relative error: 0 is perfect, 1 no better than another image.
    """
    squared = float((x - images).square().mean())
    return relative_error(x, images), 10 * math.log10(4 / squared) if squared else math.inf


@dataclass
class Compression(UseOptions):
    """Draw the curve of error against bits, and print it beside JPEG, WebP and principal components."""

    steps: Annotated[tuple[float, ...], Bounds(above=0)] = (4.0, 2.0, 1.0, 0.5, 0.25)
    """Steps Δ of the latents; the principal components take the same ones times the first one's standard deviation."""
    train_images: AtLeastOne = 5_000
    """Training images that the entropy coder is fitted on, at most."""
    test_images: AtLeastOne = 500
    """Held-out images to compress, at most."""
    out: Path = Path("compression.png")
    """The picture: images, then what each step leaves of them, the fewest bits first."""
    curve: Path = Path("compression-curve.png")
    """The picture of the curve; needs matplotlib."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(Compression, run, "compression", argv)


def run(options: Compression) -> str:
    """Write the pictures and return the figures as text."""
    model = ready(options.model, options.device or None)
    train, test = open_data(options.data, model)
    size = model.require("encoder").image_size
    x, y = read_images(train, size, options.train_images)
    x_test, y_test = read_images(test, size, options.test_images)
    if len(x_test) < 2:
        raise InputError(f"--data.path: expected at least two held-out images, found {len(x_test)}")
    classes = classes_for(model, y_test)
    coder = Coder.fit(encode(x, model, "z_mean", value_range=(-1, 1), progress=sys.stderr.isatty()))
    ours = [compress(model, x_test, coder, step, classes=classes) for step in options.steps]
    small, small_test = model.for_discriminator(x), model.for_discriminator(x_test)
    points = ours + principal_components(small, small_test, options.steps)
    for kind in KINDS:
        points += files(small_test, kind) + files(small_test, kind, together=True)
    shown = sorted(ours, key=lambda point: point.bits)
    tiles = torch.cat([small_test[:8], *(point.images[:8] for point in shown)])
    picture = write_picture(grid(tiles, columns=min(8, len(small_test))), options.out)
    classifier = None if y is None or y_test is None else _classifier(model, small, y)
    lines = [f"{'':<18}{'':<14}{'bits':>10}{'error':>8}{'PSNR':>8}{'class, %':>10}"]
    kept = None if classifier is None else classifier(small_test, y_test)
    lines.append(_line("the images", "", None, None, kept))
    for point in points:
        kept = None if classifier is None else classifier(point.images, y_test)
        lines.append(_line(point.name, point.setting, point.bits, errors(small_test, point.images), kept))
    note = "bits: an image; error: mean squared, 1 = random pairs; class: by a linear classifier on AvePool of E"
    drawn = draw_curve(points, small_test, options.curve)
    end = f"{len(x_test):,} held-out images of {small_test.shape[-1]} px; pictures: {picture}, {drawn}"
    return "\n".join([*lines, note, end])


def _line(name: str, setting: str, bits: float | None, error: tuple[float, float] | None, kept: float | None) -> str:
    numbers = "" if bits is None else f"{bits:.1f}"
    relative, psnr = ("", "") if error is None else (f"{error[0]:.3f}", f"{error[1]:.1f}")
    share = "" if kept is None else f"{100 * kept:.1f}"
    return f"{name:<18}{setting:<14}{numbers:>10}{relative:>8}{psnr:>8}{share:>10}"


def _classifier(model: BigBiGAN, x: Tensor, y: Tensor):
    """Return a function (images, labels) → accuracy, of a logistic regression on AvePool features of x, y."""

    def features(images: Tensor) -> np.ndarray:
        return encode(images, model, "avepool_feat", value_range=(-1, 1), progress=False).numpy()

    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features(x), y)
    return lambda images, labels: float(fitted.score(features(images), labels))


def draw_curve(points: list[Point], x: Tensor, path: Path) -> str:
    """Draw the relative error of each method against bits an image; return the path, or why there is no picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "no curve, which needs matplotlib: pip install matplotlib"
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(point.name for point in points):
        own = sorted((point.bits, errors(x, point.images)[0]) for point in points if point.name == name)
        axes.plot(*zip(*own, strict=True), marker="o", markersize=3, label=name)
    axes.set(xscale="log", xlabel="bits an image", ylabel="squared error, 1 = random pairs", ylim=(0, None))
    axes.legend(fontsize="small")
    path = picture_path(path, "--curve")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: figure.savefig(part, format="png", dpi=100, metadata=OURS))
    return str(path)


if __name__ == "__main__":
    main()
