"""Write `report.html` of a run: one file that holds all it shows and asks nothing of the network.

This file reads the run folder and film.py its pictures; progress.py says where the run stands, tiles.py what comes
first, guide.py what a curve should look like; evaluation.py arranges what probe.json holds; page.html is the template
of the page, with parts.html for its tables, and draws the curves.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import yaml

from bigbigan.errors import ProbeError, ReportError
from bigbigan.files import expanded, printable, write_text_whole
from bigbigan.metrics.figures import extractor_in_words, is_share, title_of
from bigbigan.report import evaluation, tiles
from bigbigan.report.film import read_film, sheets
from bigbigan.report.guide import SPECTRA, guide
from bigbigan.report.progress import probing, progress, training_command
from bigbigan.report.tables import Table, finite, make_table, number, shown
from bigbigan.report.template import render
from bigbigan.training.records import kind_of
from eval_linear.result import CurvePoint, ProbeResult, TruncationCurve

PENALTIES = ("gradient_penalty", "drift", "r1")  # drawn with the losses
CURVE_POINTS = 600  # a longer curve keeps the least and the greatest value of each stretch
COUNTERS = ("images_seen", "iteration", "n_test")  # no figures of their own
OWN_TITLE = b"BigBiGAN</title>"  # of all pages of ours, as page.html writes it
SCORES = {"x": "Unary score of x", "z": "Unary score of z", "xz": "Joint score of (x, z)"}


def write_page(folder: Path, stage: str = "") -> Path:
    """Write folder/report.html of a run at whatever stage it is, complete or not at all, and return its path.

    The page of an unfinished run loads itself anew from time to time, and names what is still absent.
    stage: "training" or "stopped", if the run itself writes its page.  Raises FileNotFoundError where there is no
    folder, ReportError where its report.html is a page of something else.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a run folder to write report.html in, found no folder of this name"
        )
    check_page(folder)
    page = render("page.html", _values(folder, stage))
    write_text_whole(folder / "report.html", page, errors="backslashreplace")  # JSON may name half a character
    return folder / "report.html"


def check_page(folder: Path) -> None:
    """Raise ReportError where folder/report.html is a page of something else, which would be replaced."""
    path = folder / "report.html"
    if path.is_file() and OWN_TITLE not in path.read_bytes():
        raise ReportError(f"{printable(path)}: expected the page of a run, or none, found another page; move it away")


def _values(folder: Path, stage: str) -> dict[str, object]:
    """Return what goes into the places of the template."""
    text, config = read_config(folder)
    records, (probe, note) = read_stats(folder), read_probe(folder)
    at = progress(folder, records, config, stage)
    film, curve = read_film(folder), probe.generation.truncation if probe.generation is not None else None
    form = str(_section(config, "loss").get("form", "hinge"))
    return {
        "name": str(_section(config, "run").get("name") or folder.resolve().name),
        "version": text.partition("\n")[0].removeprefix("# ") if text.startswith("#") else "",
        "at": at,
        "reload": at.reload(),
        "training": training_command(folder, config),
        "probing": probing(folder, config, at),
        "probed": probe != ProbeResult(),
        "lead": tiles.lead(probe, at, _facts(config, records, probe)),
        "film": bool(film["times"]),
        "kinds": [kind for kind in ("samples", "reconstructions") if any(film[kind])],
        "curves": bool(records),
        "notices": notices(records),
        "single": _single(records),
        "note": note,
        "origin": evaluation.origin(probe),
        "protocols": evaluation.protocols(probe),
        "not_measured": probe.not_measured or [],
        "confusion": evaluation.confusion(probe),
        "bidirectional": evaluation.bidirectional(probe),
        "generation": evaluation.generation(probe),
        "truncation": evaluation.truncation_summary(curve) if curve is not None else None,
        "truncated": curve is not None and bool(curve.points),
        "sheets": sheets(folder, probe),
        "config": text,
        "spectra": SPECTRA,
        "data": {
            "charts": charts(records, form) + spectra_charts(records),
            "film": film,
            "truncation": truncation_chart(curve) if curve is not None else None,
            "reload": at.reload(),
        },
    }


def read_lead(folder: Path) -> tiles.Lead:
    """Return what comes first on the page of a finished run."""
    (_, config), records, (probe, _) = read_config(folder), read_stats(folder), read_probe(folder)
    return tiles.lead(probe, progress(folder, records, config, ""), _facts(config, records, probe))


def _section(config: dict, name: str) -> dict:
    return config.get(name) or {}


def _facts(config: dict, records: list[dict], probe: ProbeResult) -> tiles.Facts:
    latest = {key: value for record in records for key, value in record.items() if finite(value)}
    size = _section(config, "model").get("image_size")
    own = str(_section(config, "data").get("path") or "")
    same = not probe.data or probe.data == own or probe.data.startswith((f"{own} (", f"{own};"))  # then a note
    other = "" if same else own
    return tiles.Facts(latest, probe.data or own, training_seconds(records), size if finite(size) else None, other)


def read_config(folder: Path) -> tuple[str, dict]:
    """Return config.yaml as (text, tree), with an empty tree where it cannot be read."""
    path = folder / "config.yaml"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        tree = None  # the text is shown all the same
    return text, {k: v for k, v in tree.items() if isinstance(v, dict)} if isinstance(tree, dict) else {}


def read_probe(folder: Path) -> tuple[ProbeResult, str]:
    """Return the probe's result, empty where there is none, and a sentence where probe.json is of another form.

    A file that a kill has cut short counts as absent.
    """
    path = folder / "probe.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return ProbeResult(), ""
    try:
        return ProbeResult.from_json(content), ""
    except ProbeError as error:
        return (
            ProbeResult(),
            f"probe.json is left out: expected what bigbigan-probe writes, found another form ({error})",
        )


def read_stats(folder: Path) -> list[dict]:
    """Return the lines of stats.jsonl by images seen; lines without a count, or cut short by a kill, are left out."""
    path = folder / "stats.jsonl"
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and finite(record.get("images_seen")):
            records.append(record)
    return sorted(records, key=lambda record: record["images_seen"])


def training_seconds(records: list[dict]) -> float | None:
    """Return images over speed, summed over the log; None without a log."""
    seconds, before = 0.0, 0
    for record in records:
        if finite(record.get("images_per_second")) and record["images_per_second"] > 0:
            seconds += (record["images_seen"] - before) / record["images_per_second"]
            before = record["images_seen"]
    return seconds or None


def curves(records: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """Return the points (images seen, value) of every numeric key of the log."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key not in COUNTERS and finite(value):
                found.setdefault(key, []).append((record["images_seen"], value))
    return found


def charts(records: list[dict], form: str = "hinge") -> list[dict]:
    """Return the charts of the page: the six score means in pairs, the losses, then keys with two points or more.

    form: of the loss, by which a curve is judged.
    """
    found = curves(records)
    drawn = []
    for term, title in SCORES.items():
        pair = {side: found.pop(f"score_{term}_{side}", []) for side in ("real", "fake")}
        lines = {side: points for side, points in pair.items() if points}
        if lines:
            key = "score_z" if term == "z" else "score"
            drawn.append(_chart("scores", title, "", lines, signed=True) | {"guide": guide(key, form)})
    for key in [key for key in found if key.startswith("loss") or key in PENALTIES]:
        drawn.append(_chart("losses", title_of(key), key, {"": found.pop(key)}) | {"guide": guide(key, form)})
    for key in sorted(found, key=lambda key: key == "images_per_second"):
        if len(found[key]) > 1:
            drawn.append(_chart("further", title_of(key), key, {"": found[key]}) | {"guide": guide(key, form)})
    return drawn


def spectra_charts(records: list[dict]) -> list[dict]:
    """Return one chart for each layer, with its three largest singular values."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for record in records:
        spectra = record.get("spectra") if kind_of(record) == "spectra" else None
        for layer, values in spectra.items() if isinstance(spectra, dict) else ():
            lines = found.setdefault(str(layer), [[], [], []])
            for line, value in zip(lines, values if isinstance(values, list) else [], strict=False):
                if finite(value):
                    line.append((record["images_seen"], value))
    layers = {layer: {f"σ{i}": points for i, points in enumerate(lines) if points} for layer, lines in found.items()}
    return [_chart("spectra", layer, "", lines) for layer, lines in layers.items() if lines]


def notices(records: list[dict]) -> list[dict[str, str]]:
    """Return alarms and recoveries: what kind each is, at how many images it came, and its sentence."""
    kinds = [(kind_of(record), record) for record in records]
    return [
        {"kind": kind, "images": number(record["images_seen"]), "text": record[kind]}
        for kind, record in kinds
        if kind in ("alarm", "recovery") and isinstance(record.get(kind), str)
    ]


def _chart(group: str, title: str, key: str, lines: dict[str, list], signed: bool = False) -> dict:
    scale = 100 if is_share(key) and all(0 <= value <= 1 for points in lines.values() for _, value in points) else 1
    thinned = [
        {"name": name, "points": [[at, float(f"{scale * value:.6g}")] for at, value in thin(points)]}
        for name, points in lines.items()
    ]
    title += ", %" if scale == 100 else ""
    return {"group": group, "title": title, "key": key, "signed": signed, "lines": thinned}


def thin(points: list[tuple[float, float]], limit: int = CURVE_POINTS) -> list[tuple[float, float]]:
    """Return at most `limit` points and the two ends.

    Of each stretch the least and the greatest value are kept, so that no spike is lost.
    """
    if len(points) <= limit:
        return points
    kept = {0, len(points) - 1}
    for i in range(limit // 2):
        stretch = range(i * len(points) // (limit // 2), (i + 1) * len(points) // (limit // 2))
        kept |= {min(stretch, key=lambda k: points[k][1]), max(stretch, key=lambda k: points[k][1])}
    return [points[k] for k in sorted(kept)]


def _single(records: list[dict]) -> Table | None:
    """Return a table of what was measured once, and has no curve."""
    rows = [
        [title_of(key), shown(key, points[0][1], unit=True), number(points[0][0])]
        for key, points in curves(records).items()
        if len(points) == 1 and not key.startswith(("loss", "score"))
    ]
    return make_table(["measured once", "value", "images seen"], rows, "figures measured once") if rows else None


def truncation_chart(curve: TruncationCurve) -> dict | None:
    """Return FID over IS along the thresholds.

    With it come the points by which the curve is reported, and the IS of real images.
    """

    def whole(points: Iterable[CurvePoint | None]) -> list[CurvePoint]:
        return [p for p in points if p is not None and finite(p.fid) and finite(p.inception_score)]

    points = whole(curve.points)
    if not points:
        return None
    line = [[p.inception_score, p.fid, curve.threshold(p)] for p in points]
    marks = whole(getattr(curve.summary, key) for key in evaluation.SUMMARY)
    return {
        "title": f"FID over IS, features of {extractor_in_words(curve.extractor or 'an unnamed extractor')}",
        "lines": [{"name": "", "points": line}],
        "marks": [[p.inception_score, p.fid] for p in marks],
        "rule": curve.real_is if finite(curve.real_is) else None,
    }
