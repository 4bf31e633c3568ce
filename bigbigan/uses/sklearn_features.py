"""E's features as a transformer of scikit-learn, for pipelines and grid searches."""

import math
import os
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import validate_data
from torch import Tensor

from bigbigan.api import OUTPUTS, _ready, encode  # _ready keeps the model that a path names
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError, UnreadableImage
from bigbigan.files import printable
from bigbigan.model import BigBiGAN


class BigBiGANFeatures(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Transform images into features (N, C), float32, by a trained encoder; nothing is learned in `fit`.

    model: what `bigbigan.load` takes, or a `BigBiGAN`. A path is best: scikit-learn copies its parameters for every
        fit, and a model given by its path is loaded once.
    output: the feature, one of avepool_feat, bn_crelu_feat, z_mean, z_stdev, z_sample.
    image_shape: None: X is what `bigbigan.encode` takes, or an array or pandas column of paths. (H, W) or (H, W, C): X
        holds the pixels of an image in each row, (N, H·W·C), as scikit-learn's own image data do.
    batch_size, device, value_range, seed: as in `bigbigan.encode`.
    Raises InputError, a ValueError.
    """

    def __init__(
        self,
        model: BigBiGAN | str | os.PathLike[str] | None = None,
        output: str = "avepool_feat",
        *,
        image_shape: tuple[int, ...] | None = None,
        value_range: tuple[float, float] | float | None = None,
        batch_size: int = 64,
        device: torch.device | str | None = None,
        seed: int = 0,
    ):
        self.model = model
        self.output = output
        self.image_shape = image_shape
        self.value_range = value_range
        self.batch_size = batch_size
        self.device = device
        self.seed = seed

    def fit(self, X: Any, y: Any = None) -> "BigBiGANFeatures":
        """Check the parameters and the model; X is read only where its rows are pixels."""
        if self.image_shape is not None:
            self._rows(X, first=True)
        self._n_features_out = self._width()
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Return the features (N, C) of N images, float32."""
        images = _paths(X) if self.image_shape is None else self._rows(X, first=False)
        self._check_output()
        wanted = (
            "pass (N, H, W), (N, H, W, 3) or a list, or image_shape=(H, W) if each row holds the pixels of an image"
        )
        if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 2:
            raise InputError(f"X: expected one image for each of its {len(images)} entries, found rows; {wanted}")
        options: dict[str, Any] = {"seed": self.seed, "progress": False, "value_range": self.value_range}
        try:
            features = encode(images, self.model, self.output, self.batch_size, self.device, **options).numpy()
        except UnreadableImage as error:  # no row can be left out here
            raise UnreadableImage(error.name, error.reason) from None
        if isinstance(images, (np.ndarray, Tensor, list, tuple)) and len(images) != len(features):
            raise InputError(
                f"X: expected one image for each of its {len(images)} entries, found {len(features)} images; {wanted}"
            )
        return features

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []  # always float32
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = tags.input_tags.string = self.image_shape is None
        return tags

    def _check_output(self) -> None:
        if not isinstance(self.output, str) or self.output not in OUTPUTS:
            raise InputError(f"output: expected one of {', '.join(OUTPUTS)}; found {printable(repr(self.output))}")

    @default_on_cpu()
    def _width(self) -> int:
        """Return C, which the model says."""
        self._check_output()
        model, _ = _ready(self.model, self.device, ("encoder",))
        encoder = model.require("encoder")
        widths = {"avepool_feat": encoder.features, "bn_crelu_feat": 2 * encoder.features}
        return widths.get(self.output, encoder.latent_dim)

    def _rows(self, X: Any, first: bool) -> np.ndarray:
        """Return rows of pixels as images (N, H, W, C), C 1 if `image_shape` says none. Raises ValueError.

        first: remember the number of columns; else it must be that of `fit`.
        """
        rows = validate_data(self, X, reset=first)
        asked = self._shape(rows.shape[1])
        shape = tuple(asked) if isinstance(asked, (tuple, list)) else (asked,)
        if len(shape) not in (2, 3) or math.prod(shape) != rows.shape[1]:
            raise InputError(
                f"image_shape: expected (H, W) or (H, W, C) with as many pixels as X has columns, {rows.shape[1]}; "
                f"found {shape}"
            )
        return rows.reshape(-1, *shape, *[1] * (3 - len(shape)))

    def _shape(self, columns: int) -> tuple[int, ...]:
        """Return the shape of the image in a row of X."""
        return self.image_shape or ()


def _paths(X: Any) -> Any:
    """Return arrays of paths and pandas columns as lists; anything else as it is."""
    if hasattr(X, "iloc"):
        X = X.to_numpy()
    if isinstance(X, np.ndarray) and X.dtype.kind in "OUT" and X.ndim == (2 if X.shape[1:] == (1,) else 1):
        return X.ravel().tolist()
    return X
