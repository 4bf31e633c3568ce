"""Count the memory that a RevNet keeps for its backward pass, beside a twin that keeps all activations.

    python benchmarks/revnet_memory.py [--out FILE.svg]

Everything is counted on the meta device, which needs no memory: the tensors that autograd saves, each storage once,
without parameters; and the peak of all living tensors, without the gradients of weights, through a forward and a
backward of one image. Prints a table and draws the peak against the depth.
"""

import argparse
import sys
import time
from pathlib import Path
from unittest import mock

import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.rates import describe
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.revnet import RevNet

SIZE = 256
BLOCKS = (3, 4, 6, 3)


def saved_bytes(run, network: nn.Module) -> int:
    """Return the bytes that the graph of `run()` keeps, without the parameters and buffers of `network`."""
    own = {t.untyped_storage()._cdata for t in (*network.parameters(), *network.buffers())}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # holding it keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()
    del result
    return sum(storage.nbytes() for storage in kept.values())


BACKWARDS = (torch.ops.aten.convolution_backward.default, torch.ops.aten.native_batch_norm_backward.default)


class Peak(TorchDispatchMode):
    """Count in this context `bytes`, the largest sum of storages created in it and alive at one time.

    Gradients of weights, the later outputs of `BACKWARDS`, are not counted.
    """

    def __init__(self):
        super().__init__()
        self.bytes, self.alive = 0, {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage()._cdata for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)}
        out = function(*args, **(kwargs or {}))
        self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
        for tensor in tree_flatten(out[0] if function in BACKWARDS else out)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata in self.alive or storage._cdata not in given:
                    self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return out


def trunk(width: float, blocks: tuple[int, ...], reversible: bool) -> RevNet:
    with torch.device("meta"):
        return RevNet(width, blocks, reversible)


def stages_saved(network: RevNet, size: int = SIZE) -> int:
    """Return the bytes saved by the four stages, the last batch norm and the pooling, for one image."""
    x = torch.empty(1, network.stem.conv.out_channels, size // 4, size // 4, device="meta", requires_grad=True)
    with mock.patch.object(network, "stem", nn.Identity()):
        return saved_bytes(lambda: network(x), network)


def encoder_saved(width: float, reversible: bool, size: int = SIZE) -> int:
    with torch.device("meta"):
        encoder = Encoder(120, "revnet50", size, width)
    for stage in encoder.trunk.stages:
        stage.reversible = reversible
    x = torch.empty(1, 3, size, size, device="meta")
    return saved_bytes(lambda: encoder.head(encoder.avepool(x)), encoder)


def peak(network: nn.Module, size: int = SIZE) -> int:
    """Return the peak of bytes through a forward and a backward of one image."""
    x = torch.empty(1, 3, size, size, device="meta")
    with Peak() as found:
        network(x).sum().backward()
    return found.bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="an SVG of the peak against the depth, at width 1")
    parser.add_argument(
        "--time", type=int, default=0, metavar="N", help="only time N forwards and backwards of each, on this machine"
    )
    arguments = parser.parse_args()
    if arguments.time:
        return print_times(arguments.time)
    mib = 2**20
    print(f"MiB for one image of {SIZE} px in float32, one forward; reversible, twin, ratio")
    for width in (1, 2, 4):
        for what, measure in (
            ("stages", lambda r, w=width: stages_saved(trunk(w, BLOCKS, r))),
            ("whole encoder", lambda r, w=width: encoder_saved(w, r)),
        ):
            a, b = measure(True), measure(False)
            print(f"×{width}  {what:<14} {a / mib:8.1f} {b / mib:8.1f}  {a / b:.3f}")
    print("\npeak of a forward and a backward, width 1, blocks 3 4 6 3 times the factor")
    rows = []
    for factor in (1, 2, 3, 4, 6, 8):
        blocks = tuple(factor * n for n in BLOCKS)
        peaks = [peak(trunk(1, blocks, r)) / mib for r in (True, False)]
        rows.append((sum(blocks), *peaks))
        print(f"{sum(blocks):4d} blocks {peaks[0]:8.1f} {peaks[1]:8.1f}")
    if arguments.out:
        arguments.out.write_text(drawing(rows))


def print_times(n: int, width: float = 0.5, size: int = 128, batch: int = 8) -> None:
    """Time n forwards and backwards, reversible and twin in turn, and print the shortest of each."""
    networks = [RevNet(width, BLOCKS, reversible) for reversible in (True, False)]
    x = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    times = [[], []]
    for i in range(n + 1):
        for network, found in zip(networks, times, strict=True):
            start = time.perf_counter()
            network(x).square().sum().backward()
            found += [time.perf_counter() - start] if i else []  # the first warms up
    a, b = map(min, times)
    where = f"{describe(torch.device('cpu'))}, {batch} images of {size} px, width {width}, best of {n}"
    print(f"{where}: reversible {a:.3f} s, twin {b:.3f} s, ratio {a / b:.2f}")


def drawing(rows: list[tuple[int, float, float]]) -> str:
    """Draw rows of (blocks, reversible, twin) as an SVG with two lines."""
    width, height, left, bottom = 560, 320, 60, 40
    most_x, most_y = max(r[0] for r in rows), max(r[2] for r in rows) * 1.05

    def at(blocks: float, value: float) -> str:
        return f"{left + blocks / most_x * (width - left - 90):.1f},{(height - bottom) * (1 - value / most_y) + 10:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height + 10}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height + 10}" fill="white"/>',
        f'<polyline points="{at(0, most_y)} {at(0, 0)} {at(most_x, 0)}" fill="none" stroke="#888"/>',
    ]
    for blocks, *_ in rows:
        x, y = at(blocks, 0).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 16:.1f}" text-anchor="middle">{blocks}</text>')
    step = 10 ** len(str(int(most_y / 5))) / 2
    for value in range(0, int(most_y), int(step)):
        x, y = at(0, value).split(",")
        parts.append(f'<text x="{float(x) - 6:.1f}" y="{float(y) + 4:.1f}" text-anchor="end">{value}</text>')
    for column, name, colour in ((1, "reversible", "#0a6"), (2, "twin", "#c33")):
        points = " ".join(at(r[0], r[column]) for r in rows)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = at(rows[-1][0], rows[-1][column]).split(",")
        parts.append(f'<text x="{float(x) + 6:.1f}" y="{float(y) + 4:.1f}" fill="{colour}">{name}</text>')
    caption = f"blocks in the trunk; peak in MiB, one image of {SIZE} px, width 1, float32"
    parts.append(f'<text x="{left}" y="{height + 4}">{caption}</text></svg>')
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
