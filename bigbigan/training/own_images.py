"""Choose the settings of a run on one's own images: the size, the networks, the batch and the length (preset own).

`choose` is the rule. It looks at how many images there are, how large they are, and on what device they are trained.
What the command line or a file sets stays. The chosen numbers are written to the run's config.yaml and its checkpoints,
so a run keeps them when images are added.
"""

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from accelerate import Accelerator

from bigbigan.config import Config, flatten
from bigbigan.config.command import say
from bigbigan.config.cross_checks import takes_resnet_settings
from bigbigan.data import Images, spread
from bigbigan.data.images import LOOKED_AT
from bigbigan.errors import DataError
from bigbigan.networks.layers.sizes import image_sizes
from bigbigan.training.checkpoint import saved_config
from bigbigan.training.launch import open_data
from bigbigan.training.start import block

MEASURED = 512  # images whose sizes are looked at
LARGE = 0.75  # the share of the images that are at least as large as the chosen size, so that few are enlarged
PASSES = 1_000  # over the images; ImageNet's run in the paper makes 2,400 over 1.28 million
FEWEST_SEEN = 60_000  # images: with fewer updates, networks learn nothing, however few images there are
SMOOTH = 2_000  # images below which 64 px are enough: fewer do not show what finer detail looks like
FEW = 50_000  # images below which D is kept from learning them by heart


@dataclass(frozen=True)
class Machine:
    """Hold what a kind of device can train within hours.

    size: largest image size in pixels.  width: of G and D, a multiple of 8 for self-attention.  encoder_width: factor
    of E's channels.  mlp: units of H and J; E's head has twice as many.  batch, images: largest batch, and most images
    to see.
    """

    size: int
    width: int
    encoder_width: float
    mlp: int
    batch: int
    images: int


CPU = Machine(size=32, width=16, encoder_width=0.25, mlp=128, batch=32, images=500_000)
GPU = Machine(size=128, width=32, encoder_width=1.0, mlp=512, batch=64, images=10_000_000)


@dataclass(frozen=True)
class Choice:
    """Hold settings that are chosen together, {"section.field": value}, and the reason."""

    about: str
    settings: dict[str, int | float | str | bool]
    reason: str


def choose(
    count: int, side: int, device: str, given: Mapping[str, object], parts: int = 1, *, grey: bool = False
) -> list[Choice]:
    """Return the settings for `count` training images, most of whose shorter sides have at least `side` pixels.

    device: "cpu", "cuda", ....  given: settings that are fixed, {"section.field": value}; the others follow them.
    parts: processes × chunks, of which the batch is a multiple.  grey: whether no image looked at has colour.
    """
    machine, kind = (CPU, "a CPU") if device == "cpu" else (GPU, f"one {device} device")
    size, size_reason = choose_size(count, side, machine, kind)
    size = int(given.get("model.image_size", size))
    attention = size // 2 if size >= 32 else 0
    batch = next((b for b, most in ((16, 200), (32, 1_000)) if count < most), machine.batch)
    batch = -(-min(batch, machine.batch) // parts) * parts
    length, length_reason = choose_length(count, machine, kind)
    length = int(given.get("run.images", length))
    colour = f"{'none' if grey else 'some'} of the {min(count, LOOKED_AT)} looked at have colour"
    found = [
        Choice("size", {"model.image_size": size}, size_reason),
        Choice("colour", {"model.grey": grey}, colour),
        Choice(
            "networks",
            {
                "model.generator_width": machine.width,
                "model.discriminator_width": machine.width,
                "model.generator_attention": attention,
                "model.discriminator_attention": attention,
                "model.encoder_width": machine.encoder_width,
                "model.mlp_width": machine.mlp,
                "model.encoder_mlp_width": 2 * machine.mlp,
            },
            f"what {kind} trains within hours",
        ),
        Choice("batch", {"data.batch_size": batch}, f"for {count:,} images"),
        choose_augmentation(count, length),
        Choice("length", {"run.images": length}, length_reason),
        Choice(
            "intervals",
            {"run.log_every": max(1_000, rounded(length / 200))}
            | {f"run.{name}_every": max(2_000, rounded(length / 25)) for name in ("sample", "checkpoint", "spectra")}
            | {"run.statistics_images": min(4_096, max(256, count))},
            "about 200 lines in the log, 25 grids and checkpoints",
        ),
    ]
    return [without(choice, given) for choice in found]


def without(choice: Choice, names: Collection[str]) -> Choice:
    """Return the choice without the settings of these names."""
    return replace(choice, settings={k: v for k, v in choice.settings.items() if k not in names})


def unsuited(config: Config) -> set[str]:
    """Return the settings that this run's networks or objective do not have, so that nothing is chosen for them."""
    m, found = config.model, set()
    if not takes_resnet_settings(m.encoder):
        found |= {"model.encoder_width"}
    if m.family == "progressive":
        found |= {"model.grey"}
    if config.loss.form in ("wgan_gp", "lsgan") or not (m.joint or m.encoder == "none"):
        found |= {"optim.augment", "optim.ada_images"}
    return found


def choose_size(count: int, side: int, machine: Machine, kind: str) -> tuple[int, str]:
    """Return the image size, and the reason: the largest that the images, their number and the machine allow."""
    limits = [(side, f"{LARGE:.0%} of the images have a shorter side of {side} px or more, and are not enlarged")]
    limits += [(machine.size, f"larger ones take days on {kind}")]
    if count < SMOOTH:
        limits += [(64, f"{count:,} images do not show finer detail well enough")]
    limit, reason = min(limits, key=lambda pair: pair[0])
    sizes = [size for size in image_sizes() if size <= limit]
    if not sizes:
        return image_sizes()[0], f"the smallest size of the networks; images of {side} px are enlarged"
    return sizes[-1], reason


def choose_length(count: int, machine: Machine, kind: str) -> tuple[int, str]:
    """Return how many images to see in all updates, and the reason."""
    wanted = PASSES * count
    if wanted > machine.images:
        return machine.images, f"{machine.images / count:,.0f} passes; more than these take days on {kind}"
    if wanted < FEWEST_SEEN:
        why = "with fewer it learns nothing, and so few images will be learnt by heart"
        return FEWEST_SEEN, f"{FEWEST_SEEN / count:,.0f} passes; {why}"
    return wanted, f"{PASSES:,} passes; with more, few images are learnt by heart"


def choose_augmentation(count: int, length: int) -> Choice:
    """Return the augmentation of what D sees: ADA for few images, whose strength follows how well D knows them."""
    if count >= FEW:
        return Choice("augment", {"optim.augment": "none"}, f"{count:,} images are not learnt by heart so soon")
    speed = min(500_000, max(10_000, rounded(length / 4)))
    reason = f"D soon knows {count:,} images by heart; ADA begins at 0 and rises only then"
    return Choice("augment", {"optim.augment": "ada", "optim.ada_images": speed}, reason)


def rounded(number: float) -> int:
    """Return a number of images with one significant digit, at least 1."""
    return max(1, int(float(f"{number:.0e}")))


CHOSEN = tuple(name for choice in choose(1_000, 64, "cpu", {}) for name in choice.settings)


def choose_settings(
    config: Config, given: Collection[str], checkpoints: Path, accelerator: Accelerator
) -> tuple[Images, Images] | None:
    """Set what preset own leaves open in the config, print it with its reasons, and return the opened images.

    Returns None without `run.choose_settings`, and for a run that resumes: it keeps the settings that it began with.
    given: names of the settings that the command line or a file sets.  Raises DataError or ConfigError.
    """
    if not config.run.choose_settings:
        return None
    fixed = set(given) | ({name for name in CHOSEN if name.startswith("model.")} if config.model.init_from else set())
    fixed &= set(CHOSEN)
    begun, images, processes = saved_config(checkpoints), None, accelerator.num_processes
    if begun is not None:
        found = [Choice("kept", {k: begun[k] for k in CHOSEN if k in begun and k not in fixed}, "as the run began")]
        title = "settings that this run chose when it began"
    else:
        images = open_data(config, given)
        count, side = len(images[0]), shorter_side(images[0])
        now = {name: value for name, value in flatten(config).items() if name in fixed}
        grey, parts = not images[0].coloured(), processes * config.data.chunks
        found = choose(count, side, accelerator.device.type, now, parts, grey=grey)
        found = [without(choice, unsuited(config)) for choice in found]
        title = f"settings chosen for {count:,} training images on {accelerator.device.type}; flags change them"
    for choice in found:
        for name, value in choice.settings.items():
            section, field = name.split(".")
            setattr(getattr(config, section), field, value)
    config.run.choose_settings = False  # these numbers are the settings now
    config.validate(processes)
    if accelerator.is_main_process:
        say(block(title, choice_rows(found, fixed)))
    return images


def choice_rows(found: list[Choice], fixed: Collection[str]) -> list[tuple[str, str]]:
    """Return rows of what was chosen and why, and of what was given."""
    rows = []
    for choice in found:
        flags = "  ".join(  # with \0 where no line ends
            f"--{name}\0{value:_}" if type(value) is int else f"--{name}\0{value}"
            for name, value in choice.settings.items()
        )
        lines = [line.replace("\0", " ") for line in textwrap.wrap(flags, 100)]
        if lines:
            rows += [(choice.about, choice.reason), *(("", line) for line in lines)]
    return rows + ([("given", ", ".join(f"--{name}" for name in CHOSEN if name in fixed))] if fixed else [])


def shorter_side(images: Images) -> int:
    """Return the shorter side in pixels that `LARGE` of the images reach, by at most `MEASURED` of them.

    Raises DataError if none of these can be opened.
    """
    sides = []
    for i in spread(len(images), MEASURED):
        try:
            sides.append(min(images[int(i)].size))
        except Exception:  # decoders raise many types; the stream names and counts what cannot be read
            continue
    if not sides:
        raise DataError(f"{images.origin}: expected images that can be read, found none of {len(images):,}")
    return int(np.quantile(sides, 1 - LARGE, method="lower"))
