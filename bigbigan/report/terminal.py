"""Print what probe.json holds: rows by protocol, generation, encoder and generator together."""

from pathlib import Path

from bigbigan.files import significant
from eval_linear.result import CurvePoint, Figure, GenerationResult, PairFigure, ProbeResult, Row, TruncationCurve

ORDER = ("trained", "supervised", "untrained", "none")
NOTES = (
    "± is the standard deviation over n fits: on different held-out parts and label subsets (--seeds); of untrained "
    "encoders, over initialisations"
)


def table(result: ProbeResult, folder: Path | None = None) -> str:
    """Return the figures of a probe as text for a terminal. folder: where probe.json and report.html were written."""
    seen = "an unknown number of" if result.images_seen is None else f"{result.images_seen:,}"
    labels = f"{_count(result.classes)} classes" if result.classes else "no labels"
    sizes = f"n_train {_count(result.n_train)}, n_test {_count(result.n_test)}, {labels}"
    lines = [f"{result.checkpoint}: {seen} images seen", f"data {result.data}: {sizes}"]
    lines += [result.chosen.words()] if result.chosen is not None else []
    for protocol, share, data in dict.fromkeys((r.protocol, r.labels, r.data) for r in result.rows):
        rows = [r for r in result.rows if (r.protocol, r.labels, r.data) == (protocol, share, data)]
        lines += ["", f"{protocol}{_few_labels(share, rows)}" + (f", data {data}" if data else "")]
        lines += _block(sorted(rows, key=lambda r: (*ORDER, r.encoder).index(r.encoder)))
    if any(row.figures for row in result.rows):
        lines += [NOTES]
    lines += _generation(result.generation) + _pairs(result.bidirectional)
    lines += ["", *result.not_measured] if result.not_measured else []
    return "\n".join([*lines, "", *_ending(result, folder)])


def _few_labels(share: float, rows: list[Row]) -> str:
    """Return which labels the rows were given, such as ", 1 % of the labels (14 images)"; "" for all."""
    count = next((row.labelled_images for row in rows if row.labelled_images is not None), None)
    images = "" if count is None else f" ({count:,} image{'s' * (count != 1)})"
    return "" if share == 1 else f", {100 * share:g} % of the labels{images}"


def _count(n: int | None) -> str:
    return "-" if n is None else f"{n:,}"


def _block(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    head = f"  {'encoder':<12}{'feature':<20}" + "".join(f"{_unit(name):>18}" for name in names) + f"{'n':>4}"
    lines = [head]
    for row in rows:
        cells = "".join(f"{_cell(row.figures.get(name)):>18}" for name in names)
        n = max((figure.n for figure in row.figures.values() if figure.n is not None), default="-")
        limit = "  (not converged)" if row.converged is False else ""
        lines.append(f"  {row.encoder:<12}{row.feature:<20}{cells}{n:>4}{limit}")
    return lines


def _unit(name: str) -> str:
    return name if name == "nmi" else f"{name} %"


def _cell(figure: Figure | None) -> str:
    return "-" if figure is None else figure.percent(2)


def _generation(generation: GenerationResult | None) -> list[str]:
    if generation is None:
        return []
    lines = ["", "generation"]
    for result in generation.results:
        named = result.note.startswith(result.extractor)  # a sentence that begins with the name already
        lines += [f"  {result.note}" if named else f"  {result.extractor}: {result.note}"] if result.note else []
        lines += [f"    {name:<58}{value:>12.5g}" for name, value in result.figures.items()]
    curve = generation.truncation
    if curve is not None:
        lines.append(f"  truncation, {curve.extractor}, {_count(curve.n)} samples a threshold")
        for point in curve.points:
            fid, score = _number(point.fid), _number(point.inception_score)
            lines.append(f"    threshold {curve.threshold(point):<8} FID {fid:>9}   IS {score:>8}")
        for name, point in vars(curve.summary).items():
            where = _where(point, curve) if point is not None else _absent(name, curve)
            lines.append(f"    {name.replace('_', ' '):<18} {where}")
    return lines + [f"  {text}" for text in generation.skipped]


def _number(value: float | None) -> str:
    return "-" if value is None else significant(value, 4)


def _absent(name: str, curve: TruncationCurve) -> str:
    if name == "valid_is" and curve.real_is is None:
        return f"left out: expected {_count(curve.n)} real test images, as many as samples, found fewer"
    return "not reached"


def _where(point: CurvePoint, curve: TruncationCurve) -> str:
    return f"FID {_number(point.fid)}, IS {_number(point.inception_score)} at threshold {curve.threshold(point)}"


def _pairs(figures: list[PairFigure] | None) -> list[str]:
    if not figures:
        return []
    lines = ["", "encoder and generator together"]
    for f in figures:
        beside = f"{f.baseline_name} {_number(f.baseline)}" if f.baseline is not None else ""
        lines.append(f"  {f.name:<86}{_number(f.value):>9}  ({beside}, n = {_count(f.n)})")
    return lines


def _ending(result: ProbeResult, folder: Path | None) -> list[str]:
    network = "encoder" if result.encoder_sha256 else "generator"
    took = "" if result.seconds is None else f"; {result.seconds:.0f} s on {result.device}"
    written = "" if folder is None else f"; written to {folder}/probe.json and report.html"
    return [f"the {network} did not move{took}{written}"]
