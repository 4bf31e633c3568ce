"""The benchmark of BiGAN on MNIST counts what scikit-learn counts."""

import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.bigan_mnist import accuracy, reconstruction
from bigbigan import BigBiGAN
from bigbigan.config import Model


def test_accuracy_is_scikit_learns():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 12))
    labels, truth = rng.integers(0, 5, 700), rng.integers(0, 5, 1_500)
    x, y = (centres[c] + rng.normal(size=(len(c), 12)) for c in (labels, truth))
    peer = KNeighborsClassifier(1, algorithm="brute").fit(x, labels).score(y, truth)
    ours = accuracy(*(torch.as_tensor(a) for a in (x, labels, y, truth)))
    assert 50 < ours < 99 and abs(ours - 100 * peer) < 1e-9


def test_the_error_is_in_pixels_from_0_to_1():
    model = BigBiGAN.from_config(
        Model(family="mlp", encoder="mlp", image_size=8, grey=True, latent_dim=4, mlp_width=16)
    )
    x = torch.ones(40, 3, 8, 8)
    y = model.eval().generate(model.infer(x[:1]).mean)[0, 0]
    error, pairs = reconstruction(model, x)
    expected = float(((1 - y) / 2).square().sum().sqrt())
    assert abs(error - expected) < 1e-4 * expected and abs(pairs - error) < 1e-4 * error
