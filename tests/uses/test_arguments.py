"""What the functions of `bigbigan.uses` are given is checked: wrong images, latents and labels are one sentence."""

import copy
import random

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.errors import InputError
from bigbigan.uses import anomalies, compression, directions, few_shot, interpolation, inversion, masks, retrieval
from bigbigan.uses.anomalies import anomaly_scores
from tests.conftest import tiny_model

SIZE, LATENT = 8, 8


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def images(n=4, size=SIZE, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def latents(n=4):
    return torch.randn(n, LATENT, generator=torch.Generator().manual_seed(0))


SEGMENTER = masks.SmallUNet(2).eval()
AT_E = {  # functions of images at E's size
    "anomaly_scores": lambda m, x: anomaly_scores(m, x, "reconstruction").total,
    "baselines": lambda m, x: anomalies.baselines(m, x, x)["distance to the mean image"],
    "interpolate": lambda m, x: interpolation.interpolate(m, x, x, 3),
    "invert": lambda m, x: inversion.invert(m, x, 1).images,
    "untrained_features": lambda m, x: retrieval.untrained_features(m, x, (x,))[0],
}
ANY_SIZE = {
    "smoothness": lambda m, x: torch.tensor(
        list(interpolation.smoothness(m, x[:, None].repeat(1, 2, 1, 1, 1)).values())
    ),
    "distance_to_real": lambda m, x: interpolation.distance_to_real(m, x, x),
    "classifier_of": lambda m, x: directions.classifier_of(m, x, torch.arange(len(x)) % 2)(x),
    "segment": lambda m, x: masks.segment(SEGMENTER, x),
    "otsu": lambda m, x: masks.otsu(x),
    "files": lambda m, x: compression.files(x, "WebP", (50,))[0].images,
    "principal_components": lambda m, x: compression.principal_components(x, x, (1.0,))[0].images,
}
FORGIVING = {  # those that `bigbigan.encode` reads, of any shape
    "retrieve": lambda m, x: retrieval.retrieve(m, x, x, 2).distances,
    "variations": lambda m, x: few_shot.variations(m, x, 2),
    "compress": lambda m, x: compression.compress(m, x, compression.Coder(np.zeros(8), np.ones(8)), 0.5).images,
}
USES = AT_E | ANY_SIZE | FORGIVING


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda x: (x + 1) * 127.5, r"values from .* to 2\d\d\S*"),
        (lambda x: x * torch.nan, "NaN or infinity"),
        (lambda x: x.where(x > -0.9, torch.tensor(torch.inf)), "NaN or infinity"),
    ],
)
def test_images_of_another_range_are_refused_with_what_makes_them(name, wrong, found, model):
    with pytest.raises(InputError, match=rf"expected float images in \[−1, 1\], found {found}; bigbigan.as_tensor"):
        USES[name](model, wrong(images()))


@pytest.mark.parametrize("name", USES)
def test_images_in_zero_to_one_are_doubted_at_the_callers_line(name, model):
    with pytest.warns(UserWarning, match=r"the values of these go from .*; if they are in \[0, 1\]") as warned:
        USES[name](model, (images() + 1) / 2)
    assert all(warning.filename == __file__ for warning in warned)


@pytest.mark.parametrize("name", AT_E | ANY_SIZE)
@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda x: x.numpy(), "ndarray"),
        (lambda x: ((x + 1) * 127.5).to(torch.uint8), "torch.uint8"),
        (lambda x: x[:, :1], r"the shape \(\d+, 1, 8, 8\)"),
        (lambda x: x[..., :7], r"the shape \(\d+, 3, 8, 7\)"),
        (lambda x: x.permute(0, 2, 3, 1), r"the shape \(\d+, 8, 8, 3\)"),
        (lambda x: x[:0], r"the shape \(0, 3, 8, 8\)"),
    ],
)
def test_images_of_another_form_are_refused(name, wrong, found, model):
    if name == "smoothness" and "ndarray" in found:
        pytest.skip("takes films, see below")
    with pytest.raises(InputError, match=rf"expected float \(N, 3, [S8], [S8]\) in \[−1, 1\], found {found}"):
        USES[name](model, wrong(images()))


@pytest.mark.parametrize("film", [images(), images()[:, None], images().numpy()])
def test_a_film_has_two_images_a_path(film, model):
    with pytest.raises(InputError, match=r"film: expected \(N, T, 3, S, S\), T at least 2"):
        interpolation.smoothness(model, film)


@pytest.mark.parametrize("name", AT_E)
def test_images_of_another_size_than_e_s_are_refused(name, model):
    with pytest.raises(
        InputError, match=r"expected float \(N, 3, 8, 8\) in \[−1, 1\], found the shape \(4, 3, 16, 16\)"
    ):
        AT_E[name](model, images(size=16))


@pytest.mark.parametrize("name", USES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_of_another_type_are_the_same_images(name, dtype, model):
    x = images().to(dtype)
    found, expected = USES[name](model, x), USES[name](model, x.float())
    torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_is_used_as_it_is(dtype, model):
    other = copy.deepcopy(model).to(dtype)
    for name in ("anomaly_scores", "interpolate", "invert", "distance_to_real", "retrieve", "variations", "compress"):
        assert bool(torch.isfinite(torch.as_tensor(USES[name](other, images()))).all()), name
    anomaly_scores(other, images(), "feature_matching"), anomaly_scores(other, images(), "cross_entropy")
    assert directions.traverse(other, latents(), latents()[0], torch.ones(2)).dtype == dtype


@pytest.mark.parametrize("name", USES)
def test_random_states_stay_and_what_comes_back_can_be_changed(name, model):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    found = USES[name](model, images())
    assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()
    assert not torch.as_tensor(found).is_inference()  # torch refuses to change such a tensor, or to differentiate by it


def test_a_direction_can_be_learned_on(model):
    """The strongest direction is an ordinary tensor: a shift along it has a gradient."""
    vector = directions.strongest(model, 1).vectors[0]
    shifts = torch.ones(1, requires_grad=True)
    directions.traverse(model, latents(1), vector, shifts).sum().backward()
    assert float(shifts.grad.abs()) > 0
    model.zero_grad(set_to_none=True)


LATENT_USES = {
    "traverse": lambda m, z: directions.traverse(m, z, latents()[0], torch.ones(2)),
    "direction_masks": lambda m, z: masks.direction_masks(m, z, latents()[0], 1.0)[0],
    "train_segmenter": lambda m, z: masks.train_segmenter(m, latents()[0], 1.0, 1, 2, latents=z),
    "choose_direction": lambda m, z: masks.choose_direction(m, z, 1.0, 2),
    "invert": lambda m, z: inversion.invert(m, images(), 1, start=z).z,
}


@pytest.mark.parametrize("name", LATENT_USES)
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda z: z[0], r"expected the shape \(N, 8\), found \(8,\)"),
        (lambda z: z[:, :5], r"expected the shape \(N, 8\), found \(4, 5\)"),
        (lambda z: z[:0], r"expected the shape \(N, 8\), found \(0, 8\)"),
        (lambda z: z * torch.nan, "expected finite numbers, found NaN or infinity"),
        (lambda z: z.tolist(), r"expected a tensor or an array \(N, 8\), found list"),
    ],
)
def test_latents_are_checked(name, wrong, message, model):
    with pytest.raises(InputError, match=message):
        LATENT_USES[name](model, wrong(latents()))


def test_latents_may_be_arrays_of_any_type(model):
    expected = LATENT_USES["traverse"](model, latents())
    assert torch.equal(LATENT_USES["traverse"](model, latents().double().numpy()), expected)
    path = interpolation.latent_path(latents()[:2].numpy(), latents()[2:].numpy(), 3)
    assert torch.equal(path, interpolation.latent_path(latents()[:2], latents()[2:], 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: directions.traverse(m, latents(), latents()[:3], torch.ones(2)),
            r"direction: expected the shape \(8,\)",
        ),
        (
            lambda m: directions.traverse(m, latents(), latents()[0] * torch.nan, torch.ones(2)),
            "direction: .* found NaN",
        ),
        (lambda m: directions.traverse(m, latents(), latents()[0], torch.ones(2, 2)), r"shifts: .*, found \(2, 2\)"),
        (lambda m: directions.traverse(m, latents(), latents()[0], 1.0), r"shifts: .* array \(T,\), found float"),
        (lambda m: directions.from_labels(latents(), torch.ones(3)), r"labels: expected the shape \(4,\)"),
        (lambda m: directions.from_labels(latents(), np.array(["a", "b"] * 2)), "labels: expected an array"),
        (lambda m: directions.from_labels(latents(), [0, 1, 0.5, 1]), "labels: expected whole numbers, found 0.5"),
        (lambda m: directions.from_labels(latents(), [0, 1, 0, 2], names=["a", "b"]), r"names: .* 0 … 2, found 2"),
        (lambda m: directions.from_labels(latents() * torch.nan, [0, 1, 0, 1]), "z: expected finite numbers"),
        (lambda m: directions.classifier_of(m, images(), [1] * 4), "labels: expected at least two classes, found 1"),
        (
            lambda m: masks.direction_masks(m, latents(), latents()[0], float("nan")),
            "shift: expected a finite number, found nan",
        ),
        (lambda m: masks.train_segmenter(m, latents()[0], "1", 2, 2), "shift: expected a finite number, found '1'"),
        (lambda m: compression.files(images(), "PNG8"), "kind: expected JPEG or WebP, found 'PNG8'"),
        (lambda m: compression.files(images(), "JPEG", (101,)), "qualities: .* whole number from 0 to 100, found 101"),
        (lambda m: retrieval.untrained_features(tiny_model(encoder="none"), images(), ()), "found a GAN"),
        (lambda m: directions.discover(m, 2, 0, start="axis"), "start: expected random or axes, found 'axis'"),
        (lambda m: directions.sefa(m, 2.5), "count: expected a whole number from 1 to 8, found 2.5"),
        (lambda m: directions.sefa(m, layer="0"), "layer: expected a whole number from 0 to"),
        (
            lambda m: interpolation.latent_path(latents(), latents(), "3"),
            "steps: expected a whole number of at least 2",
        ),
        (lambda m: interpolation.latent_path(latents() * torch.nan, latents()), "a: expected finite numbers"),
        (lambda m: inversion.invert(m, images(), 1, pictures_at=[0.5]), "pictures_at: expected a whole number"),
        (lambda m: masks.usual_shift(m, 0.5), "seed: expected a whole number"),
        (lambda m: masks.choose_direction(m, latents(), 1.0, 0), "n: expected a whole number of at least 1, found 0"),
        (lambda m: masks.choose_direction(m, latents(), float("nan")), "shift: expected a number above 0, found nan"),
        (lambda m: few_shot.variations(m, images(), 1.5), "count: expected a whole number of at least 1, found 1.5"),
        (
            lambda m: few_shot.variations(m, images(), seed="x"),
            "seed: expected a whole number of 64 bits, found 'x'",
        ),
        (lambda m: few_shot.draw_labelled(torch.full((3,), -1), 1, 0), "y: expected at least one class, found none"),
        (
            lambda m: retrieval.measure(latents(), [0] * 4, latents(), [0] * 3),
            r"gallery_labels: expected the shape \(4,\)",
        ),
        (lambda m: retrieval.measure(latents(), [0] * 4, latents()[:, :5], [0] * 4), r"found \(4, 8\) and \(4, 5\)"),
        (lambda m: retrieval.measure(latents(), [0] * 4, latents(), [0] * 4, 2, p=3), "p: .* from 1 to 2, found 3"),
        (lambda m: retrieval.untrained_features(m, images(), (), "0"), "seed: expected a whole number"),
        (
            lambda m: compression.Coder.fit(latents().tolist()),
            r"rows: expected a tensor or an array \(n, Z\), found list",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(call, message, model):
    with pytest.raises(InputError, match=message):
        call(model)


CLASS_USES = {
    "traverse": lambda m, c: directions.traverse(m, latents(), latents()[0], torch.ones(2), c),
    "direction_masks": lambda m, c: masks.direction_masks(m, latents(), latents()[0], 1.0, c)[1],
    "interpolate": lambda m, c: interpolation.interpolate(m, images(), images(seed=1), 3, classes=c),
    "invert": lambda m, c: inversion.invert(m, images(), 1, classes=c).images,
    "variations": lambda m, c: few_shot.variations(m, images(), 2, classes=c),
}


@pytest.mark.parametrize("name", CLASS_USES)
def test_classes_are_checked_and_may_be_arrays_or_weights(name, model):
    conditional = tiny_model(classes=3).eval()
    kinds = np.array([0, 2, 1, 0], np.uint16)
    found = CLASS_USES[name](conditional, kinds)
    assert torch.equal(found, CLASS_USES[name](conditional, torch.from_numpy(kinds.astype(np.int64))))
    assert torch.allclose(found, CLASS_USES[name](conditional, np.eye(3, dtype=np.float32)[kinds]), atol=1e-5)
    for wrong, message in (
        (kinds[:3], r"expected the shape \(4,\)"),
        (kinds + 1, "whole numbers from 0 to 2, found 3"),
    ):
        with pytest.raises(InputError, match=f"classes: .*{message}"):
            CLASS_USES[name](conditional, wrong)
    with pytest.warns(UserWarning, match="classes are ignored: the model is not conditional"):
        CLASS_USES[name](model, kinds)


def test_labels_may_be_of_unsigned_types():
    kinds = np.array([0, 1, 0, 1], np.uint16)
    found = retrieval.measure(latents(), kinds, latents(), kinds.astype(np.uint64), 2)
    assert found.precision == retrieval.measure(latents(), kinds.tolist(), latents(), kinds.tolist(), 2).precision


def test_methods_of_a_half_model_follow_each_other():
    """E's latents are float32 in any precision, and G and D take them."""
    half = bigbigan.load("digits", "cpu").half()
    x = images().half()
    found = half.encode(x, torch.zeros(4, 12))
    assert found["z_mean"].dtype == torch.float32
    assert torch.equal(half.generate(found["z_mean"]), half.reconstruct(x))
    half = tiny_model().eval().half()
    assert half.discriminate(x, half.encode(x)["z_mean"])["score_xz"].dtype == torch.float16
