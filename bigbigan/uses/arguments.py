"""Check the images, latents, directions and labels that the functions of `bigbigan.uses` are given.

Each check returns what it was given as the model needs it, with its gradients, or raises InputError with one sentence.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigbigan.api import _class_labels, doubt_unit_range, weights_dtype
from bigbigan.data.arrays import SLACK, array_as_tensor
from bigbigan.errors import InputError
from bigbigan.model import BigBiGAN
from bigbigan.uses.command_line import device_of

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
CURE = "bigbigan.as_tensor(images, model) returns images so"


def images_of(model: BigBiGAN, x: Tensor, size: int | None = None, name: str = "x") -> Tensor:
    """Return images (N, 3, S, S) in the type of the model's weights and on their device.

    x: float (N, 3, S, S) in [−1, 1], N at least 1, as `bigbigan.as_tensor` returns images; values that are all in
    [0, 1] are warned of.  size: S that is expected; None for any.
    """
    return picture_values(x, size, name).to(device_of(model), weights_dtype(model))


def picture_values(x: Tensor, size: int | None = None, name: str = "x") -> Tensor:
    """Return x where it is float (N, 3, S, S) in [−1, 1] with N at least 1; arguments as in `images_of`."""
    edge = "S" if size is None else size
    expected = f"{name}: expected float (N, 3, {edge}, {edge}) in [−1, 1]"
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise InputError(f"{expected}, found {x.dtype if isinstance(x, Tensor) else type(x).__name__}; {CURE}")
    square = x.ndim == 4 and x.shape[1] == 3 and x.shape[2] == x.shape[3]
    if not square or 0 in x.shape or size not in (None, x.shape[3]):
        raise InputError(f"{expected}, found the shape {tuple(x.shape)}; {CURE}")
    return signed_values(x, name)


def signed_values(x: Any, name: str = "x") -> Any:
    """Return x after a look at its values if it is a tensor of floats: they must be in [−1, 1].

    Anything else, and its shape, is left to `bigbigan.encode`, whose advice on floats names an argument of its own.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return x
    low, high = (float(value) for value in torch.aminmax(x.detach()))
    if not (low >= -1 - SLACK and high <= 1 + SLACK):  # nor NaN
        found = "NaN or infinity" if not bool(x.isfinite().all()) else f"values from {low:.5g} to {high:.5g}"
        raise InputError(f"{name}: expected float images in [−1, 1], found {found}; {CURE}")
    doubt_unit_range(low, high)
    return x


def latents_of(model: BigBiGAN, z: Tensor | np.ndarray, name: str = "z") -> Tensor:
    """Return latents (N, Z), finite and N at least 1, in the type of the model's weights and on their device."""
    width = model.require("generator").latent_dim
    found = numbers(z, f"(N, {width})", name)
    if found.ndim != 2 or found.shape[1] != width or not len(found):
        raise InputError(f"{name}: expected the shape (N, {width}), found {tuple(found.shape)}")
    return found.to(device_of(model), weights_dtype(model))


def direction_of(model: BigBiGAN, direction: Tensor | np.ndarray) -> Tensor:
    """Return a direction (Z,), finite, in the type of the model's weights and on their device."""
    width = model.require("generator").latent_dim
    found = numbers(direction, f"({width},)", "direction")
    if found.shape != (width,):
        raise InputError(f"direction: expected the shape ({width},), found {tuple(found.shape)}")
    return found.to(device_of(model), weights_dtype(model))


def classes_of(model: BigBiGAN, classes: Tensor | np.ndarray | None, n: int) -> Tensor | None:
    """Return the classes of n images, int64 (n,) or weights (n, K), on the model's device; None without any.

    A model without classes ignores them, with a warning.
    """
    found = _class_labels(classes, model, n)
    return None if found is None else found.to(device_of(model))


def numbers(values: Tensor | np.ndarray, shape: str, name: str) -> Tensor:
    """Return an array or a tensor of finite real numbers as a tensor. shape: that the message says."""
    if not isinstance(values, (Tensor, np.ndarray)):
        raise InputError(f"{name}: expected a tensor or an array {shape}, found {type(values).__name__}")
    try:
        found = array_as_tensor(values)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    if found.dtype in UNSIGNED:  # with which torch does not compute
        found = found.long()
    if not bool(found.isfinite().all()):
        raise InputError(f"{name}: expected finite numbers, found NaN or infinity")
    return found


def labels_of(labels: Tensor | np.ndarray, n: int, name: str = "labels") -> Tensor:
    """Return labels (n,) as int64 on the CPU. labels: whole numbers, of any real type."""
    values = np.asarray(labels) if isinstance(labels, (list, tuple)) else labels
    found = numbers(values, f"({n},)", name).detach().cpu()
    if found.shape != (n,):
        raise InputError(f"{name}: expected the shape ({n},), a label for each, found {tuple(found.shape)}")
    whole = found.long()
    if bool((whole != found).any()):
        raise InputError(f"{name}: expected whole numbers, found {found[whole != found][0]:g}")
    return whole
