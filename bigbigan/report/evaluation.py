"""The closing table of a run and its evaluation (probe.json) as HTML. Keys that are absent leave their part out."""

import math

from bigbigan.metrics.figures import is_share, title_of
from bigbigan.report.tables import Html, box, duration, finite, join, number, shown, table, tag
from eval_linear.result import CurvePoint, ProbeResult, Row, TruncationCurve

ENCODERS = ("trained", "untrained", "supervised")  # their order within a feature; baselines without an encoder follow
DRAWN_CLASSES = 60  # up to which a confusion matrix is drawn; of more classes the most confused pairs are listed
PAIRS = 30
SUMMARY = {"min_fid": "least FID", "valid_is": "FID at the IS of real images", "max_is": "greatest IS"}


def closing(probe: ProbeResult, latest: dict[str, float], total: int | None, data: str, seconds: float | None) -> Html:
    """The closing table: each figure that a run is judged by, with what it stands beside.

    probe: without figures where there is no probe.json.  latest: the newest value of each key of stats.jsonl.
    total: images to see.  seconds: of training.
    """
    counted = {"n_train": "train", "n_test": "test", "classes": "classes"}
    rows = [
        (
            "Images seen",
            number(latest.get("images_seen", probe.images_seen)),
            f"of {number(total)}" if total else "",
        ),
        ("Linear probe, top-1", *_best(probe, latest, "linear")),
        ("k-NN, top-1", *_best(probe, latest, "knn")),
        ("FID", *_generation(probe, latest, ("fid",))),
        ("Inception score", *_generation(probe, latest, ("is", "inception_score"))),
        ("Reconstruction error", *_reconstruction(latest)),
        (
            "Data",
            data or "–",
            ", ".join(f"{number(n)} {name}" for key, name in counted.items() if (n := getattr(probe, key)) is not None),
        ),
        (
            "Training time",
            duration(seconds),
            f"evaluation {duration(probe.seconds)}" if probe.seconds is not None else "",
        ),
    ]
    parts = []
    for name, value, note in rows:
        missing = value == "–"
        note = note or ("not measured" if missing else "")
        kind = "absent" if missing else "long" if len(value) > 15 else None
        parts.append(tag("div", tag("dt", name), tag("dd", value, class_=kind), tag("dd", note, class_="note")))
    return tag("dl", *parts, class_="closing")


def _best(probe: ProbeResult, latest: dict[str, float], kind: str) -> tuple[str, str]:
    """(value, note) of the best trained row of that kind of protocol with all labels; else of the curves' newest
    figure."""
    rows = [row for row in probe.rows if _kind(row) == kind and row.labels == 1 and row.mean() > -math.inf]
    rows = [row for row in rows if not row.data]  # of the probe's own data set
    trained = [row for row in rows if row.encoder == "trained"]
    if not trained:
        name = max((name for name in latest if name.startswith(f"top1_{kind}")), key=latest.__getitem__, default="")
        return shown(name, latest.get(name), unit=True), name
    best = max(trained, key=Row.mean)
    beside = []
    for row in rows:
        plain = row.encoder == "none"
        if row.protocol == best.protocol and (plain or row.feature == best.feature) and row is not best:
            beside.append(f"{shown('top1', row.mean())} {row.feature if plain else row.encoder}")
    return shown("top1", best.figures["top1"], unit=True), f"{best.feature}; {', '.join(beside)}".strip("; ")


def _kind(row: Row) -> str:
    protocol = row.protocol.lower()
    return "knn" if "k-nn" in protocol or "knn" in protocol else "linear" if "linear" in protocol else ""


def _generation(probe: ProbeResult, latest: dict[str, float], names: tuple[str, ...]) -> tuple[str, str]:
    """(value, full name) of the first figure so named, alone or with what follows: of the evaluation, else of the
    curves."""
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
    kept = (
        f"; {shown('reconstruction_1nn_agreement', agreement)} % keep their class by 1-NN"
        if agreement is not None
        else ""
    )
    return number(error), f"1 = random pairs{kept}"


def protocols(probe: ProbeResult) -> Html:
    """One table per protocol; the trained encoder's row stands beside untrained, supervised, pixels, PCA and the
    majority class."""
    groups: dict[str, list[Row]] = {}
    for row in probe.rows:
        title = row.protocol + (f"; data {row.data}" if row.data else "")
        groups.setdefault(title, []).append(row)
    return join(tag("div", tag("h3", title), _protocol(title, rows)) for title, rows in groups.items())


def origin(probe: ProbeResult) -> Html:
    """What the evaluation is of: it may be of an earlier checkpoint than the curves' last point."""
    if probe == ProbeResult():
        return Html("")
    parts = [f"Of {probe.checkpoint or 'an unnamed checkpoint'} at {number(probe.images_seen)} images seen"]
    parts += [f"encoder sha256 {probe.encoder_sha256[:12]}"] if probe.encoder_sha256 else []
    parts += ["n: fits; of untrained encoders, initialisations"]
    return tag("p", "; ".join(parts), class_="note")


def _protocol(protocol: str, rows: list[Row]) -> Html:
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
        line += [
            join([*[_bar(row.mean(name))] * (name == names[0]), _aligned(shown(name, row.figures.get(name)))])
            for name in names
        ]
        line += [", ".join(sorted(repeats)) or "–"] + [f"{100 * row.labels:g}"] * some_labels
        cells.append(line + [note] * any(notes))
    return table(heads, cells, protocol, ["ours" if row.encoder == "trained" else None for row in rows])


def _head(name: str) -> str:
    """A figure at the head of a column: `top1, k = 10` is top-1, k = 10, %."""
    first, comma, rest = name.partition(",")
    return title_of(first) + comma + rest + ", %" * is_share(name)


def _aligned(text: str) -> Html:
    """mean ± sd, the spread in a column of its own width, so that means stand below means where some have no spread."""
    mean, sign, spread = text.partition(" ±")
    return join([mean, tag("span", sign + spread, class_="sd")])


def _bar(share: float) -> Html:
    """A share in [0, 1] as a bar, for the eye: the number stands beside it."""
    return tag("span", class_="bar", style=f"--share:{min(max(share, 0), 1):.4f}", aria_hidden="true")


def confusion(probe: ProbeResult) -> Html:
    """Rows truth, columns prediction: a heat map by shares of the row; of many classes the most confused pairs."""
    matrix = probe.confusion.matrix if probe.confusion is not None else []
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        return Html("")
    names = probe.class_names[: len(matrix)]
    names += [str(i) for i in range(len(names), len(matrix))]
    right, count = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
    text = f"{probe.confusion.row}: {number(right)} of {number(count)} images are given their own class."
    drawn = _heat_map(matrix, names) if len(matrix) <= DRAWN_CLASSES else _confused_pairs(matrix, names)
    return join([tag("h3", "Confusion"), tag("p", text.removeprefix(": ")), drawn])


def _heat_map(matrix: list[list[int]], names: list[str]) -> Html:
    heads = [tag("th", tag("span", name), scope="col", title=name) for name in names]
    body = []
    for row, name in zip(matrix, names, strict=True):
        shares = [n / max(sum(row), 1) for n in row]
        cells = [
            tag("td", n or "", style=f"--share:{share:.3f}", class_="full" if share > 0.5 else None)
            for n, share in zip(row, shares, strict=True)
        ]
        body.append(tag("tr", tag("th", tag("span", name), scope="row", title=name), *cells))
    caption = tag(
        "p", "Rows: the class of the image. Columns: the class it was given. Shade: share of the row.", class_="note"
    )
    heat = tag("table", tag("thead", tag("tr", tag("td"), *heads)), tag("tbody", *body), class_="heat")
    return join(
        [caption, box(heat, "confusion matrix"), tag("p", " ", class_="readout", id="heat-readout", aria_live="polite")]
    )


def _confused_pairs(matrix: list[list[int]], names: list[str]) -> Html:
    pairs = [(n, i, j) for i, row in enumerate(matrix) for j, n in enumerate(row) if i != j and n]
    pairs = sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:PAIRS]
    rows = [[names[i], names[j], number(n), f"{100 * n / max(sum(matrix[i]), 1):.1f}"] for n, i, j in pairs]
    note = f"The {len(rows)} most confused pairs of {number(len(matrix))} classes:"
    return join(
        [tag("p", note), table(["class of the image", "class it was given", "images", "% of its class"], rows, note)]
    )


def generation(probe: ProbeResult) -> Html:
    """A table of figures per feature extractor, and what was skipped, with the reason."""
    if probe.generation is None:
        return Html("")
    parts = []
    for result in probe.generation.results:
        rows = [[tag("code", key), shown(key, value, unit=True)] for key, value in result.figures.items()]
        note = [tag("p", result.note)] if result.note else []
        name = result.extractor
        parts += [tag("div", tag("h3", name), *note, table(["figure", "value"], rows, name))]
    skipped = [tag("li", reason) for reason in probe.generation.skipped]
    return join([tag("div", *parts, class_="beside"), *[tag("p", "Skipped:"), tag("ul", *skipped)] * bool(skipped)])


def truncation_summary(curve: TruncationCurve) -> Html:
    """The three points by which a truncation curve is reported (Brock et al. 2019, table 2)."""
    rows = []
    for key, name in SUMMARY.items():
        point = getattr(curve.summary, key)
        if point is not None:
            rows.append([name, threshold(point), number(point.fid), number(point.inception_score)])
    return table(["point", "threshold", "FID", "IS"], rows, "points of the truncation curve") if rows else Html("")


def threshold(point: CurvePoint) -> str:
    return number(point.threshold) if finite(point.threshold) else "none"


def bidirectional(probe: ProbeResult) -> Html:
    """What encoder and generator do together, each figure beside its baseline."""
    heads = ["figure", "value", "baseline", "which is", "unit", "n"]
    rows = [
        [f.name, number(f.value), number(f.baseline), f.baseline_name or "", f.unit, number(f.n)]
        for f in probe.bidirectional or []
    ]
    title = "Encoder and generator together"
    return join([tag("h3", title), table(heads, rows, title)] if rows else [])
