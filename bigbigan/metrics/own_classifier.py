"""Train a small classifier of the data's own classes as extractor, for use offline or far from ImageNet.

Its IS and FID compare models of one data set with each other, under a name that says so; they are not the published
figures.
"""

import json
import logging
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.data import Images, fingerprint, to_signed
from bigbigan.errors import MetricsError
from bigbigan.files import printable
from bigbigan.metrics.cache import digest, entry, get_or_make, store
from bigbigan.metrics.classifier import Classifier, accuracy, class_count, train_classifier
from bigbigan.networks.encoder import automatic_stem, build_trunk

FORMAT = 1
TRUSTED = 0.5  # of the way from guessing the commonest class to no error
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """Hold how the classifier is made; another recipe makes another one in the cache."""

    backbone: str = "resnetv2_18"
    width: float = 0.25  # 128 features: enough for a FID, cheap enough for two CPU cores
    epochs: float = 4
    min_steps: int = 60  # for small data sets
    batch_size: int = 128
    rate: float = 3e-3
    flip: bool = False  # a mirrored digit is no digit
    held_out: float = 0.1  # share of the images that the accuracy is measured on
    seed: int = 0


class ClassifierExtractor:
    """Compute features (N, D) and logits (N, K) of uint8 images (N, 3, S, S), S the classifier's own size.

    accuracy: on `held_out` images it was not trained on; majority: what guessing the commonest class would reach there.
    """

    def __init__(self, classifier: Classifier, name: str, size: int, facts: dict, device: torch.device | str = "cpu"):
        self.classifier = classifier.to(device, memory_format=torch.channels_last)
        self.name, self.size, self.device = name, size, torch.device(device)
        self.accuracy, self.majority, self.held_out = facts["accuracy"], facts["majority"], facts["held_out"]
        self.digest = facts["sha256"]

    @property
    def trusted(self) -> bool:
        """Whether the classifier tells the classes apart well enough for its figures to mean something."""
        return self.accuracy >= self.majority + TRUSTED * (1 - self.majority)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if images.dtype != torch.uint8 or images.shape[1:] != (3, self.size, self.size):
            raise MetricsError(
                f"{self.name}: expected uint8 images (n, 3, {self.size}, {self.size}), "
                f"found {images.dtype} {tuple(images.shape)}"
            )
        features, logits = self.classifier(to_signed(images.to(self.device)))
        return features.float(), logits.float()

    def note(self) -> str:
        """Return a sentence to print beside the figures."""
        verdict = "" if self.trusted else ": too few to trust its figures"
        return f"{self.name} names the class of {self.accuracy:.1%} of {self.held_out:,} held-out images{verdict}"


def in_domain_extractor(
    images: Images,
    size: int,
    name: str,
    cache: Path | None = None,
    device: torch.device | str = "cpu",
    recipe: Recipe | None = None,
) -> ClassifierExtractor:
    """Return the extractor `classifier_<name>` of labelled training images at `size` px, from the cache or trained now.

    cache: a folder; None keeps nothing. Every process of a job must call this: they train together. Raises MetricsError
    for images without labels.
    """
    recipe = recipe or Recipe()
    classes = class_count(images)
    key = [FORMAT, fingerprint(images), images.value_range, size, classes, *asdict(recipe).values()]
    described = {"recipe": asdict(recipe), "size": size, "classes": classes, "trained_on": images.origin}
    kept = "" if cache is None else f", once for these images ({printable(cache)} keeps it)"
    classifier, facts = get_or_make(
        entry(cache, "classifier", json.dumps(key)),
        read=lambda path: _read(path, recipe, size, classes),
        make=lambda: _train(images, size, recipe, device, f"for FID, KID and IS{kept}"),
        write=lambda path, made: _write(path, made[0], made[1] | described),
    )
    name = "classifier_" + re.sub(r"\W+", "_", name).strip("_").lower()
    extractor = ClassifierExtractor(classifier, name, size, facts, device)
    log.log(logging.INFO if extractor.trusted else logging.WARNING, "%s", extractor.note())
    return extractor


def _build(recipe: Recipe, size: int) -> torch.nn.Module:
    with torch.random.fork_rng([]):  # built on the CPU, whose generator alone is used
        torch.manual_seed(recipe.seed)
        return build_trunk(recipe.backbone, recipe.width, automatic_stem(size), size)


def _train(images: Images, size: int, recipe: Recipe, device, purpose: str) -> tuple[Classifier, dict]:
    """Train on all but the held-out share, and measure the accuracy there. purpose: as in `train_classifier`."""
    count = max(1, round(recipe.held_out * len(images)))
    if count >= len(images):
        raise MetricsError(f"classifier: expected more than one labelled image in {images.origin}, found {len(images)}")
    parts = _division(images.labels, count, recipe.seed)
    held_out, training = (images.subset(np.sort(part)) for part in parts)
    if len(np.unique(training.labels)) < 2:
        raise MetricsError(
            f"classifier: expected two classes among the images that are left in {images.origin} when {count:,} "
            "are held out, found one; give more images"
        )
    batch_size = min(recipe.batch_size, len(training))
    steps = max(recipe.min_steps, round(recipe.epochs * len(training) / batch_size))
    classifier = train_classifier(
        _build(recipe, size),
        training,
        size,
        steps,
        batch_size,
        recipe.rate,
        flip=recipe.flip,
        seed=recipe.seed,
        device=device,
        purpose=purpose,
    )
    facts = {"accuracy": accuracy(classifier, held_out, size), "held_out": count}
    facts |= {"majority": float(np.bincount(held_out.labels).max() / count), "sha256": digest(classifier.state_dict())}
    return classifier, facts


def _division(labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of `count` images to hold out, and of the rest, drawn by `seed`.

    Of a class whose images were all drawn one is left to the rest, and an image of a class with more takes its place.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    for c in np.setdiff1d(labels, labels[order[count:]]):
        kept = int(np.flatnonzero(labels[order[:count]] == c)[0])
        counts = np.bincount(labels[order[count:]], minlength=int(labels.max()) + 1)
        spare = np.flatnonzero(counts[labels[order[count:]]] > 1)
        if len(spare):
            other = count + int(spare[0])
            order[[kept, other]] = order[[other, kept]]
    return order[:count], order[count:]


def _write(path: Path, classifier: Classifier, facts: dict) -> None:
    """Write the weights first and the facts that vouch for them last: a kill leaves nothing that looks whole."""
    tensors = {k: v.cpu().contiguous() for k, v in classifier.state_dict().items()}
    store(path, lambda beside: save_file(tensors, beside))
    store(path.with_suffix(".json"), lambda beside: beside.write_text(json.dumps(facts, indent=2) + "\n"))


def _read(path: Path, recipe: Recipe, size: int, classes: int) -> tuple[Classifier, dict] | None:
    """Return the classifier kept at `path` with its facts; None where the weights are not those of the facts."""
    facts = json.loads(path.with_suffix(".json").read_text())
    tensors = load_file(path)
    if digest(tensors) != facts["sha256"] or not {"accuracy", "majority", "held_out"} <= facts.keys():
        return None
    with torch.random.fork_rng([]):
        classifier = Classifier(_build(recipe, size), classes)
    classifier.load_state_dict(tensors)
    return classifier.eval().requires_grad_(False), facts
