"""What a run prints before it begins: the numbers that follow from its settings, its data and its machine."""

import math
from typing import TYPE_CHECKING

import torch

import bigbigan
from bigbigan.config import Config
from bigbigan.data import Images
from bigbigan.data.describe import data_rows
from bigbigan.files import counted
from bigbigan.model import BigBiGAN
from bigbigan.training.ema import Averages
from bigbigan.training.precision import bf16_note, precision_name

if TYPE_CHECKING:
    from bigbigan.training.trainer import Trainer

WHITE, TWELVE_BITS = 65_535, 4_095  # the largest values of 16 bits and of 12
SPARSE = 1 / 4  # share of their range that images' values use, below which the start block warns


def block(title: str, rows: list[tuple[str, str]]) -> str:
    """Return an aligned block of text, a name and a value a line."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def start_block(trainer: "Trainer", threads: str = "") -> str:
    """Return what is trained, on what, from which weights, how far, and where it writes.

    threads: of the CPU, how many and why.
    """
    config, model, accelerator = trainer.config, trainer.model, trainer.accelerator
    m, d, o = config.model, config.data, config.optim
    images, processes = config.batches * d.batch_size, accelerator.num_processes
    e_size = "" if model.encoder is None else f", E {model.encoder.image_size} px"
    total, per_chunk = config.run.images, d.batch_size // processes // d.chunks
    parts = f"{counted(processes, 'process', 'es')} × {counted(d.chunks, 'chunk')} × {per_chunk} images"
    epochs = total / len(trainer.train_images)
    rows = [
        *data_rows(trainer.train_images, trainer.test_images),
        *([("choices", choices_line(trainer))] if config.run.evaluate_every else []),
        *values_rows(trainer.train_images),
        ("networks", networks_line(model)),
        ("sizes", f"G and D {m.image_size} px{e_size}; z {model.generator.latent_dim} ({m.prior} prior)"),
        ("weights", weights_line(trainer)),
        ("batch", f"{d.batch_size} = {parts}"),
        ("device", device_line(trainer)),
        *([("threads", threads)] if threads else []),
        (
            "iteration",
            f"{counted(o.d_steps, 'D update')} and one of E+G{' at once' * o.simultaneous} on {images:,} images",
        ),
        ("rates", f"D {o.discriminator_lr:g}, G {o.generator_lr:g}, E {o.encoder_lr:g}"),
        ("averages", averages_line(trainer.averages)),
        ("length", f"{total:,} images = {counted(-(-total // images), 'iteration')} = {epochs:,.1f} epochs"),
        ("writes", str(trainer.folder)),
    ]
    if config.grow.first_size:
        rows.insert([name for name, _ in rows].index("weights"), ("growing", growing_line(config)))
    return block(f"bigbigan {bigbigan.__version__}: {config.run.name} (--config {trainer.preset})", rows)


def values_rows(images: Images) -> list[tuple[str, str]]:
    """Return rows that warn of files of several pages, and of values that use little of their range or go beyond it."""
    used = images.values_used()
    if used is None:
        return []
    low, high = used
    pages = images.with_pages()
    rows = (
        [("pages", f"{pages} of the files looked at have several pages or frames; the first is read")] if pages else []
    )
    if high - low < SPARSE:
        found = f"only from {low:.2%} (black) to {high:.2%} (white) of their range are used: nearly one grey"
        rows.append(("values", f"{found}{_range_to_give(images, low, high)}"))
    elif low < 0 or high > 1:
        found = f"from {low:.0%} to {high:.0%} of --data.value_range"
        rows.append(("values", f"{found}; what lies beyond 0 and 100 % is cut"))
    return rows


def _range_to_give(images: Images, low: float, high: float) -> str:
    """Return what to do about images of which a small part of the range, low to high, is used; "" for 8 bits."""
    if not images.deep():
        return ""
    black, white = images.value_range or (0, WHITE)
    first, last = (black + part * (white - black) for part in (low, high))
    if first >= 0 and last <= TWELVE_BITS:
        return f"; of 12 bits stored in 16: --data.value_range 0 {TWELVE_BITS}"
    return (
        f"; say which values are black and white: some images have values from {first:,.0f} to {last:,.0f}, so "
        f"--data.value_range {first:.0f} {last:.0f}, or further apart"
    )


def choices_line(trainer: "Trainer") -> str:
    """Return which images the evaluations during the run look at."""
    best = trainer.config.run.best
    return f"evaluations{f' and --run.best {best}' * bool(best)} look at {trainer.held_out_name}"


def averages_line(averages: Averages) -> str:
    """Return the decay of the averages of E and G, or what they follow in a run of an older version."""
    if averages.half_life_images:
        return (
            f"half-life {averages.half_life_images:,g} images of all updates, as the older version that began this run "
            "counted; --optim.ema_decay has no effect"
        )
    updates = f", a half-life of {math.log(0.5) / math.log(averages.decay):,.0f} updates" if averages.decay else ""
    return f"decay {averages.decay:g} per E+G update{updates}"


def networks_line(model: BigBiGAN) -> str:
    """Return the parameter counts of the networks."""
    d = model.discriminator
    named = [("G", model.generator), ("E", model.encoder), ("F", d.f)]
    text = ", ".join(f"{name} {count(net):,}" for name, net in named if net is not None)
    return text + (f", H and J {count(d.h) + count(d.j):,} parameters" if hasattr(d, "h") else " parameters")


def weights_line(trainer: "Trainer") -> str:
    """Return where the weights come from."""
    if trainer.saved:
        return f"resumed from {trainer.saved} at {trainer.clock.seen:,} images"
    source = trainer.config.model.init_from
    return f"from {source}, with its architecture" if source else f"random, seed {trainer.config.run.seed}"


def device_line(trainer: "Trainer") -> str:
    """Return the device, the precision, whether images are kept there, and what a resumed run computed on before."""
    precision = trainer.accelerator.mixed_precision
    note = bf16_note(trainer.device, precision)
    kept = ", images kept on it" if trainer.stream.cached is not None else ""
    before, now = trainer.state.device, trainer.state.device_now
    if before and before != now:
        note += f"; until here the run computed on {before}, so it no longer equals an uninterrupted one"
    return f"{trainer.device}, {precision_name(precision)}{kept}{note}"


def growing_line(config: Config) -> str:
    """Return the schedule of a network that grows."""
    g = config.grow
    at = f", batches {', '.join(map(str, g.batch_sizes))}" if g.batch_sizes else ""
    each = f"{g.hold_images:,} images at a resolution, {g.fade_images:,} to fade in the next"
    return f"from {g.first_size} px; {each}{at}"


@torch.no_grad()
def shapes_block(model: BigBiGAN, device: torch.device) -> str:
    """Return the shapes of one forward of every part."""
    size, classes = (model.encoder or model.generator).image_size, model.generator.classes
    x, z = torch.zeros(2, 3, size, size, device=device), torch.zeros(2, model.generator.latent_dim, device=device)
    labels = torch.zeros(2, dtype=torch.long, device=device) if classes else None
    model = model.eval()
    features = {} if model.encoder is None else model.encode(x)
    scores = model.discriminate(x, features.get("z_sample"), labels)
    found = {"x": x, "z": z, **features, "G(z)": model.generate(z, labels), **scores}
    return block("one forward", [(name, str(tuple(tensor.shape))) for name, tensor in found.items()])


def count(network: torch.nn.Module) -> int:
    """Return the number of parameters."""
    return sum(p.numel() for p in network.parameters())
