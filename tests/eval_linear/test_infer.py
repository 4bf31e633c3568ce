"""Posteriors of E come from `model.infer` with the classes, so that a conditional encoder needs no change here."""

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.data import open_images
from bigbigan.errors import InputError
from bigbigan.latents import Posterior
from bigbigan.metrics.bidirectional import round_trip, some_classes
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.model import BigBiGAN
from bigbigan.networks.encoder import Encoder
from eval_linear.pairs import bidirectional
from eval_linear.representations import Splits
from eval_linear.sheets import Sheets
from tests.conftest import tiny_model


class Told(BigBiGAN):
    """A model that notes the classes that `infer` is given, and that nothing else asks E for a posterior."""

    def infer(self, x, classes=None):
        assert classes is not None and len(classes) == len(x)
        self.told.append(classes.cpu())
        return self.encoder.head(self.encoder.avepool(x))


def told_model() -> Told:
    model = tiny_model(classes=10).eval()
    model.__class__, model.told = Told, []

    def refuse(*_):
        raise AssertionError("E is asked for a posterior without `model.infer`")

    model.encoder.forward = refuse
    return model


class Shifted(Encoder):
    """An encoder that sees classes, by the two methods that are given them: the mean moves by the class."""

    def head(self, avepool, classes=None):
        posterior = super().head(avepool)
        return posterior if classes is None else Posterior(posterior.mean + classes[:, None], posterior.stddev)


def test_a_conditional_encoder_changes_no_caller():
    """`head` alone is overridden; the verbs of the model and of the API reach it with the classes."""
    model = tiny_model(classes=10).eval()
    x, labels = torch.rand(6, 3, 8, 8) * 2 - 1, torch.arange(6)
    with torch.no_grad():
        noise, before = torch.zeros(6, 8), model.infer(x).mean
        model.encoder.__class__ = Shifted
        z = before + labels[:, None]
        assert torch.equal(model.infer(x, labels).mean, z) and torch.equal(model.infer(x).mean, before)
        found = model.encode(x, noise, labels)
        assert torch.equal(found["z_mean"], z) and torch.equal(found["z_sample"], z)
        y = model.generate(z, labels)
        assert torch.equal(model.reconstruct(x, classes=labels), y)
        assert torch.equal(model.reconstruct(x, use_sample=True, noise=noise, classes=labels), y)
    settings = {"model": model, "batch_size": 4, "classes": labels.numpy()}  # batches of 4 and 2
    torch.testing.assert_close(bigbigan.encode(x, outputs="z_mean", **settings), z)
    torch.testing.assert_close(bigbigan.reconstruct(x, **settings), y)
    with pytest.raises(InputError, match="classes: expected one for each image, found 5 and more images"):
        bigbigan.encode(x, model=model, classes=labels[:5])


def test_every_figure_and_sheet_gives_the_classes(tmp_path):
    model = told_model()
    train, test = (open_images("digits", test=test).subset(np.arange(24)) for test in (False, True))
    reconstruction_figures(model, train, test, neighbours=False)
    assert torch.equal(torch.cat(model.told), torch.from_numpy(test.labels))
    model.told.clear()
    bidirectional(model, Splits(train, test, "digits"), 8, Sheets(tmp_path))
    labels = torch.from_numpy(test.labels)
    given = torch.cat(model.told)
    assert torch.equal(given[:24], labels), "reconstructions"
    ends = labels[torch.linspace(0, 23, 16).long()]
    assert any(torch.equal(part, ends) for part in model.told), "interpolation between images"


def test_the_round_trip_gives_the_classes_that_g_was_given():
    model = told_model()
    round_trip(model, 12, 0, batch_size=5)
    assert torch.equal(torch.cat(model.told), some_classes(model, 12, 0))
