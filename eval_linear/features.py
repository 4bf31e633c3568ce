"""Compute features of a data set by a frozen encoder, cached under a key of weights, data and transform."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigbigan.data import Crop, Images, Stream, evaluation_batches, fingerprint, to_signed
from bigbigan.data.ahead import decoding_processes
from bigbigan.errors import FeatureError
from bigbigan.metrics.cache import TRANSFORM, digest, entry, get_or_make, store
from bigbigan.networks.encoder import Encoder
from bigbigan.training.ema import standing_statistics

FEATURES = {"avepool_feat": "AvePool", "bn_crelu_feat": "BN+CReLU", "z_mean": "z_mean"}


def label(feature: str) -> str:
    """Return what a feature is called in the tables."""
    return FEATURES.get(feature, f"layer {feature}")


def check_names(encoder: Encoder, features: tuple[str, ...]) -> None:
    """Raise FeatureError unless each name is one of `FEATURES` or a layer of E."""
    layers = dict(encoder.named_modules())
    for name in features:
        if name not in FEATURES and (not name or name not in layers):
            blocks = [layer for layer in layers if layer.startswith("trunk.") and layer.count(".") <= 2]
            raise FeatureError(
                f"--features {name}: expected some of {', '.join(FEATURES)}, "
                f"or a layer of E such as {', '.join(blocks[:8])}"
            )


@contextmanager
def recorded(encoder: Encoder, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of the named layers at every forward of E in this context.

    Yields a dictionary that holds them by name, averaged over places, (N, C).
    """
    outputs: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            outputs[name] = output.flatten(2).mean(2) if output.ndim > 2 else output

        return hook

    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(encoder.get_submodule(name).register_forward_hook(keep(name)))
        yield outputs


@torch.no_grad()
def features_of(encoder: Encoder, x: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Return {name: float32 (N, C)} of images x (N, 3, S, S) in [−1, 1]."""
    with recorded(encoder, tuple(n for n in names if n not in FEATURES)) as outputs:
        avepool = encoder.avepool(x)
        wanted = {
            "avepool_feat": lambda: avepool,
            "bn_crelu_feat": lambda: encoder.bn_crelu(avepool),
            "z_mean": lambda: encoder.head(avepool).mean,
        }
        outputs |= {name: wanted[name]() for name in names if name in wanted}
        return {name: outputs[name].float() for name in names}


def extract(
    encoder: Encoder,
    images: Images,
    batch_size: int,
    cache: Path | None = None,
    names: tuple[str, ...] = tuple(FEATURES),
) -> tuple[dict[str, Tensor], np.ndarray]:
    """Return the features of the centre squares, {name: float32 (n, C)}, and the indices (n,) of the images read.

    cache: a folder for the results; a file there is used only if weights, data, transform and names are the same.
    Raises FeatureError if a feature is not finite.
    """
    pixels = [fingerprint(images), TRANSFORM, str(images.value_range), str(encoder.image_size)]
    key = [digest(encoder.state_dict()), *pixels, *sorted(names)]

    def read(path: Path) -> tuple[dict[str, Tensor], np.ndarray]:
        stored = load_file(path)
        return {name: stored[name] for name in names}, stored["indices"].numpy()

    def write(path: Path, made: tuple[dict[str, Tensor], np.ndarray]) -> None:
        store(path, lambda beside: save_file(made[0] | {"indices": torch.from_numpy(made[1])}, beside))

    return get_or_make(
        entry(cache, "features", "/".join(key)), read, lambda: _extract(encoder, images, batch_size, names), write
    )


def _extract(
    encoder: Encoder, images: Images, batch_size: int, names: tuple[str, ...]
) -> tuple[dict[str, Tensor], np.ndarray]:
    device = next(encoder.parameters()).device
    collected: dict[str, list[Tensor]] = {name: [] for name in names}
    kept = []
    for pixels, indices in evaluation_batches(images, encoder.image_size, batch_size):
        x = to_signed(pixels).to(device).contiguous(memory_format=torch.channels_last)  # a third less time on a CPU
        for name, values in features_of(encoder, x, names).items():
            collected[name].append(values.cpu())
        kept.append(indices)
    if not kept:
        raise FeatureError(f"{images.origin}: expected images that can be read, found none among {len(images)}")
    features = {name: torch.cat(parts).contiguous() for name, parts in collected.items()}
    for name, values in features.items():
        if not bool(values.isfinite().all()):
            rows = int((~values.isfinite().all(1)).sum())
            raise FeatureError(
                f"{label(name)}: expected finite features, found NaN or infinity in {rows} of {len(values)} images of "
                f"{images.origin}; the encoder's weights or statistics are broken, take an earlier checkpoint"
            )
    return features, np.concatenate(kept)


def augmented(
    encoder: Encoder,
    images: Images,
    names: tuple[str, ...],
    augment: str,
    seed: int,
    batch_size: int,
    *,
    step: int,
    flip: bool = True,
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield endless batches of features of randomly cut training images, a new cut each time an image comes by.

    augment: "tf_resnet" (the paper's), "resnet" or "light", see `bigbigan.config.Data`.  step: images through E at
    once.  flip: also mirror them at random, as E's training images were.
    Yields ({name: (batch_size, C)}, labels (batch_size,)) on E's device.
    """
    device = next(encoder.parameters()).device
    crop, workers = Crop(augment, flip), decoding_processes()
    stream = Stream(images, encoder.image_size, seed, crop, device=device, workers=workers)
    for batch in stream.batches(0, 2**62, batch_size):
        parts = [features_of(encoder, to_signed(part), names) for part in batch.x.split(step)]
        yield {name: torch.cat([part[name] for part in parts]) for name in names}, batch.labels.to(device)


def untrained(
    encoder_like: Encoder, build, seed: int, images: Images, batch_size: int, statistics_images: int
) -> Encoder:
    """Return the same architecture at random initialisation, its batch norms with statistics of training images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = build()
    device = next(encoder_like.parameters()).device
    encoder = encoder.to(device).requires_grad_(False)
    some = np.random.default_rng(0).permutation(len(images))[:statistics_images]  # of all classes, whatever the order
    estimate_statistics(encoder, images.subset(some), batch_size)
    return encoder.eval()


@torch.no_grad()
def estimate_statistics(encoder: Encoder, images: Images, batch_size: int) -> None:
    """Give E's batch norms the statistics of these images."""
    device = next(encoder.parameters()).device
    with standing_statistics(encoder):
        for pixels, _ in evaluation_batches(images, encoder.image_size, batch_size):
            if len(pixels) > 1:
                encoder.bn_crelu(encoder.avepool(to_signed(pixels).to(device)))


def raw_pixels(images: Images, size: int, batch_size: int) -> tuple[Tensor, np.ndarray]:
    """Return the pixels of the centre squares as features (n, 3·size²), and the indices of the images read."""
    parts = [
        (to_signed(pixels).flatten(1), indices) for pixels, indices in evaluation_batches(images, size, batch_size)
    ]
    return torch.cat([p for p, _ in parts]), np.concatenate([i for _, i in parts])
