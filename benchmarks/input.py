"""Time the reading of training data.

    python benchmarks/input.py [--path FOLDER or PARQUET --size 128 --images 512 --workers 0]

Random ResNet-style crops with flips are read by our stream and by its peer in turn, in one process. The peer of a
folder is torchvision's ImageFolder, that of Parquet files a `datasets` table; both with a DataLoader,
RandomResizedCrop, RandomHorizontalFlip and the same resampling filter. Without --path, JPEGs of 256 × 320 px are made.
Prints images per second of this process's CPU time (of wall time with workers): the median of the rounds, the least and
the largest; and the ratio, the median over the rounds. Writes JSON with --out.

    python benchmarks/input.py --opening [--files 100000 --rows 1000000]

times how a folder of empty files in 100 class folders is listed, in turn with ImageFolder, and how a Parquet file of
tiny PNGs without splits is opened: for the first time, and again; CPU seconds.
"""

import argparse
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import load_dataset
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.encode import photos
from bigbigan.config import Data
from bigbigan.data import Crop, Stream, open_images, open_splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default="")
    for name, value in (("size", 128), ("images", 512), ("batch_size", 64), ("workers", 0), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--opening", action="store_true")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    o = parser.parse_args()
    torch.set_num_threads(1)
    if o.opening:
        opening(o)
        return
    with tempfile.TemporaryDirectory() as made:
        path = Path(o.path) if o.path else Path(made)
        if not o.path:
            for label in ("a", "b"):
                (path / label).parent.mkdir(exist_ok=True)
                photos(path / label, o.images // 2, 256)
        result = measure(path, o)
    for name, rates in result["images_per_second"].items():
        print(f"{name:<40}{statistics.median(rates):10.1f} images/s   ({min(rates):.1f} to {max(rates):.1f})")
    if result["ratios"]:
        low, high = min(result["ratios"]), max(result["ratios"])
        middle = statistics.median(result["ratios"])
        print(f"ours / peer: {middle:.2f} ({low:.2f} to {high:.2f} in {o.repeats} rounds)")
    if o.out:
        o.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(path: Path, o: argparse.Namespace) -> dict:
    images = open_images(str(path), test_share=0)
    batches = -(-o.images // o.batch_size)

    def ours():
        stream = Stream(images, o.size, 0, Crop("resnet", True), workers=o.workers, cache="none")
        return sum(len(batch.x) for batch in islice(stream.batches(0, 2**62, o.batch_size), batches))

    ways = {"bigbigan.data": ours} | peer(path, o, batches)
    clock = time.perf_counter if o.workers else time.process_time
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()  # imports, and fills the page cache
    for _ in range(o.repeats):
        for name, run in ways.items():
            start = clock()
            count = run()
            rates[name].append(count / (clock() - start))
    columns = list(rates.values())
    ratios = [a / b for a, b in zip(*columns, strict=True)] if len(columns) > 1 else []
    return {"images_per_second": rates, "ratios": ratios, "workers": o.workers, "size": o.size}


def peer(path: Path, o: argparse.Namespace, batches: int) -> dict:
    """Return what reads `batches` batches as others do, by name; {} for data that have no usual reader."""
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(o.size, interpolation=v2.InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )

    def read(data):
        loader = DataLoader(data, o.batch_size, shuffle=True, num_workers=o.workers)
        return lambda: sum(len(x["image"] if isinstance(x, dict) else x[0]) for x in islice(loader, batches))

    if path.is_dir() and any(path.rglob("*.jpg")):
        return {"torchvision ImageFolder + DataLoader": read(ImageFolder(str(path), transform))}
    files = [str(path)] if path.is_file() else sorted(map(str, path.glob("train*.parquet")))
    if not files:
        return {}
    table = load_dataset("parquet", data_files=files, split="train")
    rows = table.select_columns(["image"]).with_transform(
        lambda rows: {"image": [transform(image.convert("RGB")) for image in rows["image"]]}
    )
    return {"datasets + DataLoader": read(rows)}


def opening(o: argparse.Namespace) -> None:
    """Print how long it takes to open a folder of many files and a Parquet file of many rows."""
    with tempfile.TemporaryDirectory() as made:
        os.environ["BIGBIGAN_CACHE"] = str(Path(made, "cache"))
        datasets.config.HF_DATASETS_CACHE = Path(made, "tables")
        folder, table = Path(made, "files"), Path(made, "rows.parquet")
        for label in range(100):
            (folder / f"{label:03}").mkdir(parents=True)
            for i in range(o.files // 100):
                (folder / f"{label:03}" / f"{i:06}.jpg").touch()
        seconds = {"ours": [], "ImageFolder": [], "with the split": []}
        for _ in range(o.repeats):
            seconds["ours"].append(cpu_seconds(lambda: open_images(str(folder), test_share=0)))
            seconds["ImageFolder"].append(cpu_seconds(lambda: ImageFolder(str(folder))))
            seconds["with the split"].append(cpu_seconds(lambda: open_splits(Data(path=str(folder)))))
        for name, found in seconds.items():
            low, high = min(found), max(found)
            print(f"{o.files:,} files, {name:<16}{statistics.median(found):7.2f} s   ({low:.2f} to {high:.2f})")
        write_rows(table, o.rows)
        for name in ("first", "again"):
            print(f"{o.rows:,} rows, {name:<16}{cpu_seconds(lambda: open_splits(Data(path=str(table)))):7.2f} s")
        print(f"largest memory so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def cpu_seconds(run) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def write_rows(path: Path, count: int) -> None:
    """Write a Parquet file of `count` PNGs of 8 × 8 greys, each of other bytes, in 1,000 classes."""
    draw, piece = np.random.default_rng(0), 20_000
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pq.ParquetWriter(path, pa.schema([("image", kind), ("label", pa.int64())])) as writer:
        for first in range(0, count, piece):
            some = min(piece, count - first)
            file = io.BytesIO()
            Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(file, "PNG")
            cells = [{"bytes": file.getvalue() + (first + i).to_bytes(4), "path": None} for i in range(some)]
            writer.write_table(pa.table({"image": pa.array(cells, kind), "label": draw.integers(0, 1000, some)}))


if __name__ == "__main__":
    main()
