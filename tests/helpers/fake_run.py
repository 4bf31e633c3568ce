"""A run folder as training and probe leave it, made up in no time: for the tests of its page, and for looking at it.

The figures are invented.  `python -m tests.helpers.fake_run FOLDER [CLASSES]` writes one with its report.html.
"""

import json
import math
import random
import shutil
import sys
from pathlib import Path

from PIL import Image

TOTAL = 691_200
HOSTILE = (
    """</script><script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">"'&<!--"""
    """{{data}}{% include 'page.html' %}"""
)
PARTIAL = {  # what of a run folder is there
    "empty": [],
    "begun": ["config.yaml"],
    "no pictures": ["config.yaml", "stats.jsonl"],
    "no log": ["config.yaml", "samples", "probe.json"],
    "only reconstructions": ["reconstructions", "stats.jsonl"],
}
LOGGED = ("images_per_second", "loss_d", "loss_eg", "posterior_stddev")


def fake_run(folder: Path, classes: int = 10, lines: int = 60, frames: int = 12, side: int = 84) -> Path:
    """config.yaml, stats.jsonl, grids and probe.json; grid k has the colour (20 k, 100, 200)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(
        "# bigbigan 0.1.0, git 0000000\nmodel:\n  image_size: 8\ndata:\n  path: digits\n"
        f"run:\n  name: {folder.name}\n  images: {TOTAL}\n"
    )
    (folder / "stats.jsonl").write_text("".join(json.dumps(record) + "\n" for record in stats(lines)))
    for kind in ("samples", "reconstructions"):
        for k in range(frames):
            grid(folder / kind / f"{TOTAL * (k + 1) // frames:012d}.png", (20 * k % 256, 100, 200), side)
    for name in ("neighbours-pixels", "filters"):
        grid(folder / "evaluation" / f"{name}.png", (90, 90, 90), side)
    (folder / "probe.json").write_text(json.dumps(probe(classes)))
    return folder


def stats(lines: int) -> list[dict]:
    dice, records = random.Random(0), []
    for k in range(1, lines + 1):
        share = k / lines
        record = {"images_seen": TOTAL * k // lines, "iteration": 3600 * k // lines}
        record |= {
            name: round(base + dice.gauss(0, base / 20), 6)
            for name, base in zip(LOGGED, (2300, 3.5, 3.2, 0.8), strict=True)
        }
        for term, gap in (("x", 1.2), ("z", 0.3), ("xz", 1.0)):
            record[f"score_{term}_real"] = gap * (1 - 0.4 * share) + dice.gauss(0, 0.08)
            record[f"score_{term}_fake"] = -gap * (1 - 0.4 * share) + dice.gauss(0, 0.08)
        records.append(record)
        if k % 10 == 0:
            found = {
                "top1_knn": 0.95 - 0.5 * math.exp(-5 * share),
                "fid_classifier_digits_train_n1438": 8 + 60 * math.exp(-4 * share),
            }
            records.append({"images_seen": record["images_seen"], "iteration": record["iteration"]} | found)
    closing = {"reconstruction_error_relative": 0.242, "n_test": 359, "reconstruction_1nn_agreement": 0.868}
    return [*records, {"images_seen": TOTAL, "iteration": 3600} | closing]


def grid(path: Path, colour: tuple[int, int, int], side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), colour).save(path)


def probe(classes: int) -> dict:
    linear, neighbours, clusters = (
        "linear, L2 chosen on a held-out fifth",
        "k-NN, cosine, k of 1 to 50",
        "k-means, best of 10",
    )

    def row(encoder: str, feature: str, protocol: str, top1: float, labels: float = 1.0, n: int = 3, **more) -> dict:
        figures = {"top1": {"mean": top1, "sd": 0.008 if n > 1 else None, "n": n}, **more}
        return {"encoder": encoder, "feature": feature, "protocol": protocol, "labels": labels, "figures": figures}

    rows = [
        row(encoder, feature, protocol, top1 - lower)
        for protocol, lower in ((linear, 0.0), (neighbours, 0.03))
        for encoder, top1 in (("trained", 0.944), ("untrained", 0.838), ("supervised", 0.975))
        for feature in ("AvePool", "BN+CReLU")
    ]
    rows += [
        row("trained", "AvePool", linear, 0.72, labels=0.01),
        row("untrained", "AvePool", linear, 0.55, labels=0.01),
    ]
    rows += [row("none", "pixels 8×8", linear, 0.964, n=1), row("none", "PCA of pixels (64)", linear, 0.958, n=1)]
    rows += [row("none", "majority class", linear, 0.058, n=1) | {"note": "of the training split"}]
    score = {"mean": 0.71, "sd": 0.02, "n": 3}
    rows += [
        {
            "encoder": "trained",
            "feature": "AvePool",
            "protocol": clusters,
            "labels": 1.0,
            "figures": {"nmi": score, "accuracy": score},
        }
    ]
    return {
        "checkpoint": "runs/digits", "images_seen": TOTAL, "encoder_sha256": "0" * 64, "data": "digits (scikit-learn)",
        "n_train": 1438, "n_test": 359, "classes": classes, "class_names": [f"class {i}" for i in range(classes)],
        "seeds": 3, "seconds": 61.5, "rows": rows,
        "confusion": {"row": "linear probe, AvePool, trained", "matrix": confusion(classes)},
        "generation": generation(), "bidirectional": bidirectional(),
        "sheets": [
            sheet("Neighbours in pixels", "evaluation/neighbours-pixels.png", "A sample, then its nearest images."),
            sheet("First filters of E", "evaluation/filters.png", "Each scaled to its own range."),
        ],
    }  # fmt: skip


def sheet(title: str, path: str, caption: str = "") -> dict:
    return {"title": title, "path": path, "caption": caption}


def confusion(classes: int) -> list[list[int]]:
    dice = random.Random(1)
    return [
        [36 - dice.randrange(6) if i == j else max(0, dice.randrange(-12, 4)) for j in range(classes)]
        for i in range(classes)
    ]


def generation() -> dict:
    name, n = "classifier_digits", "train_n1438"
    points = [
        {"threshold": t, "fid": 9 + 30 * (1 - t / 2) ** 2 - 3 * t / 2 * (1 - t / 2), "is": 8.9 - 0.5 * t**1.5}
        for t in (0.2, 0.4, 0.6, 0.8, 1, 1.4, 2)
    ]
    points.append({"threshold": None, "fid": 9.4, "is": 7.1})
    figures = {
        f"fid_{name}_{n}": 9.4,
        f"is_{name}_n1438": 7.1,
        f"kid_{name}_{n}": 0.0123,
        f"precision_{name}_{n}": 0.81,
    }
    summary = {"min_fid": points[6], "valid_is": points[4], "max_is": points[0]}
    return {
        "results": [{"extractor": name, "note": "held-out accuracy 97.5 %", "figures": figures}],
        "skipped": ["inception2015: expected weights-inception-2015-12-05.pth, found none"],
        "truncation": {"extractor": name, "points": points, "real_is": 8.4, "summary": summary},
    }  # fmt: skip


def bidirectional() -> list[dict]:
    return [
        {
            "name": "squared error of G(E(x))",
            "value": 0.242,
            "baseline": 1.0,
            "baseline_name": "random pairs",
            "n": 359,
            "unit": "relative",
        },
        {
            "name": "cosine of E(G(z)) and z",
            "value": 0.71,
            "baseline": 0.0,
            "baseline_name": "other z",
            "n": 1024,
            "unit": "",
        },
        {"name": "fooled share", "value": 0.31, "baseline": None, "baseline_name": None, "n": 359, "unit": "share"},
    ]


def changed_run(run: Path, copy: Path, **values) -> Path:
    """A copy of a run whose probe.json has other values."""
    shutil.copytree(run, copy)
    (copy / "probe.json").write_text(json.dumps(json.loads((run / "probe.json").read_text()) | values))
    return copy


def partial_run(run: Path, folder: Path, kept: list[str]) -> Path:
    """Into an empty folder, only these parts of a run."""
    for name in kept:
        (shutil.copytree if (run / name).is_dir() else shutil.copy)(run / name, folder / name)
    return folder


def hostile_run(run: Path, copy: Path) -> Path:
    """Copy a run with markup in every text, as the name of a figure, and as a further key of every other object."""

    def poisoned(value, key=""):
        if isinstance(value, dict):
            further = 0.5 if key == "figures" else HOSTILE
            return {key: poisoned(inner, key) for key, inner in value.items()} | {HOSTILE: further}
        if isinstance(value, list):
            return [poisoned(inner) for inner in value]
        return value + HOSTILE if isinstance(value, str) and value not in ("trained", "none") else value

    changed_run(run, copy, **poisoned(json.loads((run / "probe.json").read_text())))
    (copy / "config.yaml").write_text(f"# {HOSTILE}\nrun:\n  name: {json.dumps(HOSTILE)}\n  images: 5\n")
    with open(copy / "stats.jsonl", "a") as file:
        file.write("".join(json.dumps({"images_seen": k, HOSTILE: k}) + "\n" for k in (1, 2)))
    return copy


if __name__ == "__main__":
    from bigbigan.report import write_page

    print(write_page(fake_run(Path(sys.argv[1]), *map(int, sys.argv[2:]))))
