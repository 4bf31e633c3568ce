"""Measure whether the guard's alarm comes before the samples collapse.

    python benchmarks/collapse.py [--seeds 0 1 ... 9] [--out collapse.json]

Small networks are trained on the embedded digits. Each seed first trains healthily; from there four copies continue:
unchanged, with all learning rates many times as high, with D frozen, and on only 50 images. Every few iterations the
guard measures its signs as in a run. Independently, samples count as dead when their Fréchet distance to held-out
digits, in pixels, is twice that at the start of the copies. Prints both moments for each run, and how often the alarm
came first.
"""

import argparse
import copy
import json
import platform
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from bigbigan.config import Config, find_config, read_yaml
from bigbigan.data import Crop, Stream, evaluation_batches, open_images, to_signed
from bigbigan.model import BigBiGAN
from bigbigan.training.batch import Drawer
from bigbigan.training.guard import CollapseProbe, signs
from bigbigan.training.optim import build_optimizers
from bigbigan.training.schedule import rates, set_rates
from bigbigan.training.variants import build_step

SMALL = {
    "generator_width": 4, "discriminator_width": 8, "mlp_width": 256, "mlp_layers": 2,
    "encoder_mlp_width": 64, "encoder_width": 0.125,
}  # fmt: skip
BATCH, APART = 32, 120  # images of an update; healthy iterations before the copies
LOOKS = (*range(20), *range(20, 40, 5), *range(40, 10_000, 20))  # iterations of a copy at which the guard measures
DEAD = 2.0  # times the distance at the start of the copies
WAYS = ("healthy", "rate", "D frozen", "50 images")


class Run:
    """Hold a small training that can be copied, changed and measured."""

    def __init__(self, seed: int, rate: float):
        torch.manual_seed(seed)
        self.seed, self.rate, self.config = seed, rate, read_yaml(find_config("digits"), Config())
        for name, value in SMALL.items():
            setattr(self.config.model, name, value)
        self.model = BigBiGAN.from_config(self.config.model).to(memory_format=torch.channels_last).train()
        self.train, self.test = (
            open_images("digits", split, "", "", split == "test", 0.1) for split in ("train", "test")
        )
        self.optimizers = build_optimizers(self.model, self.config.optim)
        self.step, self.at = build_step(self.config, self.model, self.optimizers, nullcontext), 0
        held_out = torch.cat([pixels for pixels, _ in evaluation_batches(self.test, 8, 512)])
        self.real = to_signed(held_out).flatten(1).double()

    def apart(self, way: str) -> None:
        if way == "rate":
            for name in ("generator_lr", "encoder_lr", "discriminator_lr"):
                setattr(self.config.optim, name, self.rate * getattr(self.config.optim, name))
        self.config.optim.freeze = "discriminator" if way == "D frozen" else "none"
        self.train = self.train.subset(np.arange(50)) if way == "50 images" else self.train

    def iterations(self, count: int):
        """Train, and yield the iteration whenever the guard is to measure."""
        stream = Stream(self.train, 8, self.seed, Crop("none", False))
        reals = stream.batches(3 * self.at * BATCH, 10**12, BATCH)
        draw = Drawer(self.seed, "normal", self.model.generator.latent_dim)
        for i in range(count + 1):
            if i in LOOKS:
                yield i
            set_rates(self.optimizers.named(), rates(self.config.optim, 3 * self.at * BATCH))
            self.step.iteration(reals, draw, self.at)
            self.at += 1

    @torch.no_grad()
    def distance(self, z: torch.Tensor) -> float:
        samples = self.model.generator(z).flatten(1).double()
        means = (samples.mean(0) - self.real.mean(0)).square().sum()
        a, b = samples.T.cov(), self.real.T.cov()
        return float(means + a.trace() + b.trace() - 2 * torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum())


def dead(trace: list[dict]) -> bool:
    return not trace[-1]["distance"] <= DEAD * trace[0]["distance"]


def follow(run: Run, way: str, length: int, shown: bool) -> dict:
    """Train a copy in one of the ways; return its trace, and the iterations of the alarm and of the samples' death."""
    start = time.process_time()
    run.apart(way)
    watch, before, trace = CollapseProbe(run.model, run.train, run.test, "normal", run.seed), {}, []
    for i in run.iterations(length):
        spectra, figures = watch.measure()
        trace.append({"at": i, "distance": run.distance(watch.z), "signs": signs(figures, spectra, before), **figures})
        before = spectra
        trace[-1]["sigma0"] = {k: v[0] for k, v in spectra.items()}
        if shown:
            numbers = {k: round(v, 2) for k, v in trace[-1].items() if isinstance(v, float)}
            print(i, numbers, ", ".join(trace[-1]["signs"]), flush=True)
        # With 50 images the samples may stay alive for long after the alarm.
        if dead(trace) or (way == "50 images" and trace[-1]["signs"]):
            break
    alarm = next((t["at"] for t in trace if t["signs"]), None)
    death = trace[-1]["at"] if dead(trace) else None
    why = next((", ".join(t["signs"]) for t in trace if t["signs"]), "")
    return {
        "alarm": alarm,
        "death": death,
        "why": why,
        "seconds": round(time.process_time() - start, 1),
        "trace": trace,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rate", type=float, default=15.0, help="factor of the learning rates")
    parser.add_argument("--length", type=int, default=160, help="iterations of each copy")
    parser.add_argument("--trace", action="store_true", help="print every measurement")
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in o.seeds:
        run = Run(seed, o.rate)
        for _ in run.iterations(APART - 1):
            pass
        for way in o.ways:
            rows.append({"seed": seed, "way": way} | follow(copy.deepcopy(run), way, o.length, o.trace))
            r = rows[-1]
            distances = f"{r['trace'][0]['distance']:.1f} → {r['trace'][-1]['distance']:.1f}"
            moments = f"alarm {r['alarm']!s:>5} ({r['why']})  death {r['death']!s:>5}"
            print(f"seed {seed}  {way:<10} {moments}  distance {distances}  {r['seconds']} s CPU", flush=True)
            if o.out:
                o.out.write_text(json.dumps(rows) + "\n")
    print(f"\none thread ({platform.machine()}), {len(o.seeds)} seeds, {APART} iterations before the parting")
    for way in o.ways:
        mine = [r for r in rows if r["way"] == way]
        alarms, deaths = ([r[k] for r in mine if r[k] is not None] for k in ("alarm", "death"))
        first = sum(r["alarm"] is not None and (r["death"] is None or r["alarm"] < r["death"]) for r in mine)
        middle = lambda values: statistics.median(values) if values else "-"  # noqa: E731
        print(f"{way:<10} runs {len(mine)}  alarms {len(alarms)} (median at {middle(alarms)})  "
              f"deaths {len(deaths)} (median at {middle(deaths)})  alarm first {first}")  # fmt: skip


if __name__ == "__main__":
    main()
