"""Hold one class out of training, and tell its images from the others' by EGBAD's scores and by simpler ones.

    python benchmarks/anomalies.py [--data digits] [--classes 0 1 2] [--images 120000] [-- --run.threads 1 ...]

For each class: writes the data without it as Parquet, trains with `bigbigan-train`, and prints the AUROC of the
held-out split, the class against all others; then the mean over the classes. Finished runs are not repeated.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bigbigan.api import load  # noqa: E402
from bigbigan.config import Data  # noqa: E402
from bigbigan.data import Images, open_splits  # noqa: E402
from bigbigan.uses.anomalies import WEIGHT, aurocs  # noqa: E402
from bigbigan.uses.command_line import read_images  # noqa: E402

TRAIN_IMAGES, TEST_IMAGES = 10_000, 5_000  # that the baselines are fitted on, and that are scored; at most


def write_without(images: Images, known: int, path: Path) -> None:
    """Write the images of all classes but `known` as a Parquet file with the columns image and label."""
    import datasets

    rows = np.flatnonzero(images.labels != known)
    encoded = []
    for i in rows:
        with io.BytesIO() as file:
            images[int(i)].save(file, "png")
            encoded.append({"bytes": file.getvalue(), "path": None})
    names = [name for number, name in enumerate(images.class_names) if number != known]
    labels = [int(label) - (label > known) for label in images.labels[rows]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    datasets.Dataset.from_dict({"image": encoded, "label": labels}, features=features).to_parquet(str(path))


def one(arguments, known: int, splits: tuple[Images, Images]) -> dict:
    """Train without the class `known`, unless that has been done, and return the AUROC by method."""
    train, test = splits
    name = train.class_names[known]
    run, data = arguments.out / f"without-{name}", arguments.out / "data" / f"without-{name}"
    row = {"held_out": name}
    if not (run / "release" / "config.json").is_file():
        data.mkdir(parents=True, exist_ok=True)
        for split, images in (("train", train), ("test", test)):
            if not (data / f"{split}.parquet").is_file():
                write_without(images, known, data / f"{split}.parquet")
        command = [
            sys.executable, str(ROOT / "bigbigan" / "train.py"), "--config", arguments.config,
            "--data.path", str(data), "--run.root", str(arguments.out), "--run.name", run.name,
            "--run.probe", "False", "--run.seed", str(arguments.seed), *length(arguments.images), *arguments.flags,
        ]  # fmt: skip
        begun = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        row["seconds"] = round(time.monotonic() - begun)
    newest = sorted(run.glob("checkpoints/0*"))[-1]  # which holds D
    model = load(newest, arguments.device or None)
    x, y = read_images(train, model.encoder.image_size, TRAIN_IMAGES)
    x_test, y_test = read_images(test, model.encoder.image_size, TEST_IMAGES)
    found = aurocs(model, x[y != known], x_test[y_test != known], x_test[y_test == known], arguments.weight)
    return row | {"anomalous": int((y_test == known).sum()), "images": len(x_test)} | found


def length(images: int) -> list[str]:
    """Return the flags of a run that sees so many images and lowers its rates in the last third, as the preset does."""
    if not images:
        return []
    values = {"run.images": images, "optim.lower_after": images * 2 // 3, "optim.lower_images": images // 3}
    return [text for name, value in values.items() for text in (f"--{name}", str(value))]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits", help="what --data.path takes; needs classes")
    parser.add_argument("--config", default="digits", help="the preset; own for other data than digits")
    parser.add_argument("--classes", nargs="+", help="names of the classes to hold out in turn; all if not given")
    parser.add_argument("--images", type=int, default=0, help="images to see in training; the preset's own if 0")
    parser.add_argument("--weight", type=float, default=WEIGHT, help="w of the score")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="")
    parser.add_argument("--out", type=Path, default=Path("runs") / "benchmark-anomalies")
    parser.add_argument("flags", nargs="*", help="after --: further flags of bigbigan-train")
    arguments = parser.parse_args(argv)
    splits = open_splits(Data(path=arguments.data))
    names = splits[0].class_names or []
    if not names or set(arguments.classes or []) - set(names):
        parser.error(f"--classes: expected some of {', '.join(names) or 'the classes, but the data have none'}")
    rows = []
    for name in arguments.classes or names:
        rows.append(one(arguments, names.index(name), splits))
        print(json.dumps(rows[-1], ensure_ascii=False), flush=True)
    methods = [key for key in rows[0] if key not in ("held_out", "seconds", "anomalous", "images")]
    print(f"\n| AUROC, {arguments.data}, held out: | " + " | ".join(row["held_out"] for row in rows) + " | mean ± sd |")
    print("|---|" + "---|" * (len(rows) + 1))
    for method in methods:
        values = [row[method] for row in rows]
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        cells = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {method} | {cells} | {statistics.mean(values):.3f}{spread} |")


if __name__ == "__main__":
    main()
