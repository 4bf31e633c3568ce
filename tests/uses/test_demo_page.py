"""The page of `bigbigan-demo` reads pictures as `bigbigan.encode` does."""

import numpy as np
import pytest
import torch
from PIL import Image

import bigbigan
from bigbigan.uses.demo_page import Player


def test_deep_pictures_have_the_range_of_the_training_images(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 1000, (8, 8)).astype(np.uint16)).save(tmp_path / f"{i}.png")
    model = bigbigan.load("digits", "cpu")
    model.card = model.card | {"data": {"path": "scans", "value_range": [0, 1000]}}
    player = Player(model, str(tmp_path))
    expected = bigbigan.as_tensor(tmp_path, model)
    assert torch.equal(player.gallery.pictures, expected) and float(expected.max()) > 0.9
    said = player.look_at(Image.open(tmp_path / "1.png"))[2]
    error = float((expected[1] - model.reconstruct(expected[1:2])[0]).abs().sum())
    assert float(said.split("score ")[1].split("**")[0]) == pytest.approx(error, abs=0.06)
