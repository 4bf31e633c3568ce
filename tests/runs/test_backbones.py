"""A backbone of timm beside the networks of every family: it trains, releases, resumes."""

import pytest

from bigbigan.release.load import load_model
from tests.conftest import train

PRESETS = {
    "bigan_digits": ["--model.encoder_image_size=16"],
    "digits_progressive": ["--grow.first_size=0", "--model.image_size=16", "--model.feature_limit=8"],
}


@pytest.mark.run
@pytest.mark.parametrize("preset", PRESETS)
def test_a_timm_encoder_trains_beside_another_family(tmp_path, preset):
    width = ["--model.encoder=test_resnet", "--model.encoder_width=1"]  # the tiny run's, which it would refuse
    flags = [f"--config={preset}", *PRESETS[preset], *width, "--run.name=run", "--run.probe=False"]
    train(tmp_path, *flags, "--run.images=48")
    train(tmp_path, *flags, "--run.images=96")
    model = load_model(tmp_path / "run")
    assert type(model.encoder.trunk).__name__ == "ResNet" and model.card["images_seen"] == 96
