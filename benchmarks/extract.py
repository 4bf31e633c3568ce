"""Measure how `bigbigan-extract` grows: `python benchmarks/extract.py [--rows 10000 100000] [--sampled 1000000]`.

Writes Parquet files of small synthetic PNGs (1,000 different ones, repeated) and extracts them by the real command with
a tiny encoder, in a process of its own, the sizes in turn. Prints for each size the images a second, by the clock and
by the processor's time, without what a start costs, which a run of 64 images tells; the peak of the memory that is not
a mapped file, and of all memory; and the exponent of the time between the sizes, 1 where it grows linearly. Then the
same for `bigbigan.neighbours` of 100 queries in the folders. Writes JSON with --out.

On a machine that does other work too, the processor's time of one image varies by a half from minute to minute, so
whole runs one after the other do not tell how it grows. So files of 1,000 images of data sets of all sizes (--rows, and
--sampled, of which nothing more is extracted) are made in turns in one process, --pairs of each: what one takes, beside
one of the smallest data set that was made just before or after it.
"""

import argparse
import io
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from benchmarks.rates import describe
from bigbigan.api import load
from bigbigan.config import Data, Model
from bigbigan.data import Images, open_whole_split
from bigbigan.features import extraction, shards
from bigbigan.model import BigBiGAN

ROOT = Path(__file__).resolve().parent.parent
START = 64  # images of the run that tells what a start costs
DISTINCT = 1000
OPEN = "import sys, bigbigan.data; bigbigan.data.open_images(sys.argv[1], test_share=0)"  # `datasets` copies it, once
SEARCH = """
import time, sys, numpy as np, bigbigan
query = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)
bigbigan.neighbours(query, query, 10)
started, used = time.perf_counter(), time.process_time()
bigbigan.neighbours(query, sys.argv[1], 10, output="avepool_feat")
print(time.perf_counter() - started, time.process_time() - used)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--sampled", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--pairs", type=int, default=27)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), o)
    print(f"{describe(torch.device('cpu'))}, {os.cpu_count()} cores; {o.processes} processes; n = {o.repeats}")
    for row in result["extract"]:
        seconds, cpu = spread(row["seconds"]), spread(row["cpu_seconds"])
        anonymous, whole = (max(row[name]) / 2**20 for name in ("anonymous_bytes", "peak_bytes"))
        print(
            f"extract {row['rows']:>9,} images: {seconds} s, {cpu} s of CPU beyond the start; "
            f"{row['rows'] / statistics.median(row['cpu_seconds']):,.0f} images per CPU second; "
            f"memory {anonymous:,.0f} MiB, with mapped files {whole:,.0f} MiB"
        )
    for row in result["sampled"]:
        ratios = ", ".join(f"{value:.3f}" for value in np.quantile(row["ratios"], (0.25, 0.5, 0.75)))
        print(
            f"one of {row['files']:,} files of {row['rows']:>9,} images: {spread(row['milliseconds'])} ms of CPU; "
            f"beside the smallest data set: quartiles {ratios}, n = {len(row['ratios'])}; "
            f"opening {row['opening']:.2f} s of CPU"
        )
    for row in result["neighbours"]:
        anonymous = max(row["anonymous_bytes"]) / 2**20
        print(f"neighbours in {row['rows']:>9,}: {spread(row['cpu_seconds'])} s of CPU; memory {anonymous:,.0f} MiB")
    for name in ("extract", "neighbours"):
        for small, large in zip(result[name], result[name][1:], strict=False):
            times = statistics.median(large["cpu_seconds"]) / statistics.median(small["cpu_seconds"])
            print(f"{name}: CPU time grows as rows^{math.log(times) / math.log(large['rows'] / small['rows']):.2f}")
    if o.out:
        o.out.write_text(json.dumps(result, indent=2) + "\n")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def measure(folder: Path, o: argparse.Namespace) -> dict:
    """Extract every size `repeats` times, in turn."""
    torch.manual_seed(0)
    model = Model(
        image_size=o.size, encoder="resnetv2_18", encoder_width=0.125, encoder_mlp_width=16, encoder_mlp_layers=2,
        latent_dim=16, generator_width=2, discriminator_width=2, generator_attention=0, discriminator_attention=0,
        mlp_width=16, mlp_layers=2,
    )  # fmt: skip
    BigBiGAN.from_config(model).save_pretrained(folder / "model")
    for rows in (START, *o.rows, *o.sampled):
        write_table(folder / f"{rows}.parquet", rows, o.size)
        watched([sys.executable, "-c", OPEN, str(folder / f"{rows}.parquet")], folder)
    found = [{"rows": rows} for rows in o.rows]
    searched = [{"rows": rows} for rows in o.rows]
    for repeat in range(1, o.repeats + 1):
        start = extract(folder, START, repeat, o)
        for row in found:
            once = extract(folder, row["rows"], repeat, o)
            for name in ("seconds", "cpu_seconds"):
                once[name] -= start[name]
            append(row, once)
        for row in searched:
            command = [sys.executable, "-c", SEARCH, str(folder / f"{row['rows']}-{repeat}")]
            once, text = watched(command, folder)
            seconds, cpu = map(float, text.split())
            append(row, {**once, "seconds": seconds, "cpu_seconds": cpu})
    return {
        "extract": found, "neighbours": searched, "processes": o.processes, "sampled": in_turns(folder, o)
    }  # fmt: skip


def in_turns(folder: Path, o: argparse.Namespace) -> list[dict]:
    """Make files of the data sets of all sizes in turns, from their beginnings to their ends, and time each."""
    torch.set_num_threads(1)
    environment = {"HF_DATASETS_CACHE": str(folder / "cache"), "BIGBIGAN_CACHE": str(folder / "own-cache")}
    with mock.patch.dict(os.environ, environment):
        works, found = [], []
        for rows in sorted({*o.rows, *o.sampled}):
            started = time.process_time()
            images = open_whole_split(Data(path=str(folder / f"{rows}.parquet"))).images
            work = prepare(load(folder / "model", "cpu"), images, folder / f"sampled-{rows}")
            opening = time.process_time() - started
            works.append(work)
            found.append({"rows": rows, "files": work.manifest.shards, "opening": opening, "milliseconds": []})
        for turn in range(o.pairs + 1):
            order = range(len(works)) if turn % 2 else reversed(range(len(works)))
            for i in order:
                k = turn * (works[i].manifest.shards - 1) // o.pairs
                once = make_file(works[i], k)
                found[i]["milliseconds"] += [once] * (turn > 0)  # the first ones are slower: caches, memory
    for row in found:
        pairs = zip(row["milliseconds"], found[0]["milliseconds"], strict=True)
        row["ratios"] = [one / smallest for one, smallest in pairs]
    return found


def prepare(model: BigBiGAN, images: Images, out: Path) -> extraction.Extraction:
    names = ("model", images.origin)
    manifest = extraction.manifest_of(model, images, ("z_mean", "avepool_feat"), "float32", 1000, names)
    shards.begin(out, manifest)
    return extraction.Extraction(model, images, out, manifest)


def make_file(work: extraction.Extraction, k: int) -> float:
    """Make file k as the command does, and return the milliseconds of CPU that it took."""
    (work.folder / work.manifest.name(k)).unlink(missing_ok=True)
    started = time.process_time()
    work.missing = [k]
    work.run()
    return 1000 * (time.process_time() - started)


def append(row: dict, values: dict) -> None:
    for name, value in values.items():
        row.setdefault(name, []).append(value)


def write_table(path: Path, rows: int, size: int) -> None:
    rng, pictures = np.random.default_rng(0), []
    for _ in range(min(DISTINCT, rows)):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (size + 4, size, 3), dtype=np.uint8)).save(stream, "PNG")
        pictures.append(stream.getvalue())
    cells = pa.array(pictures)
    with pq.ParquetWriter(path, pa.schema({"image": pa.binary(), "label": pa.int64()})) as writer:
        for first in range(0, rows, 10_000):
            places = np.arange(first, min(first + 10_000, rows))
            writer.write_table(pa.table({"image": cells.take(pa.array(places % len(pictures))), "label": places % 10}))


def extract(folder: Path, rows: int, repeat: int, o: argparse.Namespace) -> dict[str, float]:
    """Run the command into ROWS-REPEAT, and return its seconds and bytes."""
    command = [
        sys.executable, "-m", "bigbigan.extract", str(folder / "model"), "--data.path", str(folder / f"{rows}.parquet"),
        "--out", str(folder / f"{rows}-{repeat}"), "--processes", str(o.processes), "--shard_images", "1000",
    ]  # fmt: skip
    return watched(command, folder)[0]


def watched(command: list[str], folder: Path) -> tuple[dict[str, float], str]:
    """Run a command; return its seconds, CPU seconds and peaks of memory of one process, and what it printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_DATASETS_CACHE": str(folder / "cache")}
    environment |= {"BIGBIGAN_CACHE": str(folder / "own-cache")}
    before, started = cpu_seconds(), time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    peaks = {"anonymous_bytes": 0, "peak_bytes": 0}
    watcher = threading.Thread(target=watch, args=(process, peaks))
    watcher.start()
    text = process.communicate()[0]
    seconds = time.perf_counter() - started
    watcher.join()
    assert process.returncode == 0, text
    return {"seconds": seconds, "cpu_seconds": cpu_seconds() - before, **peaks}, text


def watch(process: subprocess.Popen, peaks: dict[str, int]) -> None:
    """Note the highest memory of the process and of those that it started, any one of them."""
    import psutil

    while process.poll() is None:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
            for one in family:
                text = Path(f"/proc/{one.pid}/status").read_text()
                for name, key in (("anonymous_bytes", "RssAnon:"), ("peak_bytes", "VmHWM:")):
                    if key in text:
                        peaks[name] = max(peaks[name], 1024 * int(text.split(key)[1].split()[0]))
        except (psutil.Error, OSError):
            pass
        time.sleep(0.1)


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
