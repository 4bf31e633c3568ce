"""Time the reading of training data.

    python benchmarks/input.py [--path FOLDER or PARQUET --size 128 --images 512 --workers 0]

Random ResNet-style crops with flips are read by our stream and by its peer in turn, in one process. The peer of a
folder is torchvision's ImageFolder, that of Parquet files a `datasets` table; both with a DataLoader,
RandomResizedCrop, RandomHorizontalFlip and the same resampling filter. Without --path, JPEGs of 256 × 320 px are made.
Prints images per second of this process's CPU time (of wall time with workers): the median of the rounds, the least and
the largest; and the ratio, the median over the rounds. Writes JSON with --out.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from datasets import load_dataset
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.encode import photos
from bigbigan.data import Crop, Stream, open_images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", default="")
    for name, value in (("size", 128), ("images", 512), ("batch_size", 64), ("workers", 0), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
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


if __name__ == "__main__":
    main()
