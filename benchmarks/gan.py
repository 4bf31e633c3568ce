"""Time a conditional BigGAN without E, H and J: one D update, one G update and the average of G, in several forms.

    python benchmarks/gan.py [--image_size 32 --width 64 --batch_size 16 --repeats 5] [--out FILE]

Forms, timed in turn: plain (the papers' resampling, contiguous tensors) and ours (folded resampling, channels last),
each in float32 and bf16. Prints seconds an iteration (best and median), FLOPs of the plain form by torch's counter, and
the share of the matrix rate measured in the same run, also as JSON.
"""

import argparse
import copy
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rates import alternate, describe, matrix_rate
from bigbigan.networks.discriminator import Discriminator
from bigbigan.networks.generator import Generator
from bigbigan.networks.layers import advance_power_iteration, set_folded

CLASSES = 10


class Gan:
    """Run one D update on [real, fake] in one forward, one G update and the average of G: hinge and Adam, as BigGAN."""

    def __init__(
        self, image_size: int, width: int, batch_size: int, ours: bool, dtype: torch.dtype, device: torch.device
    ):
        torch.manual_seed(0)
        layout = torch.channels_last if ours else torch.contiguous_format
        latents = 20 * (image_size.bit_length() - 2)
        self.g = Generator(latents, image_size, width, CLASSES, attention=0).to(device, memory_format=layout)
        self.d = Discriminator(0, image_size, width, CLASSES, attention=0, joint=False).to(device, memory_format=layout)
        for network in (self.g, self.d):
            set_folded(network, ours)
        self.average = copy.deepcopy(self.g)
        self.adams = [
            torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.999), fused=ours) for net in (self.g, self.d)
        ]
        self.x = torch.randn(batch_size, 3, image_size, image_size, device=device).contiguous(memory_format=layout)
        self.z = torch.randn(batch_size, latents, device=device)
        self.y = torch.arange(batch_size, device=device) % CLASSES
        self.autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)

    def iteration(self) -> None:
        advance_power_iteration(self.d)
        self.d.requires_grad_(True)
        with self.autocast():
            with torch.no_grad():
                fake = self.g(self.z, self.y)
            real, fake = (
                self.d(torch.cat([self.x, fake.to(self.x)]), None, torch.cat([self.y, self.y])).x.float().chunk(2)
            )
            loss = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        self._update(loss, self.adams[1])
        advance_power_iteration(self.g)
        self.d.requires_grad_(False)
        with self.autocast():
            loss = -self.d(self.g(self.z, self.y), None, self.y).x.float().mean()
        self._update(loss, self.adams[0])
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.g.parameters()), 1e-4)

    def _update(self, loss: torch.Tensor, adam: torch.optim.Adam) -> None:
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("image_size", 32), ("width", 64), ("batch_size", 16), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    device = torch.device(o.device)
    forms = {
        f"{form} {str(dtype).removeprefix('torch.')}": Gan(
            o.image_size, o.width, o.batch_size, form == "ours", dtype, device
        )
        for dtype in (torch.float32, torch.bfloat16)
        for form in ("plain", "ours")
    }
    with FlopCounterMode(display=False) as counter:
        forms["plain float32"].iteration()
    flop = counter.get_total_flops()
    rates = {str(dtype).removeprefix("torch."): matrix_rate(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
    seconds = alternate({name: gan.iteration for name, gan in forms.items()}, device, o.repeats)
    size = f"{o.image_size} px, width {o.width}, batch {o.batch_size}"
    print(f"{describe(device)}; {size}; {flop / 1e9:.1f} GFLOP an iteration (plain form)")
    print("matrix rate: " + ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in rates.items()))
    base, rows = min(seconds["plain float32"]), []
    for name, times in seconds.items():
        used = flop / min(times) / rates[name.split()[1]]
        rows.append({"form": name, "best_s": min(times), "median_s": statistics.median(times), "utilisation": used})
        print(
            f"{name:<16} best {min(times):7.3f} s  median {statistics.median(times):7.3f} s  "
            f"of plain float32 {min(times) / base:5.2f}  utilisation {100 * used:5.1f} %"
        )
    if o.out:
        o.out.write_text(
            json.dumps({"gflop": flop / 1e9, "rates": rates, "n": o.repeats, "rows": rows}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
