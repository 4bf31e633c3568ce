"""Compute what is probed: the trained encoder's features, and beside them the baselines that they must beat."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor

from bigbigan.data import Images
from bigbigan.data.crops import size_of
from bigbigan.metrics.classifier import accuracy, train_classifier
from bigbigan.model import BigBiGAN
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.growing import grown_like
from eval_linear.features import estimate_statistics, extract, label, raw_pixels, untrained

STATISTICS_IMAGES = 4096  # for the batch norms of an untrained encoder
PIXELS = 16  # px: raw pixels of larger images are resized, so that nearest neighbours remain a matter of minutes
COMPONENTS = 64  # of the principal component analysis
ROUNDING = 1e-10  # of the largest variance: what is below is a rounding error of float32
KEPT_BYTES = 2**30  # of decoded pixels that a split keeps: 349,525 images of 32 px


@dataclass
class DecodedOnce(Images):
    """Keep the 8-bit pixels of the images that were read, so that each is decoded once however often it is measured.

    kept: uint8 (H, W, 3) by the image's number among the reader's items and its values of black and white; a subset
    shares it. At most `KEPT_BYTES` are kept, and images beyond them are decoded anew each time.
    """

    kept: dict[tuple[int, tuple[float, float] | None], np.ndarray] = field(
        default_factory=dict, repr=False, compare=False
    )
    used: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)  # bytes, shared by subsets too

    @classmethod
    def of(cls, images: Images) -> "DecodedOnce":
        """Return the same images with a memory."""
        return cls(**{f.name: getattr(images, f.name) for f in fields(Images)})

    def __post_init__(self):
        self.places = self.base()[1]

    def decoded(self, i: int, value_range: tuple[float, float] | None = None) -> Image.Image | np.ndarray:
        """Return image i as `Images.decoded` does; uint8 (H, W, 3) once it is kept."""
        key = int(self.places[i]), value_range or self.value_range
        if key not in self.kept:
            image = super().decoded(i, value_range)
            width, height = size_of(image)
            if self.used[0] + 3 * width * height > KEPT_BYTES:
                return image
            self.used[0] += 3 * width * height
            self.kept[key] = np.asarray(image)
        return self.kept[key]


@dataclass
class Splits:
    """Hold the images that the probe fits on and is judged on, with or without labels, and what to call them.

    path: the path or name of the data set.  note: what else to say of where the images come from.
    trained: features of the training images by the trained E, {name: (x (n, C), indices (n,))}, once they are known.
    seen: whether they go by the name of the data that the model was trained on.
    """

    train: Images
    test: Images
    path: str
    note: str = ""
    trained: dict[str, tuple[Tensor, np.ndarray]] = field(default_factory=dict, repr=False)
    seen: bool = True

    @property
    def training_images(self) -> str:
        """What to call the images of `train`, of which a model that was trained on others saw none."""
        return "training images" if self.seen else "images of the training split"

    @property
    def origin(self) -> str:
        """The path with the note."""
        return self.path + self.note

    @property
    def name(self) -> str:
        """The name of the data set, without folders."""
        return self.path.rstrip("/").split("/")[-1]

    @property
    def classes(self) -> int:
        """The number of classes; 0 without labels."""
        return len(self.class_names)

    @property
    def class_names(self) -> list[str]:
        """The names of the classes; none without labels in both splits."""
        labelled = self.train.labels is not None and self.test.labels is not None
        return list(self.train.class_names or []) if labelled else []


@dataclass
class Representation:
    """Hold both splits as numbers: x (n, C) float32, y (n,) int64; x_test (m, C), y_test (m,).

    encoder: "trained", "untrained", "supervised" or "none".  network: E itself where there is one, for augmented
    features, with the name of the feature in E and the indices of the training images that the rows are of.
    flip: whether augmented features are of flipped images too; where E's training did not flip, a label may change.
    """

    encoder: str
    feature: str
    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    network: Encoder | None = None
    name: str = ""
    indices: np.ndarray | None = None
    flip: bool = True


def flips(model: BigBiGAN) -> bool:
    """Return whether the model's training images were flipped, as its card says; True if it does not say."""
    return bool((model.card or {}).get("data", {}).get("flip", True))


def of_encoder(
    kind: str,
    encoder: Encoder,
    splits: Splits,
    names: tuple[str, ...],
    batch_size: int,
    cache: Path | None = None,
    *,
    flip: bool = True,
) -> Iterator[Representation]:
    """Yield one representation per named feature of E.  flip: whether E's training images were flipped."""
    x, at = extract(encoder, splits.train, batch_size, cache, names)
    x_test, at_test = extract(encoder, splits.test, batch_size, cache, names)
    y, y_test = _labels(splits.train, at), _labels(splits.test, at_test)
    if kind == "trained":
        splits.trained.update({name: (x[name], at) for name in names})
    for name in names:
        yield Representation(kind, label(name), x[name], y, x_test[name], y_test, encoder, name, at, flip)


def of_untrained(
    model: BigBiGAN, splits: Splits, names: tuple[str, ...], batch_size: int, count: int
) -> Iterator[Representation]:
    """Yield the features of untrained encoders, which say whether training helped: random convolutions are good."""
    if model.config is None:
        return
    for seed in range(1, count + 1):
        build = lambda: grown_like(BigBiGAN.from_config(model.config).encoder, model.encoder)  # noqa: E731
        encoder = untrained(model.encoder, build, seed, splits.train, batch_size, STATISTICS_IMAGES)
        yield from of_encoder("untrained", encoder, splits, names, batch_size, flip=flips(model))


def of_pixels(splits: Splits, image_size: int, batch_size: int) -> Iterator[Representation]:
    """Yield raw pixels, and their principal components.

    The components are fitted on the training split, in the order of variance, and not whitened.
    """
    size = min(image_size, PIXELS)
    x, at = raw_pixels(splits.train, size, batch_size)
    x_test, at_test = raw_pixels(splits.test, size, batch_size)
    y, y_test = _labels(splits.train, at), _labels(splits.test, at_test)
    yield Representation("none", f"pixels {size}×{size}", x, y, x_test, y_test)
    x, x_test = principal_components(x, x_test)
    yield Representation("none", f"PCA of pixels ({x.shape[1]})", x, y, x_test, y_test)


def principal_components(x: Tensor, x_test: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first `COMPONENTS` principal components of training rows x (n, D), and of test rows.

    Components that hold nothing but rounding errors are left out: a classifier that standardises its features would
    enlarge them to the size of the others.
    """
    pca = PCA(min(COMPONENTS, len(x), x.shape[1]), random_state=0).fit(x.numpy())
    rank = max(1, int((pca.explained_variance_ > ROUNDING * pca.explained_variance_[0]).sum()))
    first, second = (torch.from_numpy(pca.transform(part.numpy())[:, :rank].astype(np.float32)) for part in (x, x_test))
    return first, second


def few_labels(y: Tensor, share: float, seed: int) -> Tensor:
    """Return indices of `share` of the rows, drawn by `seed`: as much of every class, and at least one of each."""
    if share >= 1:
        return torch.arange(len(y))
    generator = torch.Generator().manual_seed(seed)
    kept = []
    for c in y.unique():
        at = (y == c).nonzero().flatten()
        kept.append(at[torch.randperm(len(at), generator=generator)[: max(1, round(share * len(at)))]])
    return torch.cat(kept).sort().values


def _labels(images: Images, at: np.ndarray) -> Tensor:
    return torch.from_numpy(images.labels[at])


def of_supervised(
    model: BigBiGAN, splits: Splits, names: tuple[str, ...], batch_size: int, epochs: int, rows
) -> Iterator[Representation]:
    """Train the same architecture with the labels (BigBiGAN, table 4), and yield its features.

    Its own accuracy goes to `rows`. Adam on the paper's random crops, flipped where the model's training flipped, for
    `epochs` passes.
    """
    if model.config is None:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = grown_like(BigBiGAN.from_config(model.config).encoder, model.encoder)
    device = next(model.encoder.parameters()).device
    batch = min(128, len(splits.train))
    steps = max(1, epochs * len(splits.train) // batch)
    crop = {"augment": "tf_resnet", "flip": flips(model)}
    classifier = train_classifier(encoder.trunk, splits.train, encoder.image_size, steps, batch, **crop, device=device)
    encoder = encoder.to(device).requires_grad_(False)
    own = Representation("supervised", "its own output", *[torch.empty(0)] * 4)
    top1 = accuracy(classifier, splits.test, encoder.image_size, batch_size)
    cut = "the paper's random crops" + ("" if flips(model) else " without flips")
    rows.add(own, f"trained with labels end to end, {epochs} epochs, {cut}", {"top1": top1})
    some = splits.train.subset(np.random.default_rng(0).permutation(len(splits.train))[:STATISTICS_IMAGES])
    estimate_statistics(encoder, some, batch_size)
    yield from of_encoder("supervised", encoder.eval(), splits, names, batch_size, flip=flips(model))
