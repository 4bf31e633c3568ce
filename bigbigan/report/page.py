"""`report.html` of a run: one file that holds all it shows and asks nothing of the network.

This file reads the run folder; film.py its pictures; evaluation.py makes HTML of probe.json; page.html is the page, and
draws.
"""

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

import yaml

from bigbigan.report import evaluation
from bigbigan.report.film import read_film, sheets
from bigbigan.report.tables import Html, finite, is_share, join, number, shown, table, tag

PENALTIES = ("gradient_penalty", "drift", "r1")  # drawn with the losses
CURVE_POINTS = 600  # a longer curve keeps the least and the greatest value of each stretch
COUNTERS = ("images_seen", "iteration")
SCORES = {"x": "Unary score of x", "z": "Unary score of z", "xz": "Joint score of (x, z)"}
TITLES = {
    "loss_d": "Discriminator loss, adversarial", "loss_eg": "Encoder and generator loss, adversarial",
    "gradient_penalty": "Gradient penalty of WGAN-GP", "drift": "Drift term of WGAN-GP", "r1": "R1 penalty",
    "loss_latent": "Error of E's prediction of z", "confidence_d": "LSGAN: 1 − mean score of samples",
    "images_per_second": "Speed, images/s",
    "reconstruction_error_relative": "Reconstruction error, 1 = random pairs",
    "reconstruction_1nn_agreement": "Reconstructions that keep their class by 1-NN",
    "score_gap": "Score of pairs (x, E(x)) over pairs (G(z), z), training images",
    "score_gap_held_out": "The same, held-out images", "sample_diversity": "Diversity of samples, 1 = held-out images",
    "memorised": "Chance that D scores a training image above a held-out one",
    "d_right_on_training_images": "D is right on training images", "d_right_on_held_out_images": "D is right on held-out images",
    "d_right_on_samples": "D is right on samples",
    "sigma0_generator": "Largest singular value of G's layers", "sigma0_discriminator": "Largest singular value of D's layers",
    "posterior_stddev": "Posterior, mean standard deviation", "posterior_mean_square": "Posterior, mean square of the means",
    "augment_p": "Probability of ADA's transforms", "augment_sign": "Mean sign of D's scores of real images",
}  # fmt: skip


def write_page(folder: Path) -> Path:
    """Read what is in the run folder, at whatever stage the run is, and write folder/report.html, complete or not at
    all.

    What is absent is named on the page with the command that makes it. Raises FileNotFoundError where there is no
    folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: expected a run folder to write report.html in, found no folder of this name"
        )
    probe, note = read_probe(folder), Html("")
    try:
        parts = _parts(folder, probe)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if not probe:
            raise
        parts = _parts(folder, {})  # somebody else's file: what the run itself has written is shown all the same
        note = tag(
            "p", f"probe.json is left out: expected what eval_linear/probe.py writes, found another form ({error!r})"
        )
    parts["origin"] = join([note, parts["origin"]])
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    page = re.sub(r"\{\{(\w+)\}\}", lambda found: str(join([parts[found[1]]])), template)
    beside = folder / ".report.html.tmp"
    beside.write_text(page, encoding="utf-8", errors="backslashreplace")  # JSON may name half a character
    return beside.replace(folder / "report.html")


def _parts(folder: Path, probe: dict) -> dict[str, object]:
    """What goes into the places of the template."""
    text, config = read_config(folder)
    records = read_stats(folder)
    latest = {key: value for record in records for key, value in record.items() if finite(value)}
    run, data = config.get("run") or {}, config.get("data") or {}
    total, seen = run.get("images") if finite(run.get("images")) else None, latest.get("images_seen", 0)
    film, truncation = read_film(folder), (probe.get("generation") or {}).get("truncation") or {}
    name = str(run.get("name") or folder.resolve().name)
    probing = f"python eval_linear/probe.py {shlex.quote(str(folder))}"
    training = "accelerate launch bigbigan/train.py"
    if config:
        training += f" --config {shlex.quote(str(folder / 'config.yaml'))}"
    return {
        "name": name,
        "version": text.partition("\n")[0].removeprefix("# ") if text.startswith("#") else "",
        "state": _state(seen, total),
        "share": f"{min(seen / total, 1):.4f}" if total else "0",
        "closing": evaluation.closing(
            probe, latest, total, str(probe.get("data") or data.get("path") or ""), training_seconds(records)
        ),
        "film_absent": "" if film["times"] else absent("No grids of samples and reconstructions yet", training),
        "film_hidden": "" if film["times"] else "hidden",
        "curves_absent": "" if records else absent("No curves yet", training),
        "notices": notices(records),
        "single": _single(records),
        "origin": evaluation.origin(probe),
        "protocols": evaluation.protocols(probe) or absent("The encoder has not been probed yet", probing),
        "confusion": evaluation.confusion(probe),
        "bidirectional": evaluation.bidirectional(probe),
        "generation": evaluation.generation(probe) or absent("The generator has not been measured yet", probing),
        "truncation": evaluation.truncation_summary(truncation),
        "truncation_hidden": "" if truncation.get("points") else "hidden",
        "sheets": sheets(folder, probe) or absent("No neighbours and filters yet", probing),
        "config": _settings(text) if text else absent("No config.yaml", training),
        "data": embedded(
            {
                "charts": charts(records) + spectra_charts(records),
                "film": film,
                "truncation": truncation_chart(truncation),
            }
        ),
    }


def _state(seen: float, total: int | None) -> str:
    if not total:
        return f"{number(int(seen))} images seen"
    if seen >= total:
        return f"finished at {number(int(seen))} images"
    return f"{number(int(seen))} of {number(total)} images seen, {100 * seen / total:.1f} %: in progress or interrupted"


def absent(what: str, command: str) -> Html:
    return tag("p", f"{what}. Made by: ", tag("code", command), class_="absent")


def _settings(text: str) -> Html:
    return tag("details", tag("summary", "The settings of the run"), tag("pre", text, tabindex="0"))


def embedded(data: dict) -> Html:
    """JSON that may stand inside a script element: no `<` of a text can end it."""
    return Html(json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"))


def read_config(folder: Path) -> tuple[str, dict]:
    """config.yaml as (text, tree); an empty tree where it cannot be read."""
    path = folder / "config.yaml"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        tree = None  # the text is shown all the same
    return text, {k: v for k, v in tree.items() if isinstance(v, dict)} if isinstance(tree, dict) else {}


def read_probe(folder: Path) -> dict:
    """probe.json, or {} where there is none or a kill has cut it short."""
    try:
        content = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def read_stats(folder: Path) -> list[dict]:
    """The lines of stats.jsonl that count images, by images seen; a line cut short by a kill is left out."""
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
    """Images over speed, summed over the log; None without a log."""
    seconds, before = 0.0, 0
    for record in records:
        if finite(record.get("images_per_second")) and record["images_per_second"] > 0:
            seconds += (record["images_seen"] - before) / record["images_per_second"]
            before = record["images_seen"]
    return seconds or None


def curves(records: list[dict]) -> dict[str, list[tuple[float, float]]]:
    """Every numeric key of the log → its points (images seen, value)."""
    found: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for key, value in record.items():
            if key not in COUNTERS and finite(value):
                found.setdefault(key, []).append((record["images_seen"], value))
    return found


def charts(records: list[dict]) -> list[dict]:
    """The charts of the page: the six score means in pairs, the losses, then every further key with two points or
    more."""
    found = curves(records)
    drawn = []
    for term, title in SCORES.items():
        pair = {side: found.pop(f"score_{term}_{side}", []) for side in ("real", "fake")}
        if any(pair.values()):
            drawn.append(
                _chart("scores", title, "", {side: points for side, points in pair.items() if points}, signed=True)
            )
    for key in [key for key in found if key.startswith("loss") or key in PENALTIES]:
        drawn.append(_chart("losses", TITLES.get(key, key), key, {"": found.pop(key)}))
    for key in sorted(found, key=lambda key: key == "images_per_second"):
        if len(found[key]) > 1:
            drawn.append(_chart("further", TITLES.get(key, key), key, {"": found[key]}))
    return drawn


def spectra_charts(records: list[dict]) -> list[dict]:
    """One chart a layer, with its three largest singular values."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for record in records:
        spectra = record.get("spectra")
        for layer, values in spectra.items() if isinstance(spectra, dict) else ():
            lines = found.setdefault(str(layer), [[], [], []])
            for line, value in zip(lines, values if isinstance(values, list) else [], strict=False):
                if finite(value):
                    line.append((record["images_seen"], value))
    layers = {layer: {f"σ{i}": points for i, points in enumerate(lines) if points} for layer, lines in found.items()}
    return [_chart("spectra", layer, "", lines) for layer, lines in layers.items() if lines]


def notices(records: list[dict]) -> Html:
    """Alarms and recoveries, each as a sentence."""
    kinds = [
        (kind, record) for record in records for kind in ("alarm", "recovery") if isinstance(record.get(kind), str)
    ]
    return join(
        [
            tag("p", tag("b", kind), f" at {number(r['images_seen'])} images: {r[kind]}", class_="note")
            for kind, r in kinds
        ]
    )


def _chart(group: str, title: str, key: str, lines: dict[str, list], signed: bool = False) -> dict:
    scale = 100 if is_share(key) and all(0 <= value <= 1 for points in lines.values() for _, value in points) else 1
    thinned = [
        {"name": name, "points": [[at, float(f"{scale * value:.6g}")] for at, value in thin(points)]}
        for name, points in lines.items()
    ]
    return {"group": group, "title": title + (", %" if scale == 100 else ""), "signed": signed, "lines": thinned}


def thin(points: list[tuple[float, float]], limit: int = CURVE_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points and the two ends: of each stretch the least and the greatest value, so that no spike is
    lost."""
    if len(points) <= limit:
        return points
    kept = {0, len(points) - 1}
    for i in range(limit // 2):
        stretch = range(i * len(points) // (limit // 2), (i + 1) * len(points) // (limit // 2))
        kept |= {min(stretch, key=lambda k: points[k][1]), max(stretch, key=lambda k: points[k][1])}
    return [points[k] for k in sorted(kept)]


def _single(records: list[dict]) -> Html:
    """What was measured once has no curve: a table."""
    rows = [
        [tag("code", key), shown(key, points[0][1], unit=True), number(points[0][0])]
        for key, points in curves(records).items()
        if len(points) == 1 and not key.startswith(("loss", "score"))
    ]
    return table(["measured once", "value", "images seen"], rows, "figures measured once") if rows else Html("")


def truncation_chart(truncation: dict) -> dict | None:
    """FID over IS along the thresholds, with the points by which the curve is reported and the IS of real images."""

    def whole(points: Iterable[dict | None]) -> list[dict]:
        return [p for p in points if p and finite(p.get("fid")) and finite(p.get("is"))]

    points = whole(truncation.get("points") or [])
    if not points:
        return None
    line = [[p["is"], p["fid"], number(p["threshold"]) if finite(p.get("threshold")) else "none"] for p in points]
    return {
        "title": f"FID over IS, features of {truncation.get('extractor', 'an unnamed extractor')}",
        "lines": [{"name": "", "points": line}],
        "marks": [
            [p["is"], p["fid"]] for p in whole((truncation.get("summary") or {}).get(key) for key in evaluation.SUMMARY)
        ],
        "rule": truncation.get("real_is") if finite(truncation.get("real_is")) else None,
    }
