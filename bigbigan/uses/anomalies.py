"""Score how anomalous images are, by E, G and D (EGBAD: Zenati et al. 2018, arXiv 1802.06222).

    python -m bigbigan.uses.anomalies runs/digits-without-8 --held_out 8 --data.path digits

A model that was trained on normal images reconstructs them better than others, and its D knows their pairs (x, E(x)).
The published scores need D, which run folders, checkpoints and their releases hold. Without it, as in the models that
come with the package, the score is the reconstruction error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

if __name__ == "__main__":  # before torch is loaded
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
import torch.nn.functional as F
import tyro
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score
from torch import Tensor

from bigbigan.api import as_tensor, encode, grid, neighbours
from bigbigan.config.bounds import AtLeastOne, Share, check_argument
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError, warn_caller
from bigbigan.model import BigBiGAN
from bigbigan.uses.arguments import images_of, picture_values
from bigbigan.uses.command_line import UseOptions, device_of, open_data, read_images, ready, run_command, write_picture

FORMS = ("feature_matching", "cross_entropy", "reconstruction")
WEIGHT = 0.1  # w of the paper's experiments
SHOWN = 8  # images a row of the picture
NO_D = "the model holds no discriminator: the score is the reconstruction error alone; run folders hold one"


class AnomalyScores(NamedTuple):
    """Hold the scores of images, float32 (N,) on the CPU, high for anomalies.

    total: A(x).  reconstruction: ‖x − G(E(x))‖₁.  discriminator: the D term; None where the total is the
    reconstruction alone.
    """

    total: Tensor
    reconstruction: Tensor
    discriminator: Tensor | None


@default_on_cpu()
@torch.no_grad()
def anomaly_scores(
    model: BigBiGAN,
    x: Tensor,
    form: Literal["feature_matching", "cross_entropy", "reconstruction"] | None = None,
    weight: float = WEIGHT,
    batch_size: int = 64,
) -> AnomalyScores:
    """Score images by A(x) = (1 − w)·‖x − G(E(x))‖₁ + w·L_D(x), high for anomalies (EGBAD, section 3).

    E(x) is the mean of E's posterior. The L1 norm is the sum over all 3·S·S values in [−1, 1] at G's size.
    model: without classes, with E and G, and D for its term; it is put into evaluation mode.
    x: (N, 3, S', S') in [−1, 1] at E's size, N at least 1, as `bigbigan.as_tensor` returns images.
    form: of L_D.  "feature_matching": ‖f(x, E(x)) − f(G(E(x)), E(x))‖₁ with f the input of D's last layer, of the score
        of pairs where D has one.  "cross_entropy": −log σ(s) with s the sum of D's scores of (x, E(x)): what D's loss
        would be if s were a logit, which a hinge does not make it.  "reconstruction": no D term, A(x) is the L1 norm.
        None: feature matching, or reconstruction with a warning if the model has no D.
    weight: w, from 0 to 1.
    Of a D that compares the images of a batch (Progressive GAN's minibatch statistics) the D term depends on the batch.
    Raises InputError.
    """
    if form not in (None, *FORMS):
        raise InputError(f"form: expected one of {', '.join(FORMS)}, or None; found {form!r}")
    check_argument("weight", weight, Share), check_argument("batch_size", batch_size, AtLeastOne)
    encoder, _ = model.require("encoder"), model.require("generator")
    if model.classes:
        raise InputError(f"model: expected one without classes, since an anomaly is of none; found {model.classes}")
    if form is None and model.discriminator is None:
        warn_caller(NO_D)
    form = form or ("reconstruction" if model.discriminator is None else "feature_matching")
    if form != "reconstruction":
        model.require("discriminator")
    model.eval()
    found = [_score(model, part, form) for part in images_of(model, x, encoder.image_size).split(batch_size)]
    error, term = (None if parts[0] is None else torch.cat(parts).float().cpu() for parts in zip(*found, strict=True))
    return AnomalyScores(error if term is None else (1 - weight) * error + weight * term, error, term)


def _score(model: BigBiGAN, x: Tensor, form: str) -> tuple[Tensor, Tensor | None]:
    """Return ‖x − G(E(x))‖₁ and the D term or None, (n,) each."""
    z = model.infer(x).mean
    small, again = model.for_discriminator(x), model.generate(z)
    error = (small - again).abs().flatten(1).sum(1)
    if form == "reconstruction":
        return error, None
    if form == "cross_entropy":
        return error, F.softplus(-_logit(model, model.discriminate(small, z)))
    pairs = [model.discriminate(images, z, features=True) for images in (small, again)]
    ours, reconstructed = (found.get("feat_xz", found.get("feat_x")) for found in pairs)
    return error, (ours - reconstructed).abs().sum(1)


def _logit(model: BigBiGAN, scores: dict[str, Tensor]) -> Tensor:
    """Return the sum of the scores that D was trained by, (n,); the model's card says which these are."""
    said = model.card.get("loss") or {}
    left_out = {f"score_{name}" for name in ("x", "z") if said.get(f"unary_{name}") is False and len(scores) > 1}
    return torch.stack([score for name, score in scores.items() if name not in left_out]).sum(0)


@default_on_cpu()
def baselines(model: BigBiGAN, train: Tensor, x: Tensor) -> dict[str, Tensor]:
    """Return scores (N,) of images x by methods without G and D, fitted on normal images; high for anomalies.

    train, x: (n, 3, S, S) and (N, 3, S, S) in [−1, 1] at E's size. The two of pixels are at G's size, as A(x) is.
    """
    size = model.require("encoder").image_size
    train, x = picture_values(train, size, "train"), picture_values(x, size)
    normal, ours = (model.for_discriminator(part).flatten(1).cpu().float() for part in (train, x))
    pca = PCA(min(model.generator.latent_dim, *normal.shape), random_state=0).fit(normal.double().numpy())
    projected = torch.from_numpy(pca.inverse_transform(pca.transform(ours.double().numpy())))
    features = [encode(part, model, "avepool_feat", value_range=(-1, 1), progress=False) for part in (x, train)]
    return {
        "nearest normal image, AvePool of E": neighbours(*features, 1).distances[:, 0],
        "nearest normal image, pixels": neighbours(ours, normal, 1).distances[:, 0],
        f"reconstruction from {pca.n_components_} principal components": (ours - projected).abs().sum(1),
        "distance to the mean image": (ours - normal.mean(0)).abs().sum(1),
    }


@default_on_cpu()
def aurocs(
    model: BigBiGAN, train: Tensor, normal: Tensor, anomalous: Tensor, weight: float = WEIGHT
) -> dict[str, float]:
    """Return by method the area under the ROC curve that tells anomalous from normal images; 0.5 is chance.

    train: normal images that the baselines are fitted on; normal, anomalous: images to tell apart, (n, 3, S, S) each in
    [−1, 1] at E's size.
    """
    size = model.require("encoder").image_size
    x = torch.cat([picture_values(normal, size, "normal"), picture_values(anomalous, size, "anomalous")])
    scores: dict[str, Tensor] = {}
    for form in FORMS if model.discriminator is not None else FORMS[-1:]:
        found, name = anomaly_scores(model, x, form, weight), form.replace("_", " ")
        scores["‖x − G(E(x))‖₁ alone" if found.discriminator is None else f"A(x), {name}"] = found.total
        if found.discriminator is not None:
            scores[f"the D term alone, {name}"] = found.discriminator
    scores |= baselines(model, train, x)
    truth = [0] * len(normal) + [1] * len(anomalous)
    return {name: float(roc_auc_score(truth, values)) for name, values in scores.items()}


@dataclass
class Anomalies(UseOptions):
    """Tell anomalous from normal images, draw the extremes, and print the AUROC beside baselines.

    Give --held_out or --anomalies. The model should have been trained on normal images alone.
    """

    model: tyro.conf.Positional[str]
    """A run, checkpoint or release folder, which hold D; or a hub id or the name of a model, which may have none."""
    held_out: str = ""
    """The name of the class of --data.path that is anomalous."""
    anomalies: str = ""
    """Anomalous images: a path that `bigbigan.encode` takes. Then all images of --data.path are normal."""
    weight: Share = WEIGHT
    """w, the weight of the D term."""
    train_images: AtLeastOne = 10_000
    """Normal training images that the baselines are fitted on, at most, drawn at random."""
    test_images: AtLeastOne = 5_000
    """Held-out images of --data.path to score, at most, drawn at random."""
    out: Path = Path("anomalies.png")
    """The picture: the images of lowest A(x) above their reconstructions, then those of highest."""


def main(argv: list[str] | None = None) -> None:
    """Run the command; the exit status is 0, or that of an error."""
    run_command(Anomalies, run, "anomalies", argv)


def run(options: Anomalies) -> str:
    """Write the picture and return the figures as text."""
    model = ready(options.model, options.device or None)
    train, normal, anomalous = _images(options, model)
    found = aurocs(model, train, normal, anomalous, options.weight)
    x = torch.cat([normal, anomalous])
    form = None if model.discriminator is None else "feature_matching"
    order = anomaly_scores(model, x, form or "reconstruction", options.weight).total.argsort()
    rows = [x[chosen] for chosen in (order[:SHOWN], order[-SHOWN:].flip(0))]
    with torch.inference_mode():
        shown = [
            part.cpu()
            for row in (row.to(device_of(model)) for row in rows)
            for part in (model.for_discriminator(row), model.reconstruct(row))
        ]
    picture = write_picture(grid(torch.cat(shown), columns=len(rows[0])), options.out)
    lines = [f"{name:<44} {value:.3f}" for name, value in found.items()]
    if form is None:
        lines.append(NO_D)
    own = model.card.get("data", {}).get("path")
    if options.held_out and own and options.data.path in ("", own):
        lines.append(
            f"the model was trained on {own}, images of {options.held_out} among them: train one without them to see "
            "what is new to it (docs/uses/anomalies.md)"
        )
    return "\n".join(
        [
            f"{'AUROC':<44} {len(anomalous):,} anomalous among {len(x):,} images, w = {options.weight:g}",
            *lines,
            f"baselines fitted on {len(train):,} normal images; picture: {picture}",
        ]
    )


def _images(options: Anomalies, model: BigBiGAN) -> tuple[Tensor, Tensor, Tensor]:
    """Return normal training images, and normal and anomalous held-out images, (n, 3, S, S) each at E's size."""
    if bool(options.held_out) == bool(options.anomalies):
        found = "both" if options.held_out else "neither"
        raise InputError(f"expected one of --held_out CLASS and --anomalies PATH, found {found}")
    size = model.require("encoder").image_size
    train, test = open_data(options.data, model)
    x, y = read_images(train, size, options.train_images)
    x_test, y_test = read_images(test, size, options.test_images)
    if options.anomalies:
        asked = options.data.value_range or None  # else that of the model's training images, for them too
        return x, x_test, as_tensor(options.anomalies, model, value_range=asked)
    if y is None or y_test is None:
        where = "the test split" if y is not None else "the training split"
        raise InputError(
            f"--held_out {options.held_out}: expected data with classes, found {where} without; give the anomalous "
            "images with --anomalies"
        )
    names = train.class_names or []
    if options.held_out not in names:
        raise InputError(f"--held_out {options.held_out}: expected one of {', '.join(names)}; found no such class")
    known = names.index(options.held_out)
    parts = x[y != known], x_test[y_test != known], x_test[y_test == known]
    if not all(map(len, parts)):
        raise InputError(
            f"--held_out {options.held_out}: expected images of this class to test on, and of others to train and test "
            "on, found {2}, {0} and {1}".format(*map(len, parts))
        )
    return parts


if __name__ == "__main__":
    main()
