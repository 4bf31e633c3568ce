"""Draw random numbers that depend on (seed, purpose, place in the run), never on rank, worker, batch or device."""

import hashlib

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, purpose: str, indices: np.ndarray, width: int) -> np.ndarray:
    """Return uniform float64 numbers in (0, 1), (len(indices), width); row k depends on (seed, purpose, indices[k]).

    indices: places in the run, integers ≥ 0.
    Each (seed, purpose) is one Philox stream, which can be entered at any place. So a sample's crop, flip and noise do
    not depend on the batch, the process or the worker that draws them.
    """
    indices = np.asarray(indices, dtype=np.int64)
    stride = -(-width // 4)  # a step of Philox gives four 64-bit words
    key = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:16], "little")
    rows = np.empty((len(indices), width))
    # Equally spaced indices (a batch, or one process's share of it) are read in one call.
    for start, stop in _dense_spans(indices):
        first, last = int(indices[start]), int(indices[stop - 1])
        words = np.random.Philox(key=key).advance(first * stride).random_raw((last - first + 1) * stride * 4)
        words = words.reshape(-1, stride * 4)[indices[start:stop] - first, :width]
        # The largest word would be rounded up to 1.
        rows[start:stop] = np.minimum(((words >> np.uint64(11)) + 0.5) * 2.0**-53, 1 - 2.0**-53)
    return rows


def _dense_spans(indices: np.ndarray, gap: int = 64):
    """Cut `indices` where they fall or jump by more than `gap`, so that the generator skips few unused rows."""
    steps = np.diff(indices)
    cuts = np.flatnonzero((steps < 0) | (steps > gap)) + 1
    edges = [0, *cuts.tolist(), len(indices)]
    return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]


def normal_noise(seed: int, purpose: str, indices: np.ndarray, width: int) -> Tensor:
    """Return float32 numbers from N(0, 1) on the CPU, (len(indices), width), by inversion of `uniforms`."""
    return torch.special.ndtri(torch.from_numpy(uniforms(seed, purpose, indices, width))).float()


def dropout_factors(seed: int, indices: np.ndarray, width: int, share: float, purpose: str = "dropout") -> Tensor:
    """Return dropout masks on the CPU, float32 (len(indices), 2, width), of the values 0 and 1/(1 − share).

    share: the probability of 0.  purpose: see `uniforms`.  Axis 1 holds the mask of the place's encoder pair and that
    of its generator pair.
    """
    u = torch.from_numpy(uniforms(seed, purpose, indices, 2 * width)).unflatten(1, (2, width))
    return (u >= share).float() / (1 - share)
