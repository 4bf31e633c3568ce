"""Measure what a model is worth: `bigbigan-probe CKPT [--field VALUE ...]`.

CKPT: a run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package.
Frozen features, generation, and encoder and generator together: one table, one probe.json, one page (report.html),
beside the checkpoint.
"""

import dataclasses
import itertools
import json
import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):  # run by its path: the repository root takes the place of this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
if __name__ == "__main__":  # as a command it answers --help, and sets the threads, before anything large is loaded
    from eval_linear.command import main

    raise SystemExit(main())

import tyro

from bigbigan.api import default_device
from bigbigan.config import ImagesGiven
from bigbigan.config.bounds import AtLeastOne, Bounds, NotNegative, check_numbers
from bigbigan.config.command import say
from bigbigan.config.parsing import parse_options
from bigbigan.data import data_of_model
from bigbigan.data import open_splits as open_data
from bigbigan.errors import Outside, ProbeError, exit_with_a_sentence
from bigbigan.files import check_links, expanded, printable, write_text_whole, write_whole
from bigbigan.metrics.cache import digest
from bigbigan.model import BigBiGAN
from bigbigan.release.load import load_model
from bigbigan.report import write_page
from bigbigan.report.page import check_page
from bigbigan.report.terminal import table
from bigbigan.training.checkpoint import choice, complete
from eval_linear import measures
from eval_linear.conditional import conditional
from eval_linear.features import check_names, label
from eval_linear.generation import Generation, check_images, generation
from eval_linear.pairs import bidirectional
from eval_linear.parts import OF_CLASSES, Part, choose_parts, networks_for, what_is_missing
from eval_linear.representations import (
    DecodedOnce,
    Representation,
    Splits,
    flips,
    of_encoder,
    of_pixels,
    of_supervised,
    of_untrained,
)
from eval_linear.result import Choice, Confusion, ProbeResult, Row
from eval_linear.sheets import Sheets

Protocol = Literal["full_batch", "adam_5k", "adam_100k"]
SHARES = "shares of the training labels in (0, 1], such as 1 0.1 0.01"


@dataclass
class ProbeData(ImagesGiven):
    """Name the images; what is left empty is what the model was trained on."""

    split: str = ""
    """Split that the classifier is fitted on."""
    test_split: str = ""
    """Split that it is judged on."""
    batch_size: AtLeastOne = 256
    """Images encoded at once."""


@dataclass
class Probe:
    """Measure a model: its frozen features beside their baselines, its samples, and encoder and generator together."""

    ckpt: tyro.conf.Positional[str]
    """A run folder, checkpoint folder, release folder or hub id, or the name of a model that comes with the package."""
    parts: tuple[Part, ...] = ()
    """What to measure; all that the model and the data allow when empty. linear, knn and kmeans need labels.
    pairs is reconstruction, round trip, neighbours, interpolation and the filters.
    classes is of a conditional model alone: samples by class, lines between classes, class leakage.
    A GAN, which has no encoder, has generation and classes."""
    data: ProbeData = field(default_factory=ProbeData)
    transfer: str = ""
    """A second labelled data set, as --data.path, whose linear, knn and kmeans rows stand beside the first's."""
    features: tuple[str, ...] = ("avepool_feat", "bn_crelu_feat")
    """Of avepool_feat, bn_crelu_feat, z_mean, or names of E's layers such as trunk.stages.2, averaged over places."""
    linear: tuple[Protocol, ...] = ("full_batch",)
    """full_batch: a regularisation path chosen on held-out training images; adam_5k, adam_100k: the paper's Table 1 and
    Table 2."""
    augment: Literal["none", "light", "resnet", "tf_resnet"] = "none"
    """Crops that the adam protocols train on: the centre square, or random ones (tf_resnet is the paper's), flipped
    where the model's training flipped."""
    labels: Annotated[tuple[float, ...], Bounds(above=0, most=1, expected=SHARES)] = (1.0, 0.1, 0.01)
    """Shares of the training labels that linear classifiers are given."""
    seeds: AtLeastOne = 1
    """Fits per row: each chooses on another held-out part, with other labels when they are few."""
    untrained: NotNegative = 3
    """How many randomly initialised encoders to compare with."""
    supervised: NotNegative = 0
    """Epochs that the same architecture is trained for with the labels, to stand beside; 0 for none."""
    queries: NotNegative = 2000
    """Test images that k-NN is measured on; 0 for all."""
    generation: Generation = field(default_factory=Generation)
    cache: bool = True
    """Keep extracted features beside the checkpoint."""


def main(argv: list[str] | None = None) -> None:
    """Run the probe as a command and print its table; of several processes the first works alone."""
    if int(os.environ.get("RANK", 0)):  # of several processes, as torchrun starts them, the first works alone
        return
    with exit_with_a_sentence():
        say(run_probe(parse_options(Probe, "bigbigan-probe", argv)))


def run_probe(probe: Probe) -> str:
    """Measure all parts, prove that the encoder did not move, write probe.json and the page, and return the table."""
    started = time.perf_counter()
    probe = without_repeats(probe)
    model = load_model(probe.ckpt, networks_for(probe.parts)).to(default_device())
    check(probe, model)
    splits = open_splits(probe.data, model)
    parts, not_measured = choose_parts(probe.parts, model, splits, splits.path)
    other = None if not probe.transfer else transfer_splits(probe, model)
    folder = results_folder(probe.ckpt)
    probed = model.generator if model.encoder is None else model.encoder
    before = digest(probed.state_dict())
    sheets = None if folder is None else Sheets(folder)
    rows, confusion = feature_rows(probe, parts, model, splits, folder)
    if other is not None:
        name = f"{probe.transfer}; {other.test.note}" if other.test.note else probe.transfer
        asked = probe.parts or OF_CLASSES
        rows += [dataclasses.replace(row, data=name) for row in feature_rows(probe, asked, model, other, folder)[0]]
    batch_size = probe.data.batch_size
    generated = generation(probe.generation, model, splits, batch_size) if "generation" in parts else None
    pairs = None
    if "pairs" in parts:
        pairs = bidirectional(model, splits, batch_size, sheets)
    if "classes" in parts:
        pairs = (pairs or []) + conditional(model, splits, batch_size, sheets)
    if digest(probed.state_dict()) != before:
        raise ProbeError("the encoder moved while it was probed; the figures are void")
    result = ProbeResult(
        checkpoint=probe.ckpt,
        images_seen=model.card.get("images_seen"),
        encoder_sha256=None if model.encoder is None else before,
        data=splits.origin,
        n_train=len(splits.train),
        n_test=len(splits.test),
        classes=splits.classes or None,
        class_names=splits.class_names,
        not_measured=not_measured or None,
        seeds=probe.seeds,
        seconds=round(time.perf_counter() - started, 1),
        device=str(next(probed.parameters()).device),
        chosen=choice_of(probe.ckpt),
        rows=rows,
        confusion=confusion,
        generation=generated,
        bidirectional=pairs,
        sheets=sheets.entries if sheets is not None else [],
    )
    if names := result.not_finite():
        reason = "no finite number, since what it is divided by is 0 or it has too few images"
        result.not_measured = [*not_measured, f"{reason}, so null in probe.json: {'; '.join(names)}"]
    kept = None if folder is None else write(result, folder)
    said = f"\nthe figures that were there before are kept in {printable(kept)}" if kept is not None else ""
    return table(result, folder) + said


def write(result: ProbeResult, folder: Path) -> Path | None:
    """Write probe.json and report.html; return where figures of before are kept that were not measured again.

    Where the disk refuses them, the table is printed before the OSError is raised.
    """
    kept = None
    try:
        kept = keep_earlier(result, folder)
        write_text_whole(folder / "probe.json", json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n")
        write_page(folder)
    except OSError:
        print(table(result))
        raise
    return kept


def keep_earlier(result: ProbeResult, folder: Path) -> Path | None:
    """Copy the folder's probe.json to probe-1.json, probe-2.json, ..., and return the path of the copy.

    Returns None, and copies nothing, where `result` holds all that was measured before, of the same data. A file that
    nothing here reads is copied too: it may be a newer version's, or something else.
    """
    path = folder / "probe.json"
    with suppress(ProbeError):
        try:
            earlier = ProbeResult.read(path)
        except FileNotFoundError:
            return None
        if earlier.data == result.data and earlier.measured() <= result.measured():
            return None
    content = path.read_bytes()
    names = (folder / f"probe-{k}.json" for k in itertools.count(1))
    kept = next(name for name in names if not name.exists() or name.read_bytes() == content)
    write_whole(kept, lambda part: part.write_bytes(content))
    return kept


def without_repeats(probe: Probe) -> Probe:
    """Return the options with each feature, protocol and share once: a repeated fit would count as another one."""
    lists = {name: tuple(dict.fromkeys(getattr(probe, name))) for name in ("features", "linear", "labels")}
    return dataclasses.replace(probe, **lists)


def check(probe: Probe, model: BigBiGAN) -> None:
    """Raise ProbeError, FeatureError, MetricsError or ConfigError for settings that cannot be measured."""
    if model.encoder is not None:
        check_names(model.encoder, probe.features)
    check_numbers(probe)
    check_images(probe.generation)
    if not probe.features:
        raise ProbeError("--features: expected one or more, found none")
    if probe.augment != "none" and set(probe.linear) == {"full_batch"}:
        raise ProbeError(
            f"--augment {probe.augment}: expected --linear adam_5k or adam_100k, since full_batch fits fixed features"
        )


def open_splits(data: ProbeData, model: BigBiGAN, common_classes: bool = True, others: bool = False) -> Splits:
    """Open the two splits of the probe's data, or of those the model was trained on, divided as they were then.

    common_classes: as of `bigbigan.data.open_splits`.  others: as of `data_of_model`.
    """
    settings = data_of_model(data, model.card, others)
    if not settings.path:
        raise ProbeError("expected --data.path, since the model does not say what it was trained on")
    train, test = open_data(settings, common_classes)
    note = (f" ({train.origin})" if train.origin != settings.path else "") + (f"; {test.note}" if test.note else "")
    seen = settings.path == (model.card or {}).get("data", {}).get("path")
    return Splits(DecodedOnce.of(train), DecodedOnce.of(test), settings.path, note, seen=seen)


def transfer_splits(probe: Probe, model: BigBiGAN) -> Splits:
    """Open the second data set, `probe.transfer`, which must have labels; else raise ProbeError."""
    splits = open_splits(ProbeData(probe.transfer, batch_size=probe.data.batch_size), model, others=True)
    if missing := what_is_missing("linear", model, splits):
        raise ProbeError(f"--transfer {probe.transfer}: {missing}")
    return splits


def choice_of(ckpt: str) -> Choice | None:
    """Return what chose the checkpoint, if CKPT is the best one of a run or the folder that holds it."""
    folder = expanded(ckpt)
    kept = [folder, *complete(folder)[-1:]] if folder.is_dir() else []
    return next((Choice(**note) for note in map(choice, kept) if note is not None), None)


def results_folder(ckpt: str) -> Path | None:
    """Return where the results go: the run, or the given folder; None for a model of the hub or of the package."""
    path = expanded(ckpt)
    if not path.is_dir():
        return None
    found = next((run for run in _runs_around(path) if (run / "config.yaml").is_file()), path)
    check_page(found)
    try:
        check_links(found, deep=True)
    except Outside as error:
        raise ProbeError(str(error)) from None
    return found


def _runs_around(path: Path) -> list[Path]:
    """Return which folders may be the run that a path lies in: RUN, RUN/release, RUN/checkpoints/000000064000, ..."""
    whole = path.resolve()
    above = [whole.parent] if whole.name in ("checkpoints", "best", "release") else []
    return [path, *above, *([whole.parents[1]] if whole.parent.name in ("checkpoints", "best") else [])]


def feature_rows(
    probe: Probe, parts: tuple[Part, ...], model: BigBiGAN, splits: Splits, folder: Path | None
) -> tuple[list[Row], Confusion | None]:
    """Measure the frozen features beside their baselines, by the `parts` of them that need labels.

    Returns the rows, and the confusion matrix of the first linear row.
    """
    rows = measures.Rows()
    cache = folder / "features" if folder is not None and probe.cache else None
    names, batch_size = probe.features, probe.data.batch_size
    if not set(OF_CLASSES) & set(parts):
        return [], None
    for r in of_encoder("trained", model.encoder, splits, names, batch_size, cache, flip=flips(model)):
        measure(rows, r, probe, parts, splits)
    if probe.supervised:
        for r in of_supervised(model, splits, names, batch_size, probe.supervised, rows):
            measure(rows, r, probe, parts, splits)
    for r in of_untrained(model, splits, names, batch_size, probe.untrained):
        measure(rows, r, probe, parts, splits, once=True)
    for r in of_pixels(splits, model.encoder.image_size, batch_size):
        measure(rows, r, probe, parts, splits)
    measures.majority(rows, splits)
    return list(rows), rows.confusion


def measure(
    rows: measures.Rows, r: Representation, probe: Probe, parts: tuple[Part, ...], splits: Splits, once: bool = False
) -> None:
    """Measure one representation. Of the encoder's features, only the first named has k-NN and k-means."""
    for seed in range(1 if once else probe.seeds):
        if "linear" in parts:
            for protocol in probe.linear:
                for share in probe.labels:
                    measures.linear(
                        rows, r, splits, protocol, share, seed, augment=probe.augment, batch_size=probe.data.batch_size
                    )
        if "kmeans" in parts and r.feature in (label(probe.features[0]), *_plain(r)):
            measures.kmeans(rows, r, splits.classes, seed)
    if "knn" in parts and r.feature in (label(probe.features[0]), *_plain(r)):
        measures.knn(rows, r, splits.classes, probe.queries)


def _plain(r) -> tuple[str, ...]:
    """Return the feature's name if it comes from no network, such as pixels."""
    return (r.feature,) if r.network is None else ()
