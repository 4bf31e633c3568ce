"""Interpolation, directions, masks and inversion: against formulas written anew, on every kind of model."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import bigbigan
from bigbigan.errors import InputError
from bigbigan.model import BigBiGAN
from bigbigan.networks.interface import GeneratorInterface
from bigbigan.release.format import write_release
from bigbigan.uses import directions, interpolation, inversion, masks
from bigbigan.uses.command_line import at_encoder_size, draw_latents
from tests.conftest import tiny_model

KINDS = {
    "timm": {},
    "grey": {"grey": True},
    "deep": {"architecture": "biggan_deep"},
    "no skip": {"skip_z": False, "shared_embedding": False},
    "tables": {"classes": 3, "shared_embedding": False},
    "conditional": {"classes": 3},
    "high-resolution E": {"encoder_image_size": 16},
    "revnet": {"encoder": "revnet50", "encoder_width": 0.0625, "encoder_blocks": (1, 2)},
    "mlp": {"family": "mlp", "encoder": "mlp", "posterior": "tanh", "prior": "uniform"},
    "progressive": {"family": "progressive", "encoder": "progressive", "feature_base": 32, "feature_limit": 16},
}
LATENT = 8


@pytest.fixture(params=KINDS, scope="module")
def any_model(request):
    return tiny_model(**KINDS[request.param]).eval()


@pytest.fixture(scope="module")
def digits():
    return bigbigan.load("digits", "cpu")


def images(model, n=2, seed=0):
    size = model.encoder.image_size
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def classes_of(model, n=2):
    return torch.arange(n) % model.classes if model.classes else None


def state_of(model):
    return copy.deepcopy(model.state_dict()), [p.grad for p in model.parameters()]


def unchanged(model, before) -> bool:
    state, gradients = before
    same = all(torch.equal(value, model.state_dict()[key]) for key, value in state.items() if torch.is_tensor(value))
    return same and all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))


# ---- interpolation


def test_slerp_keeps_the_length_and_turns_evenly():
    a, b = torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    points = interpolation.latent_path(a, b, 4)[0]
    angles = torch.atan2(points[:, 1], points[:, 0])
    assert torch.allclose(angles, torch.linspace(0, torch.pi / 2, 4), atol=1e-6)
    assert torch.allclose(points.norm(dim=1), torch.tensor([3.0, 7 / 3, 5 / 3, 1.0]))
    shoemake = (torch.sin(torch.tensor(0.7)) * a / 3 + torch.sin(torch.pi / 2 - torch.tensor(0.7)) * b)[0]
    share = 1 - 0.7 / (torch.pi / 2)
    assert torch.allclose(F.normalize(interpolation.slerp(a, b, share)[0], dim=0), shoemake, atol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.0, -1.0])
def test_slerp_of_parallel_latents_is_the_line_and_has_gradients(factor):
    a = torch.randn(5, LATENT, generator=torch.Generator().manual_seed(0)).requires_grad_()
    middle = interpolation.slerp(a, factor * a.detach(), 0.5)
    assert torch.allclose(middle, a * (1 + factor) / 2, atol=1e-6)
    middle.sum().backward()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("point", [interpolation.lerp, interpolation.slerp])
def test_the_share_of_a_path_is_checked(point):
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    for t, message in {
        float("nan"): "t: expected a finite number, found nan",
        "0.5": "t: expected a tensor or an array .* or a number, found str",
        torch.tensor([0.0, torch.inf])[:, None]: "t: expected finite numbers",
        torch.linspace(
            0, 1, 3
        ): r"t: expected a number, or the shape \(..., 1\), found \(3,\)",  # one for each component
    }.items():
        with pytest.raises(InputError, match=message):
            point(a, b, t)
    path = point(a, b, torch.linspace(0, 1, 3)[:, None])
    assert torch.allclose(path[[0, 2]], torch.stack([a, b])) and float(path[1, 0]) == float(path[1, 1]) > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_learns_does_so_in_any_mode(mode):
    model = bigbigan.load("digits", "cpu")
    direction = torch.full((model.generator.latent_dim,), 0.2)
    calls = {
        "invert": lambda x: inversion.invert(model, x, steps=2, feature_weight=1.0, domain_weight=1.0).images,
        "discover": lambda x: directions.discover(model, 3, steps=2, batch_size=4, test_pairs=8).directions.vectors,
        "optimise": lambda x: masks.optimise_direction(model, steps=2, batch_size=2),
        "segment": lambda x: masks.segment(masks.train_segmenter(model, direction, 6.0, steps=2), x),
    }
    expected = {name: call(images(model)) for name, call in calls.items()}
    with mode():
        found = {name: call(images(model)) for name, call in calls.items()}
    assert all(torch.equal(found[name], expected[name]) for name in calls)


def test_the_path_suits_the_prior():
    from bigbigan.latents import PRIORS

    paths = {prior: interpolation.usual_path(prior) for prior in PRIORS}
    assert paths["normal"] == "slerp" and paths["uniform"] == "lerp" and set(interpolation.SPHERICAL) <= set(PRIORS)


@pytest.mark.parametrize(
    "use",
    [
        "interpolate",
        "invert",
        "traverse",
        "strongest",
        "discover",
        "optimise",
        "segment",
        "distance",
        "classifier",
        "masks",
    ],
)
def test_a_model_in_training_mode_is_used_in_evaluation_mode(use):
    """G's batch norms keep their statistics, and a picture does not depend on those beside it."""
    model = bigbigan.load("digits", "cpu")
    z = torch.zeros(1, model.generator.latent_dim)
    calls = {
        "interpolate": lambda: interpolation.interpolate(model, images(model, 1), images(model, 1, seed=1)),
        "invert": lambda: inversion.invert(model, images(model), steps=2).images,
        "traverse": lambda: directions.traverse(model, z, z[0] + 1, torch.linspace(-1, 1, 3)),
        "strongest": lambda: directions.strongest(model, 3).vectors,
        "discover": lambda: directions.discover(model, 3, steps=2, batch_size=4, test_pairs=8).directions.vectors,
        "optimise": lambda: masks.optimise_direction(model, steps=2),
        "segment": lambda: masks.train_segmenter(model, z[0] + 0.2, 6.0, steps=2)(images(model)),
        "distance": lambda: interpolation.distance_to_real(model, images(model), images(model, seed=1)),
        "classifier": lambda: torch.tensor(
            directions.classifier_of(model, images(model, 8), torch.arange(8) % 2)(images(model, 64, seed=1))
        ),
        "masks": lambda: masks.direction_masks(model, torch.stack([z[0], z[0] + 1]), z[0] + 1, 1.0)[1],
    }
    expected, before = calls[use](), state_of(model)
    model.train()
    assert torch.equal(calls[use](), expected)
    assert unchanged(model, before) and not model.training


def test_paths_begin_and_end_with_the_reconstructions(any_model):
    x1, x2, classes = images(any_model), images(any_model, seed=1), classes_of(any_model)
    x1.requires_grad_()
    film = interpolation.interpolate(any_model, x1, x2, steps=5, classes=classes)
    assert film.shape == (2, 5, 3, 8, 8)
    for place, x in ((0, x1), (-1, x2)):
        assert torch.allclose(film[:, place], any_model.reconstruct(x, classes=classes), atol=1e-5)
    (gradient,) = torch.autograd.grad(film[:, 2].sum(), x1)
    assert gradient.isfinite().all()
    figures = interpolation.smoothness(any_model, film)
    assert all(value >= 1 - 1e-4 for value in figures.values())


def test_a_pixel_blend_is_a_straight_even_line(digits):
    film = interpolation.interpolate(digits, images(digits), images(digits, seed=1), steps=5)
    blend = interpolation.pixel_blend(film)
    figures = interpolation.smoothness(digits, blend)
    assert figures["pixel_length"] == pytest.approx(1, abs=1e-4)
    assert figures["pixel_largest_step"] == pytest.approx(1, abs=1e-4)
    assert torch.allclose(blend[:, 2], (film[:, 0] + film[:, 4]) / 2, atol=1e-6)
    jump = torch.cat([film[:, :1].expand(-1, 3, -1, -1, -1), film[:, -1:].expand(-1, 2, -1, -1, -1)], 1)
    assert interpolation.smoothness(digits, jump)["feature_largest_step"] == pytest.approx(4, abs=1e-3)
    real = film[:, 0]
    assert torch.allclose(interpolation.distance_to_real(digits, real, real), torch.zeros(2), atol=1e-3)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda a: interpolation.latent_path(a, a[:1]), r"\(3, 8\) and \(1, 8\)"),
        (lambda a: interpolation.latent_path(a, a, 1), "steps: expected a whole number of at least 2, found 1"),
        (lambda a: interpolation.latent_path(a, a, path="arc"), "expected lerp or slerp, found 'arc'"),
    ],
)
def test_what_cannot_be_interpolated_is_refused(call, words):
    with pytest.raises(InputError, match=words):
        call(torch.zeros(3, LATENT))


# ---- directions


def test_the_strongest_directions_change_the_image_more_than_others(any_model):
    if any_model.classes:
        with pytest.raises(InputError, match="without classes"):
            directions.strongest(any_model)
        return
    found = directions.strongest(any_model, 3)
    assert found.vectors.shape == (3, LATENT) and len(found.names) == 3
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(3), atol=1e-5)
    axes = torch.eye(LATENT)
    with torch.no_grad():
        jacobian = (any_model.generate(axes) - any_model.generate(-axes)).flatten(1).double()  # (Z, values)
    changes = (found.vectors.double() @ jacobian).square().sum(1)
    assert torch.allclose(changes / jacobian.square().sum(), found.strengths.double(), rtol=1e-3)
    assert (changes.diff() <= 0).all() and changes[0] >= jacobian.square().sum(1).max() * (1 - 1e-6)


def test_sefa_finds_what_moves_the_first_layers_most(any_model):
    """Against the first layers themselves: the squared change of what they give, by random unit vectors and by ours."""
    generator, found = any_model.generator, directions.sefa(any_model)
    assert torch.allclose(found.vectors @ found.vectors.T, torch.eye(LATENT), atol=1e-4)
    parts = generator.latent_weights()
    assert sorted(i for columns, _ in parts for i in range(LATENT)[columns]) == list(range(LATENT))
    for number, (columns, weight) in enumerate(parts):
        first = directions.sefa(any_model, 1, number)
        random = F.normalize(torch.randn(200, weight.shape[1], generator=torch.Generator().manual_seed(0)), dim=1)
        with torch.no_grad():
            change = (weight @ first.vectors[0, columns]).norm()
            assert change >= (random @ weight.T).norm(dim=1).max() - 1e-4
        outside = torch.ones(LATENT, dtype=torch.bool)
        outside[columns] = False
        assert not first.vectors[0, outside].any()


def test_the_weights_are_those_that_z_meets():
    """A step of z changes the inputs of the first layers by exactly the weights' columns."""
    model = tiny_model().eval()
    generator, seen = model.generator, {}
    watched = [generator.linear, *(m for b in generator.blocks for n in (b.norm1, b.norm2) for m in (n.gain, n.bias))]
    for i, layer in enumerate(watched):
        layer.register_forward_hook(lambda _m, _i, output, i=i: seen.__setitem__(i, output.detach()))
    z = torch.zeros(1, LATENT)
    generator(z)
    before = [seen[i] for i in range(len(watched))]
    for column in range(LATENT):
        generator(z + F.one_hot(torch.tensor([column]), LATENT))
        change = [seen[i] - before[i] for i in range(len(watched))]
        for number, (columns, weight) in enumerate(generator.latent_weights()):
            inside = range(LATENT)[columns]
            own = change[:1] if number == 0 else change[4 * number - 3 : 4 * number + 1]
            expected = weight[:, inside.index(column)] if column in inside else torch.zeros(len(weight))
            assert torch.allclose(torch.cat(own, 1)[0], expected, atol=1e-5)


def test_a_generator_of_ones_own_is_refused_with_the_method_to_write():
    class Own(torch.nn.Module, GeneratorInterface):
        latent_dim = LATENT

    model = bigbigan.BigBiGAN(Own(), None, None)
    with pytest.raises(InputError, match="found Own; give it a method latent_weights"):
        directions.sefa(model)
    with pytest.raises(InputError, match=r"layer: expected a whole number from 0 to 1"):
        directions.sefa(tiny_model(), layer=5)


def test_the_pairs_of_discovery_are_shifted_along_one_column_by_no_less_than_a_twelfth():
    """G is the identity here, so that a pair of images is a pair of latents."""

    class Identity(torch.nn.Module):
        latent_dim, classes, image_size = 5, 0, 1

        def forward(self, z, classes=None):
            return z + 0 * self.weight

    generator = Identity()
    generator.weight = torch.nn.Parameter(torch.zeros(()))
    model = BigBiGAN(generator, None, None)
    a = torch.nn.Linear(3, 5, bias=False)
    x, shifted, k, epsilon = directions._Pairs(model, a, 3, 6.0, 0).draw(0, 4000, "test")
    torch.testing.assert_close(shifted - x, epsilon[:, None] * a.weight.T[k], atol=1e-5, rtol=1e-5)
    size = epsilon.abs()
    assert size.min() == 0.5 and 5.99 < size.max() <= 6 and abs(float(epsilon.mean())) < 0.2
    assert float((size == 0.5).float().mean()) == pytest.approx(1 / 12, abs=0.02), "ε ~ U(−6, 6), cut from below"
    assert k.bincount().min() > 1200


def test_the_reconstructor_of_a_discovery_names_directions_in_their_order(digits):
    torch.manual_seed(0)
    a, r = torch.nn.Linear(5, 12, bias=False), directions.Reconstructor(5, 8).eval()
    torch.nn.init.normal_(r.which.bias)
    pairs = directions._Pairs(digits, a, 5, 6.0, 0)
    found = directions._measured(pairs, r, 100)
    with torch.no_grad():
        x, shifted, k, _ = pairs.draw(0, 100, "discover, test")
        named = found.reconstructor(x, shifted)[0].argmax(1)
    right = (found.directions.vectors[named] == a.weight.T[k]).all(1)
    assert float(right.float().mean()) == pytest.approx(found.accuracy) and 0 < found.accuracy < 1
    assert len(found.directions.strengths.unique()) > 1, "an order that is to be kept"


def test_discovery_runs_on_any_model_and_leaves_it_alone(any_model):
    before = state_of(any_model)
    found = directions.discover(any_model, count=3, steps=2, batch_size=4, test_pairs=10)
    vectors = found.directions.vectors
    assert vectors.shape == (3, LATENT) and torch.allclose(vectors @ vectors.T, torch.eye(3), atol=1e-4)
    assert 0 <= found.accuracy <= 1 and found.shift_error > 0
    assert unchanged(any_model, before)


def test_learned_directions_are_told_apart_and_chance_is_not_beaten_untrained(digits):
    untrained = directions.discover(digits, count=4, steps=0, test_pairs=500)
    trained = directions.discover(digits, count=4, steps=150, batch_size=32, test_pairs=500)
    again = directions.discover(digits, count=4, steps=0, test_pairs=500)
    assert untrained.accuracy < 0.4 and trained.accuracy > 0.5
    assert torch.equal(untrained.directions.vectors, again.directions.vectors) and untrained.accuracy == again.accuracy
    with pytest.raises(InputError, match=r"count: expected a whole number from 1 to 12"):
        directions.discover(digits, count=13)


@pytest.mark.parametrize("kind", ["means", "linear"])
def test_directions_by_labels_lead_to_the_class(kind):
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.eye(LATENT)[:3] * 4
    z = centres[labels] + 0.1 * torch.randn(300, LATENT, generator=rng)
    found = directions.from_labels(z, labels, kind, ["a", "b", "c"])
    expected = F.normalize(1.5 * centres - centres.sum(0) / 2, dim=1)
    assert ((found.vectors * expected).sum(1) > 0.98).all() and found.names == ["a", "b", "c"]
    assert found.strengths.tolist() == [1, 1, 1]
    two = directions.from_labels(z[labels < 2], labels[labels < 2], kind)
    assert torch.allclose(two.vectors[0], -two.vectors[1], atol=1e-5)
    with pytest.raises(InputError, match="at least two classes, found 1"):
        directions.from_labels(z, torch.zeros(300))


def test_strengths_of_directions_by_labels_are_balanced_accuracies_half_way_between_the_groups():
    """Nine at 0 and one at 0.4 against one at 1: 0.52 lies half-way between the means 0.04 and 1, and parts them."""
    z = torch.tensor([0.0] * 9 + [0.4, 1.0, 7.0])[:, None]
    labels = torch.tensor([0] * 10 + [2, -1])  # the last is of no class
    found = directions.from_labels(z, labels, names=["a", "b", "c"])
    assert found.vectors.tolist() == [[-1], [1]] and found.names == ["a", "c"] and found.strengths.tolist() == [1, 1]
    labels[0] = 2  # the middle is now 0.27: a zero of class c is on the wrong side, and so is the 0.4 of a
    assert directions.from_labels(z, labels).strengths.tolist() == pytest.approx([(8 / 9 + 1 / 2) / 2] * 2)


def test_shares_along_a_direction_are_those_of_each_shift():
    model, z = squares(), torch.tensor([[-2.0, 0, 0, 0], [0.5, 0, 0, 0], [3.0, 0, 0, 0]])
    lit = lambda x: (x[:, 0, 3, 4] > 0).long().numpy()  # noqa: E731
    found = directions.share_along(model, lit, z, torch.eye(4)[0], torch.tensor([-1.0, 0.0, 1.0, 4.0]), 1)
    assert found.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1])


def test_a_direction_by_labels_changes_what_a_classifier_says(digits):
    train, _ = directions.open_data(directions.ImagesGiven(), digits)
    x, labels = directions.read_images(train, 8, 600)
    with torch.no_grad():
        found = directions.from_labels(digits.infer(x).mean, labels)
    predict = directions.classifier_of(digits, x, labels)
    z = draw_latents(digits, 50, "test")
    share = directions.share_along(digits, predict, z, found.vectors[0], torch.tensor([-2.0, 0.0, 4.0]), 0)
    assert share[0] < 0.1 and share[2] > share[1] + 0.4


def test_a_traverse_is_g_of_the_shifted_latents(any_model):
    z, classes = draw_latents(any_model, 2, "test"), classes_of(any_model)
    direction, shifts = F.normalize(torch.ones(LATENT), dim=0), torch.tensor([-1.0, 0.5])
    film = directions.traverse(any_model, z, direction, shifts, classes)
    expected = any_model.generate(z + 0.5 * direction, classes)
    assert film.shape == (2, 2, 3, 8, 8) and torch.allclose(film[:, 1], expected, atol=1e-5)


# ---- masks


def test_otsu_is_the_threshold_of_scikit_image_where_it_is_there():
    threshold_otsu = pytest.importorskip("skimage.filters").threshold_otsu
    x = images(tiny_model(), 5)
    for image, mask in zip(masks.grey(x), masks.otsu(x), strict=True):
        levels = ((image + 1) * 127.5).round().numpy().astype(np.uint8)
        expected = levels > threshold_otsu(levels)
        assert np.array_equal(mask.numpy(), expected if expected.mean() <= 0.5 else ~expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_otsu_finds_a_small_bright_or_dark_square(sign):
    x = torch.full((1, 3, 8, 8), -0.5 * sign) + 0.1 * torch.arange(8) / 8
    x[..., 2:4, 2:5] = 0.5 * sign
    truth = torch.zeros(1, 8, 8, dtype=torch.bool)
    truth[:, 2:4, 2:5] = True
    assert torch.equal(masks.otsu(x), truth)
    assert masks.iou(masks.otsu(x), truth).item() == 1 and masks.iou(~truth, truth).item() == 0
    half = truth.clone()
    half[:, 2] = False
    assert masks.iou(half, truth).item() == 0.5


def test_the_foreground_loss_is_the_written_formula():
    x, shifted = images(tiny_model(), 3), images(tiny_model(), 3, seed=1)
    luma = lambda t: (0.2989 * t[:, 0] + 0.587 * t[:, 1] + 0.114 * t[:, 2]).numpy()  # noqa: E731
    i, j = np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 8), indexing="ij")
    d = np.sqrt(i**2 + j**2)
    from scipy import ndimage

    def edges(images):
        return np.stack([np.hypot(*[ndimage.sobel(i, axis, mode="nearest") / 8 for axis in (0, 1)]) for i in images])

    expected = 2 * (luma(shifted) * 4 * (d - d.mean())).mean()
    expected += 10 * np.mean((edges(luma(x)) - edges(luma(shifted))) ** 2)
    assert float(masks.foreground_loss(x, shifted)) == pytest.approx(expected, abs=1e-3)


def test_a_model_of_lit_objects_is_segmented_without_labels():
    """G draws a square whose brightness and whose field's are two latents: the direction must be their difference."""
    model = squares()
    before = state_of(model)
    direction = masks.optimise_direction(model, steps=60, lr=0.1, shift=1.0)
    assert direction[0] > 0.4 and direction[1] < -0.4 and direction.norm() == pytest.approx(1)
    candidates = F.normalize(torch.tensor([[1.0, 1, 0, 0], [-1, 1, 0, 0], [0, 0, 1, 0]]), dim=1)
    chosen = masks.choose_direction(model, candidates, 1.0)
    assert torch.allclose(chosen, -candidates[1])
    z = draw_latents(model, 16, "test")
    x, _, found = masks.direction_masks(model, z, chosen, 1.0)
    assert masks.iou(found, model.generator.square.expand(16, -1, -1)).min() == 1
    lit = masks.direction_masks(model, torch.zeros(1, 4), chosen, 1.0, both_ways=True)[2]
    assert torch.equal(lit[0], model.generator.square)
    network = masks.train_segmenter(model, chosen, 1.0, steps=150, batch_size=16)
    assert masks.iou(masks.segment(network, x), model.generator.square.expand(16, -1, -1)).mean() > 0.8
    assert unchanged(model, before)
    with pytest.raises(InputError, match="expected one with clean masks"):
        masks.train_segmenter(model, torch.eye(4)[3], 1.0, steps=10, batch_size=16)


def test_a_segmenter_learns_from_the_given_latents_with_noise_and_the_given_kind_of_masks(monkeypatch):
    given, seen = torch.tensor([[10.0, 0, 0, 0], [-10.0, 0, 0, 0]]), []

    def first_masks(model, z, *_, both_ways):
        seen.append((z, both_ways))
        raise KeyboardInterrupt

    monkeypatch.setattr(masks, "direction_masks", first_masks)
    for noise, both_ways in ((0.25, True), (0.0, False)):
        with pytest.raises(KeyboardInterrupt):
            masks.train_segmenter(
                squares(), torch.eye(4)[0], 1.0, 1, 500, both_ways=both_ways, latents=given, noise=noise
            )
        z, kind = seen.pop()
        chosen = z[:, 0].sign()[:, None] * given[:1]
        assert kind is both_ways and 0.4 < float((chosen[:, 0] > 0).float().mean()) < 0.6
        assert float((z - chosen).std()) == pytest.approx(noise, rel=0.05)


def test_masks_that_are_both_empty_agree():
    none, some = torch.zeros(2, 4, 4, dtype=torch.bool), torch.zeros(2, 4, 4, dtype=torch.bool)
    some[1, 0, 0] = True
    assert masks.iou(none, some).tolist() == [1, 0]


def squares():
    class Squares(torch.nn.Module, GeneratorInterface):
        image_size, latent_dim = 8, 4

        def __init__(self):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(0.5))
            self.register_buffer("square", torch.zeros(8, 8, dtype=torch.bool))
            self.square[2:6, 3:6] = True

        def forward(self, z, classes=None):
            object_, field = (torch.tanh(self.gain * z[:, i]).view(-1, 1, 1) for i in (0, 1))
            return torch.where(self.square, object_, field)[:, None].expand(-1, 3, -1, -1)

    return bigbigan.BigBiGAN(Squares(), None, None).eval()


def test_small_parts_of_masks_go_and_unclean_masks_are_left_out():
    mask = torch.zeros(3, 8, 8, dtype=torch.bool)
    mask[0, 1:4, 1:5] = True
    mask[0, 7, 7] = True  # 1 of 12: removed
    mask[0, 6, 1:4] = True  # 3 of 12: kept
    mask[1, :5] = True  # more than half
    two, one = torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)
    two[:, :4], two[:, 4:] = -0.9, 0.9
    cleaned, kept = masks.clean(mask, torch.stack([two, two, two]))
    assert kept.tolist() == [True, False, False] and int(cleaned[0].sum()) == 15 and not cleaned[0, 7, 7]
    assert masks.clean(mask[:1], one[None])[1].tolist() == [False]


def test_masks_run_on_any_model(any_model):
    if any_model.prior != "normal":
        pytest.skip("shifts of a bounded prior are as those of a normal one")
    before = state_of(any_model)
    direction = masks.optimise_direction(any_model, steps=2, batch_size=4)
    classes = classes_of(any_model)
    x, _, found = masks.direction_masks(any_model, draw_latents(any_model, 2, "test"), direction, 1.0, classes)
    assert found.shape == (2, 8, 8) and found.dtype == torch.bool and unchanged(any_model, before)


def test_scenes_come_back_with_their_masks(tmp_path):
    from benchmarks.scenes import draw_scenes, write_scenes

    x, truth = draw_scenes(20, size=16, test=True)
    inside = [image[mask].mean() - image[~mask].mean() for image, mask in zip(x, truth, strict=True)]
    assert min(np.abs(inside)) > 0.2 and min(inside) < 0 < max(inside), "objects are lighter or darker than fields"
    write_scenes(tmp_path / "test.parquet", x, truth)
    read, masks_read = masks.read_scenes(tmp_path, 16)
    assert np.array_equal(masks_read.numpy(), truth) and np.abs(read[:, 0].numpy() - x).max() < 0.005
    with pytest.raises(InputError, match=r"expected pictures of 8×8 pixels, found one of 16×16"):
        masks.read_scenes(tmp_path / "test.parquet", 8)
    with pytest.raises(InputError, match="expected a Parquet file, or a folder"):
        masks.read_scenes(tmp_path / "nothing", 8)
    assert np.array_equal(draw_scenes(5, seed=3)[0], draw_scenes(5, seed=3)[0])


# ---- inversion


def test_inversion_comes_nearer_on_any_model_and_leaves_it_alone(any_model):
    x, classes, before = images(any_model), classes_of(any_model), state_of(any_model)
    weights = {"feature_weight": 0.1, "prior_weight": 1e-3, "domain_weight": 0.1}
    course = inversion.invert(any_model, x, 5, **weights, pictures_at=(2,), classes=classes)
    assert course.steps == [0, 2, 5] and course.film.shape == (2, 3, 3, 8, 8) and course.errors.shape == (2, 3)
    assert torch.allclose(course.film[:, 0], any_model.reconstruct(x, classes=classes), atol=1e-5)
    start = inversion.invert(any_model, x, 0, classes=classes)
    assert torch.equal(start.before, start.after) and torch.equal(start.before, course.before)
    target = any_model.for_discriminator(x)
    assert torch.allclose(course.before, (target - course.film[:, 0]).square().mean((1, 2, 3)), atol=1e-6)
    assert unchanged(any_model, before)


def test_an_image_of_g_is_found_again(digits):
    z = draw_latents(digits, 4, "test")
    with torch.no_grad():
        x = digits.generate(z)
    course = inversion.invert(digits, x, 150, prior_weight=0.0)
    assert (course.after < 0.5 * course.before).all() and course.after.mean() < 0.01
    # each image alone: the others of its batch change nothing
    alone = inversion.invert(digits, x[1:2], 150, prior_weight=0.0)
    assert torch.allclose(alone.after, course.after[1:2], rtol=0.05, atol=1e-4)


def test_the_loss_is_the_written_formula(digits):
    x, z = images(digits), draw_latents(digits, 2, "test")
    total, made, pixels = inversion._Loss(digits, x, 0.5, 0.25, 0.125, None)(z)
    feature, back = digits.encode(made)["avepool_feat"], digits.encode(made)["z_mean"]
    wanted = digits.encode(x)["avepool_feat"]
    expected = (x - made).square().mean((1, 2, 3))
    assert torch.allclose(pixels, expected)
    expected = expected + 0.5 * (feature - wanted).square().mean(1) / wanted.square().mean(1)
    expected = expected + 0.25 * z.square().mean(1) + 0.125 * (z - back).square().mean(1)
    assert torch.allclose(total, expected, atol=1e-5)


def test_latents_stay_where_the_prior_is():
    model = tiny_model(**KINDS["mlp"]).eval()
    course = inversion.invert(model, images(model), 20, lr=0.5, start=torch.full((2, LATENT), 0.9))
    assert course.z.abs().max() <= 1
    near = inversion.invert(tiny_model().eval(), images(model), 20, lr=0.5, prior_weight=100.0)
    far = inversion.invert(tiny_model().eval(), images(model), 20, lr=0.5, prior_weight=0.0)
    assert near.z.norm() < 0.5 * far.z.norm()


def test_a_gan_needs_a_start():
    gan = tiny_model(encoder="none").eval()
    x = images(tiny_model())
    with pytest.raises(InputError, match="a GAN, which has no encoder"):
        inversion.invert(gan, x, 3)
    course = inversion.invert(gan, x, 3, start=torch.zeros(2, LATENT))
    assert (course.after <= course.before).all()
    with pytest.raises(InputError, match=r"start: expected the shape \(2, 8\), found \(1, 8\)"):
        inversion.invert(gan, x, 3, start=torch.zeros(1, LATENT))
    with pytest.raises(InputError, match="an encoder for feature_weight"):
        inversion.invert(gan, x, 3, start=torch.zeros(2, LATENT), feature_weight=1.0)


# ---- the commands


@pytest.mark.parametrize(
    "module, arguments, words",
    [
        (interpolation, ["--pairs", "4", "--rows", "2"], ["latents, slerp", "pixel blend"]),
        (directions, ["--train_steps", "3", "--count", "2"], ["random orthonormal ones", "chance"]),
        (directions, ["--method", "sefa", "--count", "3"], ["layer 1: ", "; random "]),
        (directions, ["--method", "labels"], ["towards the class", "row 0: 0"]),
        (inversion, ["--images", "4", "--steps", "3", "--rows", "2"], ["E(x)", "a random z"]),
    ],
)
def test_the_commands_draw_and_print(module, arguments, words, tmp_path, capsys):
    out = tmp_path / "new" / "picture.png"
    module.main(["digits", "--out", str(out), "--device", "cpu", *arguments])
    printed = capsys.readouterr().out
    assert all(word in printed for word in words) and str(out) in printed
    with Image.open(out) as picture:
        assert picture.size[0] > 64 and len(np.unique(np.asarray(picture))) > 10


def test_the_command_of_masks_compares_with_baselines(tmp_path, capsys):
    from benchmarks.scenes import draw_scenes, write_scenes

    write_scenes(tmp_path / "test.parquet", *draw_scenes(10, 8, True))
    out = tmp_path / "masks.png"
    arguments = ["digits", "--masks", str(tmp_path), "--out", str(out), "--device", "cpu"]
    masks.main([*arguments, "--discover_steps", "2", "--optimise_steps", "2", "--segmenter_steps", "6"])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("Otsu", "random pixels", "optimised, both ways, U-Net")) and out.is_file()


@pytest.mark.parametrize(
    ("pictures", "found"),
    [
        ([8, 9], "pictures of 8×8 pixels, found one of 9×9"),
        ([8, None], "pictures of 8×8 pixels, found none in a row"),
        ([8, b"no picture"], "pictures, found UnidentifiedImageError"),
        ([], "pictures, found "),
    ],
)
def test_scenes_that_cannot_be_read_are_a_sentence(pictures, found, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    def cell(content):
        if isinstance(content, int):
            with io.BytesIO() as file:
                Image.new("RGB", (content, content)).save(file, "PNG")
                content = file.getvalue()
        return None if content is None else {"bytes": content, "path": None}

    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    masks_of = [cell(8) for _ in pictures]
    columns = {"image": pa.array(map(cell, pictures), kind), "mask": pa.array(masks_of, kind)}
    pq.write_table(pa.table(columns), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=f"--masks .*: expected {found}"):
        masks.read_scenes(tmp_path, 8)


def test_directions_by_labels_need_labels_in_both_splits(tmp_path, capsys):
    for name in ("train/a/1", "train/a/2", "train/b/1", "train/b/2", "test/1", "test/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{name}.png")
    with pytest.raises(SystemExit):
        directions.main(["digits", "--method", "labels", "--data.path", str(tmp_path), "--device", "cpu"])
    assert "error: --data.path: expected images with classes in both splits, found none" in capsys.readouterr().err


def test_the_command_of_masks_segments_images_without_masks(tmp_path, capsys):
    out = tmp_path / "masks.png"
    arguments = ["digits", "--out", str(out), "--device", "cpu", "--rows", "3"]
    masks.main([*arguments, "--discover_steps", "2", "--optimise_steps", "2", "--segmenter_steps", "6"])
    printed = capsys.readouterr().out
    assert "no true masks were given" in printed and "8: optimised, both ways, U-Net" in printed
    assert "IoU" not in printed and "everything" not in printed
    with Image.open(out) as picture:
        assert picture.size[0] > 2 * picture.size[1]  # eight columns of three rows


def test_the_command_of_masks_takes_a_conditional_model_with_the_classes_of_its_images(tmp_path, capsys):
    from benchmarks.scenes import draw_scenes, write_scenes

    card = {"name": "tiny", "images_seen": 0, "seed": 0, "data": {"path": "digits", "split": "train"}}
    write_release(tmp_path / "model", tiny_model(classes=10), card)
    write_scenes(tmp_path / "test.parquet", *draw_scenes(6, 8, True))
    arguments = [str(tmp_path / "model"), "--out", str(tmp_path / "masks.png"), "--device", "cpu", "--rows", "2"]
    masks.main([*arguments, "--discover_steps", "2", "--optimise_steps", "2", "--segmenter_steps", "2"])
    assert (tmp_path / "masks.png").is_file()
    with pytest.raises(SystemExit):
        masks.main([*arguments, "--masks", str(tmp_path)])
    assert "expected one without classes for images without labels" in capsys.readouterr().err


@pytest.mark.parametrize("module", [interpolation, directions, masks, inversion])
def test_what_a_command_cannot_use_ends_it_with_a_sentence(module, tmp_path, capsys):
    arguments = (
        ["--masks", str(tmp_path / "nothing")] if module is masks else ["--data.path", str(tmp_path / "nothing")]
    )
    method = ["--method", "labels"] if module is directions else []
    with pytest.raises(SystemExit) as stop:
        module.main(["digits", "--device", "cpu", *arguments, *method])
    assert stop.value.code == 2 and capsys.readouterr().err.startswith("error: ")


def test_images_are_resized_as_encode_resizes_them():
    model = tiny_model(encoder_image_size=16)
    x = images(tiny_model(), 2)
    x = x / 2  # so that the filter's overshoot stays in the range, where `encode` cuts it after each of two passes
    expected = bigbigan.encode(x, model, "avepool_feat")
    assert torch.allclose(model.encode(at_encoder_size(model, x))["avepool_feat"], expected, atol=1e-4)
