"""Train on few images, with and without augmentation of what D sees.

    python benchmarks/small_data.py [--methods none ada] [--seeds 0]

Trains the digits preset on a few digits of the training split. Prints how well D tells training from held-out images,
and FID and IS of samples against the whole training split, by the in-domain classifier of all of it. Finished runs are
not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

from bigbigan.api import load  # noqa: E402
from bigbigan.data import open_images  # noqa: E402
from eval_linear.generation import quick_generation  # noqa: E402

METHODS = {
    "none": [],
    "diffaugment": ["--optim.augment=diffaugment"],
    "ada": ["--optim.augment=ada", "--optim.ada_images=50_000"],
}


def split(test: bool):
    return open_images("digits", "test" if test else "train", "", "", test, 0.1)


def write(folder: Path, count: int) -> None:
    """Write train/ with `count` digits and test/ with all of the test split, a folder for each class."""
    train = split(False)
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:count])
    for name, images in (("train", train.subset(chosen)), ("test", split(True))):
        for i in range(len(images)):
            path = folder / name / str(int(images.labels[i])) / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            images[i].convert("RGB").save(path)


def one(method: str, seed: int, out: Path, data: Path, seen: int) -> dict:
    run = out / f"{method}-{seed}"
    if not (run / "release" / "config.json").is_file():
        command = [
            sys.executable, str(ROOT / "bigbigan" / "train.py"), f"--data.path={data}", f"--run.root={out}",
            f"--run.name={run.name}", f"--run.seed={seed}", f"--run.images={seen}", f"--run.spectra_every={seen}",
            "--run.probe=False", "--run.threads=1", *METHODS[method],
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (run / "stats.jsonl").read_text().splitlines()]
    look = next(line for line in reversed(lines) if "memorised" in line)
    row = {"method": method, "seed": seed}
    row |= {name: look[name] for name in ("d_right_on_training_images", "d_right_on_held_out_images", "memorised")}
    row["reconstruction_error_relative"] = lines[-1]["reconstruction_error_relative"]
    figures = quick_generation(load(str(run)), split(False), "digits", 2_000)
    row |= {name.split("_")[0]: value for name, value in figures.items()}
    p = [line["augment_p"] for line in lines if "augment_p" in line]
    return row | ({"p": p[-1]} if p else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=200, help="training images")
    parser.add_argument("--seen", type=int, default=115_200, help="images to see in all updates")
    parser.add_argument("--out", type=Path, default=Path("runs") / "benchmark-small-data")
    arguments = parser.parse_args()
    data = arguments.out / f"digits-{arguments.count}"
    if not data.is_dir():
        write(data, arguments.count)
    for method in arguments.methods:
        rows = []
        for seed in arguments.seeds:
            rows.append(one(method, seed, arguments.out, data, arguments.seen))
            print(json.dumps(rows[-1]), flush=True)
        for key in [k for k in rows[0] if k not in ("method", "seed")]:
            values = [row[key] for row in rows]
            spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
            print(f"{method:<12}{key:<32}{statistics.mean(values):.4g}{spread}  (n = {len(values)})", flush=True)


if __name__ == "__main__":
    main()
