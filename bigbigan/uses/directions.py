"""Find directions in the latent space along which images change in one way: without labels, in closed form, by labels.

    python -m bigbigan.uses.directions digits --method discover --out discover.png
    python -m bigbigan.uses.directions digits --method sefa --out sefa.png
    python -m bigbigan.uses.directions digits --method labels --out labels.png

All three return unit vectors of the latent space, which `traverse` walks along and draws.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from tqdm.auto import trange

from bigbigan.api import grid
from bigbigan.config import ImagesGiven
from bigbigan.config.bounds import AtLeastOne, AtLeastTwo, Bounds, NotNegative, Positive, Strength, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import classes_of, direction_of, images_of, labels_of, latents_of, numbers
from bigbigan.uses.command_line import (
    UseOptions,
    at_encoder_size,
    bar_settings,
    device_of,
    draw_classes,
    draw_latents,
    open_data,
    read_images,
    ready,
    run_command,
    write_picture,
)

SHIFT_WEIGHT = 0.25  # λ of the shift's error beside the cross-entropy (Voynov & Babenko 2020, section 3.2)
RELATIVE_SHIFT = 6 / 128**0.5  # the paper's largest shift, 6, for latents of length √128
SMALLEST_SHIFT = 1 / 12  # of the largest: in the paper 0.5 of 6
LAST_MAP = 4  # side of the reconstructor's last map


class Directions(NamedTuple):
    """Hold unit vectors of the latent space. vectors: (K, Z); names: K of them; strengths: (K,), see what made them."""

    vectors: Tensor
    names: list[str]
    strengths: Tensor


class Reconstructor(nn.Module):
    """Predict from two images which direction lies between them, and how far (Voynov & Babenko 2020, figure 2: R).

    forward: x, shifted (N, 3, S, S) → (logits (N, K), shift (N,)).
    """

    def __init__(self, directions: int, image_size: int, width: int = 32):
        super().__init__()
        layers, channels, size = [], 6, image_size
        while True:
            stride = 1 if channels == 6 else 2
            layers += [nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels, width, size = width, min(2 * width, 256), -(-size // stride)
            if size <= LAST_MAP:
                break
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(LAST_MAP), nn.Flatten())
        self.which = nn.Linear(channels * LAST_MAP**2, directions)
        self.how_far = nn.Linear(channels * LAST_MAP**2, 1)

    def forward(self, x: Tensor, shifted: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(torch.cat([x, shifted], dim=1))
        return self.which(h), self.how_far(h).squeeze(1)


@dataclass
class Discovery:
    """Hold what `discover` found.

    directions: the columns of A; `strengths` is the share of pairs in which R names each of them rightly.
    accuracy: the share of fresh pairs whose direction R names (the paper's RCA), chance is 1/K.
    shift_error: mean |ε − ε̂| on fresh pairs, in the unit of z.  largest_shift: the ε were in ± this.
    reconstructor: R, in evaluation mode.
    """

    directions: Directions
    accuracy: float
    shift_error: float
    largest_shift: float
    reconstructor: Reconstructor


@default_on_cpu()
@torch.inference_mode(False)  # it learns, whatever mode it is called in
def discover(
    model: BigBiGAN,
    count: int | None = None,
    steps: int = 2000,
    batch_size: int = 64,
    *,
    largest_shift: float | None = None,
    start: Literal["random", "axes"] = "random",
    learn: bool = True,
    lr: float = 3e-3,
    test_pairs: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> Discovery:
    """Find directions that a network can tell apart by their effect, without labels (Voynov & Babenko, ICML 2020).

    Minimises their equation (1), arXiv 2002.03754: min over A and R of E [L_cl(k, k̂) + λ L_r(ε, ε̂)].
    R sees G(z) and G(z + A(ε e_k)). z ~ p(z), k is uniform, and ε ~ U(−largest_shift, largest_shift), of at least a
    twelfth of it.
    L_cl is the cross-entropy, L_r the mean absolute error and λ = 0.25. A has orthonormal columns (their second form).
    count: K, at most Z; None for Z.  steps, batch_size, lr: of Adam; the paper takes 1e5 steps at 1e-4.
    test_pairs: fresh pairs that the accuracy is of.
    largest_shift: None for 6 · ‖z‖/√128, the paper's 6 at 128 normal latents.
    start: A begins with random columns, or with the coordinate axes. Where G splits z, an axis moves one layer alone.
    learn: False keeps A as it begins and trains R alone: the baseline for `accuracy`.
    A conditional G draws both images of a pair with one random class. G's weights and gradients stay as they are.
    Raises InputError.
    """
    generator, device = model.eval().require("generator"), device_of(model)
    width = generator.latent_dim
    count = _count(count, width)
    for name, value, kind in (
        ("steps", steps, NotNegative), ("batch_size", batch_size, AtLeastTwo), ("lr", lr, Positive),
        ("test_pairs", test_pairs, AtLeastOne), ("seed", seed, NotNegative),
        ("largest_shift", 1.0 if largest_shift is None else largest_shift, Positive),
    ):  # fmt: skip
        check_argument(name, value, kind)
    if start not in ("random", "axes"):
        raise InputError(f"start: expected random or axes, found {start!r}")
    if largest_shift is None:
        largest_shift = RELATIVE_SHIFT * float(draw_latents(model, 1000, "discover, length", seed).norm(dim=1).mean())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        a = nn.utils.parametrizations.orthogonal(nn.Linear(count, width, bias=False))
        with torch.no_grad():
            a.weight = torch.eye(width, count) if start == "axes" else torch.linalg.qr(torch.randn(width, count))[0]
        a, r = a.to(device), Reconstructor(count, generator.image_size).to(device)
    pairs = _Pairs(model, a, count, largest_shift, seed)
    trained = [*(a.parameters() if learn else ()), *r.parameters()]
    optimizer = torch.optim.Adam(trained, lr)
    for step in trange(steps, desc="directions", **bar_settings(progress)):
        x, shifted, k, epsilon = pairs.draw(step * batch_size, batch_size, "discover")
        logits, predicted = r(x, shifted)
        # In units of the largest shift, so that λ means the same for every model.
        error = (epsilon - predicted).abs().mean() * (6 / largest_shift)
        loss = F.cross_entropy(logits, k) + SHIFT_WEIGHT * error
        for parameter, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
            parameter.grad = gradient
        optimizer.step()
    return _measured(pairs, r.eval(), test_pairs)


class _Pairs:
    """Draw pairs of images that differ by a shift along one of the columns of A."""

    def __init__(self, model: BigBiGAN, a: nn.Linear, count: int, largest_shift: float, seed: int):
        self.model, self.a, self.count, self.largest_shift, self.seed = model, a, count, largest_shift, seed

    def draw(self, first: int, n: int, purpose: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return (G(z), G(z + A(ε e_k)), k int64 (n,), ε (n,)) for the places from `first` on."""
        z = draw_latents(self.model, n, purpose, self.seed, first)
        rng = np.random.default_rng([self.seed, first, len(purpose)])
        k = torch.from_numpy(rng.integers(0, self.count, n)).to(z.device)
        u = torch.from_numpy(rng.uniform(-1, 1, n)).to(z)
        epsilon = self.largest_shift * u.sign() * u.abs().clamp_min(SMALLEST_SHIFT)
        classes = draw_classes(self.model, n, self.seed + first)
        with torch.no_grad():
            x = self.model.generate(z, classes)
        shift = self.a(F.one_hot(k, self.count).to(z) * epsilon[:, None])
        return x, self.model.generate(z + shift, classes), k, epsilon


@torch.no_grad()
def _measured(pairs: _Pairs, r: Reconstructor, n: int) -> Discovery:
    """Return the directions with R's accuracy on n fresh pairs."""
    right, named, errors = torch.zeros(pairs.count), torch.zeros(pairs.count), []
    for first in range(0, n, 100):
        x, shifted, k, epsilon = pairs.draw(first, min(100, n - first), "discover, test")
        logits, predicted = r(x, shifted)
        hits = (logits.argmax(1) == k).float()
        right.index_add_(0, k.cpu(), hits.cpu()), named.index_add_(0, k.cpu(), torch.ones(len(k)))
        errors.append((epsilon - predicted).abs().cpu())
    shares = right / named.clamp_min(1)
    vectors = pairs.a.weight.detach().T.clone()
    order = shares.argsort(descending=True, stable=True)
    names = [f"direction {i}, named rightly in {shares[i]:.0%}" for i in order.tolist()]
    found = Directions(vectors[order.to(vectors.device)], names, shares[order])
    accuracy = float(right.sum() / named.sum())
    r.which.weight.data, r.which.bias.data = r.which.weight.data[order], r.which.bias.data[order]  # the same order
    return Discovery(found, accuracy, float(torch.cat(errors).mean()), pairs.largest_shift, r)


@default_on_cpu()
def sefa(model: BigBiGAN, count: int | None = None, layer: int | None = None) -> Directions:
    """Return the directions that move the first layers' outputs most, in closed form (Shen & Zhou, CVPR 2021: SeFa).

    Their equations (3) to (6), arXiv 2007.06600: the unit vectors n that maximise ‖A n‖² are the eigenvectors of AᵀA
    with the largest eigenvalues, A being the weights that z meets first. Which these are, `G.latent_weights()` says:
    - BigGAN's G splits z, so each chunk has its own A and a direction changes one chunk. Of the first chunk A is the
      first linear layer. Of a block's chunk A stacks the maps to the gains and to the biases of its two conditional
      batch norms. The normalised activations have unit variance, so that a change of a gain and one of a bias by the
      same number change the output by the same mean square, and the rows are stacked without weights.
    - BigGAN-deep's G gives all of z to every layer: A stacks the first linear layer and all gains and biases.
    - Progressive GAN's G: the first layer. BiGAN's MLP: the first layer and the skip of z to the second.
    Weights are those of the forward, W/σ(W) where there is spectral norm.
    count: K; None for all Z.  layer: of a G that splits z, the chunk: 0 for the first layer, i for block i; None for
    all: then the strongest direction of each chunk comes first, since eigenvalues of two layers are no common measure.
    `strengths` is each eigenvalue as a share of its layer's sum.  Raises InputError.
    """
    generator = model.require("generator")
    count = _count(count, generator.latent_dim)
    try:
        with torch.no_grad():
            parts = [(columns, weight.cpu().double()) for columns, weight in generator.latent_weights()]
    except (AttributeError, NotImplementedError):
        raise InputError(
            f"model: expected a generator whose first weights are known, found {type(generator).__name__}; give it a "
            "method latent_weights() as `networks.interface.GeneratorInterface` describes"
        ) from None
    if layer is not None:
        check_argument("layer", layer, Annotated[int, Bounds(least=0, most=len(parts) - 1)])
    found = []  # (rank within its layer, layer, vector, share)
    for number, (columns, weight) in enumerate(parts):
        if layer is not None and number != layer:
            continue
        values, vectors = torch.linalg.eigh(weight.T @ weight)  # ascending
        for rank, (value, vector) in enumerate(zip(values.flip(0), vectors.flip(1).T, strict=True)):
            whole = torch.zeros(generator.latent_dim, dtype=torch.float64)
            whole[columns] = _with_fixed_sign(vector)
            found.append((rank, number, whole.float(), float(value / values.sum())))
    found.sort(key=lambda entry: entry[:2])
    found = found[:count]
    names = [f"layer {number}, {share:.0%} of its squares" for _, number, _, share in found]
    vectors = torch.stack([v for *_, v, _ in found]).to(device_of(model))
    strengths = torch.tensor([s for *_, s in found])
    return Directions(vectors, names, strengths)


@default_on_cpu()
@torch.no_grad()
def strongest(model: BigBiGAN, count: int | None = None) -> Directions:
    """Return the directions along which G's image changes most, strongest first, for any G without classes.

    They are the right singular vectors of the differences G(e_i) − G(−e_i) by each component i of z. `sefa` asks the
    first weights in place of the image, and a chunk of z that hardly moves the image then counts as much as another.
    count: K; None for all Z.  `strengths` is each squared singular value as a share of their sum.
    Raises InputError.
    """
    generator = model.eval().require("generator")
    if model.classes:
        raise InputError(f"model: expected one without classes, found {model.classes}")
    count = _count(count, generator.latent_dim)
    steps = torch.eye(generator.latent_dim, device=device_of(model))
    changes = [(model.generate(part) - model.generate(-part)).flatten(1).float().cpu() for part in steps.split(32)]
    _, values, vectors = torch.linalg.svd(torch.cat(changes).T.double(), full_matrices=False)
    shares = values.square() / values.square().sum()
    vectors = torch.stack([_with_fixed_sign(vector) for vector in vectors[:count]]).float()
    names = [f"{share:.0%} of the changes' squares" for share in shares[:count].tolist()]
    return Directions(vectors, names, shares[:count].float())


def _count(count: int | None, width: int) -> int:
    """Return the number of directions that is asked for, all of them for None. Raises InputError."""
    count = width if count is None else count
    check_argument("count", count, Annotated[int, Bounds(least=1, most=width)])
    return int(count)


def _with_fixed_sign(vector: Tensor) -> Tensor:
    """Return a vector or its opposite, so that its largest component is positive: an eigenvector has no sign."""
    return vector * (1 if vector[vector.abs().argmax()] > 0 else -1)


@default_on_cpu()
def from_labels(
    z: Tensor, labels: Tensor, kind: Literal["means", "linear"] = "means", names: list[str] | None = None
) -> Directions:
    """Return for each class the direction that leads to it from the others.

    means: the mean latent of the class minus the mean over the other classes' means (as Radford et al. 2016, section
    6.3.2, add and subtract mean latents).  linear: the weights of a logistic regression in z, whose direction is at
    right angles to the class boundary (as InterFaceGAN: Shen et al. 2020, section 3.1).
    z: (N, Z), such as `bigbigan.encode(images, model, "z_mean")`.  labels: int (N,), −1 for none.  names: by
    class.
    `strengths` is the balanced accuracy of z·direction as a classifier of the class against the others, with the
    threshold half-way between the two groups' means.  Raises InputError.
    """
    z = numbers(z, "(N, Z)", "z").detach().cpu().double()
    if z.ndim != 2:
        raise InputError(f"z: expected the shape (N, Z), found {tuple(z.shape)}")
    labels = labels_of(labels, len(z))
    z, labels = z[labels >= 0], labels[labels >= 0]
    present = labels.unique().tolist()
    if len(present) < 2:
        raise InputError(f"labels: expected at least two classes, found {len(present)}")
    if kind not in ("means", "linear"):
        raise InputError(f"kind: expected means or linear, found {kind!r}")
    if names and len(names) <= present[-1]:
        raise InputError(f"names: expected one for each class, 0 … {present[-1]}, found {len(names)}")
    if kind == "means":
        means = torch.stack([z[labels == k].mean(0) for k in present])
        vectors = means - (means.sum(0) - means) / (len(present) - 1)
    else:
        fitted = LogisticRegression(max_iter=1000).fit(z.numpy(), labels.numpy())
        vectors = torch.from_numpy(fitted.coef_)
        vectors = torch.cat([-vectors, vectors]) if len(vectors) == 1 else vectors  # two classes have one boundary
    vectors = F.normalize(vectors, dim=1)
    shares = []
    for k, vector in zip(present, vectors, strict=True):
        along, inside = z @ vector, labels == k
        middle = (along[inside].mean() + along[~inside].mean()) / 2
        shares.append(
            float(((along[inside] > middle).double().mean() + (along[~inside] <= middle).double().mean()) / 2)
        )
    called = [names[k] if names else str(k) for k in present]
    return Directions(vectors.float(), called, torch.tensor(shares))


@default_on_cpu()
def traverse(model: BigBiGAN, z: Tensor, direction: Tensor, shifts: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return G(z + s·direction) for each z and shift s: (N, T, 3, S, S) in [−1, 1]; gradients pass.

    model: is put into evaluation mode.
    z: (N, Z); direction: (Z,); shifts: (T,), in the unit of z; classes: (N,) of a conditional model.
    Raises InputError.
    """
    z, direction = latents_of(model, z), direction_of(model, direction)
    shifts = numbers(shifts, "(T,)", "shifts").to(z)
    if shifts.ndim != 1 or not len(shifts):
        raise InputError(f"shifts: expected the shape (T,), T at least 1, found {tuple(shifts.shape)}")
    classes = classes_of(model, classes, len(z))
    moved = z[:, None] + shifts[None, :, None] * direction
    repeated = None if classes is None else classes.repeat_interleave(len(shifts), 0)
    return model.eval().generate(moved.flatten(0, 1), repeated).unflatten(0, (len(z), -1))


@default_on_cpu()
@torch.no_grad()
def share_along(
    model: BigBiGAN,
    predict: Callable[[Tensor], np.ndarray],
    z: Tensor,
    direction: Tensor,
    shifts: Tensor,
    wanted: int,
    *,
    classes: Tensor | None = None,
) -> np.ndarray:
    """Return the share of images that a classifier calls `wanted`, for each shift along a direction: float64 (T,).

    predict: images (M, 3, S, S) in [−1, 1] → their classes (M,).  The rest: as in `traverse`.
    """
    film = traverse(model, z, direction, shifts, classes)
    called = np.asarray(predict(film.flatten(0, 1))).reshape(len(z), len(shifts))
    return (called == wanted).mean(0)


@default_on_cpu()
def classifier_of(model: BigBiGAN, x: Tensor, labels: Tensor) -> Callable[[Tensor], np.ndarray]:
    """Fit a linear classifier on E's AvePool features of labelled images, and return a function images → classes.

    x: (N, 3, S, S) in [−1, 1]; labels: int (N,).  Images of any size are resized to E's.  Raises InputError.
    """

    @default_on_cpu()
    @torch.no_grad()
    def features(images: Tensor) -> np.ndarray:
        encoder = model.eval().require("encoder")
        parts = [at_encoder_size(model, part) for part in images_of(model, images).split(256)]
        return torch.cat([encoder.avepool(part) for part in parts]).float().cpu().numpy()

    known = features(x)
    y = labels_of(labels, len(known)).numpy()
    if len(np.unique(y)) < 2:
        raise InputError(f"labels: expected at least two classes, found {len(np.unique(y))}")
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, y)
    return lambda images: fitted.predict(features(images))


@dataclass
class DirectionsCommand(UseOptions):
    """Find latent directions, draw a strip of images along each of them, and print the method's figure."""

    method: Literal["discover", "sefa", "labels"] = "discover"
    """discover: learned without labels (Voynov & Babenko 2020); sefa: eigenvectors of G's first weights (Shen & Zhou
    2021); labels: from the latents of labelled images."""
    out: Path = Path("directions.png")
    """The picture: a row for each direction, shifted from − to +."""
    data: ImagesGiven = field(default_factory=ImagesGiven)
    """labels: the images."""
    kind: Literal["means", "linear"] = "means"
    """labels: differences of class means, or the weights of a linear classifier in z."""
    layer: int = -1
    """sefa: the part of z, 0 for the first layer, i for block i; -1 for all."""
    train_steps: NotNegative = 2000
    """discover: steps of training."""
    count: AtLeastOne = 12
    """Directions, at most as many as latents."""
    columns: AtLeastOne = 9
    """Images of a strip."""
    reach: Strength = 0.0
    """Largest shift in the picture, in the unit of z; 0 for that of the paper of `discover`, scaled to the prior."""
    seed: NotNegative = 0
    """Decides the latents and the training."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(DirectionsCommand, run, "directions", argv)


def run(options: DirectionsCommand) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    count = min(options.count, model.require("generator").latent_dim)
    length = float(draw_latents(model, 1000, "discover, length", options.seed).norm(dim=1).mean())
    reach = options.reach or RELATIVE_SHIFT * length
    if options.method == "discover":
        found, text = _discovered(model, count, reach, options)
    elif options.method == "sefa":
        found = sefa(model, count, None if options.layer < 0 else options.layer)
        text = _effect(model, found, reach, options.seed)
    else:
        found, text = _labelled(model, reach, options)
        found = Directions(*(part[:count] for part in found))
    z = draw_latents(model, 1, "directions", options.seed)
    classes = draw_classes(model, 1, options.seed)
    shifts = torch.linspace(-reach, reach, options.columns)
    with torch.inference_mode():
        rows = torch.cat([traverse(model, z, vector, shifts, classes)[0] for vector in found.vectors])
    picture = write_picture(grid(rows.cpu(), columns=options.columns), options.out)
    listed = "\n".join(f"  row {i}: {name}" for i, name in enumerate(found.names))
    return f"{text}\n{listed}\nshifts from {-reach:.2f} to {reach:.2f}; ‖z‖ is {length:.2f}; picture: {picture}"


def _discovered(model: BigBiGAN, count: int, reach: float, options: DirectionsCommand) -> tuple[Directions, str]:
    """Return learned directions, and R's accuracy beside that for random directions."""
    settings = {"largest_shift": reach, "seed": options.seed, "progress": True}
    learned = discover(model, count, options.train_steps, **settings)
    fixed = discover(model, count, options.train_steps, learn=False, **settings)
    lines = [f"the reconstructor names the direction of 2,000 fresh pairs, after {options.train_steps:,} steps:"]
    for name, result in (("learned directions", learned), ("random orthonormal ones", fixed)):
        lines.append(f"  {name:24}{result.accuracy:7.1%}   mean error of the shift {result.shift_error:.2f}")
    return learned.directions, "\n".join([*lines, f"  {'chance':24}{1 / count:7.1%}"])


@torch.inference_mode()
def _effect(model: BigBiGAN, found: Directions, reach: float, seed: int, n: int = 200) -> str:
    """Return how far each direction moves images, beside random directions in the same part of z."""
    z, classes = draw_latents(model, n, "directions, effect", seed), draw_classes(model, n, seed)
    rng = torch.Generator().manual_seed(int(seed))
    noise = torch.randn(len(found.vectors), z.shape[1], generator=rng).to(found.vectors)
    random = F.normalize(noise * (found.vectors != 0), dim=1)

    def change(vector: Tensor) -> float:
        film = traverse(model, z, vector, torch.tensor([-reach, 0.0, reach]), classes)
        return float((film - film[:, 1:2])[:, ::2].square().mean().sqrt())

    lines = [f"root mean square change of {n} images by a shift of ± {reach:.2f}, per pixel in [−1, 1]:"]
    layers = [name.split(",")[0] for name in found.names]
    for part in dict.fromkeys(layers):
        places = [i for i, layer in enumerate(layers) if layer == part]
        own = " ".join(f"{change(found.vectors[i]):.3f}" for i in places)
        other = np.array([change(random[i]) for i in places])
        lines.append(f"  {part}: {own}; random {other.mean():.3f} ± {other.std():.3f}")
    return "\n".join(lines)


def _labelled(model: BigBiGAN, reach: float, options: DirectionsCommand) -> tuple[Directions, str]:
    """Return directions by labels, and how a classifier's prediction changes along them, beside random ones.

    Random directions are taken both ways, so that their figure has no sign.
    """
    train, test = open_data(options.data, model)
    size = model.require("encoder").image_size
    x, labels = read_images(train, size, 5000, options.seed)
    held_out, truth = read_images(test, size, 2000, options.seed)
    if labels is None or truth is None:
        raise InputError(
            "--data.path: expected images with classes in both splits, found none; use --method discover or sefa"
        )
    with torch.inference_mode():
        latents = torch.cat([model.infer(part.to(device_of(model))).mean for part in x.split(256)]).cpu()
    found = from_labels(latents, labels, options.kind, train.class_names)
    predict = classifier_of(model, x, labels)
    n = 200
    z, classes = draw_latents(model, n, "directions, labels", options.seed), draw_classes(model, n, options.seed)
    shifts = torch.tensor([-reach, 0.0, reach])
    rng = torch.Generator().manual_seed(options.seed)
    random = F.normalize(torch.randn(found.vectors.shape, generator=rng), dim=1)
    present = labels.unique().tolist()
    shares = {}
    for name, vectors in (("towards the class", found.vectors), ("random directions", random)):
        pairs = zip(present, vectors, strict=True)
        shares[name] = np.mean([share_along(model, predict, z, v, shifts, k, classes=classes) for k, v in pairs], 0)
    shares["random directions"] = (shares["random directions"] + shares["random directions"][::-1]) / 2
    right = (predict(held_out) == truth.numpy()).mean()
    lines = [
        f"share of {n} samples that a classifier calls the class, mean over {len(present)} classes (the classifier is "
        f"right on {right:.1%} of {len(held_out):,} held-out images):",
        f"  {'shift':20}" + "".join(f"{s:8.2f}" for s in shifts.tolist()),
    ]
    lines += [f"  {name:20}" + "".join(f"{s:8.1%}" for s in values) for name, values in shares.items()]
    return found, "\n".join(lines)


if __name__ == "__main__":
    main()
