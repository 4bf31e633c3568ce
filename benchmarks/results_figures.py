"""Measure quick figures for `benchmarks/results.sh`, in a process of their own.

python benchmarks/results_figures.py classifier DATA SIZE        train the in-domain classifier into the cache
python benchmarks/results_figures.py quick MODEL LIMIT [DATA]    write RUN/figures.json: linear, k-NN, FID, IS,
                                                                 reconstruction
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bigbigan.api import load
from bigbigan.config import Data
from bigbigan.data import open_images, open_splits
from bigbigan.files import write_text_whole
from bigbigan.metrics import cache_folder, in_domain_extractor
from eval_linear.quick import quick_figures


def main(what: str, source: str, number: str, data: str = "") -> None:
    if what == "classifier":
        import torch

        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        extractor = in_domain_extractor(
            open_images(source, "train"), int(number), Path(source).name, cache_folder(), device
        )
        print(extractor.note())
        return
    model, folder = load(source), Path(source)
    data = data or model.card["data"]["path"]
    train, test = open_splits(Data(path=data))
    figures = quick_figures(model, train, test, Path(data).name, int(number), 0)
    figures |= {"images_seen": model.card["images_seen"], "n": int(number)}
    if (folder / "stats.jsonl").is_file():
        lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
        figures["images_per_second"] = statistics.median(
            r["images_per_second"] for r in lines if "images_per_second" in r
        )
    path = (
        folder / "figures.json"
        if (folder / "stats.jsonl").is_file()
        else folder.with_name(f"{folder.name}-figures.json")
    )
    write_text_whole(path, json.dumps(figures, indent=1) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    asked = {"-h", "--help"} & set(sys.argv)
    if asked or len(sys.argv) < 4:
        print(__doc__)
        raise SystemExit(0 if asked else 2)
    main(*sys.argv[1:])
