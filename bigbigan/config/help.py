"""The texts of --help and --list: what people change, and which presets there are. Nothing here imports torch."""

import re
import textwrap
from pathlib import Path
from typing import Any

from bigbigan.config.comparison import flatten
from bigbigan.config.presets import find_config, lineage, preset_list, presets
from bigbigan.config.schema import Config

WIDTH = 100

# The settings that people change, in the words of somebody who has just trained for the first time.
FREQUENT = {
    "data.path": "images: a folder, Parquet or Arrow files, a hub name, or digits (embedded)",
    "run.name": "folder of the run under runs/",
    "run.images": "real images to see in all updates together: how long the run is",
    "data.batch_size": "images of one update",
    "data.chunks": "parts of a batch computed one after the other: more of them need less memory",
    "model.image_size": "pixels of an edge: 8, 16, 32, 64, 128, 256, 512, or b·2^k with b = 3 … 7",
    "model.encoder": "E's backbone: resnetv2_18, _34, _50, _101, revnet50, or any timm model; none: a GAN",
    "model.init_from": "start from the weights of this run, release or hub id",
    "optim.encoder_lr": "learning rate of E (of G and D: optim.generator_lr, optim.discriminator_lr)",
    "run.seed": "decides initial weights, data order, crops and noise",
}
EXAMPLES = (
    ("bigbigan-train", "the default preset"),
    ("bigbigan-train --config own --data.path PHOTOS --run.name photos", "your own images"),
    ("bigbigan-train --config bigbigan/imagenet128 --data.path PHOTOS --dry-run", "what a run would cost"),
)
OPTIONS = (
    ("--config NAME or FILE", "a preset, or a YAML file of settings (default {default})"),
    ("--section.field VALUE", "any setting; --help-all lists them all with their reasons"),
    ("--dry-run", "build everything, print it with what the run would cost, and stop"),
    ("--processes N", "train with N processes on this machine, one for each GPU"),
    ("--list", "the presets with their bills, one a line"),
    ("--help-all", "all settings"),
)


def short_help(config: Config, name: str, default: str) -> str:
    """Return the text of --help: the frequent settings with their values in the preset `name`, presets, examples."""
    values = flatten(config)
    settings = [(f"--{key} {_shown(values[key])}", meaning) for key, meaning in FREQUENT.items()]
    options = [(option, meaning.format(default=default)) for option, meaning in OPTIONS]
    names = textwrap.fill(preset_list(), WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(
        [
            "Train a BigBiGAN. The same command again resumes an interrupted run.\n",
            "  bigbigan-train [--config NAME or FILE] [--section.field VALUE ...] [--dry-run]\n",
            *columns(options),
            f"\nSettings that people change, with their values in {name}:\n",
            *columns(settings),
            f"\nPresets:\n\n{names}\n\nExamples:\n",
            *columns(EXAMPLES),
        ]
    )


def columns(rows: Any, width: int = 38) -> list[str]:
    """Return (left, right) pairs as indented lines; what follows a long left side goes on the next line."""
    lines = []
    for left, right in rows:
        lines += [f"  {left:<{width}}{right}"] if len(left) < width else [f"  {left}", f"  {'':<{width}}{right}"]
    return lines


def _shown(value: object) -> str:
    return str(value) if value != "" else '""'


def preset_table() -> str:
    """Return the text of --list: each preset on one line, with the sizes of its images, what it is, and its bill."""
    rows = []
    for name in presets():
        path = find_config(name)
        found = header(path)
        hours = ", ".join(f"{device} {time}" for device, time in hours_by_device(found["computed"]).items())
        bill = f"{found['bill'].rstrip('.')}{f'; computed: {hours}' * bool(hours)}"
        rows.append((name, _sizes(path), found["what"].rstrip("."), bill))
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:2]]
    return "\n".join(
        f"{name:<{widths[0]}}  {size:<{widths[1]}}  {what}. Bill: {bill}" for name, size, what, bill in rows
    )


def header(path: Path) -> dict[str, str]:
    """Return what the comments at the head of a preset's file say, as sentences.

    what: the first one.  bill: the first of the bill, that of the file it stands on if it has none.  computed: the
    sentence that follows from its FLOPs (benchmarks/bills.py), "" if there is none.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    text = " ".join(line.removeprefix("#").strip() for line in lines[: _comments(lines)])
    before, _, computed = text.partition("Computed: ")
    bill = before.partition("Bill: ")[2]
    below = lineage(path)[1:] if not bill else []
    return {
        "what": _first_sentence(before),
        "bill": _first_sentence(bill) if bill or not below else header(below[0][0])["bill"],
        "computed": computed,
    }


def hours_by_device(computed: str) -> dict[str, str]:
    """Return {device: time} of the computed sentence of a bill."""
    return dict(re.findall(r"([A-Z][\w ]*) \(\d+\) [\d,]+ images/s, ([^;]+?)(?:;|\.$)", computed))


def _comments(lines: list[str]) -> int:
    return next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _first_sentence(text: str) -> str:
    """Return the text up to its first full stop before a capital letter, or to a command."""
    text = re.split(r"\s(?:bigbigan-train|python benchmarks/|with files of|with the extracted)", text, maxsplit=1)[0]
    return re.split(r"(?<=[^\d\s]\.)\s+(?=[A-Z])", text.strip(), maxsplit=1)[0]


def _sizes(path: Path) -> str:
    """Return the sizes of a preset's images in pixels, of E's too where it sees others."""
    model: dict = {}
    for _, content in reversed(lineage(path)):
        model |= content.get("model") or {}
    size = model.get("image_size", Config().model.image_size)
    of_encoder = model.get("encoder_image_size", 0)
    return f"E {of_encoder}, G {size} px" if of_encoder not in (0, size) else f"{size} px"
