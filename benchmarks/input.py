"""Time the reading of training data.

    python benchmarks/input.py [--path FOLDER or PARQUET --size 128 --images 512 --workers 0]

Random ResNet-style crops of 128 px with flips are read in turn by our stream and by torchvision's ImageFolder with a
DataLoader, RandomResizedCrop, RandomHorizontalFlip and the same resampling filter. Without --path, JPEGs of 256 × 320
px are made. For Parquet files only our stream is timed. Prints images a second and core, and the ratio. Writes JSON
with --out.
"""

import argparse
import json
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
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
    cores = max(1, o.workers)
    for name, rate in result["images_per_second"].items():
        print(f"{name:<40}{rate:10.1f} images/s   {rate / cores:8.1f} a core")
    if "ratio" in result:
        print(f"ours / torchvision: {result['ratio']:.2f} (best of {o.repeats}, in turn)")
    if o.out:
        o.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(path: Path, o: argparse.Namespace) -> dict:
    images = open_images(str(path))
    batches = -(-o.images // o.batch_size)

    def ours():
        stream = Stream(images, o.size, 0, Crop("resnet", True), workers=o.workers, cache="none")
        return sum(len(batch.x) for batch in islice(stream.batches(0, 2**62, o.batch_size), batches))

    ways = {"bigbigan.data": ours}
    if any(path.rglob("*.jpg")):
        transform = v2.Compose(
            [
                v2.RandomResizedCrop(o.size, interpolation=v2.InterpolationMode.BICUBIC),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
            ]
        )
        folder = ImageFolder(str(path), transform)

        def theirs():
            loader = DataLoader(folder, o.batch_size, shuffle=True, num_workers=o.workers)
            return sum(len(x) for x, _ in islice(loader, batches))

        ways["torchvision ImageFolder + DataLoader"] = theirs
    best: dict[str, float] = {}
    for _ in range(o.repeats):
        for name, run in ways.items():
            start = time.perf_counter()
            count = run()
            best[name] = max(best.get(name, 0.0), count / (time.perf_counter() - start))
    ratio = {"ratio": best["bigbigan.data"] / list(best.values())[1]} if len(best) > 1 else {}
    return {"images_per_second": best, "workers": o.workers, "size": o.size} | ratio


if __name__ == "__main__":
    main()
