"""Arrange what the page shows of a probe as tables and texts: rows, confusions, samples, pairs.

A part that was not measured is None or empty, and is left out.
"""

import dataclasses
from dataclasses import dataclass

from bigbigan.metrics.figures import extractor_in_words, is_share, title_of
from bigbigan.report.tables import Table, figure_cell, make_table, number, shown
from eval_linear.result import Choice, ProbeResult, Row, TruncationCurve

ENCODERS = ("trained", "untrained", "supervised")  # their order within a feature; baselines without an encoder follow
DRAWN_CLASSES = 20  # up to which a confusion matrix is drawn; of more classes the most confused pairs are listed
PAIRS = 30
SUMMARY = {"min_fid": "least FID", "valid_is": "FID at the IS of real images", "max_is": "greatest IS"}


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
    parts += [_choice(probe.chosen)] if probe.chosen is not None else []
    parts += [f"encoder sha256 {probe.encoder_sha256[:12]}"] if probe.encoder_sha256 else []
    return "; ".join([*parts, "n: fits; of untrained encoders, initialisations"])


def _choice(chosen: Choice) -> str:
    """Return what chose the checkpoint, its figure in words."""
    value = shown(chosen.figure, chosen.value, unit=True)
    return dataclasses.replace(chosen, figure=title_of(chosen.figure)).words().replace(f"{chosen.value:.4g}", value, 1)


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
    counted = some_labels and any(row.labelled_images is not None for row in rows)
    heads += ["labels, %"] * some_labels + ["labelled images"] * counted + ["note"] * any(notes)
    cells = []
    for row, note in zip(rows, notes, strict=True):
        repeats = {str(figure.n) for figure in row.figures.values() if figure.n is not None}
        line = [row.feature, "" if row.encoder == "none" else row.encoder]
        line += [figure_cell(name, row.figures.get(name), bar=name == names[0]) for name in names]
        line += [", ".join(sorted(repeats)) or "–"] + [f"{100 * row.labels:g}"] * some_labels
        line += [number(row.labelled_images)] * counted
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

    text: how many images are right.  rows: for each class its name and (count, share of the row, whether this is the
    class itself) for each column.  pairs: the most confused pairs, in place of the rows of many classes.
    """

    text: str
    names: list[str]
    rows: list[tuple[str, list[tuple[int, float, bool]]]]
    pairs: Table | None = None


def confusion(probe: ProbeResult) -> ConfusionView | None:
    """Return the confusion matrix as the page shows it; None where there is none, or one that is not square."""
    matrix = probe.confusion.matrix if probe.confusion is not None else []
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        return None
    names = probe.class_names[: len(matrix)]
    names += [str(i) for i in range(len(names), len(matrix))]
    right, count = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
    share = f" ({100 * right / count:.1f}\u00a0%)" if count else ""
    text = f"{probe.confusion.row}: {number(right)} of {number(count)} images are given their own class{share}."
    text = text.removeprefix(": ")
    if len(matrix) > DRAWN_CLASSES:
        return ConfusionView(text, [], [], _confused_pairs(matrix, names))
    rows = [
        (name, [(n, n / max(sum(row), 1), i == j) for j, n in enumerate(row)])
        for i, (name, row) in enumerate(zip(names, matrix, strict=True))
    ]
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
        rows = [
            [title_of(key, known=result.extractor), shown(key, value, unit=True)]
            for key, value in result.figures.items()
        ]
        name = extractor_in_words(result.extractor)
        label = f"Features of {name}" if name != result.extractor else name
        extractors.append(ExtractorView(make_table(["figure", "value"], rows, label), result.note))
    return GenerationView(extractors, probe.generation.skipped)


def truncation_summary(curve: TruncationCurve) -> Table | None:
    """Return the three points by which a truncation curve is reported (Brock et al. 2019, table 2)."""
    rows = []
    for key, name in SUMMARY.items():
        point = getattr(curve.summary, key)
        if point is not None:
            rows.append([name, curve.threshold(point), number(point.fid), number(point.inception_score)])
    return make_table(["point", "threshold", "FID", "IS"], rows, "points of the truncation curve") if rows else None


def bidirectional(probe: ProbeResult) -> Table | None:
    """Return what encoder and generator do together, each figure beside its baseline."""
    rows = [
        [f.name, number(f.value), number(f.baseline), f.baseline_name or "", f.unit, number(f.n)]
        for f in probe.bidirectional or []
    ]
    heads = ["figure", "value", "baseline", "which is", "unit", "n"]
    return make_table(heads, rows, "Encoder and generator together") if rows else None
