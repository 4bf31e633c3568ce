"""Random numbers as a function of (seed, purpose, place in the run): never of rank, worker, batch or device."""

import hashlib

import numpy as np
import torch
from torch import Tensor


def uniforms(seed: int, purpose: str, indices: np.ndarray, width: int) -> np.ndarray:
    """(len(indices), width) float64 in (0, 1): row k depends on (seed, purpose, indices[k]) alone.

    The rows are those of one Philox stream, which can be entered anywhere; so a sample's crop, flip and noise do not
    depend on the batch, the process or the worker that happens to draw them. `indices`: integers ≥ 0.
    """
    indices = np.asarray(indices, dtype=np.int64)
    stride = -(-width // 4)  # Philox yields four 64-bit words a step
    key = int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:16], "little")
    rows = np.empty((len(indices), width))
    # Runs of equally spaced indices (a batch, or one process's share of it) are read in one go.
    for start, stop in _dense_spans(indices):
        first, last = int(indices[start]), int(indices[stop - 1])
        words = np.random.Philox(key=key).advance(first * stride).random_raw((last - first + 1) * stride * 4)
        words = words.reshape(-1, stride * 4)[indices[start:stop] - first, :width]
        rows[start:stop] = ((words >> np.uint64(11)) + 0.5) * 2.0**-53
    return rows


def _dense_spans(indices: np.ndarray, gap: int = 64):
    """Cut `indices` wherever they fall or leap, so that no span makes the generator run over many unused rows."""
    steps = np.diff(indices)
    cuts = np.flatnonzero((steps < 0) | (steps > gap)) + 1
    edges = [0, *cuts.tolist(), len(indices)]
    return [(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a]


def normal_noise(seed: int, purpose: str, indices: np.ndarray, width: int) -> Tensor:
    """(len(indices), width) float32 on the CPU, N(0, 1) by inversion; row k depends on (seed, purpose, indices[k])
    alone."""
    return torch.special.ndtri(torch.from_numpy(uniforms(seed, purpose, indices, width))).float()


def dropout_factors(seed: int, indices: np.ndarray, width: int, share: float) -> Tensor:
    """(len(indices), 2, width) float32 on the CPU: 0 with probability `share`, else 1/(1 − share); of a place's encoder
    pair and of its generator pair."""
    u = torch.from_numpy(uniforms(seed, "dropout", indices, 2 * width)).unflatten(1, (2, width))
    return (u >= share).float() / (1 - share)
