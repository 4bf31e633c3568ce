"""The closing table of a run and its evaluation (probe.json) as HTML. Keys that are absent leave their part out."""

import math

from bigbigan.report.tables import Html, box, duration, finite, is_share, join, number, shown, table, tag
from bigbigan.report.terminal import chosen_by

NAMES = {"top1": "top-1", "top5": "top-5", "nmi": "NMI"}
ENCODERS = ("trained", "untrained", "supervised")  # their order within a feature; baselines without an encoder follow
DRAWN_CLASSES = 60  # up to which a confusion matrix is drawn; of more classes the most confused pairs are listed
PAIRS = 30
SUMMARY = {"min_fid": "least FID", "valid_is": "FID at the IS of real images", "max_is": "greatest IS"}


def closing(probe: dict, latest: dict[str, float], total: int | None, data: str, seconds: float | None) -> Html:
    """The closing table: each figure that a run is judged by, with what it stands beside.

    probe: probe.json or {}.  latest: the newest value of each key of stats.jsonl.  total: images to see.  seconds: of
    training.
    """
    counted = {"n_train": "train", "n_test": "test", "classes": "classes"}
    rows = [
        (
            "Images seen",
            number(latest.get("images_seen", probe.get("images_seen"))),
            f"of {number(total)}" if total else "",
        ),
        ("Linear probe, top-1", *_headline(probe, latest, "linear")),
        ("k-NN, top-1", *_headline(probe, latest, "knn")),
        ("FID", *_generation(probe, latest, ("fid",))),
        ("Inception score", *_generation(probe, latest, ("is", "inception_score"))),
        ("Reconstruction error", *_reconstruction(latest)),
        (
            "Data",
            data or "–",
            ", ".join(f"{number(probe[key])} {name}" for key, name in counted.items() if key in probe),
        ),
        ("Training time", duration(seconds), f"evaluation {duration(probe['seconds'])}" if "seconds" in probe else ""),
    ]
    parts = []
    for name, value, note in rows:
        missing = value == "–"
        note = note or ("not measured" if missing else "")
        kind = "absent" if missing else "long" if len(value) > 15 else None
        parts.append(tag("div", tag("dt", name), tag("dd", value, class_=kind), tag("dd", note, class_="note")))
    return tag("dl", *parts, class_="closing")


def _headline(probe: dict, latest: dict[str, float], kind: str) -> tuple[str, str]:
    """Return (value, note) of the first trained row of that kind of protocol with all labels; else of the curves.

    It is the first one that was measured, not the highest: the test split chooses no protocol and no feature.
    """
    rows = [
        row for row in probe.get("rows") or [] if _kind(row) == kind and _share(row) == 1 and _mean(row) > -math.inf
    ]
    rows = [row for row in rows if not row.get("data")]  # of the probe's own data set
    trained = [row for row in rows if row.get("encoder") == "trained"]
    if not trained:
        name = max((name for name in latest if name.startswith(f"top1_{kind}")), key=latest.__getitem__, default="")
        return shown(name, latest.get(name), unit=True), f"{name}, of an evaluation during training" * bool(name)
    first = trained[0]
    beside = []
    for row in rows:
        plain = row.get("encoder") == "none"
        if (
            row.get("protocol") == first.get("protocol")
            and (plain or row.get("feature") == first.get("feature"))
            and row is not first
        ):
            beside.append(f"{shown('top1', _mean(row))} {row.get('feature' if plain else 'encoder')}")
    note = f"{first.get('feature', '')}; {', '.join(beside)}".strip("; ")
    return shown("top1", first["figures"]["top1"], unit=True), note


def _share(row: dict) -> float:
    """The share of the training labels that a row was given."""
    return row.get("labels") or 1


def _kind(row: dict) -> str:
    protocol = str(row.get("protocol")).lower()
    return "knn" if "k-nn" in protocol or "knn" in protocol else "linear" if "linear" in protocol else ""


def _mean(row: dict, name: str = "top1") -> float:
    value = (row.get("figures") or {}).get(name)
    mean = value.get("mean") if isinstance(value, dict) else value
    return mean if finite(mean) else -math.inf


def _generation(probe: dict, latest: dict[str, float], names: tuple[str, ...]) -> tuple[str, str]:
    """(value, full name) of the first figure so named, alone or with what follows: of the evaluation, else of the
    curves."""
    results = (probe.get("generation") or {}).get("results") or []
    for figures in [*(result.get("figures") or {} for result in results), latest]:
        for name, value in figures.items():
            if name.lower() in names or name.lower().startswith(tuple(f"{short}_" for short in names)):
                return number(value), name
    return "–", ""


def _reconstruction(latest: dict[str, float]) -> tuple[str, str]:
    error, agreement = latest.get("reconstruction_error_relative"), latest.get("reconstruction_1nn_agreement")
    if error is None:
        return "–", ""
    kept = f"; {shown('agreement', agreement)} % keep their class by 1-NN" if agreement is not None else ""
    return number(error), f"1 = random pairs{kept}"


def protocols(probe: dict) -> Html:
    """One table per protocol; the trained encoder's row stands beside untrained, supervised, pixels, PCA and the
    majority class."""
    groups: dict[str, list[dict]] = {}
    for row in probe.get("rows") or []:
        title = str(row.get("protocol", "")) + (f"; data {row['data']}" if row.get("data") else "")
        groups.setdefault(title, []).append(row)
    return join(tag("div", tag("h3", title), _protocol(title, rows)) for title, rows in groups.items())


def origin(probe: dict) -> Html:
    """What the evaluation is of: it may be of an earlier checkpoint than the curves' last point."""
    if not probe:
        return Html("")
    parts = [f"Of {probe.get('checkpoint', 'an unnamed checkpoint')} at {number(probe.get('images_seen'))} images seen"]
    parts += [chosen_by(probe["chosen"])] if isinstance(probe.get("chosen"), dict) else []
    parts += [f"encoder sha256 {str(probe['encoder_sha256'])[:12]}"] if probe.get("encoder_sha256") else []
    parts += ["n: fits; of untrained encoders, initialisations"]
    return tag("p", "; ".join(parts), class_="note")


def _protocol(protocol: str, rows: list[dict]) -> Html:
    features = [row.get("feature") for row in rows]

    def place(row: dict) -> tuple:
        encoder = row.get("encoder")
        order = (*ENCODERS, encoder).index(encoder)
        return encoder not in ENCODERS, features.index(row.get("feature")), -_share(row), order

    rows = sorted(rows, key=place)
    names = list(dict.fromkeys(name for row in rows for name in row.get("figures") or {}))
    some_labels = any(_share(row) != 1 for row in rows)
    notes = [row.get("note") or "stopped at the step limit" * (row.get("converged") is False) for row in rows]
    heads = ["feature", "encoder", *map(_head, names), "n"]
    heads += ["labels, %"] * some_labels + ["note"] * any(notes)
    cells = []
    for row, note in zip(rows, notes, strict=True):
        figures = row.get("figures") or {}
        repeats = {str(value["n"]) for value in figures.values() if isinstance(value, dict) and "n" in value}
        line = [row.get("feature", ""), "" if row.get("encoder") == "none" else row.get("encoder", "")]
        line += [
            join([*[_bar(_mean(row, name))] * (name == names[0]), _aligned(shown(name, figures.get(name)))])
            for name in names
        ]
        line += [", ".join(sorted(repeats)) or "–"] + [f"{100 * _share(row):g}"] * some_labels
        cells.append(line + [note] * any(notes))
    return table(heads, cells, protocol, ["ours" if row.get("encoder") == "trained" else None for row in rows])


def _head(name: str) -> str:
    """A figure at the head of a column: `top1, k = 10` is top-1, k = 10, %."""
    first, comma, rest = name.partition(",")
    return NAMES.get(first, first) + comma + rest + ", %" * is_share(name)


def _aligned(text: str) -> Html:
    """mean ± sd, the spread in a column of its own width, so that means stand below means where some have no spread."""
    mean, sign, spread = text.partition(" ±")
    return join([mean, tag("span", sign + spread, class_="sd")])


def _bar(share: float) -> Html:
    """A share in [0, 1] as a bar, for the eye: the number stands beside it."""
    return tag("span", class_="bar", style=f"--share:{min(max(share, 0), 1):.4f}", aria_hidden="true")


def confusion(probe: dict) -> Html:
    """Rows truth, columns prediction: a heat map by shares of the row; of many classes the most confused pairs."""
    found = probe.get("confusion") or {}
    matrix = found.get("matrix") or []
    if not matrix or any(len(row) != len(matrix) for row in matrix):
        return Html("")
    names = [str(name) for name in probe.get("class_names") or []][: len(matrix)]
    names += [str(i) for i in range(len(names), len(matrix))]
    right, count = sum(row[i] for i, row in enumerate(matrix)), sum(map(sum, matrix))
    text = f"{found.get('row', '')}: {number(right)} of {number(count)} images are given their own class."
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
    rows = [[names[i], names[j], number(n), f"{100 * n / sum(matrix[i]):.1f}"] for n, i, j in pairs]
    note = f"The {len(rows)} most confused pairs of {number(len(matrix))} classes:"
    return join(
        [tag("p", note), table(["class of the image", "class it was given", "images", "% of its class"], rows, note)]
    )


def generation(probe: dict) -> Html:
    """A table of figures per feature extractor, and what was skipped, with the reason."""
    found = probe.get("generation") or {}
    parts = []
    for result in found.get("results") or []:
        name = str(result.get("extractor", ""))
        rows = [
            [tag("code", key), shown(key, value, unit=True)] for key, value in (result.get("figures") or {}).items()
        ]
        note = [tag("p", result["note"])] if result.get("note") else []
        parts += [tag("div", tag("h3", name), *note, table(["figure", "value"], rows, name))]
    skipped = [tag("li", reason) for reason in found.get("skipped") or []]
    return join(
        [tag("div", *parts, class_="beside"), *[tag("p", "Skipped:"), tag("ul", *skipped)] * bool(skipped)]
        if found
        else []
    )


def truncation_summary(truncation: dict) -> Html:
    """The three points by which a truncation curve is reported (Brock et al. 2019, table 2)."""
    found = truncation.get("summary") or {}
    rows = []
    for name, point in ((SUMMARY[key], found[key]) for key in SUMMARY if found.get(key)):
        threshold = number(point["threshold"]) if finite(point.get("threshold")) else "none"
        rows.append([name, threshold, number(point.get("fid")), number(point.get("is"))])
    return table(["point", "threshold", "FID", "IS"], rows, "points of the truncation curve") if rows else Html("")


def bidirectional(probe: dict) -> Html:
    """What encoder and generator do together, each figure beside its baseline."""
    heads = ["figure", "value", "baseline", "which is", "unit", "n"]
    rows = []
    for row in probe.get("bidirectional") or []:
        baseline = [number(row.get("baseline")), row.get("baseline_name") or ""]
        rows.append(
            [row.get("name", ""), number(row.get("value")), *baseline, row.get("unit", ""), number(row.get("n"))]
        )
    title = "Encoder and generator together"
    return join([tag("h3", title), table(heads, rows, title)] if rows else [])
