"""Each metric on a pretend accelerator gives what it gives on a CPU, and mixes no devices."""

import numpy as np
import pytest
import torch

from bigbigan.data import open_images
from bigbigan.metrics import (
    Recipe,
    evaluate_generation,
    evaluate_pixels,
    in_domain_extractor,
    kernel_distance,
    manifold_figures,
    pairs_ms_ssim,
    sliced_wasserstein,
    truncation_curve,
)
from bigbigan.metrics.bidirectional import round_trip, scored_as_encoder_pairs, there_and_back, with_baseline
from bigbigan.metrics.neighbours import memorisation
from bigbigan.metrics.reconstruction import reconstruction_figures
from bigbigan.metrics.sampling import sampler
from bigbigan.training.ema import averaged_model
from eval_linear.knn import paper_knn, weighted_knn
from eval_linear.linear.adam import AdamProbe, shuffled, train_adam_probe
from eval_linear.linear.logistic import logistic_path
from tests.helpers import pretend
from tests.helpers.pretend import on_pretend_accelerator
from tests.helpers.shrunk import Small, changed

CPU = torch.device("cpu")


def features(n: int, seed: int, width: int = 6) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def pixels(n: int, seed: int, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def linear_path(device: torch.device) -> list:
    x, y = features(60, 0).to(device), (torch.arange(60) % 3).to(device)
    with pretend.with_float64():
        found = list(logistic_path(x, y, 3, (0.01, 1.0)))
    assert all(solution.weight.device == device for solution in found)
    return [solution.objective for solution in found] + [float(found[-1].weight.abs().sum())]


def adam_probe(device: torch.device) -> list:
    x, y = features(60, 0).to(device), (torch.arange(60) % 3).to(device)
    probe = train_adam_probe(shuffled(x, y, 0, 16), AdamProbe(6, 3, (1e-2, 1e-3), device), 3)
    return [probe.best(x, y), float(probe.logits(x, 0).abs().sum())]


def nearest_rows(device: torch.device) -> list:
    x, y, x_test = features(60, 0).to(device), torch.arange(60) % 3, features(9, 1).to(device)
    found = [*paper_knn(x, y, x_test, 3, 1).values(), *paper_knn(x, y, x_test, 3, 2).values()]
    return torch.cat([*found, weighted_knn(x, y, x_test, 3).flatten()]).tolist() + [memorisation(x_test, x[:9], x)]


def features_compared(device: torch.device) -> list:
    ours, theirs = features(30, 0).to(device), features(40, 1).to(device)
    return [*kernel_distance(ours, theirs, 3, 20), *vars(manifold_figures(ours, theirs)).values()]


def pixels_compared(device: torch.device) -> list:
    ours, theirs = pixels(6, 0, 16), pixels(6, 1, 16)
    return [*sliced_wasserstein(ours, theirs, device=device).values(), pairs_ms_ssim(ours.to(device))]


def small_model(device: torch.device):
    small = Small(changed("digits", {}), device)
    return averaged_model(small.model, small.averages).eval()


def generated(device: torch.device) -> list:
    """IS, FID, KID, precision and the like of samples, the truncation curve, the classifier trained on the device."""
    digits = open_images("digits").subset(np.arange(0, 1400, 20))
    model = small_model(device)
    recipe = Recipe(width=0.125, epochs=0, min_steps=2, batch_size=16)
    extractor = in_domain_extractor(digits, 8, "digits", None, device, recipe)
    figures = evaluate_generation(sampler(model), digits, 8, extractor, 20, "train", batch_size=16)
    figures |= evaluate_pixels(sampler(model), digits, 8, "train", 12, 8, device=device)
    at = lambda threshold: sampler(model, threshold, statistics_latents=16, batch_size=16)  # noqa: E731
    curve = truncation_curve(at, (0.5, None), digits, None, 8, extractor, n=20, split_name="train")
    return [*figures.values(), *(point["fid"] for point in curve["points"])]


def bidirectional(device: torch.device) -> list:
    digits = open_images("digits").subset(np.arange(0, 1400, 70))
    model = small_model(device)
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)).mul(2).sub(1).to(device)
    back = there_and_back(model, x, torch.zeros(6, 8, device=device), None)
    found = [*with_baseline(back["x"], back["mean"]), *with_baseline(*round_trip(model, 6, 0)[:2])]
    found += scored_as_encoder_pairs(model, x).values()
    return found + [*reconstruction_figures(model, digits, digits).values()]


MEASURED = (linear_path, adam_probe, nearest_rows, features_compared, pixels_compared, generated, bidirectional)


@pytest.mark.parametrize("measured", MEASURED, ids=lambda function: function.__name__)
@on_pretend_accelerator
def test_a_figure_is_that_of_a_cpu(measured):
    np.testing.assert_allclose(measured(pretend.DEVICE), measured(CPU), rtol=2e-3, atol=1e-4)
