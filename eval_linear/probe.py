"""What a frozen encoder is worth: `python eval_linear/probe.py CKPT [--field VALUE ...]`.

CKPT: a run folder, checkpoint folder, release folder or hub id. Prints one table, writes probe.json beside the checkpoint.
"""

import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np
import tyro

from bigbigan.api import load
from bigbigan.checkpoint import CheckpointError
from bigbigan.data import DataError, Images, open_images
from bigbigan.model import BigBiGAN
from eval_linear.features import digest, extract, raw_pixels, untrained
from eval_linear.solvers import LinearFit, fit_linear

LABELS = {"avepool_feat": "AvePool", "bn_crelu_feat": "BN+CReLU", "z_mean": "z_mean"}
PROTOCOL = "logistic regression, centre crop, C chosen on 20 % of train"


@dataclass
class ProbeData:
    """The labelled images; what is left empty is what the model was trained on."""

    path: str = ""
    """As --data.path in training."""
    subset: str = ""
    """Configuration of a hub data set that has several."""
    split: str = ""
    """Split that the classifier is fitted on."""
    test_split: str = ""
    """Split that it is judged on."""
    image_column: str = ""
    """Column of the images in a table; found by itself when empty."""
    label_column: str = ""
    """Column of the labels in a table; found by itself when empty."""
    batch_size: int = 256
    """Images encoded at once."""


@dataclass
class Probe:
    """Fit a linear classifier on frozen features, beside the same encoder untrained, raw pixels and the majority class."""

    ckpt: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id."""
    data: ProbeData = field(default_factory=ProbeData)
    features: tuple[str, ...] = ("avepool_feat", "bn_crelu_feat")
    """Of avepool_feat, bn_crelu_feat, z_mean."""
    untrained: int = 3
    """How many randomly initialised encoders to compare with."""
    seeds: int = 1
    """Fits per row: each chooses the regularisation on another held-out part."""
    cache: bool = True
    """Keep extracted features beside the checkpoint."""


class ProbeError(ValueError):
    """A probe that cannot be made; the message says what was expected and what was found."""


def main(argv: list[str] | None = None) -> None:
    try:
        print(run_probe(tyro.cli(Probe, args=argv, config=(tyro.conf.FlagConversionOff,))))
    except (CheckpointError, DataError, ProbeError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def run_probe(probe: Probe) -> str:
    """Extract, fit, prove that the encoder did not move; write probe.json → the table."""
    unknown = set(probe.features) - set(LABELS)
    if unknown:
        raise ProbeError(f"--features {' '.join(sorted(unknown))}: expected some of {', '.join(LABELS)}")
    model = load(probe.ckpt)
    train, test, origin = labelled_splits(probe.data, model)
    folder = results_folder(probe.ckpt)
    before = digest(model.encoder)
    rows = trained_rows(probe, model, train, test, folder)
    rows += untrained_rows(probe, model, train, test)
    rows += plain_rows(probe, model, train, test)
    if digest(model.encoder) != before:
        raise ProbeError("the encoder moved while it was probed; the figures are void")
    result = {
        "checkpoint": probe.ckpt,
        "images_seen": model.card.get("images_seen"),
        "encoder_sha256": before,
        "data": origin,
        "protocol": PROTOCOL,
        "n_train": len(train),
        "n_test": len(test),
        "classes": len(train.class_names),
        "seeds": probe.seeds,
        "rows": rows,
        "generation": None,  # IS and FID have their place here
    }
    if folder is not None:
        (folder / "probe.json").write_text(json.dumps(result, indent=2) + "\n")
    return table(result, folder)


def labelled_splits(data: ProbeData, model: BigBiGAN) -> tuple[Images, Images, str]:
    """The two labelled splits of the probe's data, or of those the model was trained on."""
    own = model.card.get("data", {})
    path = data.path or own.get("path", "")
    if not path:
        raise ProbeError("expected --data.path, since the model does not say what it was trained on")
    same = not data.path or data.path == own.get("path")
    column = lambda name: getattr(data, name) or (own.get(name, "") if same else "")  # noqa: E731
    share = own.get("test_share", 0.1)
    splits = []
    for test in (False, True):
        name = "test_split" if test else "split"
        split = column(name) or ("test" if test else "train")
        splits.append(open_images(path, split, column("image_column"), column("label_column"), test, share, column("subset")))
    train, test = splits
    for images, which in ((train, "training"), (test, "test")):
        if images.labels is None:
            raise ProbeError(
                f"{path}: expected labels in the {which} split, found none; name their column with --data.label_column"
            )
    if len(np.unique(train.labels)) < 2:
        raise ProbeError(f"{path}: expected at least two classes in the training split, found one")
    if train.class_names != test.class_names:
        raise ProbeError(
            f"{path}: expected the same classes in both splits, found {len(train.class_names)} and {len(test.class_names)}"
        )
    return train, test, f"{path} ({train.origin})"


def results_folder(ckpt: str) -> Path | None:
    """Where probe.json and the features go: the run, or the given folder; nowhere for a model of the hub."""
    path = Path(ckpt)
    if not path.is_dir():
        return None
    for folder in (path, *path.resolve().parents[:2]):
        if (folder / "config.yaml").is_file():
            return folder
    return path


def fits(x, y, x_test, y_test, seeds: int) -> list[LinearFit]:
    return [fit_linear(np.asarray(x), y, np.asarray(x_test), y_test, seed) for seed in range(seeds)]


def row(name: str, feature: str, results: list[LinearFit]) -> dict:
    """One line of the table: mean and spread over fits, the regularisation they chose, whether all of them converged."""
    scores = [fit.top1 for fit in results]
    return {
        "encoder": name,
        "feature": feature,
        "top1": statistics.mean(scores),
        "sd": statistics.stdev(scores) if len(scores) > 1 else None,
        "n": len(scores),
        "strengths": [fit.strength for fit in results],  # C
        "converged": all(fit.converged for fit in results),
    }


def trained_rows(probe: Probe, model: BigBiGAN, train: Images, test: Images, folder: Path | None) -> list[dict]:
    cache = folder / "features" if folder is not None and probe.cache else None
    x, at = extract(model.encoder, train, probe.data.batch_size, cache)
    x_test, at_test = extract(model.encoder, test, probe.data.batch_size, cache)
    y, y_test = train.labels[at], test.labels[at_test]
    return [row("trained", LABELS[name], fits(x[name], y, x_test[name], y_test, probe.seeds)) for name in probe.features]


def untrained_rows(probe: Probe, model: BigBiGAN, train: Images, test: Images) -> list[dict]:
    """The baseline that says whether training helped: random convolutions alone are good features."""
    if model.config is None or not probe.untrained:
        return []
    scores: dict[str, list[LinearFit]] = {name: [] for name in probe.features}
    for seed in range(1, probe.untrained + 1):
        build = lambda: BigBiGAN.from_config(model.config).encoder  # noqa: E731
        encoder = untrained(model.encoder, build, seed, train, probe.data.batch_size, 4096)
        x, at = extract(encoder, train, probe.data.batch_size)
        x_test, at_test = extract(encoder, test, probe.data.batch_size)
        for name in probe.features:
            scores[name] += fits(x[name], train.labels[at], x_test[name], test.labels[at_test], 1)
    return [row("untrained", LABELS[name], scores[name]) for name in probe.features]


def plain_rows(probe: Probe, model: BigBiGAN, train: Images, test: Images) -> list[dict]:
    size = min(model.encoder.image_size, 16)  # raw pixels of larger images are more numbers than the solver takes in minutes
    x, at = raw_pixels(train, size, probe.data.batch_size)
    x_test, at_test = raw_pixels(test, size, probe.data.batch_size)
    majority = np.bincount(train.labels).argmax()
    return [
        row("none", f"pixels {size}×{size}", fits(x, train.labels[at], x_test, test.labels[at_test], probe.seeds)),
        row("none", "majority class", [LinearFit(float((test.labels == majority).mean()), None, True)]),
    ]


def table(result: dict, folder: Path | None) -> str:
    """The printed table."""
    lines = [
        f"linear probe of {result['checkpoint']}: {result['protocol']}",
        f"data {result['data']}: n_train {result['n_train']:,}, n_test {result['n_test']:,}, {result['classes']} classes",
        f"{'encoder':<12}{'feature':<18}{'top-1 %':>8}   ± sd     n",
    ]
    for entry in result["rows"]:
        spread = f"{100 * entry['sd']:5.2f}" if entry["sd"] is not None else "    -"
        limit = "" if entry["converged"] else "  (stopped at the iteration limit)"
        lines.append(f"{entry['encoder']:<12}{entry['feature']:<18}{100 * entry['top1']:>8.2f}  {spread}  {entry['n']:>4}{limit}")
    lines.append("n: fits on different held-out fifths; of untrained encoders, different initialisations")
    lines.append("the encoder did not move" + (f"; written to {folder / 'probe.json'}" if folder is not None else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
