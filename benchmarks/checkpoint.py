"""Measure what a checkpoint costs training, beside torch.save with fsync, and resuming beside torch.load.

    python benchmarks/checkpoint.py [--width 2800] [--repeats 5]

The networks are MLPs of about 25 M parameters, with averages and Adam's state. Everything is measured in turn. "copy"
is what training waits for; "write" is what the thread then does beside it. Prints medians in seconds with the range.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.rates import describe
from bigbigan.config import parse
from bigbigan.files import sha256
from bigbigan.model import BigBiGAN
from bigbigan.training import checkpoint
from bigbigan.training.ema import Averages
from bigbigan.training.optim import build_optimizers
from bigbigan.training.state import FILES, TrainingState


def make_state(width: int) -> tuple[TrainingState, object]:
    """Return a state with Adam's moments, as after one update, and its settings."""
    config, _ = parse(["--config", "bigan_digits", f"--model.mlp_width={width}"])
    model = BigBiGAN.from_config(config.model)
    optimizers = build_optimizers(model, config.optim)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    averages = Averages(model.generator, model.encoder, config.optim.ema_decay, config.optim.ema_rampup)
    return TrainingState(model, averages, optimizers.named()), config


def torch_save(tensors: dict, path: Path) -> None:
    with open(path, "wb") as file:
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=2800)
    parser.add_argument("--repeats", type=int, default=5)
    o = parser.parse_args()
    state, config = make_state(o.width)
    times: dict[str, list[float]] = {}

    def timed(name: str, call):
        started = time.perf_counter()
        result = call()
        times.setdefault(name, []).append(time.perf_counter() - started)
        return result

    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Path(folder) / "ours", Path(folder) / "peer.pt"
        for repeat in range(o.repeats):
            state.images_seen = repeat + 1
            taken = timed("copy: training waits", lambda: checkpoint.snapshot(state, config))
            path = timed("write: beside training", lambda taken=taken: checkpoint.write(ours, taken, 1))
            timed("torch.save and fsync", lambda taken=taken: torch_save(taken.tensors, peer))
            timed("resume", lambda: checkpoint.resume(ours, state, config))
            timed("of it the checksums", lambda path=path: [sha256(path / file) for file in FILES])
            timed("torch.load", lambda: torch.load(peer))
    size = sum(t.nbytes for tensors in taken.tensors.values() for t in tensors.values())
    count = sum(p.numel() for p in state.model.parameters())
    print(f"{describe(torch.device('cpu'))}, torch {torch.__version__}; {count / 1e6:.1f} M parameters, "
          f"{size / 1e6:.0f} MB of tensors, n = {o.repeats}")  # fmt: skip
    for name, found in times.items():
        print(f"{name:<24}{statistics.median(found):8.2f} s   ({min(found):.2f} … {max(found):.2f})")


if __name__ == "__main__":
    main()
