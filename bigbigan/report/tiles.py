"""Choose and order the tiles at the top of the page: the figure that matters most comes first.

The order, in which a figure that was not measured has no tile:

1. of an unfinished run: how many images it has seen, and the time left;
2. with labels: the linear probe of the trained encoder, beside the untrained encoder and raw pixels;
3. reconstructions: their error beside that of random pairs, and how many keep their class;
4. samples: their FID, in the features of a classifier of the data's own classes if there is one;
5. the rest: k-NN, Inception score, data, training time.

Where a linear classifier of raw pixels is ahead of the trained encoder, the probe says little about training. Then the
reconstructions that keep their class, the samples and the gain over the untrained encoder come before it, and a
sentence says why.
"""

import re
from dataclasses import dataclass

from bigbigan.metrics.figures import describe, title_of
from bigbigan.report.progress import Progress
from bigbigan.report.tables import duration, number, shown
from eval_linear.result import ProbeResult, Row

SMALL = 32  # px: pictures up to this side are so small that their pixels may well tell the classes apart
FEW = 100  # test images below which an accuracy says little: at 50 %, its standard error is above 5 points


@dataclass
class Tile:
    """Hold one figure of the top of the page: its name, its value and a note on what it stands beside."""

    name: str
    value: str
    note: str = ""

    @property
    def kind(self) -> str:
        """How the value is set: "long" or ""."""
        return "long" if len(self.value) > 15 else ""


@dataclass
class Lead:
    """Hold the tiles in their order, how many of them say what the model is worth, and the sentence below them.

    worth: the first so many of a finished run's tiles.  sentence: "" without one.
    """

    tiles: list[Tile]
    worth: int = 0
    sentence: str = ""


@dataclass
class Facts:
    """Hold what is known beside the probe.

    latest: the newest value of each key of stats.jsonl.  data: the data set.  seconds: of training.  image_size: of G.
    trained_on: the data set of the run, if the probe looked at another one.
    """

    latest: dict[str, float]
    data: str
    seconds: float | None
    image_size: int | None = None
    trained_on: str = ""


def lead(probe: ProbeResult, at: Progress, facts: Facts) -> Lead:
    """Return the tiles of a run by the rule at the head of this file."""
    linear, rows = _headline(probe, facts.latest, "linear"), _linear_rows(probe)
    samples = _generation("Samples: FID", probe, facts.latest, ("fid",), "lower is better")
    reconstructions, kept, sentence = _reconstruction(facts.latest), _kept(facts.latest), ""
    first = [linear, reconstructions, samples]
    if _pixels_lead(rows):
        first = [kept or reconstructions, samples, _gain(rows), linear, reconstructions if kept else None]
        sentence = _why_pixels(rows, facts.image_size, probe.n_test)
    if probe.images_seen and at.seen and probe.images_seen != at.seen:
        earlier = f"The probe is of this run at {number(probe.images_seen)} images; bigbigan-probe makes it anew."
        sentence = f"{earlier} {sentence}".strip()
    rest = [
        _headline(probe, facts.latest, "knn"),
        _generation("Samples: Inception score", probe, facts.latest, ("is", "inception_score"), "higher is better"),
        _seen(at) if at.finished and at.seen else None,
        _data(probe, facts.data, facts.trained_on),
        Tile("Trained on", facts.trained_on, "what the run itself measured is of this") if facts.trained_on else None,
        Tile("Training time", duration(facts.seconds), _probe_time(probe)) if facts.seconds else None,
    ]
    begun = [] if at.finished or not (at.seen or at.total) else [_seen(at)]
    begun, first, rest = ([tile for tile in part if tile is not None] for part in (begun, first, rest))
    return Lead([*begun, *first, *rest], len(first), sentence)


def _seen(at: Progress) -> Tile:
    note = f"of {number(at.total)}" if at.total and not at.finished else ""
    return Tile("Images seen", number(at.seen), f"{note}; {at.left}" if at.left else note)


def _data(probe: ProbeResult, data: str, trained_on: str) -> Tile | None:
    counts = {"to train on": probe.n_train, "to test on": probe.n_test, "classes": probe.classes}
    sizes = ", ".join(f"{number(n)} {name}" for name, n in counts.items() if n is not None)
    return Tile("Probed on" if trained_on else "Data", data, sizes) if data else None


def _probe_time(probe: ProbeResult) -> str:
    return f"evaluation {duration(probe.seconds)}" if probe.seconds is not None else ""


def kind_of_protocol(row: Row) -> str:
    """Return "knn", "linear" or "" for a row of the probe."""
    protocol = row.protocol.lower()
    return "knn" if "k-nn" in protocol or "knn" in protocol else "linear" if "linear" in protocol else ""


def _headline(probe: ProbeResult, latest: dict[str, float], kind: str) -> Tile | None:
    """Return the tile of the first trained row of that kind of protocol, else of the curves' newest figure.

    It is the first one that was measured, not the highest: the test split chooses no protocol and no feature.
    kind: "linear" or "knn".
    """
    name = {"linear": "Linear probe, top-1", "knn": "k-NN, top-1"}[kind]
    rows = _rows(probe, kind)
    first = next((row for row in rows if row.encoder == "trained"), None)
    if first is None:
        key = f"top1_{kind}"
        value = latest.get(key)
        return None if value is None else Tile(name, shown(key, value, unit=True), "an evaluation during training")
    beside = [
        f"{shown('top1', row.mean())} {row.feature if row.encoder == 'none' else row.encoder}"
        for row in rows
        if row is not first and row.protocol == first.protocol and row.feature in (first.feature, *_plain(row))
    ]
    return Tile(name, shown("top1", first.figures["top1"], unit=True), "; ".join([first.feature, ", ".join(beside)]))


def _rows(probe: ProbeResult, kind: str) -> list[Row]:
    """Return the rows of that kind of protocol, of the probe's own data set with all labels."""
    rows = [row for row in probe.rows if kind_of_protocol(row) == kind and row.labels == 1 and not row.data]
    return [row for row in rows if "top1" in row.figures and abs(row.mean()) != float("inf")]


def _plain(row: Row) -> tuple[str, ...]:
    """Return the feature of a row without an encoder, such as pixels, which stands beside every feature of E."""
    return (row.feature,) if row.encoder == "none" else ()


def _linear_rows(probe: ProbeResult) -> dict[str, Row]:
    """Return the rows of the first linear protocol that the rule compares: "trained", "untrained", "pixels"."""
    rows = _rows(probe, "linear")
    first = next((row for row in rows if row.encoder == "trained"), None)
    if first is None:
        return {}
    found = {"trained": first}
    for row in rows:
        if row.protocol == first.protocol and row.encoder == "untrained" and row.feature == first.feature:
            found.setdefault("untrained", row)
        if row.protocol == first.protocol and row.encoder == "none" and row.feature.lower().startswith("pixels"):
            found.setdefault("pixels", row)
    return found


def _pixels_lead(rows: dict[str, Row]) -> bool:
    return "pixels" in rows and rows["pixels"].mean() > rows["trained"].mean()


def _gain(rows: dict[str, Row]) -> Tile | None:
    if "untrained" not in rows:
        return None
    trained, untrained = rows["trained"].mean(), rows["untrained"].mean()
    gain = f"{100 * (trained - untrained):+.1f} points".replace("-", "−")
    note = f"linear probe, top-1: {100 * trained:.1f} % trained, {100 * untrained:.1f} % untrained"
    return Tile("Gain over the untrained encoder", gain, note)


def _why_pixels(rows: dict[str, Row], image_size: int | None, n_test: int | None) -> str:
    """Return the sentence that explains why raw pixels are ahead of the encoder's features, as far as figures tell."""
    ahead = (
        f"A linear classifier of the raw pixels is right on {100 * rows['pixels'].mean():.1f} % of the test images, "
        f"one of the encoder's features on {100 * rows['trained'].mean():.1f} %. "
    )
    if n_test and n_test < FEW:
        return ahead + (
            f"There are only {n_test:,} test images, so one image is worth {100 / n_test:.0f} points: the difference "
            "tells little. Judge by the pictures, or hold out more images (--data.test_share)."
        )
    learned = "untrained" not in rows or rows["trained"].mean() > rows["untrained"].mean()
    if learned and image_size is not None and image_size <= SMALL:
        return ahead + (
            "In pictures as small as these each pixel says much about the class, so pixels suffice. What training adds "
            "shows in the reconstructions, the samples and the gain over the untrained encoder. On natural images "
            "pixels do not suffice: the paper's encoder is right on 56.6 % of ImageNet's 1,000 classes (ResNet-50, "
            "BN+CReLU; its Table 2)."
        )
    return ahead + "The encoder has not learned yet what tells the classes apart: train for longer, or on more images."


def _reconstruction(latest: dict[str, float]) -> Tile | None:
    error = latest.get("reconstruction_error_relative")
    if error is None:
        return None
    notes = ["1 = random pairs"]
    if "reconstruction_1nn_agreement" in latest:
        notes.append(f"{100 * latest['reconstruction_1nn_agreement']:.1f} % keep their class by 1-NN")
    notes += [f"n = {number(int(latest['n_test']))}"] if "n_test" in latest else []
    return Tile("Reconstruction error", number(error), "; ".join(notes))


def _kept(latest: dict[str, float]) -> Tile | None:
    kept = latest.get("reconstruction_1nn_agreement")
    if kept is None:
        return None
    note = "by the nearest training image in pixels"
    return Tile("Reconstructions that keep their class", f"{100 * kept:.1f} %", note)


def _generation(
    title: str, probe: ProbeResult, latest: dict[str, float], names: tuple[str, ...], better: str
) -> Tile | None:
    """Return the tile of the first figure that one of `names` begins: of the probe, else of the curves.

    Of the probe's figures, those of the data's own classifier come first.
    """
    results = probe.generation.results if probe.generation is not None else []
    results = sorted(results, key=lambda result: not result.extractor.startswith("classifier"))
    for figures in [*(result.figures for result in results), latest]:
        for key, value in figures.items():
            if key.lower() in names or key.lower().startswith(tuple(f"{short}_" for short in names)):
                info = describe(key)
                words = title_of(key).removeprefix(info.title if info is not None else "").strip(", ")
                return Tile(title, number(value), "; ".join(filter(None, [better, _real(names[0], figures), words])))
    return None


def _real(name: str, figures: dict[str, float]) -> str:
    """Return what held-out real images reach in the same figure, "" where that was not measured."""
    for key, value in figures.items():
        if found := re.fullmatch(rf"{name}_real_.*_n(\d{{1,12}})", key):
            return f"real images {number(value)}, n = {number(int(found[1]))}"
    return ""
