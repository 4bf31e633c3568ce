"""Render a probe.json as the section of a model card that says what the model is worth.

It stands in `release`, beside the file that writes the card, and not in `report`, which is on a floor above.
"""

from bigbigan.files import significant
from eval_linear.result import GenerationResult, PairFigure, ProbeResult, Row

PROTOCOLS = ("linear", "k-NN, cosine")  # the beginnings of the protocols that a card shows


def worth(result: ProbeResult | None) -> str:
    """Return the section "What it is worth" in Markdown: the encoder's figures beside their baselines; "" of None."""
    if result is None:
        return ""
    counted = [f"{result.n_test:,} test images"] if result.n_test is not None else []
    counted += [f"{result.classes} classes"] if result.classes is not None else []
    lines = ["", "## What it is worth", "", *[f"{', '.join(counted)}.", ""] * bool(counted)]
    lines += ["| figure | encoder | feature | value | n |", "|---|---|---|---|---|"]
    lines += [line for row in result.rows if row.protocol.startswith(PROTOCOLS) for line in _row(row)]
    lines += [_pair(pair) for pair in result.bidirectional or []]
    return "\n".join([*lines, *_generation(result.generation), ""])


def headline(result: ProbeResult) -> dict[str, str]:
    """Return the figures that say most, by name, with their unit: linear probe, FID by the data's classifier, error.

    The linear probe is the first protocol with all labels, of each feature, since to choose the better one would be to
    choose on the test images; beside it stand the untrained encoder and pixels.
    """
    rows = [row for row in result.rows if row.protocol.startswith("linear") and row.labels == 1 and not row.data]
    rows = [row for row in rows if row.protocol == rows[0].protocol and "top1" in row.figures]
    top1 = {(row.encoder, row.feature): row.figures["top1"].percent(1) for row in rows}
    pixels = [f"{feature} {value}" for (_, feature), value in top1.items() if feature.startswith("pixels")]
    found = {}
    for (encoder, feature), value in top1.items():
        if encoder == "trained":
            untrained = top1.get(("untrained", feature))
            beside = ", ".join([f"untrained {untrained}"] * bool(untrained) + pixels)
            found[f"linear probe, {feature}, top-1 %"] = value + f" ({beside})" * bool(beside)
    figures = [item for part in result.generation.results for item in part.figures.items()] if result.generation else []
    found |= {name: significant(value, 4) for name, value in figures if name.startswith("fid_classifier_")}
    for pair in result.bidirectional or []:
        if pair.name == "reconstruction from z_mean, pixels" and pair.value is not None and pair.baseline:
            found["reconstruction error, of random pairs"] = f"{pair.value / pair.baseline:.3f}"
    return found


def _row(row: Row) -> list[str]:
    share = "" if row.labels == 1 else f", {100 * row.labels:g} % of the labels"
    return [
        f"| {row.protocol}{share}, {name} % | {row.encoder} | {row.feature} | {figure.percent(1)} | {figure.n or ''} |"
        for name, figure in row.figures.items()
        if name != "top5"
    ]


def _pair(pair: PairFigure) -> str:
    beside = "" if pair.baseline is None else f" ({pair.baseline_name} {significant(pair.baseline, 4)})"
    value, n = "" if pair.value is None else significant(pair.value, 4), "" if pair.n is None else f"{pair.n:,}"
    return f"| {pair.name}{beside} | | | {value} | {n} |"


def _generation(generation: GenerationResult | None) -> list[str]:
    figures = [item for result in generation.results for item in result.figures.items()] if generation else []
    return [
        f"| {name} | | | {significant(value, 4)} | |" for name, value in figures if name.startswith(("fid_", "is_"))
    ]
