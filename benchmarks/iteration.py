"""Time a training iteration (d_steps D updates, one E+G update, the averages) in several forms.

    python benchmarks/iteration.py [--config bigbigan/imagenet128 --batch_sizes 64 128 256 --repeats 5]
                                   [--forms "ours float32"] [--threads N] [--section.field VALUE ...]

Forms, timed in turn: plain eager in float32 (TF32 on a GPU) and in bf16, contiguous and with the papers' resampling;
ours in float32 and in bf16, channels last and folded; ours compiled (--compile MODE ... of torch.compile, one graph an
update). --forms takes some of them: bf16 is very slow on a CPU without instructions for it. --threads: of the CPU;
two or more compute the two kinds of pairs side by side, as in training.
Prints seconds, images a second, the share of the matrix rate measured in the same run (in bf16, or in float32 if no
form in bf16 is timed; FLOPs of the plain form by torch's counter, so that forms compare), the form's own FLOPs a second
of the processor, peak memory, and the time of each part alone. A batch that does not fit in memory is reported.
JSON with --out.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from bigbigan.config.command import prepare_process

    prepare_process()

import numpy as np
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rates import best, describe, matrix_rate, synchronise
from bigbigan.config import Config, parse
from bigbigan.data import Crop, Images, Stream
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import advance_power_iteration, set_folded
from bigbigan.training.batch import Batch, Drawer
from bigbigan.training.ema import Averages
from bigbigan.training.optim import build_optimizers
from bigbigan.training.variants import build_step


class Iteration:
    """Hold a model with its optimisers and averages, and one batch of random images that every update sees again."""

    def __init__(
        self, config: Config, batch_size: int, device: torch.device, bf16: bool, ours: bool, compiled: str = ""
    ):
        torch.manual_seed(0)
        self.config = config
        o, layout = config.optim, torch.channels_last if ours else torch.contiguous_format
        self.model = BigBiGAN.from_config(config.model).to(device, memory_format=layout).train()
        set_folded(self.model, ours)
        optimizers = build_optimizers(self.model, o)
        autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=bf16)  # noqa: E731
        self.step = build_step(config, self.model, optimizers, autocast)
        if compiled:
            self.step.compile(compiled)
        self.averages = Averages(self.model.generator, self.model.encoder, o.ema_decay, o.ema_rampup)
        size, width = self.model.encoder.image_size, self.model.generator.latent_dim
        x = (torch.rand(batch_size, 3, size, size, device=device) * 2 - 1).contiguous(memory_format=layout)
        self.batch = Batch(
            x, torch.randn(batch_size, width, device=device), torch.randn(batch_size, width, device=device)
        )
        self.d_steps, self.seen = o.d_steps, 10**6

    def __call__(self) -> None:
        for _ in range(self.d_steps):
            self.step.discriminator_update(self.batch)
        self.step.encoder_generator_update(self.batch)
        self.averages.update(self.seen)

    def parts(self) -> dict:
        """Return the parts of an iteration, to be timed alone: forward and backward of each network, and the rest."""
        model, batch, autocast = self.model.requires_grad_(True), self.batch, self.step.autocast
        joined = torch.cat([model.for_discriminator(batch.x)] * 2), torch.cat([batch.z] * 2)

        def both(forward):
            def run():
                with autocast():
                    out = forward()
                out.float().sum().backward()

            return run

        stream, m = self.stream(), self.config.model
        draw = Drawer(0, m.prior, model.generator.latent_dim, m.classes, batch.x.device, self.step.draws())
        return {
            "G, forward and backward": both(lambda: model.generator(batch.z)),
            "E, forward and backward": both(lambda: model.encoder(batch.x).mean),
            "F, forward and backward": both(lambda: model.discriminator.f(joined[0])),
            "D = F, H, J, forward and backward": both(lambda: sum(model.discriminator(*joined).terms())),
            "spectral norm, D and G": lambda: [
                advance_power_iteration(n) for n in (model.discriminator, model.generator)
            ],
            "a batch: crops, flips, noise": lambda: draw(next(stream)),
            "averages": lambda: self.averages.update(self.seen, 1),
            "Adam, D": self.step.optimizers.discriminator.step,
            "Adam, E and G": self.step.optimizers.encoder_generator.step,
        }

    def stream(self):
        """Return a reader of batches of random images, of E's size, that are kept on the device."""
        size, rng = self.model.encoder.image_size, np.random.default_rng(0)
        pictures = [Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)) for _ in range(256)]
        images = Images(pictures, None, None, "random pictures", "")
        augment = Crop(self.config.data.augment, self.config.data.flip)
        return Stream(images, size, 0, augment, device=self.batch.x.device, cache="device").batches(
            0, sys.maxsize, len(self.batch)
        )


def measure(config: Config, batch_size: int, device: torch.device, o: argparse.Namespace) -> list[dict]:
    forms = {"plain float32": (False, False, ""), "ours float32": (False, True, "")}
    forms |= {"plain bf16": (True, False, ""), "ours bf16": (True, True, "")}
    forms |= {f"ours bf16, compile {mode}": (True, True, mode) for mode in o.compile}
    if unknown := set(o.forms) - set(forms):
        raise SystemExit(f"--forms: expected some of {', '.join(forms)}; found {', '.join(sorted(unknown))}")
    forms = {name: form for name, form in forms.items() if not o.forms or name in o.forms}
    dtype = torch.bfloat16 if any(bf16 for bf16, *_ in forms.values()) else torch.float32
    rate, rows = matrix_rate(device, dtype), []
    print(f"batch {batch_size}: matrix rate {rate / 1e9:,.0f} GFLOP/s in {str(dtype).removeprefix('torch.')}")
    flops = {ours: flops_per_element(config, min(batch_size, 64), device, ours) for ours in (False, True)}
    for name, (bf16, ours, compiled) in forms.items():
        try:
            iteration = Iteration(config, batch_size, device, bf16, ours, compiled)
            if o.threads:
                iteration.step.set_threads(o.threads)
            rows.append(measure_form(iteration, device, o.repeats))
        except torch.OutOfMemoryError:
            print(f"batch {batch_size:<6}{name:<32} does not fit")
            torch.cuda.empty_cache()
            continue
        row, flop = rows[-1], flops[False]
        row |= {
            "form": name,
            "gflops_per_cpu_s": flops[ours] * batch_size / row["best_cpu_s"] / 1e9,
            "batch": batch_size,
            "utilisation": flop * batch_size / row["best_s"] / rate,
            "gflop_per_element": flop / 1e9,
            "gflop_per_element_computed": flops[ours] / 1e9,
        }
        print(
            f"batch {batch_size:<6}{name:<32} best {row['best_s']:8.3f} s  median {row['median_s']:8.3f} s  "
            f"{batch_size / row['best_s']:9.1f} elements/s  utilisation {100 * row['utilisation']:5.1f} %  "
            f"{row['best_cpu_s']:8.3f} CPU s, {row['gflops_per_cpu_s']:.1f} GFLOP each  "
            f"peak {row['peak_gib']:6.1f} GiB  first {row['first_s']:6.1f} s",
            flush=True,
        )
    return rows


def flops_per_element(config: Config, batch_size: int, device: torch.device, ours: bool) -> float:
    """Return the FLOPs of an iteration for one of its elements, which are images of E. ours: folded resampling.

    What is done once a batch, such as folding the kernels, is divided among its elements.
    """
    with FlopCounterMode(display=False) as counter:
        Iteration(config, batch_size, device, False, ours)()
    return counter.get_total_flops() / batch_size


def measure_form(iteration: Iteration, device: torch.device, repeats: int) -> dict:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    times, cpu_times = [], []
    for _ in range(repeats + 2):
        start, cpu = time.perf_counter(), time.process_time()
        iteration()
        synchronise(device)
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu)
    first, _, *times = times  # the first two compile and choose algorithms
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {
        "best_s": min(times),
        "best_cpu_s": min(cpu_times[2:]),  # which other work on the machine disturbs least
        "median_s": statistics.median(times),
        "first_s": first,
        "n": repeats,
        "peak_gib": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument(
        "--compile", nargs="*", default=[], help="modes of torch.compile, such as default, reduce-overhead"
    )
    parser.add_argument(
        "--forms", nargs="+", default=[], help="those to time, such as 'ours float32'; all if not given"
    )
    parser.add_argument("--no_parts", action="store_true")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    o, rest = parser.parse_known_args()
    if o.threads < 0:
        parser.error(f"--threads: expected a number of CPU threads, or 0 for torch's, found {o.threads}")
    config, options = parse(rest)
    device = torch.device(o.device)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    print(f"{describe(device)}, torch {torch.__version__}; --config {options.config}")
    rows = [row for batch_size in o.batch_sizes for row in measure(config, batch_size, device, o)]
    parts = {}
    if not o.no_parts:
        iteration = Iteration(config, o.batch_sizes[0], device, True, True)
        iteration()
        parts = {name: best(run, device, 1.0) for name, run in iteration.parts().items()}
        for name, seconds in parts.items():
            print(f"  {name:<36}{1e3 * seconds:10.2f} ms")
    if o.out:
        o.out.write_text(json.dumps({"device": describe(device), "rows": rows, "parts_s": parts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
