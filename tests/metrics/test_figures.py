"""Every figure is described by the file that measures it: unit and direction by the beginning of its name."""

import numpy as np
import pytest
import torch

from bigbigan.data import open_images
from bigbigan.metrics.figures import FIGURES, describe, is_share, lower_is_better, title_of
from bigbigan.metrics.generation import OF_FEATURES, OF_PIXELS
from bigbigan.metrics.moments import Moments
from bigbigan.metrics.sets import Comparison, Metric, Pixels, Statistics
from eval_linear.generation import quick_generation
from eval_linear.quick import better
from eval_linear.result import FigureInfo
from tests.conftest import tiny_model


def test_names_are_of_one_figure_each():
    names = [info.name for info in FIGURES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("fid_inception2015_train_n10000", "fid"), ("is_sd_classifier_digits_n64", "is"), ("kid_sd_a_train_n64", "kid"),
        ("swd_8px_train_n64", "swd"), ("ssim_real_train_n64", "ssim"), ("ms_ssim_n64", "ms_ssim"),
        ("top1, k = 25", "top1"),
        ("score_gap_held_out", "score_gap_held_out"), ("accuracy_classifier_digits", "accuracy"), ("loss_d", "loss_d"),
        ("coverage_classifier_digits_train_n64", "coverage"), ("fidelity", None), ("", None), ("score_x_real", None),
    ],
)  # fmt: skip
def test_a_key_is_described_by_the_longest_name_that_begins_it(key, name):
    assert getattr(describe(key), "name", None) == name


def test_shares_and_directions():
    shares = ("top1_knn", "top5", "accuracy", "d_right_on_samples", "reconstruction_1nn_agreement")
    others = ("nmi", "fid_a", "precision_a", "reconstruction_error_relative", "memorised", "unheard of")
    assert all(map(is_share, shares)) and not any(map(is_share, others))
    lower = ("fid_a", "kid_a", "reconstruction_error_relative", "swd_mean_train_n64")
    assert all(map(lower_is_better, lower)) and not any(map(lower_is_better, (*shares, "is_a", "nmi", "unheard of")))
    assert better("fid_a", 1.0, 2.0) and not better("top1_knn", 1.0, 2.0) and better("fid_a", 2.0, None)


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("loss_d", "Discriminator loss"), ("top1", "top-1"), ("top1, k = 10", "top-1, k = 10"),
        ("top1_knn", "k-NN, top-1"), ("unheard_of", "unheard_of"), ("", ""), ("fidelity", "fidelity"),
        ("fid_a_train_n6400", "FID, features of a, against training images, n = 6,400"),
        ("is_classifier_digits_n64", "Inception score, features of a classifier of digits, n = 64"),
        ("is_sd_inception2015_n64", "Inception score, standard deviation, features of Inception of 2015, n = 64"),
        ("fid_real_a_test_train_n9",
         "FID, of real images, features of a, test images against training images, n = 9"),
        ("kid_sd_a_test_n5", "KID, standard deviation, features of a, against test images, n = 5"),
        ("fid_at_min_fid_a_train_n5",
         "FID, truncated to the least FID, features of a, against training images, n = 5"),
        ("swd_8px_train_n64", "Sliced Wasserstein distance × 10³, at 8 px, against training images, n = 64"),
        ("swd_mean_test_n20", "Sliced Wasserstein distance × 10³, mean over the sizes, against test images, n = 20"),
        ("ssim_n20", "SSIM of pairs, n = 20"), ("fid_train", "FID, against training images"), ("fid_", "FID"),
    ],
)  # fmt: skip
def test_a_title_puts_the_whole_key_into_words(key, title):
    assert title_of(key) == title


def test_a_title_leaves_out_the_extractor_that_is_known():
    assert title_of("fid_a_b_train_n9", known="a_b") == "FID, against training images, n = 9"


class MeanColour:
    """An extractor without training: three features and two logits of an image."""

    name, accuracy, device = "colour", None, "cpu"

    def __call__(self, pixels):
        features = pixels.float().mean((2, 3)) / 255
        return features, features[:, :2]


@pytest.mark.parametrize(("in_training", "added"), [((), set()), (("count",), {"count_colour_n24"})])
def test_a_metric_tells_which_of_its_figures_are_reported_during_training(in_training, added, monkeypatch, tmp_path):
    def measure(sets):
        return {f"count_{sets.extractor}_n{sets.n}": float(sets.n), f"count_sd_{sets.extractor}_n{sets.n}": 0.0}

    new = Metric((FigureInfo("count", "Count"),), measure, in_training)
    for module in ("bigbigan.metrics.generation", "eval_linear.generation"):
        monkeypatch.setattr(f"{module}.OF_FEATURES", (*OF_FEATURES, new))
    monkeypatch.setattr("eval_linear.generation.in_domain_extractor", lambda *_: MeanColour())
    monkeypatch.setattr("eval_linear.generation.cache_folder", lambda: tmp_path)
    images = open_images("digits", test=True).subset(np.arange(24))
    figures = quick_generation(tiny_model().eval(), images, "digits", 24)
    assert set(figures) == {"fid_colour_train_n24", "is_colour_n24"} | added


def test_the_figures_of_a_metric_begin_with_a_name_that_it_describes():
    """What a metric writes is found again by its name, so that a new file cannot forget to describe it."""
    torch.manual_seed(0)
    found = []
    for shift in (0, 1):
        moments = Moments(4)
        features = torch.randn(20, 4) + shift
        moments.update(features)
        found.append(Statistics(moments, (2.0, 0.1), features))
    features = Comparison(*found, "reader", "train", 20)
    for size in (8, 32):
        images = torch.randint(0, 256, (2, 4, 3, size, size), dtype=torch.uint8)
        pixels = Pixels(*images, "train", 0, "cpu")
        for metrics, sets in ((OF_FEATURES, features), (OF_PIXELS, pixels)):
            for metric in metrics:
                figures = metric.measure(sets)
                assert figures and all(describe(key) in metric.figures for key in figures), metric
