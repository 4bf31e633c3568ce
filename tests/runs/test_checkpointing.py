"""A run with --model.checkpointing: the same weights, and it may be turned on for a run that has begun."""

import pytest
from safetensors.torch import load_file

from bigbigan.release.load import load_model
from tests.conftest import train


@pytest.mark.run
def test_a_run_that_turns_it_on_half_way_ends_at_the_same_weights(tmp_path):
    train(tmp_path, "--run.name=plain", "--run.probe=False", "--run.images=96")
    train(tmp_path, "--run.name=again", "--run.probe=False", "--run.images=48")
    train(tmp_path, "--run.name=again", "--run.probe=False", "--run.images=96", "--model.checkpointing=True")
    plain, again = (load_file(tmp_path / name / "release" / "model.safetensors") for name in ("plain", "again"))
    assert plain.keys() == again.keys() and all((plain[key] == again[key]).all() for key in plain)
    assert load_model(tmp_path / "again").config.checkpointing

    flags = ["--run.name=tuned", "--run.probe=False", "--run.images=48", f"--model.init_from={tmp_path / 'plain'}"]
    train(tmp_path, *flags, "--model.checkpointing=True")
    assert load_model(tmp_path / "tuned").config.checkpointing, "it is the run's, not that of the model it starts from"
