"""torch.hub finds the encoder and the model in a clone, from any folder."""

import pytest
import torch

from bigbigan.release.format import write_release
from tests.conftest import ROOT, launch, tiny_model
from tests.uses.test_backbones import ABOUT, moved


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "release"
    write_release(folder, moved(tiny_model()), ABOUT)
    return folder


def test_encoder_and_model(release):
    options = {"source": "local", "checkpoint": release, "device": "cpu"}
    model = torch.hub.load(str(ROOT), "model", **options)
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    assert model.reconstruct(x).shape == (2, 3, 8, 8)
    for trainable in (False, True):
        encoder = torch.hub.load(str(ROOT), "encoder", **options, trainable=trainable)
        assert torch.equal(encoder(x), model.encoder.avepool(x))
        assert all(p.requires_grad == trainable for p in encoder.parameters())


@pytest.mark.run
def test_from_another_folder(release, tmp_path):
    code = (
        f"import torch; e = torch.hub.load({str(ROOT)!r}, 'encoder', source='local', checkpoint={str(release)!r}, "
        "device='cpu'); print(tuple(e(torch.zeros(1, 3, 8, 8)).shape))"
    )
    out, _ = launch("-c", code, cwd=tmp_path, env={"PYTHONPATH": ""})
    assert "(1, 64)" in out
