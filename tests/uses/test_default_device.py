"""The functions of the API compute what they compute elsewhere where `torch.set_default_device` was called."""

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.uses import anomalies, compression, directions, few_shot, interpolation, inversion, masks, retrieval
from tests.conftest import tiny_model

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
Z = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(4) % 2
V = Z[0] / Z[0].norm()
SHIFTS = torch.linspace(-1, 1, 3)
SEGMENTER = masks.SmallUNet(2).eval()
CODER = compression.Coder(np.zeros(8), np.ones(8))
CALLS = {
    "encode": lambda m: bigbigan.encode(X.numpy(), m, "z_sample"),
    "encode a list": lambda m: bigbigan.encode([X[0].numpy(), X[1]], m, "z_sample"),
    "generate": lambda m: bigbigan.generate(3, m, truncation=0.5),
    "generate latents": lambda m: bigbigan.generate(Z.numpy(), m),
    "reconstruct": lambda m: bigbigan.reconstruct(X, m),
    "discriminate": lambda m: bigbigan.discriminate(X, Z, m)["score_xz"],
    "grid": lambda m: np.array(bigbigan.grid(X)),
    "neighbours": lambda m: bigbigan.neighbours(Z, Z.numpy(), 2).indices,
    "backbone": lambda m: bigbigan.backbone(m)(X),
    "to_timm": lambda m: bigbigan.to_timm(m)(X),
    "anomaly_scores": lambda m: anomalies.anomaly_scores(m, X).total,
    "baselines": lambda m: anomalies.baselines(m, X, X)["distance to the mean image"],
    "interpolate": lambda m: interpolation.interpolate(m, X, X, 3),
    "invert": lambda m: inversion.invert(m, X, 2).z,
    "discover": lambda m: directions.discover(m, 2, 2, 4, test_pairs=10).directions.vectors,
    "sefa": lambda m: directions.sefa(m).vectors,
    "strongest": lambda m: directions.strongest(m).vectors,
    "from_labels": lambda m: directions.from_labels(Z, Y).vectors,
    "traverse": lambda m: directions.traverse(m, Z, V, SHIFTS),
    "classifier_of": lambda m: directions.classifier_of(m, X, Y)(X),
    "optimise_direction": lambda m: masks.optimise_direction(m, 2, 4),
    "train_segmenter": lambda m: masks.train_segmenter(m, V, 5.0, 1, 4)(X),
    "segment": lambda m: masks.segment(SEGMENTER, X),
    "otsu": lambda m: masks.otsu(X),
    "retrieve": lambda m: retrieval.retrieve(m, X, X, 2).indices,
    "measure": lambda m: retrieval.measure(Z, Y, Z, Y, 2).by_class,
    "untrained_features": lambda m: retrieval.untrained_features(m, X, (X,))[0],
    "variations": lambda m: few_shot.variations(m, X, 2),
    "tasks": lambda m: few_shot.tasks(m)[0],
    "draw_labelled": lambda m: few_shot.draw_labelled(Y, 1, 0),
    "compress": lambda m: compression.compress(m, X, CODER, 0.5).images,
    "principal_components": lambda m: compression.principal_components(X, X, (1.0,))[0].images,
    "files": lambda m: compression.files(X, "JPEG", (50,))[0].images,
}


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_changes_nothing(name, model):
    """On "meta", where a tensor without values is an error."""
    expected = CALLS[name](model)
    with torch.device("meta"):
        found = CALLS[name](model)
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=0, atol=0)


def test_models_are_loaded_with_their_values(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    expected = bigbigan.encode(X, tmp_path, "z_mean", device="cpu")
    bigbigan.api._cached.cache_clear()
    with torch.device("meta"):
        models = [bigbigan.load(tmp_path, "cpu"), bigbigan.BigBiGAN.from_pretrained(tmp_path).eval()]
        features = bigbigan.BigBiGANFeatures(tmp_path, "z_mean", device="cpu").fit(X)
        assert np.array_equal(features.transform(X), expected.numpy())
    for model in models:
        assert torch.equal(bigbigan.encode(X, model, "z_mean"), expected)
