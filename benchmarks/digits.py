"""Run the default preset on several seeds: `python benchmarks/digits.py [--seeds 0 1 2] [--out FOLDER]`.

The README's command is launched for each seed, one after the other. Prints wall time, peak memory and the figures at
the end of the run, also as JSON.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def one(seed: int, out: Path) -> dict:
    name = f"digits-{seed}"
    command = [
        sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "bigbigan" / "train.py"),
        f"--run.seed={seed}", f"--run.name={name}", f"--run.root={out}",
    ]  # fmt: skip
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    lines = [json.loads(line) for line in (out / name / "stats.jsonl").read_text().splitlines()]
    probe = json.loads((out / name / "probe.json").read_text())
    linear = [row for row in probe["rows"] if row["protocol"].startswith("linear")]
    top1 = {f"{row['encoder']} {row['feature']}": row["figures"]["top1"]["mean"] for row in linear}
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "peak_gib": round(
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, 2
        ),  # the largest process so far
        "iterations_per_second": round(
            statistics.median(line["images_per_second"] for line in lines if "loss_d" in line) / 192, 2
        ),
        "reconstruction_error_relative": lines[-1]["reconstruction_error_relative"],
        "reconstruction_1nn_agreement": lines[-1]["reconstruction_1nn_agreement"],
        "n_test": lines[-1]["n_test"],
    } | top1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs") / "benchmark-digits")
    arguments = parser.parse_args()
    rows = []
    for seed in arguments.seeds:
        rows.append(one(seed, arguments.out))
        print(json.dumps(rows[-1]), flush=True)
    print(f"\n{os.cpu_count()} CPU cores ({platform.machine()}), n = {len(rows)} seeds")
    for key in rows[0]:
        if key not in ("seed", "n_test"):
            values = [row[key] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            span = f"{min(values):.4f} … {max(values):.4f}"
            print(f"{key:<34} mean {statistics.mean(values):9.4f}  sd {spread:8.4f}  worst {span}")
    (arguments.out / "digits.json").write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
