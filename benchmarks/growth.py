"""Measure how an iteration's time grows: `python benchmarks/growth.py [--repeats 3] [--processes 1 2]`.

From a base of 32 px, width 16 and batch 8 one thing is changed at a time: the batch, the width, the side of the images
(without attention, and with attention at half the side), and the number of processes (gloo; the same batch for each).
Prints seconds, and the exponent between neighbours, log(time ratio)/log(size ratio), beside that of the FLOPs; for
processes, the efficiency. Writes JSON with --out.
"""

import argparse
import json
import math
import os
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.multiprocessing
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.iteration import Iteration
from benchmarks.rates import alternate, describe
from bigbigan.config import Config, Model

BASE = {"batch": 8, "width": 16, "side": 32, "attention": False}
SERIES = {
    "batch": [{"batch": n} for n in (4, 8, 16, 32)],
    "width": [{"width": w} for w in (8, 16, 32, 64)],
    "side": [{"side": s} for s in (32, 64, 128)],
    "side, with attention": [{"side": s, "attention": True} for s in (32, 64, 128)],
}


def build(batch: int, width: int, side: int, attention: bool, device: torch.device) -> Iteration:
    at = side // 2 if attention else 0
    model = Model(
        image_size=side, latent_dim=0, generator_width=width, discriminator_width=width, generator_attention=at,
        discriminator_attention=at, mlp_width=16 * width, encoder="resnetv2_18", encoder_width=width / 64,
        encoder_stem="stride1", encoder_mlp_width=16 * width,
    )  # fmt: skip
    return Iteration(Config(model=model), batch, device, bf16=device.type == "cuda", ours=True)


def series(name: str, device: torch.device, repeats: int) -> list[dict]:
    """Time all points of a series in turn, `repeats` rounds, so that a slow minute of the machine affects all alike."""
    points = [BASE | change for change in SERIES[name]]
    iterations = [build(**point, device=device) for point in points]
    flop = []
    for iteration in iterations:
        with FlopCounterMode(display=False) as counter:
            iteration()
        flop.append(counter.get_total_flops())
    times = [min(column) for column in alternate(dict(enumerate(iterations)), device, repeats).values()]
    key, rows = name.split(",")[0], []
    for i, point in enumerate(points):
        row = {"series": name, "value": point[key], "seconds": times[i], "gflop": flop[i] / 1e9}
        if i:
            by = math.log(point[key] / points[i - 1][key])
            row |= {
                "exponent": math.log(times[i] / times[i - 1]) / by,
                "flop_exponent": math.log(flop[i] / flop[i - 1]) / by,
            }
        rows.append(row)
        grown = f"   time ~ {key}^{row['exponent']:.2f}, FLOP ~ {key}^{row['flop_exponent']:.2f}" if i else ""
        print(f"{name:<22} {point[key]:>5}   {times[i]:8.3f} s   {flop[i] / 1e9:10.1f} GFLOP{grown}", flush=True)
    return rows


def one_of_many(rank: int, processes: int, port: int, repeats: int, batch: int, found) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.distributed.init_process_group("gloo", rank=rank, world_size=processes)
    iteration = build(**BASE | {"batch": batch}, device=torch.device("cpu"))
    (times,) = alternate({"": iteration}, torch.device("cpu"), repeats).values()
    if rank == 0:
        found.put(min(times))
    torch.distributed.destroy_process_group()


def many(processes: int, repeats: int, batch: int) -> float:
    """Return the seconds of an iteration of `processes` gloo processes with one thread and `batch` images each."""
    found = torch.multiprocessing.get_context("spawn").SimpleQueue()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    torch.multiprocessing.spawn(one_of_many, (processes, port, repeats, batch, found), nprocs=processes)
    return found.get()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--series", nargs="*", default=list(SERIES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path)
    o = parser.parse_args()
    device = torch.device(o.device)
    print(f"{describe(device)}; {'bf16' if device.type == 'cuda' else 'float32'}; best of {o.repeats}, in turn")
    rows = [row for name in o.series for row in series(name, device, o.repeats)]
    for batch in (8, 32) if o.processes else ():
        alone = None
        for processes in o.processes:
            best = many(processes, o.repeats, batch)
            alone = alone or best
            rows.append(
                {"series": "processes", "value": processes, "batch": batch, "seconds": best, "efficiency": alone / best}
            )
            what, efficiency = f"processes {processes}, one thread, {batch} images each", 100 * alone / best
            print(f"{what}   {best:8.3f} s   efficiency {efficiency:5.1f} %")
    if o.out:
        o.out.write_text(json.dumps({"device": describe(device), "n": o.repeats, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
