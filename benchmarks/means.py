"""Time every optimisation against its absence.

    python benchmarks/means.py [--config bigbigan/cifar10 --batch_size 16] [--only GROUP]

Each row times a small piece of work or a whole iteration with and without one optimisation, alternating, and prints the
ratio of the best times, without / with. Writes JSON with --out. docs/speed.md has what was expected and what came out.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":
    from bigbigan.config.command import prepare_process

    prepare_process()

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.iteration import Iteration
from benchmarks.rates import describe, synchronise
from bigbigan.config import Config, parse
from bigbigan.networks.layers import WindowConv2d, advance_power_iteration, set_folded
from bigbigan.networks.layers.blocks import SelfAttention


def iteration(config: Config, n: int, device: torch.device, **changes):
    """Return an iteration in our form, or with one thing changed: layout, folded, bf16 or chunks."""
    it = Iteration(config, n, device, changes.get("bf16", False), changes.get("channels_last", True))
    set_folded(it.model, changes.get("folded", True))
    it.step.chunks = changes.get("chunks", 1)
    return it


def networks(config: Config, n: int, device: torch.device) -> dict:
    """Return the optimisations that show in a whole iteration, each as (with, without)."""
    ours = iteration(config, n, device)
    return {
        "channels last": (ours, iteration(config, n, device, channels_last=False)),
        "folded resampling": (ours, iteration(config, n, device, folded=False)),
        "bf16 autocast": (iteration(config, n, device, bf16=True), ours),
        "one chunk rather than four": (ours, iteration(config, n, device, chunks=4)),
    }


def joined_forward(config: Config, n: int, device: torch.device) -> dict:
    """Return D on [encoder pairs, generator pairs] in one forward, and in two."""
    d = iteration(config, n, device).model.discriminator.requires_grad_(True)
    size, width = d.image_size, d.latent_dim
    x = torch.randn(2 * n, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    z = torch.randn(2 * n, width, device=device)

    def run(parts):
        loss = sum(sum(s.sum() for s in d(a, b).terms()) for a, b in zip(x.chunk(parts), z.chunk(parts), strict=True))
        loss.backward()
        d.zero_grad(set_to_none=True)

    return {"one joined D forward": (lambda: run(1), lambda: run(2))}


def windows(config: Config, n: int, device: torch.device) -> dict:
    """Return E forward and backward with WindowConv2d, and with torch's convolution in its place."""
    batch = (it := iteration(config, n, device)).batch
    ours = it.model.encoder.requires_grad_(True)
    whole = copy.deepcopy(ours)
    for layer in whole.modules():
        if isinstance(layer, WindowConv2d):
            layer.__class__ = nn.Conv2d

    def run(encoder):
        encoder(batch.x).mean.mean().backward()
        encoder.zero_grad(set_to_none=True)

    return {"windows of E's kernels": (lambda: run(ours), lambda: run(whole))}


def power_iteration(config: Config, n: int, device: torch.device) -> dict:
    d = iteration(config, n, device).model.discriminator
    ways = [lambda batched=batched: advance_power_iteration(d, batched=batched) for batched in (True, False)]
    return {"batched power iteration": tuple(ways)}


def side_by_side(config: Config, n: int, device: torch.device) -> dict:
    """Return an iteration with the two kinds of pairs on a thread each, and two ways without, on a CPU alone."""
    if device.type != "cpu":
        return {}
    it = iteration(config, n, device)

    def apart(threads: int):
        it.step.set_threads(threads)
        it()

    def shared():
        it.step.set_threads(1)
        torch.set_num_threads(2)
        it()

    return {
        "pairs side by side, against one thread": (lambda: apart(2), lambda: apart(1)),
        "pairs side by side, against two that share operations": (lambda: apart(2), shared),
    }


def optimisers(config: Config, n: int, device: torch.device) -> dict:
    """Return Adam and the averages of G in several implementations; the gradients are given."""
    g = iteration(config, n, device).model.generator
    average = list(copy.deepcopy(g).parameters())
    weights = list(g.parameters())
    for p in weights:
        p.grad = torch.randn_like(p)
    ways = {name: torch.optim.Adam(weights, lr=1e-9, **{name: True}) for name in ("fused", "foreach")}
    plain = torch.optim.Adam(weights, lr=1e-9, foreach=False, fused=False)

    @torch.no_grad()
    def one_by_one():
        for a, p in zip(average, weights, strict=True):
            a.lerp_(p, 1e-4)

    @torch.no_grad()
    def together():
        torch._foreach_lerp_(average, weights, 1e-4)

    return {
        "fused Adam": (ways["fused"].step, plain.step),
        "foreach Adam": (ways["foreach"].step, plain.step),
        "foreach averages": (together, one_by_one),
    }


def attention(config: Config, n: int, device: torch.device) -> dict:
    """Return attention by scaled_dot_product_attention and by two products, forward and backward, at 64 × 64 places."""
    layer = SelfAttention(64).to(device)
    x = torch.randn(max(1, n // 8), 64, 64, 64, device=device, requires_grad=True)

    def written_out():
        query = layer.query(x).flatten(2)
        key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (layer.key, layer.value))
        mixed = value @ (query.mT @ key).softmax(2).mT
        (x + layer.gamma * layer.output(mixed.unflatten(2, x.shape[2:]))).sum().backward()

    return {"scaled-dot-product kernel": (lambda: layer(x).sum().backward(), written_out)}


GROUPS = (networks, side_by_side, joined_forward, windows, power_iteration, optimisers, attention)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    names = [group.__name__ for group in GROUPS]
    parser.add_argument("--only", nargs="*", default=names, choices=names, help="groups of means")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    o, rest = parser.parse_known_args()
    config, options = parse(rest or ["--config", "cifar10"])
    device, rows = torch.device(o.device), []
    print(f"{describe(device)}; --config {options.config}, batch {o.batch_size}; best of {o.repeats}, in turn")
    for group in GROUPS:
        for name, pair in (group(config, o.batch_size, device) if group.__name__ in o.only else {}).items():
            threads = torch.get_num_threads()
            seconds = measure(pair, device, o.repeats)
            torch.set_num_threads(threads)
            rows.append({"means": name, "with_s": seconds[0], "without_s": seconds[1], "gain": seconds[1] / seconds[0]})
            print(
                f"{name:<54} {1e3 * seconds[0]:10.2f} ms   without {1e3 * seconds[1]:10.2f} ms   "
                f"without / with {seconds[1] / seconds[0]:6.2f}",
                flush=True,
            )
    if o.out:
        o.out.write_text(
            json.dumps({"device": describe(device), "batch": o.batch_size, "n": o.repeats, "rows": rows}, indent=2)
            + "\n"
        )


def measure(pair, device: torch.device, repeats: int) -> list[float]:
    """Return the best time of each of two pieces of work, done in turn; short ones are repeated."""
    best, count = [float("inf")] * 2, [1, 1]
    for repeat in range(repeats + 1):
        for i, run in enumerate(pair):
            start = time.perf_counter()
            for _ in range(count[i]):
                run()
            synchronise(device)
            seconds = (time.perf_counter() - start) / count[i]
            if repeat == 0:
                count[i] = max(1, int(0.1 / seconds))
            else:
                best[i] = min(best[i], seconds)
    return best


if __name__ == "__main__":
    main()
