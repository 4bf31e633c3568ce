"""Measure what it costs to check every loss, gradient and weight for values that are not finite.

    python benchmarks/health.py [--config digits] [--repeats 100] [--section.field VALUE ...]

On one model and one batch, iterations with and without the check alternate, so that a machine whose speed varies
favours neither. Prints the median of the differences between neighbours, as a share of the median iteration, with
quartiles, and the time of the check's own calls.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.iteration import Iteration
from benchmarks.rates import describe, synchronise
from bigbigan.config import parse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    o, rest = parser.parse_known_args()
    config, options = parse(rest)
    device = torch.device(o.device)
    if device.type == "cpu":
        torch.set_num_threads(config.run.threads or torch.get_num_threads())
    # On a CPU, processor time, which other programs do not affect.
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    iteration = Iteration(config, config.data.batch_size, device, device.type == "cuda", True)
    health = iteration.step.health
    judge_gradients, judge_weights = health.judge_gradients, health.judge_weights
    zero, calls = torch.zeros((), device=device), []

    def timed(call):
        def run(*arguments):
            start = clock()
            result = call(*arguments)
            calls[-1] += clock() - start
            return result

        return run

    def once(judged: bool) -> float:
        health.judge_gradients = timed(judge_gradients) if judged else lambda *_: zero
        health.judge_weights = timed(judge_weights) if judged else lambda: None
        calls.append(0.0)
        start = clock()
        iteration()
        if judged:
            assert timed(health.found)(False) == ""
        synchronise(device)
        return clock() - start

    times = []
    for repeat in range(o.repeats + 3):
        first = repeat % 2 == 0  # the order alternates, since being first may help
        pair = {first: once(first)} | {not first: once(not first)}
        if repeat > 2:
            times.append(pair)
    plain, differences = statistics.median(t[False] for t in times), sorted(t[True] - t[False] for t in times)
    own = statistics.median(c for c in calls if c)
    low, middle, high = statistics.quantiles(differences, n=4)
    where = f"{describe(device)}, torch {torch.__version__}"
    print(f"{where}; --config {options.config}, batch {config.data.batch_size}, n = {len(times)} pairs")
    print(f"iteration without  {1e3 * plain:9.3f} ms")
    spread = f"(quartiles {100 * low / plain:.2f} … {100 * high / plain:.2f} %)"
    print(f"difference         {1e3 * middle:9.3f} ms = {100 * middle / plain:6.2f} % {spread}")
    print(f"its own calls      {1e3 * own:9.3f} ms = {100 * own / plain:6.2f} %")


if __name__ == "__main__":
    main()
