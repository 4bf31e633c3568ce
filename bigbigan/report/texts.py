"""Write the texts of a run: what stands at its start and at its end."""

from pathlib import Path

import torch

import bigbigan
from bigbigan.config import Config
from bigbigan.data import Images
from bigbigan.model import BigBiGAN


def block(title: str, rows: list[tuple[str, str]]) -> str:
    """Return a title and rows of (name, value) as an aligned block of text."""
    width = max(len(name) for name, _ in rows)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows)])


def start_block(
    config: Config,
    preset: str,
    model: BigBiGAN,
    train: Images,
    test: Images,
    weights: str,
    device: str,
    processes: int,
    folder: Path,
) -> str:
    """Return the derived numbers of a run: what is trained, on what, from where, how far, and where it writes."""
    m, d, o = config.model, config.data, config.optim
    images = config.batches * d.batch_size
    e_size = "" if model.encoder is None else f", E {model.encoder.image_size} px"
    total, per_chunk = config.run.images, d.batch_size // processes // d.chunks
    split = f"{_many(processes, 'process', 'es')} × {_many(d.chunks, 'chunk')}"
    updates = f"{_many(o.d_steps, 'D update')} and one of E+G{' at once' * o.simultaneous}"
    rows = [
        ("data", train.summary()),
        ("test", f"{len(test):,} images"),
        ("networks", _networks(model)),
        ("sizes", f"G and D {m.image_size} px{e_size}; z {model.generator.latent_dim} ({m.prior} prior)"),
        ("weights", weights),
        ("batch", f"{d.batch_size} = {split} × {per_chunk} images"),
        ("device", device),
        ("iteration", f"{updates} on {images:,} images"),
        ("rates", f"D {o.discriminator_lr:g}, G {o.generator_lr:g}, E {o.encoder_lr:g}"),
        ("length", f"{total:,} images = {-(-total // images):,} iterations = {total / len(train):,.1f} epochs"),
        ("writes", str(folder)),
    ]  # fmt: skip
    if config.grow.first_size:
        rows.insert(4, ("growing", _growing(config)))
    return block(f"bigbigan {bigbigan.__version__}: {config.run.name} (--config {preset})", rows)


def _networks(model: BigBiGAN) -> str:
    d = model.discriminator
    named = [("G", model.generator), ("E", model.encoder), ("F", d.f)]
    text = ", ".join(f"{name} {count(net):,}" for name, net in named if net is not None)
    return text + (f", H and J {count(d.h) + count(d.j):,} parameters" if hasattr(d, "h") else " parameters")


def _growing(config: Config) -> str:
    g = config.grow
    at = f", batches {', '.join(map(str, g.batch_sizes))}" if g.batch_sizes else ""
    return (
        f"from {g.first_size} px; {g.hold_images:,} images at a resolution, {g.fade_images:,} to fade in the next{at}"
    )


@torch.no_grad()
def shapes_block(model: BigBiGAN, device: torch.device) -> str:
    """Run one forward of every part, and return the shapes as a block of text."""
    size, classes = (model.encoder or model.generator).image_size, model.generator.classes
    x, z = torch.zeros(2, 3, size, size, device=device), torch.zeros(2, model.generator.latent_dim, device=device)
    labels = torch.zeros(2, dtype=torch.long, device=device) if classes else None
    model = model.eval()
    features = {} if model.encoder is None else model.encode(x)
    found = {
        "x": x,
        "z": z,
        **features,
        "G(z)": model.generate(z, labels),
        **model.discriminate(x, features.get("z_sample"), labels),
    }
    return block("one forward", [(name, str(tuple(tensor.shape))) for name, tensor in found.items()])


def closing_block(folder: Path, images_seen: int, figures: str, page: Path) -> str:
    """Return which files to open, and what to do next."""
    newest = {kind: max((folder / kind).glob("*.png"), default="none") for kind in ("samples", "reconstructions")}
    return block(
        f"finished: {images_seen:,} images",
        [
            ("samples", str(newest["samples"])),
            ("reconstructions", f"{newest['reconstructions']} (input | reconstruction)"),
            ("page", f"{page}: curves, the film of the grids, figures; open it in a browser"),
            ("curves", str(folder / "stats.jsonl")),
            ("model", str(folder / "release")),
            ("figures", figures),
            ("all figures", f"python eval_linear/probe.py {folder}"),
            (
                "next",
                f'python -c "import bigbigan; '
                f"print(bigbigan.encode('IMAGES', model='{folder}', outputs='avepool_feat').shape)\"",
            ),
        ],
    )


def count(network: torch.nn.Module) -> int:
    """Return how many parameters a network has."""
    return sum(p.numel() for p in network.parameters())


def _many(n: int, noun: str, plural: str = "s") -> str:
    return f"{n} {noun}{plural if n != 1 else ''}"
