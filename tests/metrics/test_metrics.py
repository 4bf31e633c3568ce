"""Generation metrics against torch-fidelity, SciPy and scikit-learn, on one process and on two."""

import itertools
import socket
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage
import scipy.signal
import scipy.spatial
import scipy.stats
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors import SafetensorError
from sklearn.neighbors import NearestNeighbors
from torch import nn

from bigbigan.data.images import Arrays, Images
from bigbigan.errors import MetricsError
from bigbigan.metrics import (
    InceptionScore,
    Moments,
    Recipe,
    curve_figures,
    error_of_random_pairs,
    evaluate_generation,
    evaluate_pixels,
    frechet_distance,
    gaussian_distance,
    in_domain_extractor,
    kernel_distance,
    kid,
    laplacian_pyramid,
    manifold,
    manifold_figures,
    ms_ssim,
    pairs_ms_ssim,
    relative_error,
    sliced_wasserstein,
    truncation_curve,
)
from bigbigan.metrics.generation import at_score
from bigbigan.metrics.ms_ssim import WEIGHTS, scales
from bigbigan.metrics.neighbours import memorisation, nearest
from bigbigan.metrics.reference import real_statistics
from bigbigan.metrics.sets import Comparison, Statistics
from bigbigan.noise import uniforms
from tests.helpers.children import context

N, M, SIZE = 230, 180, 16


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors: threads cost more than they give."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def pictures(n: int, seed: int, size: int = SIZE, contrast: float = 1.0) -> np.ndarray:
    """Smooth coloured noise, uint8 (n, size, size, 3)."""
    noise = np.random.default_rng(seed).normal(size=(n, size, size, 3))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 0), mode="wrap")
    tint = np.random.default_rng(seed + 1).normal(size=(n, 1, 1, 3))
    return np.clip(128 + contrast * (300 * smooth + 30 * tint), 0, 255).astype(np.uint8)


def as_images(arrays: np.ndarray) -> Images:
    return Images(Arrays(arrays), None, None, "made for the test", "arrays")


def as_tensor(arrays: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).contiguous()


class SmallNet(nn.Module):
    """A random network: uint8 images → (32 features, 7 logits)."""

    name, accuracy = "random", None

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.conv, self.linear = nn.Conv2d(3, 32, 5, stride=2), nn.Linear(32, 7)
        self.images_seen = 0

    @torch.no_grad()
    def forward(self, images):
        self.images_seen += len(images)
        features = self.conv(images.float() / 64 - 2).relu().mean((2, 3))
        return features, 30 * self.linear(features)


@pytest.fixture(scope="module")
def sets():
    return pictures(N, 1, contrast=0.8), pictures(M, 3)


def evaluate(sets, extractor=None, **changes):
    generated = as_tensor(sets[0])
    arguments = {
        "sample": lambda at: generated[torch.from_numpy(at)], "reals": as_images(sets[1]), "size": SIZE,
        "extractor": extractor or SmallNet(), "n": N, "split_name": "train", "batch_size": 32,
    }  # fmt: skip
    return evaluate_generation(**(arguments | changes))


def test_figures_equal_those_of_torch_fidelity(sets):
    from torch_fidelity import calculate_metrics, register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Registered(FeatureExtractorBase):
        def __init__(self, name, features_list, **_):
            super().__init__(name, features_list)
            self.net = SmallNet()

        def forward(self, x):
            found = dict(zip(("features", "logits"), self.net(x), strict=True))
            return tuple(found[name] for name in self.features_list)

        get_provided_features_list = staticmethod(lambda: ("features", "logits"))
        get_default_feature_layer_for_metric = staticmethod(lambda metric: "logits" if metric == "isc" else "features")
        can_be_compiled = staticmethod(lambda: False)
        get_dummy_input_for_compile = staticmethod(lambda: torch.zeros(1, 3, 8, 8, dtype=torch.uint8))

    register_feature_extractor("small-random", Registered)
    try:
        expected = calculate_metrics(
            input1=Rows(as_tensor(sets[0])),
            input2=Rows(as_tensor(sets[1])), isc=True, fid=True, kid=True, prc=True, feature_extractor="small-random",
            kid_subset_size=M, cuda=False, cache=False, verbose=False, batch_size=32, save_cpu_ram=True,
        )  # fmt: skip
    finally:
        FEATURE_EXTRACTORS_REGISTRY.pop("small-random")
    found = evaluate(sets)
    names = {
        f"is_random_n{N}": "inception_score_mean",
        f"is_sd_random_n{N}": "inception_score_std",
        f"fid_random_train_n{N}": "frechet_inception_distance",
        f"kid_random_train_n{N}": "kernel_inception_distance_mean",
        f"precision_random_train_n{N}": "precision",
        f"recall_random_train_n{N}": "recall",
    }
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(expected[theirs], rel=1e-3), ours
    # The comparison says something only if nothing sits at an end of its range.
    assert (
        found[f"is_random_n{N}"] > 1.1
        and found[f"fid_random_train_n{N}"] > 0.01
        and found[f"kid_random_train_n{N}"] > 1e-4
    )
    assert all(0.05 < found[f"{name}_random_train_n{N}"] < 0.95 for name in ("precision", "recall"))


class Rows(torch.utils.data.Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def test_kid_over_subsets_equals_torch_fidelity(random):
    from torch_fidelity.defaults import DEFAULTS
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (torch.from_numpy(random.normal(size=(n, 24))).float() for n in (150, 170))
    y = 0.7 * y + 0.3
    expected = kid_features_to_metric(x, y, **{**DEFAULTS, "kid_subsets": 9, "kid_subset_size": 60, "verbose": False})
    mean, sd = kernel_distance(x, y, subsets=9, subset_size=60)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3)
    assert sd == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-3)


def test_real_images_against_themselves_are_the_best_there_is(sets):
    found = evaluate((sets[1], sets[1]), n=M)
    end = f"random_train_n{M}"
    assert found[f"fid_{end}"] == pytest.approx(0, abs=1e-9) and found[f"coverage_{end}"] == 1
    assert found[f"precision_{end}"] == found[f"recall_{end}"] == 1
    assert found[f"is_random_n{M}"] == pytest.approx(found[f"is_real_{end}"], rel=1e-6)


@pytest.mark.parametrize("n", [300, 40])  # of 64 features: full rank, and fewer images than features
def test_frechet_distance_equals_the_matrix_root(n, random):
    x, y = (
        random.normal(size=(n, 64)) @ random.normal(size=(64, 64)),
        random.normal(size=(500, 64)) * np.linspace(0.1, 2, 64) + 0.2,
    )
    a, b = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    difference = x.mean(0) - y.mean(0)
    root = np.trace(scipy.linalg.sqrtm(a @ b).real)
    expected = difference @ difference + np.trace(a) + np.trace(b) - 2 * root
    for first, second in (((x.mean(0), a), (y.mean(0), b)), ((y.mean(0), b), (x.mean(0), a))):
        assert gaussian_distance(*first, *second) == pytest.approx(expected, rel=1e-6)
    # Exact for any rank: the root's trace is the nuclear norm of the centred data's product.
    product = (x - x.mean(0)) @ (y - y.mean(0)).T / np.sqrt((len(x) - 1) * (len(y) - 1))
    exact = difference @ difference + np.trace(a) + np.trace(b) - 2 * np.linalg.svd(product, compute_uv=False).sum()
    assert gaussian_distance(x.mean(0), a, y.mean(0), b) == pytest.approx(exact, rel=1e-9)


def test_frechet_distance_of_constant_features_is_that_of_the_means():
    zeros = np.zeros((5, 5))
    assert gaussian_distance(np.zeros(5), zeros, np.full(5, 2.0), zeros) == pytest.approx(20)


def test_moments_equal_numpy_far_from_zero(random):
    x = torch.from_numpy(1e6 + random.normal(size=(101, 6)) @ random.normal(size=(6, 6)))
    before = x.clone()
    moments = Moments(6)
    for part in x.split(17):
        moments.update(part)
    assert torch.equal(x, before)
    np.testing.assert_allclose(moments.joined().mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.numpy(), rowvar=False), rtol=1e-7)


def test_manifold_figures_equal_a_dense_computation(monkeypatch, random):
    monkeypatch.setattr("bigbigan.metrics.manifold.CHUNK", 700)  # several chunks
    real, fake = random.normal(size=(90, 5)), 0.8 * random.normal(size=(70, 5)) + 0.6
    distance = np.linalg.norm(real[:, None] - fake[None], axis=2)
    radius = lambda x, k: NearestNeighbors(n_neighbors=k).fit(x).kneighbors()[0][:, -1]  # noqa: E731
    found = manifold_figures(torch.from_numpy(fake).float(), torch.from_numpy(real).float(), k=3, k_density=5)
    in_real, in_fake = distance <= radius(real, 3)[:, None], distance <= radius(fake, 3)[None]
    in_ball = distance <= radius(real, 5)[:, None]
    assert found.precision == pytest.approx(in_real.any(0).mean()) and found.recall == pytest.approx(
        in_fake.any(1).mean()
    )
    assert found.density == pytest.approx(in_ball.sum() / (5 * 70)) and found.coverage == pytest.approx(
        in_ball.any(1).mean()
    )
    assert 0 < found.precision < 1 and 0 < found.coverage < 1


def test_figures_of_kept_features_have_the_papers_neighbours_and_subsets(monkeypatch, random, caplog):
    """An image has its neighbours among the others of its set, so that five neighbours need six images."""
    fake, real = (torch.from_numpy(random.normal(size=(n, 4))) for n in (6, 9))

    def measured(module, n):
        return module.measure(
            Comparison(Statistics(None, (1, 0), fake[:n]), Statistics(None, (1, 0), real), "x", "t", n)
        )

    assert measured(manifold, 6) == {f"{k}_x_t_n6": v for k, v in vars(manifold_figures(fake, real, 3, 5)).items()}
    with caplog.at_level("INFO"):
        assert measured(manifold, 5) == {} and "expected more than 5 images, found 5" in caplog.text
    monkeypatch.setattr(kid, "SUBSET", 4)
    mean, sd = kernel_distance(fake, real, subset_size=4)
    assert measured(kid, 6) == {"kid_x_t_n6": mean, "kid_sd_x_t_n6": sd}


def test_reference_statistics_are_cached_under_their_key(sets, tmp_path):
    nets = [SmallNet() for _ in range(5)]
    first = evaluate(sets, nets[0], cache=tmp_path)
    (file,) = tmp_path.iterdir()
    assert evaluate(sets, nets[1], cache=tmp_path) == first
    assert (nets[0].images_seen, nets[1].images_seen) == (N + M, N)
    file.write_bytes(file.read_bytes()[:-100])  # a kill, a full disk
    assert evaluate(sets, nets[2], cache=tmp_path) == first and nets[2].images_seen == N + M
    assert evaluate(sets, nets[3], cache=tmp_path) == first and nets[3].images_seen == N
    nets[4].digest = "other weights"
    evaluate(sets, nets[4], cache=tmp_path)
    other = as_tensor(pictures(N, 1, 8))
    evaluate(sets, SmallNet(), cache=tmp_path, size=8, sample=lambda at: other[torch.from_numpy(at)])
    evaluate(sets, SmallNet(), cache=tmp_path, split_name="test")
    evaluate((sets[0], sets[1][:-1]), SmallNet(), cache=tmp_path)
    brighter = replace(as_images(sets[1]), value_range=(0.0, 100.0))  # which pictures of 16 bits would be read by
    evaluate(sets, SmallNet(), cache=tmp_path, reals=brighter)
    assert len(list(tmp_path.iterdir())) == 6


def test_a_cache_that_cannot_be_written_is_a_warning(sets, tmp_path, caplog):
    (tmp_path / "file").write_text("no folder")
    expected = evaluate(sets)
    assert evaluate(sets, cache=tmp_path / "file") == expected and "could not be kept" in caplog.text
    caplog.clear()
    with mock.patch("bigbigan.metrics.reference.save_file", side_effect=SafetensorError("No space left on device")):
        assert evaluate(sets, cache=tmp_path / "folder") == expected
    assert "No space left on device" in caplog.text and not list((tmp_path / "folder").iterdir())


def test_names_say_how_many_images_were_looked_at(sets):
    found = evaluate(sets, kept=100)
    assert {f"fid_random_train_n{N}", "kid_random_train_n100", "recall_random_train_n100"} <= found.keys()
    assert all(name.split("_")[-1] in (f"n{N}", f"n{M}", "n100") for name in found)


def test_near_duplicates_keep_their_distances(random):
    """As frames of one video: neighbours at a thousandth of the norm, which float32 products cannot tell apart."""
    scenes = random.normal(size=(20, 256)) + 3
    real, fake = (scenes[random.integers(0, 20, 240)] + 3e-4 * random.normal(size=(240, 256)) for _ in range(2))
    real, fake = (x.astype(np.float32) for x in (real, fake))
    apart = lambda a, b: scipy.spatial.distance.cdist(a.astype(np.float64), b.astype(np.float64))  # noqa: E731
    radius = np.sort(apart(real, real), 1)[:, 3]
    expected = (apart(real, fake) <= radius[:, None]).any(0).mean()
    found = manifold_figures(torch.from_numpy(fake), torch.from_numpy(real))
    assert found.precision == pytest.approx(expected, abs=1e-9) and expected < 0.95
    values, at = nearest(torch.from_numpy(fake), torch.from_numpy(real))
    assert np.array_equal(at[:, 0], apart(fake, real).argmin(1)) and values.dtype == torch.float32
    np.testing.assert_allclose(values[:, 0], apart(fake, real).min(1), rtol=1e-4)


def test_memorising_is_measured_by_medians():
    training, samples, held_out = (torch.tensor(x)[:, None] for x in ([0.0, 10], [1.0, -2, 100], [3.0, 14, 5]))
    assert memorisation(samples, held_out, training) == pytest.approx(2 / 4), "of 1, 2, 90 and of 3, 4, 5"


def test_truncation_curve(sets):
    noise = as_tensor(pictures(120, 5)).float() - 128

    def sampler(threshold):
        images = (128 + (2 if threshold is None else threshold) * noise).clamp(0, 255).to(torch.uint8)
        return lambda at: images[torch.from_numpy(at)]

    real, validation = as_images(sets[1]), as_images(sets[1][:140])
    curve = truncation_curve(
        sampler, [None, 1.0, 0.5, 0.1], real, validation, SIZE, SmallNet(), n=120, split_name="train"
    )
    assert [p["threshold"] for p in curve["points"]] == [None, 1.0, 0.5, 0.1]
    point = evaluate_generation(sampler(0.5), as_images(sets[1]), SIZE, SmallNet(), 120, "train")
    assert curve["points"][2]["fid"] == pytest.approx(point["fid_random_train_n120"])
    assert curve["points"][2]["is"] == pytest.approx(point["is_random_n120"])
    assert curve["summary"]["min_fid"]["fid"] == min(p["fid"] for p in curve["points"]) < curve["points"][3]["fid"]
    assert curve["summary"]["max_is"]["is"] == max(p["is"] for p in curve["points"])
    assert curve["summary"]["valid_is"]["is"] == curve["real_is"]
    some = np.sort(np.random.default_rng(0).permutation(140)[:120])
    expected = real_statistics(as_images(sets[1][some]), SIZE, SmallNet(), "validation", None, 64).score[0]
    assert curve["real_is"] == pytest.approx(expected), "the score depends on n, so that of 120 images is compared"
    fewer = truncation_curve(
        sampler, [None, 0.1], real, as_images(sets[1][:119]), SIZE, SmallNet(), n=120, split_name="train"
    )
    assert fewer["real_is"] is None and fewer["summary"]["valid_is"] is None
    assert curve_figures(curve)["fid_at_min_fid_random_train_n120"] == curve["summary"]["min_fid"]["fid"]


def test_the_point_of_equal_score_is_interpolated_or_absent():
    points = [{"threshold": t, "fid": f, "is": s} for t, f, s in ((None, 9.0, 2.0), (1.0, 8.0, 4.0), (0.5, 12.0, 8.0))]
    assert at_score(points, 5.0) == {"threshold": 0.875, "fid": 9.0, "is": 5.0}
    assert at_score(points, 3.0) == {"threshold": None, "fid": 8.5, "is": 3.0}
    assert at_score(points[::-1], 4.0) == points[1]
    assert at_score(points, 8.1) is None and at_score(points, 1.9) is None


def test_laplacian_pyramid_equals_scipy(random):
    images = random.uniform(0, 255, (2, 3, 32, 32))
    kernel = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1])[None, None] / 256
    blur = lambda x: scipy.ndimage.convolve(x, kernel, mode="mirror")  # noqa: E731
    coarse = blur(images)[:, :, ::2, ::2]
    spread = np.zeros_like(images)
    spread[:, :, ::2, ::2] = coarse
    fine, rest = laplacian_pyramid(torch.from_numpy(images).float(), 2)
    np.testing.assert_allclose(fine, images - 4 * blur(spread), atol=1e-3)
    np.testing.assert_allclose(rest, coarse, atol=1e-3)


def test_sliced_wasserstein_equals_scipy_level_by_level():
    sets = {"generated": as_tensor(pictures(6, 1, 32, 0.7)), "real": as_tensor(pictures(6, 3, 32))}
    found = sliced_wasserstein(sets["generated"], sets["real"], seed=4, batch_size=4)
    assert list(found) == [32, 16]
    for level, size in enumerate(found):
        descriptors = []
        for name, images in sets.items():
            band = laplacian_pyramid(images.float(), 2)[level].numpy()
            corners = (uniforms(4, f"swd/{name}/{level}", np.arange(6), 256) * (size - 6)).astype(int)
            cut = np.stack(
                [
                    image[:, y : y + 7, x : x + 7]
                    for image, at in zip(band, corners, strict=True)
                    for y, x in zip(at[:128], at[128:], strict=True)
                ]
            )
            cut = (cut - cut.mean((0, 2, 3), keepdims=True)) / cut.std((0, 2, 3), keepdims=True)
            descriptors.append(cut.reshape(len(cut), -1))
        distances = []
        for repeat in range(4):
            for direction in np.random.default_rng([4, repeat]).standard_normal((128, 147)):
                direction /= np.linalg.norm(direction)
                distances.append(scipy.stats.wasserstein_distance(*(d @ direction for d in descriptors)))
        assert found[size] == pytest.approx(1e3 * np.mean(distances), rel=1e-4)


def test_sliced_wasserstein_orders_sets_and_stops_at_16_px(random):
    real, noise = (
        as_tensor(pictures(40, 3, 8)),
        torch.from_numpy(random.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)),
    )
    near, far = sliced_wasserstein(as_tensor(pictures(40, 7, 8)), real), sliced_wasserstein(noise, real)
    assert list(near) == [8] and near[8] < 0.8 * far[8]


def reference_ms_ssim(a, b):
    """Of one pair (C, S, S) in float64: two-dimensional windows by FFT, scale by scale."""
    result = 1.0
    for scale, weight in enumerate(WEIGHTS):
        size = min(11, a.shape[1])
        at = np.arange(size) - (size - 1) / 2
        window = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * (1.5 * size / 11) ** 2))[None]
        window /= window.sum()
        local = lambda x, w=window: scipy.signal.fftconvolve(x, w, mode="valid")  # noqa: E731
        ma, mb = local(a), local(b)
        c1, c2 = 2.55**2, 7.65**2
        cs = (2 * (local(a * b) - ma * mb) + c2) / (local(a * a) - ma**2 + local(b * b) - mb**2 + c2)
        ssim = cs * (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
        result *= max(0, (ssim if scale == 4 else cs).mean()) ** weight
        a, b = (
            (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4 if scale < 4 else x
            for x in (a, b)
        )
    return result


def test_ms_ssim_equals_a_direct_computation(random):
    a = random.uniform(0, 255, (3, 3, 64, 64))
    a = scipy.ndimage.gaussian_filter(a, (0, 0, 3, 3)) * 4 - 380
    b = a + scipy.ndimage.gaussian_filter(random.normal(0, 60, a.shape), (0, 0, 1, 1))
    found = ms_ssim(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_allclose(found, [reference_ms_ssim(x, y) for x, y in zip(a, b, strict=True)], rtol=1e-8)
    assert found.min() > 0.1 and found.max() < 0.99


def test_ms_ssim_of_pairs():
    same = as_tensor(np.repeat(pictures(1, 0), 6, axis=0))
    assert pairs_ms_ssim(same) == pytest.approx(1, abs=1e-6)
    assert pairs_ms_ssim(as_tensor(pictures(6, 0))) < 0.9
    assert pairs_ms_ssim(as_tensor(pictures(7, 0, 8))) < 1  # 8 px: its own scale alone


def test_ms_ssim_of_opposites_is_0_and_five_scales_need_16_px():
    a = as_tensor(pictures(3, 0, 16)).float()
    assert ms_ssim(a, 255 - a).tolist() == [0, 0, 0]
    assert [scales(size) for size in (8, 15, 16, 32)] == [1, 1, 5, 5]


def test_each_image_is_in_one_pair_at_most(monkeypatch):
    images, seen = torch.arange(7, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8), []

    def similarity(a, b):
        seen.extend(a[:, 0, 0, 0].tolist() + b[:, 0, 0, 0].tolist())
        return torch.arange(len(a)) / 4

    monkeypatch.setitem(pairs_ms_ssim.__globals__, "ms_ssim", similarity)
    assert pairs_ms_ssim(images, batch_size=2) == (0 + 0.25 + 0) / 3
    assert len(seen) == len(set(seen)) == 6


def test_images_of_one_colour_have_a_sliced_wasserstein_distance():
    flat, noise = torch.full((3, 3, 8, 8), 77, dtype=torch.uint8), as_tensor(pictures(3, 1, 8))
    assert sliced_wasserstein(flat, flat) == {8: 0} and 0 < sliced_wasserstein(flat, noise)[8] < 1e4


def test_pixel_figures_have_honest_names(sets, caplog):
    images = {size: as_tensor(pictures(40, 1, size)) for size in (8, 32)}

    def of(size):
        reals = as_images(pictures(20, 3, size))
        return evaluate_pixels(lambda at: images[size][torch.from_numpy(at)], reals, size, "test")

    with caplog.at_level("INFO"):
        small = of(8)
    assert set(small) == {"swd_8px_test_n20", "swd_mean_test_n20", "ssim_n20", "ssim_real_test_n20"}
    assert "full resolution alone" in caplog.text
    large = of(32)
    assert set(large) == {
        "swd_32px_test_n20",
        "swd_16px_test_n20",
        "swd_mean_test_n20",
        "ms_ssim_n20",
        "ms_ssim_real_test_n20",
    }
    for name, made in (("ms_ssim_n20", images[32][:20]), ("ms_ssim_real_test_n20", as_tensor(pictures(20, 3, 32)))):
        assert large[name] == pytest.approx(pairs_ms_ssim(made)), name
    assert large["ms_ssim_n20"] != pytest.approx(large["ms_ssim_real_test_n20"], rel=0.01)
    assert large["swd_mean_test_n20"] == pytest.approx((large["swd_32px_test_n20"] + large["swd_16px_test_n20"]) / 2)


def worker(rank, port, folder, sets):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    generated = as_tensor(sets[0])
    pixels = evaluate_pixels(lambda at: generated[torch.from_numpy(at)], as_images(sets[1][:21]), SIZE, "train")
    with pytest.raises(MetricsError, match="NaN"):  # on both, though one process alone met it
        evaluate(sets, Broken(rank == 0))
    made = [domain_extractor(folder) for _ in range(2)]  # trained together, then read by each from the cache
    figures = [evaluate(sets, kept=150), pixels]
    torch.save([*figures, [e.digest for e in made], made[1](generated)[1], made[1].accuracy], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def domain_extractor(folder):
    """A few steps on light and dark images."""
    arrays = pictures(100, 9)
    arrays[::2] //= 3
    images = as_images(arrays)
    images.labels = np.arange(100) % 2
    return in_domain_extractor(
        images, SIZE, "x", Path(folder), recipe=Recipe(width=0.125, epochs=0, min_steps=6, batch_size=30)
    )


class Broken(SmallNet):
    def __init__(self, broken: bool):
        super().__init__()
        self.broken = broken

    def forward(self, images):
        features, logits = super().forward(images)
        return (features * torch.nan if self.broken else features), logits


def test_two_processes_equal_one(sets, tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context()  # whose server has everything imported
    mp.start_processes(worker, (port, str(tmp_path), sets), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert first[:3] == second[:3] and first[4] == second[4] and torch.equal(first[3], second[3])
    generated = as_tensor(sets[0])
    pixels = evaluate_pixels(lambda at: generated[torch.from_numpy(at)], as_images(sets[1][:21]), SIZE, "train")
    assert first[0] == pytest.approx(evaluate(sets, kept=150), rel=1e-6)  # float32 features of other batches
    assert first[1] == pytest.approx(pixels, rel=1e-9)
    assert first[2][0] == first[2][1]
    alone = domain_extractor(tmp_path / "alone")
    assert alone.accuracy == first[4]
    torch.testing.assert_close(first[3], alone(generated)[1], rtol=0.02, atol=0.02)  # Adam enlarges rounding


def test_bad_input_is_a_sentence(sets, random):
    x = torch.from_numpy(random.normal(size=(20, 4)))
    nan = torch.where(torch.arange(4) == 2, torch.nan, x)
    cases = [
        (lambda: kernel_distance(x, x, subset_size=21), "subset size from 2 to the smaller set's 20"),
        (lambda: kernel_distance(x, x[:, :3], subset_size=5), "shapes"),
        (lambda: kernel_distance(nan, x, subset_size=5), "NaN"),
        (lambda: manifold_figures(x[:5], x, k=3, k_density=5), "below the smaller set's 5"),
        (lambda: manifold_figures(x, nan), "NaN"),
        (lambda: InceptionScore(5, splits=10), "each of its 10 parts"),
        (lambda: Moments(4).update(x[:, :3]), r"expected the shape \(n, 4\)"),
        (lambda: Moments(4).joined().covariance(), "at least 2 images, found 0"),
        (lambda: frechet_distance(moments_of(x), moments_of(x[:, :3])), "one width"),
        (lambda: gaussian_distance(np.zeros(4), np.full((4, 4), np.nan), np.zeros(4), np.eye(4)), "NaN"),
        (lambda: evaluate(sets, n=1), "at least 2 images, found 1"),
        (lambda: evaluate((sets[0], sets[1][:1])), "at least 2 images, found 1"),
        (lambda: evaluate(sets, Broken(True)), "NaN or infinity in 32 of 32"),
        (lambda: evaluate(sets, sample=lambda at: torch.zeros(len(at), 3, 8, 8)), "expected uint8"),
        (lambda: pairs_ms_ssim(as_tensor(sets[0][:1])), "at least 2"),
        (
            lambda: sliced_wasserstein(as_tensor(sets[0]), as_tensor(sets[1])),
            "as many generated images as real ones, found 230 and 180",
        ),
        (lambda: sliced_wasserstein(*(as_tensor(pictures(3, 0, n)) for n in (8, 9))), "uint8 images of one shape"),
        (lambda: sliced_wasserstein(*[as_tensor(pictures(3, 0, 6))] * 2), "at least 7 px"),
    ]
    for call, sentence in cases:
        with pytest.raises(MetricsError, match=sentence):
            call()


def moments_of(x):
    moments = Moments(x.shape[1])
    moments.update(x)
    return moments.joined()


@pytest.mark.parametrize("shape", [(2, 3), (7, 3, 4, 4), (30, 1)])
def test_random_pairs_are_all_pairs(shape):
    x = torch.from_numpy(np.random.default_rng(0).normal(5, 1, shape))
    pairs = [float(((a - b) ** 2).sum()) for a, b in itertools.combinations(x, 2)]
    assert float(error_of_random_pairs(x)) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert relative_error(x, x.roll(1, 0) + 1) == pytest.approx(
        float(((x - x.roll(1, 0) - 1) ** 2).flatten(1).sum(1).mean()) / np.mean(pairs)
    )


def test_pairs_and_reconstructions_that_cannot_be_compared_are_a_sentence():
    """Of one image there is no random pair; one image more would be broadcast to all."""
    x = torch.zeros(3, 3, 4, 4)
    with pytest.raises(MetricsError, match="expected at least two images, .* found 1"):
        error_of_random_pairs(x[:1])
    with pytest.raises(MetricsError, match=r"one shape, found \(3, 3, 4, 4\) and \(1, 3, 4, 4\)"):
        relative_error(x, x[:1])
