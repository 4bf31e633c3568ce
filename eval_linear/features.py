"""The frozen encoder → features of a data set, cached under a key of weights, data and transform."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.data import Images, evaluation_batches, fingerprint, to_signed
from bigbigan.ema import standing_statistics
from bigbigan.encoder import Encoder

TRANSFORM = "centre square, bicubic"
FEATURES = ("avepool_feat", "bn_crelu_feat", "z_mean")


def digest(network: torch.nn.Module) -> str:
    """SHA-256 of parameters and buffers, batch-norm statistics included."""
    found = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@torch.no_grad()
def extract(encoder: Encoder, images: Images, batch_size: int, cache: Path | None = None) -> tuple[dict[str, Tensor], np.ndarray]:
    """Features of the centre squares → ({name: float32 (n, C)}, indices of the images read, (n,)).

    cache: a folder for the results; a file there is used only if weights, data and transform are the same.
    """
    key = hashlib.sha256("/".join([digest(encoder), fingerprint(images), TRANSFORM, str(encoder.image_size)]).encode()).hexdigest()[
        :24
    ]
    path = None if cache is None else cache / f"features-{key}.safetensors"
    if path is not None and path.is_file():
        try:
            stored = load_file(path)
            return {name: stored[name] for name in FEATURES}, stored["indices"].numpy()
        except (SafetensorError, KeyError):
            path.unlink()  # cut short by a kill; extracted anew
    device = next(encoder.parameters()).device
    collected: dict[str, list[Tensor]] = {name: [] for name in FEATURES}
    kept = []
    for pixels, indices in evaluation_batches(images, encoder.image_size, batch_size):
        avepool = encoder.avepool(to_signed(pixels).to(device))
        found = {"avepool_feat": avepool, "bn_crelu_feat": encoder.bn_crelu(avepool), "z_mean": encoder.head(avepool).mean}
        for name in FEATURES:
            collected[name].append(found[name].float().cpu())
        kept.append(indices)
    features = {name: torch.cat(parts).contiguous() for name, parts in collected.items()}
    kept = np.concatenate(kept)
    if path is not None:
        cache.mkdir(parents=True, exist_ok=True)
        save_file(features | {"indices": torch.from_numpy(kept)}, path)
    return features, kept


def untrained(encoder_like: Encoder, build, seed: int, images: Images, batch_size: int, statistics_images: int) -> Encoder:
    """The same architecture at random initialisation, its batch norms given the statistics of training images."""
    torch.manual_seed(seed)
    encoder = build().to(next(encoder_like.parameters()).device).requires_grad_(False)
    device = next(encoder.parameters()).device
    with torch.no_grad(), standing_statistics(encoder):
        some = np.random.default_rng(0).permutation(len(images))[:statistics_images]  # of all classes, whatever the order
        for pixels, _ in evaluation_batches(images.subset(some), encoder.image_size, batch_size):
            if len(pixels) > 1:
                encoder.bn_crelu(encoder.avepool(to_signed(pixels).to(device)))
    return encoder.eval()


def raw_pixels(images: Images, size: int, batch_size: int) -> tuple[Tensor, np.ndarray]:
    """Pixels of the centre squares as features → (n, 3·size²), indices."""
    parts = [(to_signed(pixels).flatten(1), indices) for pixels, indices in evaluation_batches(images, size, batch_size)]
    return torch.cat([p for p, _ in parts]), np.concatenate([i for _, i in parts])
