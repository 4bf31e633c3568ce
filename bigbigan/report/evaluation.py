"""Arrange what the page shows of a probe as tables and texts: closing table, rows, confusions, samples, pairs.

A part that was not measured is None or empty, and is left out.
"""

import math
from dataclasses import dataclass

from bigbigan.metrics.figures import is_share, title_of
from bigbigan.report.tables import Cell, Table, duration, figure_cell, finite, make_table, number, shown
from eval_linear.result import CurvePoint, ProbeResult, Row, TruncationCurve

ENCODERS = ("trained", "untrained", "supervised")  # their order within a feature; baselines without an encoder follow
DRAWN_CLASSES = 60  # up to which a confusion matrix is drawn; of more classes the most confused pairs are listed
PAIRS = 30
SUMMARY = {"min_fid": "least FID", "valid_is": "FID at the IS of real images", "max_is": "greatest IS"}


@dataclass
class Entry:
    """Hold one figure of the closing table, and a note on what it stands beside."""

    name: str
    value: str
    note: str = ""

    def __post_init__(self):
        self.note = self.note or ("not measured" if self.value == "–" else "")

    @property
    def kind(self) -> str:
        """How the value is set: "absent", "long" or ""."""
        return "absent" if self.value == "–" else "long" if len(self.value) > 15 else ""


def closing(
    probe: ProbeResult, latest: dict[str, float], total: int | None, data: str, seconds: float | None
) -> list[Entry]:
    """Return the closing table: each figure that a run is judged by.

    After a probe of images without labels, the figures that need them are left out.

    probe: without figures where there is no probe.json.  latest: the newest value of each key of stats.jsonl.
    total: images to see.  data: the data set.  seconds: of training.
    """
    counts = {"train": probe.n_train, "test": probe.n_test, "classes": probe.classes}
    sizes = ", ".join(f"{number(n)} {name}" for name, n in counts.items() if n is not None)
    seen = number(latest.get("images_seen", probe.images_seen))
    took = f"evaluation {duration(probe.seconds)}" if probe.seconds is not None else ""
    of_classes = [
        Entry("Linear probe, top-1", *_headline(probe, latest, "linear")),
        Entry("k-NN, top-1", *_headline(probe, latest, "knn")),
        Entry("FID", *_generation(probe, latest, ("fid",))),
        Entry("Inception score", *_generation(probe, latest, ("is", "inception_score"))),
    ]
    unlabelled = probe.not_measured and not probe.classes
    return [
        Entry("Images seen", seen, f"of {number(total)}" if total else ""),
        *(entry for entry in of_classes if not (unlabelled and entry.kind == "absent")),
        Entry("Reconstruction error", *_reconstruction(latest)),
        Entry("Data", data or "–", sizes),
        Entry("Training time", duration(seconds), took),
    ]


def _headline(probe: ProbeResult, latest: dict[str, float], kind: str) -> tuple[str, str]:
    """Return value and note of the first trained row of that kind of protocol, else of the curves' newest figure.

    It is the first one that was measured, not the highest: the test split chooses no protocol and no feature.
    kind: "linear" or "knn". Rows of fewer labels or of another data set do not count.
    """
    rows = [row for row in probe.rows if _kind(row) == kind and row.labels == 1 and row.mean() > -math.inf]
    rows = [row for row in rows if not row.data]  # of the probe's own data set
    trained = [row for row in rows if row.encoder == "trained"]
    if not trained:
        name = max((name for name in latest if name.startswith(f"top1_{kind}")), key=latest.__getitem__, default="")
        return shown(name, latest.get(name), unit=True), f"{name}, of an evaluation during training" * bool(name)
    first = trained[0]
    beside = []
    for row in rows:
        plain = row.encoder == "none"
        if row.protocol == first.protocol and (plain or row.feature == first.feature) and row is not first:
            beside.append(f"{shown('top1', row.mean())} {row.feature if plain else row.encoder}")
    return shown("top1", first.figures["top1"], unit=True), f"{first.feature}; {', '.join(beside)}".strip("; ")


def _kind(row: Row) -> str:
    protocol = row.protocol.lower()
    return "knn" if "k-nn" in protocol or "knn" in protocol else "linear" if "linear" in protocol else ""


def _generation(probe: ProbeResult, latest: dict[str, float], names: tuple[str, ...]) -> tuple[str, str]:
    """Return value and full name of the first figure that one of `names` begins: of the probe, else of the curves."""
    results = probe.generation.results if probe.generation is not None else []
    for figures in [*(result.figures for result in results), latest]:
        for name, value in figures.items():
            if name.lower() in names or name.lower().startswith(tuple(f"{short}_" for short in names)):
                return number(value), name
    return "–", ""


def _reconstruction(latest: dict[str, float]) -> tuple[str, str]:
    error, agreement = latest.get("reconstruction_error_relative"), latest.get("reconstruction_1nn_agreement")
    if error is None:
        return "–", ""
    if agreement is None:
        return number(error), "1 = random pairs"
    share = shown("reconstruction_1nn_agreement", agreement)
    return number(error), f"1 = random pairs; {share} % keep their class by 1-NN"


def protocols(probe: ProbeResult) -> list[Table]:
    """Return a table for each protocol and data set, in which baselines stand beside the trained encoder."""
    groups: dict[str, list[Row]] = {}
    for row in probe.rows:
        title = row.protocol + (f"; data {row.data}" if row.data else "")
        groups.setdefault(title, []).append(row)
    return [_protocol(title, rows) for title, rows in groups.items()]


def origin(probe: ProbeResult) -> str:
    """Return what the probe is of, which may be an earlier checkpoint than the curves' last point; "" without one."""
    if probe == ProbeResult():
        return ""
    parts = [f"Of {probe.checkpoint or 'an unnamed checkpoint'} at {number(probe.images_seen)} images seen"]
    parts += [probe.chosen.words()] if probe.chosen is not None else []
    parts += [f"encoder sha256 {probe.encoder_sha256[:12]}"] if probe.encoder_sha256 else []
    return "; ".join([*parts, "n: fits; of untrained encoders, initialisations"])


def _protocol(protocol: str, rows: list[Row]) -> Table:
    features = [row.feature for row in rows]

    def place(row: Row) -> tuple:
        order = (*ENCODERS, row.encoder).index(row.encoder)
        return row.encoder not in ENCODERS, features.index(row.feature), -row.labels, order

    rows = sorted(rows, key=place)
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    some_labels = any(row.labels != 1 for row in rows)
    notes = [row.note or "stopped at the step limit" * (row.converged is False) for row in rows]
    heads = ["feature", "encoder", *map(_head, names), "n"]
    heads += ["labels, %"] * some_labels + ["note"] * any(notes)
    cells = []
    for row, note in zip(rows, notes, strict=True):
        repeats = {str(figure.n) for figure in row.figures.values() if figure.n is not None}
        line = [row.feature, "" if row.encoder == "none" else row.encoder]
        line += [figure_cell(name, row.figures.get(name), bar=name == names[0]) for name in names]
        line += [", ".join(sorted(repeats)) or "–"] + [f"{100 * row.labels:g}"] * some_labels
        cells.append(line + [note] * any(notes))
    table = make_table(heads, cells, protocol)
    for row, drawn in zip(rows, table.rows, strict=True):
        drawn.ours = row.encoder == "trained"
    return table


def _head(name: str) -> str:
    """Return a figure at the head of a column: `top1, k = 10` is "top-1, k = 10, %"."""
    first, comma, rest = name.partition(",")
    return title_of(first) + comma + rest + ", %" * is_share(name)


@dataclass
class ConfusionView:
    """Hold what the page draws of a confusion matrix.

    text: how many images are right.  rows: for each class its name and (count, share of the row) for each column.
    pairs: the most confused pairs, in place of the rows where there are too many classes to draw.
    """

    text: str
    names: list[str]
    rows: list[tuple[str, list[tuple[int, float]]]]
    pairs: Table | None = None


def confusion(probe: ProbeResult) -> ConfusionView | None:
    """Return the confusion matrix as the page shows it; None where there is none, or one that is not square."""
    matrix = probe.confusion.matrix if probe.confusion is not None else []
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        return None
    names = probe.class_names[: len(matrix)]
    names += [str(i) for i in range(len(names), len(matrix))]
    right, count = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
    text = f"{probe.confusion.row}: {number(right)} of {number(count)} images are given their own class."
    text = text.removeprefix(": ")
    if len(matrix) > DRAWN_CLASSES:
        return ConfusionView(text, [], [], _confused_pairs(matrix, names))
    rows = [(name, [(n, n / max(sum(row), 1)) for n in row]) for name, row in zip(names, matrix, strict=True)]
    return ConfusionView(text, names, rows)


def _confused_pairs(matrix: list[list[int]], names: list[str]) -> Table:
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    pairs = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:PAIRS]
    rows = [[names[i], names[j], number(n), f"{100 * n / max(sum(matrix[i]), 1):.1f}"] for n, i, j in pairs]
    label = f"The {len(rows)} most confused pairs of {number(len(matrix))} classes:"
    return make_table(["class of the image", "class it was given", "images", "% of its class"], rows, label)


@dataclass
class ExtractorView:
    """Hold the table of one extractor's figures, and a note on the extractor."""

    table: Table
    note: str


@dataclass
class GenerationView:
    """Hold the figures of samples, and the reasons for what was skipped."""

    extractors: list[ExtractorView]
    skipped: list[str]


def generation(probe: ProbeResult) -> GenerationView | None:
    """Return a table of figures for each feature extractor, and what was skipped; None where nothing was measured."""
    if probe.generation is None:
        return None
    extractors = []
    for result in probe.generation.results:
        rows = [[Cell(key, code=True), shown(key, value, unit=True)] for key, value in result.figures.items()]
        extractors.append(ExtractorView(make_table(["figure", "value"], rows, result.extractor), result.note))
    return GenerationView(extractors, probe.generation.skipped)


def truncation_summary(curve: TruncationCurve) -> Table | None:
    """Return the three points by which a truncation curve is reported (Brock et al. 2019, table 2)."""
    rows = []
    for key, name in SUMMARY.items():
        point = getattr(curve.summary, key)
        if point is not None:
            rows.append([name, threshold(point), number(point.fid), number(point.inception_score)])
    return make_table(["point", "threshold", "FID", "IS"], rows, "points of the truncation curve") if rows else None


def threshold(point: CurvePoint) -> str:
    """Return the truncation threshold of a point as text."""
    return number(point.threshold) if finite(point.threshold) else "none"


def bidirectional(probe: ProbeResult) -> Table | None:
    """Return what encoder and generator do together, each figure beside its baseline."""
    rows = [
        [f.name, number(f.value), number(f.baseline), f.baseline_name or "", f.unit, number(f.n)]
        for f in probe.bidirectional or []
    ]
    heads = ["figure", "value", "baseline", "which is", "unit", "n"]
    return make_table(heads, rows, "Encoder and generator together") if rows else None
