"""Posteriors of E come from `model.infer` with the classes, so that a conditional encoder needs no change here."""

import numpy as np
import torch

from bigbigan.data import open_images
from bigbigan.metrics.bidirectional import round_trip, some_classes
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.model import BigBiGAN
from eval_linear.pairs import bidirectional
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


def test_every_figure_and_sheet_gives_the_classes(tmp_path):
    model = told_model()
    train, test = (open_images("digits", test=test).subset(np.arange(24)) for test in (False, True))
    reconstruction_figures(model, train, test, neighbours=False)
    assert torch.equal(torch.cat(model.told), torch.from_numpy(test.labels))
    model.told.clear()
    bidirectional(model, train, test, 8, Sheets(tmp_path))
    labels = torch.from_numpy(test.labels)
    given = torch.cat(model.told)
    assert torch.equal(given[:24], labels), "reconstructions"
    ends = labels[torch.linspace(0, 23, 16).long()]
    assert any(torch.equal(part, ends) for part in model.told), "interpolation between images"


def test_the_round_trip_gives_the_classes_that_g_was_given():
    model = told_model()
    round_trip(model, 12, 0, batch_size=5)
    assert torch.equal(torch.cat(model.told), some_classes(model, 12, 0))
