"""Compute the bills at the heads of the presets: FLOPs on torch's meta device, hours by the peaks of three devices.

    python benchmarks/bills.py [NAME ...] [--write]

Prints the computed lines of each preset's bill; with --write they replace those in its file, or follow its bill.
Nothing is measured: the hours are those of a device that reaches `SHARE` of its bf16 peak. The smaller the networks,
the less of it they reach; for the smallest no hours are computed.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bigbigan.config import Config, find_config, presets, read_yaml
from bigbigan.training.bill import duration, flops
from bigbigan.training.outline import Outline

SHARE = 0.4  # of the peak that is reached
PEAKS = {"A100": 312e12, "H100": 989e12, "RTX 4090": 165e12}  # dense bf16 with float32 sums, FLOP/s, of the makers
LEAST = 1e12  # FLOPs of an iteration below which a GPU waits for its host, and its peak says nothing
COMPUTED = "Computed: "


def computed_lines(name: str) -> str:
    """Return the sentence of a preset's bill that follows from its FLOPs, as lines of comments."""
    outline = Outline(read_yaml(find_config(name), Config()))
    cost, whole = outline.cost(), outline.flops_to_the_end()
    size = " at full size" if outline.config.grow.first_size else ""
    text = f"{COMPUTED}{flops(cost.flops)} an iteration of {cost.images:,} images{size}, {flops(whole)} in all"
    if cost.flops >= LEAST:
        text += f"; a device at {SHARE:.0%} of its bf16 peak (in TFLOP/s), not measured: " + "; ".join(
            f"{device} ({peak / 1e12:.0f}) {rounded(SHARE * peak * outline.config.run.images / whole)} images/s, "
            f"{duration(whole / (SHARE * peak))}"
            for device, peak in PEAKS.items()
        )
    return textwrap.fill(text + ".", 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False) + "\n"


def rounded(rate: float) -> str:
    """Return a rate with two digits, the others 0."""
    return f"{float(f'{rate:.2g}'):,.0f}"


def with_lines(text: str, lines: str) -> str:
    """Return a preset's file with these computed lines in place of its own, or else at the end of its head."""
    old = re.search(rf"^# {COMPUTED}.*?\.\n", text, re.MULTILINE | re.DOTALL)
    if old:
        return text[: old.start()] + lines + text[old.end() :]
    head = re.match(r"(#.*\n)*", text).end()
    return text[:head] + lines + text[head:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=presets())
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        lines, path = computed_lines(name), find_config(name)
        print(f"{name}\n{lines}", end="", flush=True)
        if options.write:
            path.write_text(with_lines(path.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
