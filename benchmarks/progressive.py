"""Measure what growing saves: its cost against training at full size, and the quality on the way.

    python benchmarks/progressive.py cost [--config progan/celebahq] [--measure]
    python benchmarks/progressive.py quality [--config progan/digits --seeds 0 1 2 --out FOLDER] [-- FLAGS]

cost: FLOPs per image of one D and one G (and E) update at every stage and fade, counted by torch from shapes alone, and
the sum over the schedule beside training at full size for the same images. --measure also times them on this device.
quality: trains the preset with and without growing. For each checkpoint of each seed: the sliced Wasserstein distance
of samples of averaged G at full size (smaller ones enlarged) to as many training images, at most 5,000, and the linear
probe of averaged E, against images and seconds of training. Prints JSON lines; finished runs are not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rates import synchronise
from bigbigan.config import Config, parse
from bigbigan.data import Images, evaluation_batches, open_splits, spread
from bigbigan.metrics.sampling import sampler
from bigbigan.metrics.sliced_wasserstein import sliced_wasserstein
from bigbigan.model import BigBiGAN
from bigbigan.networks.growing import set_level
from bigbigan.release.load import load_model
from bigbigan.training.batch import Batch
from bigbigan.training.growing_schedule import GrowthSchedule
from bigbigan.training.optim import build_optimizers
from bigbigan.training.step import Step
from bigbigan.training.variants import build_step
from eval_linear.features import extract
from eval_linear.linear.solvers import fit_linear

ROOT = Path(__file__).resolve().parent.parent
PARTS = 200  # into which a schedule is cut to add up its cost
SAMPLES = 5_000  # of which the sliced Wasserstein distance is taken, or as many as there are training images


def make_step(config: Config, device: str) -> Step:
    with torch.device(device):
        model = BigBiGAN.from_config(config.model).train()
    return build_step(config, model, build_optimizers(model, config.optim), nullcontext)


def make_batch(step: Step, n: int, device: str) -> Batch:
    size, width = step.model.generator.image_size, step.model.generator.latent_dim
    x, z = torch.zeros(n, 3, size, size, device=device), torch.zeros(n, width, device=device)
    return Batch(x, z.normal_(), torch.zeros_like(z), extra={"mix": torch.full((n,), 0.5, device=device)})


def iteration(step: Step, batch: Batch, d_steps: int) -> None:
    for _ in range(d_steps):
        step.discriminator_update(batch)
    step.encoder_generator_update(batch)


class Untracked(nullcontext):
    """Replace torch's tracker of modules, whose hooks fail where a forward computes a gradient."""

    parents = {"Global"}


def flops(step: Step, config: Config, level: float, n: int = 4) -> float:
    """Return the FLOPs of one image of the stream at a level."""
    set_level(level, step.model)
    for optimizer in step.optimizers:
        optimizer.step = lambda: None  # elementwise, and not counted
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        iteration(step, make_batch(step, n, "meta"), config.optim.d_steps)
    return counter.get_total_flops() / n / config.batches


def seconds(step: Step, config: Config, level: float, repeats: int = 5) -> float:
    """Return the seconds of one image of the stream at a level: the fastest of some iterations."""
    device = next(step.model.parameters()).device
    set_level(level, step.model)
    n, found = config.data.batch_size, []
    batch = make_batch(step, n, device.type)
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        iteration(step, batch, config.optim.d_steps)
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found[1:]) / n / config.batches


def cost(config: Config, measure: bool) -> None:
    growth = GrowthSchedule.from_config(config)
    step = make_step(config, "meta")
    kinds = {"GFLOPs": lambda level: flops(step, config, level) / 1e9}
    if measure:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        real = make_step(config, device)
        kinds["ms"] = lambda level: 1e3 * seconds(real, config, level)
    levels = sorted(
        {float(k) for k in range(growth.first, growth.last + 1)} | {k + 0.5 for k in range(growth.first, growth.last)}
    )
    for kind, price in kinds.items():
        table = {level: price(level) for level in levels}  # a fade costs the same at every weight
        print(json.dumps({f"{kind} an image": {f"level {level:g}": float(f"{v:.4g}") for level, v in table.items()}}))

        def at(images_seen: int, table=table) -> float:
            level = growth.level(images_seen)
            return table[level if level.is_integer() else int(level) + 0.5]

        for total in sorted({6_400_000, config.run.images} if config.run.images > 6_400_000 else {config.run.images}):
            grown = sum(at(int(total * (i + 0.5) / PARTS)) for i in range(PARTS)) / PARTS
            print(
                json.dumps(
                    {"images": total, f"full size beside growing, by {kind}": round(table[levels[-1]] / grown, 2)}
                )
            )


def quality(config: Config, preset: str, seeds: list[int], out: Path, further: list[str]) -> None:
    size = config.model.image_size
    images, test = open_splits(config.data)
    some = images.subset(spread(len(images), SAMPLES))
    real = torch.cat([pixels for pixels, _ in evaluation_batches(some, size, 256)])
    for seed in seeds:
        for name, flags in (("growing", []), ("full size", ["--grow.first_size=0"])):
            folder = out / f"{name.split()[0]}-{seed}"
            command = [sys.executable, str(ROOT / "bigbigan" / "train.py"), "--config", preset, f"--run.seed={seed}"]
            command += [
                f"--run.name={folder.name}",
                f"--run.root={out}",
                "--run.keep_checkpoints=1000",
                "--run.probe=False",
                *flags,
                *further,
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            lines = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
            clock, spent, before = {}, 0.0, 0
            for line in lines:
                if "images_per_second" in line:
                    spent += (line["images_seen"] - before) / line["images_per_second"]
                    before = line["images_seen"]
                    clock[before] = spent
            for path in sorted((folder / "checkpoints").iterdir()):
                seen = int(path.name)
                model = load_model(path)
                samples = sampler(model)(torch.arange(len(real)).numpy()).float()
                samples = F.interpolate(samples, size=(size, size), mode="nearest").to(torch.uint8)
                distance = sliced_wasserstein(samples, real)
                row = {
                    "form": name,
                    "seed": seed,
                    "images": seen,
                    "seconds": round(clock[max(k for k in clock if k <= seen)], 1),
                }
                row |= {f"swd_{k}": round(v, 1) for k, v in distance.items()} | probe(model, images, test)
                print(json.dumps(row), flush=True)


def probe(model: BigBiGAN, train: Images, test: Images) -> dict[str, float]:
    """Return the linear probe of AvePool at the size that E has reached; nothing without E or labels."""
    if model.encoder is None or train.labels is None:
        return {}
    (x, at), (x_test, at_test) = (
        extract(model.encoder, images, 256, names=("avepool_feat",)) for images in (train, test)
    )
    y, y_test = torch.from_numpy(train.labels[at]), torch.from_numpy(test.labels[at_test])
    fit = fit_linear(x["avepool_feat"], y, x_test["avepool_feat"], y_test, len(train.class_names), 0)
    return {"encoder_px": model.encoder.image_size, "top1_linear": round(100 * fit.top1, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "quality"])
    parser.add_argument("--config", default="")
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs") / "benchmark-progressive")
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    o, further = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1 :]
    preset = o.config or {"cost": "progan/celebahq", "quality": "progan/digits"}[o.what]
    config, _ = parse(["--config", preset, *further])
    cost(config, o.measure) if o.what == "cost" else quality(config, preset, o.seeds, o.out, further)


if __name__ == "__main__":
    main()
