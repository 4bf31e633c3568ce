"""What F sees of small data: every transform against its formula or another implementation, ADA's probability,
resumption."""

import copy
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
import torchvision.transforms.functional as tv
from scipy import ndimage

from bigbigan.config import Config
from bigbigan.data import RealImages
from bigbigan.losses import Scores
from bigbigan.networks.layers import batch_norms
from bigbigan.noise import uniforms
from bigbigan.training.augmentation import (
    ADA_NUMBERS,
    DIFFAUGMENT_NUMBERS,
    DiscriminatorAugmentation,
    ada,
    diffaugment,
    recolour,
    warp,
)
from bigbigan.training.batch import Batch, Drawer
from bigbigan.training.variants import augmentation_of
from tests.conftest import make_step, tiny_model, train
from tests.helpers.children import SMALLEST, free_port
from tests.runs.test_distributed import spawn
from tests.runs.test_train import same, stats, weights
from tests.training.test_step import make_batch

F64 = torch.float64
SMALL = {"encoder_blocks": (1, 1, 1, 1), "encoder_width": 0.03125}
ONE = torch.ones(1, dtype=F64)
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def pictures(n=3, side=9, dtype=F64):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(side), dtype=dtype) * 2 - 1


def numbers(n, width, seed=0, dtype=F64):
    return torch.from_numpy(uniforms(seed, "test", np.arange(n), width)).to(dtype)


# ADA's numbers: a gate before each transform's values; 0 is below every probability, 1 below none.
GATES = {
    "flip": 0,
    "turn": 2,
    "move": 4,
    "scale": 7,
    "first": 9,
    "stretch": 11,
    "second": 13,
    "shift": 15,
    "brightness": 18,
    "contrast": 20,
    "luma": 22,
    "hue": 24,
    "saturation": 26,
}


def only(transform, *values, n=3):
    """Numbers by which a single one of ADA's transforms is applied, with these values."""
    row = torch.full((ADA_NUMBERS,), 0.5, dtype=F64)
    row[list(GATES.values())] = 1
    at = GATES[transform]
    row[at] = 0
    row[at + 1 : at + 1 + len(values)] = torch.tensor(values, dtype=F64)
    return row.expand(n, -1)


def deviate(u):
    return float(torch.special.ndtri(torch.tensor(u, dtype=F64)))


def test_mirror_and_quarter_turns_are_exact():
    x = pictures()
    assert torch.equal(ada(x, only("flip", 0.2), ONE), x.flip(3)) and torch.equal(ada(x, only("flip", 0.7), ONE), x)
    found = [ada(x, only("turn", u), ONE) for u in (0.1, 0.3, 0.6, 0.9)]
    for turned, times in zip(found, (0, -1, 2, 1), strict=True):
        assert torch.equal(turned, torch.rot90(x, times, (2, 3)))
    even = pictures(side=8, dtype=torch.float32)
    assert torch.equal(ada(even, only("turn", 0.3).float(), ONE), torch.rot90(even, -1, (2, 3)))


def test_translation_by_whole_pixels_mirrors_at_the_edges():
    x = pictures(side=16)
    found = ada(x, only("move", 0.9, 0.2), ONE)  # round(0.8 · 2) = 2 right, round(−0.6 · 2) = −1: 1 up
    assert torch.equal(found, F.pad(x, (2, 0, 0, 1), mode="reflect")[:, :, 1:, :-2])


def mapped(x, matrix):
    """scipy: `matrix` (2, 2) of places (row, column) from the centre, and an offset."""
    matrix, offset = matrix
    centre = (np.array(x.shape[-2:]) - 1) / 2
    return np.stack(
        [
            [
                ndimage.affine_transform(
                    c, matrix, centre + np.asarray(offset) - matrix @ centre, order=1, mode="mirror"
                )
                for c in image
            ]
            for image in x.numpy()
        ]
    )


def rotation(angle):
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


@pytest.mark.parametrize("side", [8, 9])
def test_scaling_rotation_stretching_and_translation_are_scipys(side):
    x, u = pictures(side=side), 0.9
    s, angle = 2 ** (0.2 * deviate(u)), (2 * u - 1) * math.pi
    expected = {
        "scale": (np.eye(2) / s, (0, 0)),
        "stretch": (np.diag([s, 1 / s]), (0, 0)),  # wider, and lower
        "first": (rotation(angle), (0, 0)),
        "second": (rotation(angle), (0, 0)),
    }
    for transform, matrix in expected.items():
        np.testing.assert_allclose(
            ada(x, only(transform, u), ONE).numpy(), mapped(x, matrix), atol=1e-12, err_msg=transform
        )
    right, vertical = 0.125 * side * deviate(0.7), 0.125 * side * deviate(0.2)
    found = ada(x, only("shift", 0.7, 0.2), ONE)
    np.testing.assert_allclose(found.numpy(), mapped(x, (np.eye(2), (-vertical, -right))), atol=1e-12)


def test_the_warp_is_grid_sample_where_no_place_is_outside():
    x = pictures(2, 12)
    inverse = torch.tensor([[[0.5, 0.2, 0.3], [-0.1, 0.4, -0.7]]] * 2, dtype=F64)
    theta = inverse.clone()
    theta[:, :, 2] *= 2 / 12  # of half the side
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    torch.testing.assert_close(warp(x, inverse), F.grid_sample(x, grid, align_corners=False), **EXACT)


def test_transforms_are_applied_in_their_order():
    x, row = pictures(), only("scale", 0.8)[0].clone()
    for transform, value in (("flip", 0.1), ("turn", 0.3), ("first", 0.6), ("shift", 0.6)):
        row[GATES[transform]], row[GATES[transform] + 1] = 0, value
    inverse = (
        np.diag([1, -1.0])
        @ np.array([[0, -1], [1, 0]])
        @ (np.eye(2) / 2 ** (0.2 * deviate(0.8)))
        @ rotation(0.2 * math.pi)
    )
    right = 0.125 * 9 * deviate(0.6)
    offset = inverse @ np.array([0, -right])
    np.testing.assert_allclose(ada(x, row.expand(3, -1), ONE).numpy(), mapped(x, (inverse, offset)), atol=1e-12)


def test_colours_are_those_of_the_formulas():
    x = pictures()
    mean = x.mean(1, keepdim=True)
    torch.testing.assert_close(ada(x, only("brightness", 0.9), ONE), x + 0.2 * deviate(0.9), **EXACT)
    torch.testing.assert_close(ada(x, only("contrast", 0.9), ONE), x * 2 ** (0.5 * deviate(0.9)), **EXACT)
    torch.testing.assert_close(ada(x, only("luma", 0.1), ONE), x - 2 * mean, **EXACT)
    assert torch.equal(ada(x, only("luma", 0.9), ONE), x)
    torch.testing.assert_close(ada(x, only("saturation", 0.3), ONE), mean + (x - mean) * 2 ** deviate(0.3), **EXACT)
    third = ada(x, only("hue", 0.5 + 1 / 3), ONE)  # 2π/3: the colours change places
    torch.testing.assert_close(third, x.roll(1, 1), **EXACT)
    other = ada(x, only("hue", 0.61), ONE)
    turn = ndimage_rotation((0.22 * math.pi) * np.ones(3) / math.sqrt(3))
    np.testing.assert_allclose(other.numpy(), np.einsum("ij,njhw->nihw", turn, x.numpy()), atol=1e-12)


def ndimage_rotation(vector):
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(vector).as_matrix()


def test_a_matrix_of_colours_is_applied_to_each_pixel():
    x, matrix = pictures(), torch.randn(3, 3, 4, dtype=F64)
    ones = torch.cat([x, torch.ones(3, 1, 9, 9, dtype=F64)], dim=1)
    torch.testing.assert_close(recolour(x, matrix), torch.einsum("nij,njhw->nihw", matrix, ones), **EXACT)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_each_transform_has_its_probability(p):
    """Numbers that open one gate alone: the share of images that change; two rotations together count as one."""
    n = 1500
    x = pictures(1, 4).expand(n, -1, -1, -1)
    for transform, at in GATES.items():
        row = numbers(n, ADA_NUMBERS)
        closed = [g for g in GATES.values() if g != at and not (transform == "first" and g == GATES["second"])]
        row[:, closed] = 1
        changed = float((ada(x, row, p * ONE) != x).flatten(1).any(1).double().mean())
        possible = {"flip": 0.5, "turn": 0.75, "move": 0.0, "luma": 0.5}.get(transform, 1.0)
        if transform == "move":  # of 4 px no more than round(±½) = 0
            expected = 0.0
        elif transform == "second":
            expected = 1 - math.sqrt(1 - p)
        else:
            expected = p * possible
        assert changed == pytest.approx(expected, abs=4 * math.sqrt(0.25 / n) if 0 < p < 1 else 0.04 * p), transform


def test_at_probability_zero_nothing_changes_bit_for_bit():
    for dtype in (torch.float32, F64):
        x = pictures(64, 12, dtype)
        assert torch.equal(ada(x, numbers(64, ADA_NUMBERS, dtype=dtype), torch.zeros(1)), x)
        assert not torch.equal(ada(x, numbers(64, ADA_NUMBERS, dtype=dtype), torch.tensor([0.1])), x)


def test_left_out_parts_do_not_change_the_others():
    x, u = pictures(8, 8), numbers(8, ADA_NUMBERS)
    geometry = u.clone()
    geometry[:, [GATES[k] for k in ("flip", "turn", "move", "brightness", "contrast", "luma", "hue", "saturation")]] = 1
    torch.testing.assert_close(ada(x, u, ONE, ("geom",)), ada(x, geometry, ONE), **EXACT)
    v = numbers(8, DIFFAUGMENT_NUMBERS)
    torch.testing.assert_close(
        diffaugment(x, v), diffaugment(diffaugment(x, v, ("color",)), v, ("translation", "cutout")), **EXACT
    )


def test_numbers_at_the_ends_of_their_range_stay_finite():
    u = torch.stack([torch.zeros(ADA_NUMBERS), torch.ones(ADA_NUMBERS), torch.full((ADA_NUMBERS,), 2.0**-30)])
    for gates in (0.0, 1.0):
        u[:, list(GATES.values())] = gates
        assert ada(pictures(dtype=torch.float32), u, torch.ones(1)).isfinite().all()
    assert diffaugment(pictures(dtype=torch.float32), u[:, :7]).isfinite().all()


def test_colours_of_diffaugment_are_torchvisions():
    """On pictures in [0, 1]: factors of saturation and contrast about the mean of the channels, not their luma."""
    x, u = pictures(), torch.tensor([[0.8, 0.3, 0.9, 0.5, 0.5, 0.5, 0.5]], dtype=F64).expand(3, -1)
    found = diffaugment(x, u, ("color",))
    expected = x + 0.3
    grey = expected.mean(1, keepdim=True)
    expected = grey + 0.6 * (expected - grey)
    for image, result in zip(expected, found, strict=True):
        torch.testing.assert_close(image.mean() + 1.4 * (image - image.mean()), result, **EXACT)
    grey_picture = (
        torch.rand(1, 1, 9, 9, dtype=F64).expand(1, 3, 9, 9) * 0.2 + 0.4
    )  # grey: torchvision's luma is the mean
    same_mean = torch.tensor([[0.5, 0.5, 0.9, 0, 0, 0, 0]], dtype=F64)
    torch.testing.assert_close(
        diffaugment(grey_picture, same_mean, ("color",)), tv.adjust_contrast(grey_picture, 1.4), atol=1e-4, rtol=0
    )


def test_translation_of_diffaugment_is_torchvisions_and_its_cutout_is_erase():
    x = pictures(1, 16)
    seen = set()
    for tx in np.linspace(0.01, 0.99, 9):
        u = torch.tensor([[0, 0, 0, tx, 0.99 - tx / 2, 0, 0]], dtype=F64)
        horizontal, vertical = int(tx * 5) - 2, int(float(u[0, 4]) * 5) - 2
        expected = tv.affine(x, angle=0, translate=[horizontal, vertical], scale=1, shear=[0, 0], fill=[0.0])
        torch.testing.assert_close(diffaugment(x, u, ("translation",)), expected, **EXACT)
        seen |= {horizontal}
    assert seen == {-2, -1, 0, 1, 2}
    for side, size, places in ((16, 8, 17), (9, 5, 9)):  # an even and an odd square
        x = pictures(1, side)
        for place in range(places):
            u = torch.tensor([[0, 0, 0, 0, 0, (place + 0.5) / places, 0.4]], dtype=F64)
            row, column = int(0.4 * places) - size // 2, place - size // 2
            left, top = max(0, column), max(0, row)
            expected = tv.erase(x, top, left, row + size - top, column + size - left, torch.zeros(()).double())
            assert torch.equal(diffaugment(x, u, ("cutout",)), expected), (side, place)


@pytest.mark.parametrize("method", ["ada", "diffaugment"])
def test_gradients_are_those_of_finite_differences(method):
    x = pictures(2, 5).requires_grad_()
    u = numbers(2, ADA_NUMBERS if method == "ada" else DIFFAUGMENT_NUMBERS, seed=3)
    transform = (lambda a: ada(a, u, ONE)) if method == "ada" else (lambda a: diffaugment(a, u))
    assert torch.autograd.gradcheck(transform, (x,)) and torch.autograd.gradgradcheck(transform, (x,))


def augmentation(method, **changes):
    parts = {"ada": ("blit", "geom", "color"), "diffaugment": ("color", "translation", "cutout")}[method]
    return DiscriminatorAugmentation(method, parts, **changes)


def with_numbers(batch, method, n=8):
    width = augmentation(method).width
    batch.extra["augment"] = numbers(n, 2 * width, seed=5).unflatten(1, (2, width))
    return batch


def make(method, chunks=1, p=0.7, seed=0):
    model = tiny_model(**SMALL).double().train()
    for norm in batch_norms(model):
        norm.eval()  # so that a chunk's statistics are not its own
    step = make_step(model, {"data.chunks": chunks, "optim.augment": method})
    augmentation_of(step).p.fill_(p)
    return model, step


def gradients(method, chunks=1, updates=("D", "EG")):
    """Of D in its update, and of E and G in theirs."""
    model, step = make(method, chunks)
    found, batch = {}, with_numbers(make_batch(), method)
    for name, optimizer in (("D", step.optimizers.discriminator), ("EG", step.optimizers.encoder_generator)):
        names = {p: k for k, p in model.named_parameters()}
        mine = [p for g in optimizer.param_groups for p in g["params"]]
        optimizer.step = lambda mine=mine, name=name, names=names: found.update(
            {f"{name} {names[p]}": p.grad.clone() for p in mine if p.grad is not None}
        )
    values = step.discriminator_update(batch) if "D" in updates else {}
    values |= step.encoder_generator_update(batch) if "EG" in updates else {}
    return found, values, model


@pytest.mark.parametrize("method", ["ada", "diffaugment"])
def test_f_sees_both_pairs_transformed_in_both_updates_and_e_does_not(method):
    batch = with_numbers(make_batch(), method)
    found, _, model = gradients(method, updates=["D"])
    d, e, g = model.discriminator, model.encoder, model.generator
    t = (
        (lambda x, i: ada(x, batch.extra["augment"][:, i], 0.7 * ONE))
        if method == "ada"
        else (lambda x, i: diffaugment(x, batch.extra["augment"][:, i]))
    )
    z_hat, x_hat = e(batch.x).sample(batch.noise), g(batch.z)
    real, fake = d(t(batch.x, 0), z_hat.detach()), d(t(x_hat, 1).detach(), batch.z)
    loss = sum(F.relu(1 - s).mean() for s in real) + sum(F.relu(1 + s).mean() for s in fake)
    parameters = dict(d.named_parameters())
    for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
        torch.testing.assert_close(found[f"D discriminator.{name}"], gradient, msg=name)
    found, _, model = gradients(method, updates=["EG"])
    d, e, g = model.discriminator, model.encoder, model.generator
    z_hat, x_hat = e(batch.x).sample(batch.noise), g(batch.z)
    loss = sum(s.mean() for s in d(t(batch.x, 0), z_hat)) - sum(s.mean() for s in d(t(x_hat, 1), batch.z))
    wanted = {k: p for k, p in model.named_parameters() if f"EG {k}" in found}
    assert any(k.startswith("encoder") for k in wanted) and any(k.startswith("generator") for k in wanted)
    for name, gradient in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
        torch.testing.assert_close(found[f"EG {name}"], gradient, msg=name)


@pytest.mark.parametrize("method", ["ada", "diffaugment"])
def test_chunks_give_the_gradient_of_the_whole(method):
    (whole, a, _), (parts, b, _) = (gradients(method, chunks) for chunks in (1, 2))
    assert whole.keys() == parts.keys()
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], msg=name)
    assert a.keys() == b.keys() and ("augment_p" in a) == (method == "ada")
    for name in a:
        torch.testing.assert_close(a[name], b[name], msg=name)


def test_a_batch_without_numbers_is_refused():
    _, step = make("ada")
    with pytest.raises(ValueError, match="ada: expected 28 numbers for each image and pair, found none"):
        step.discriminator_update(make_batch())


def test_numbers_depend_on_seed_and_place_alone():
    def drawn(places, seed=0, purpose=""):
        real = RealImages(torch.zeros(len(places), 3, 8, 8, dtype=torch.uint8), None, places)
        return Drawer(seed, "normal", 8, draws=augmentation("ada").draws())(real, purpose).extra["augment"]

    places = np.arange(100, 140)
    whole = drawn(places)
    assert whole.shape == (40, 2, 28) and whole.dtype == torch.float32
    assert torch.equal(drawn(places[1::3]), whole[1::3]), "a process's share of the rows"
    assert not torch.equal(drawn(places, 1), whole) and not torch.equal(drawn(places, 0, " of G"), whole)
    assert not torch.equal(whole[:, 0], whole[:, 1]), "the two pairs of an image have their own"


def test_the_sign_is_of_s_x_where_it_is_a_score_of_its_own_and_else_of_the_sum():
    scores = Scores(torch.tensor([1.0, -1.0, 2.0, 0.5]), torch.tensor([-9.0, 9.0, 9.0, -9.0]), torch.zeros(4))

    def sign(scores, **changes):
        return float(augmentation("ada", **changes).report(scores, scores, None)["augment_sign"])

    assert sign(scores) == 0.5
    assert sign(scores, form="logistic") == 0
    assert sign(scores._replace(x=None)) == 0
    assert augmentation("diffaugment").report(scores, scores, None) == {}


def follow(augment, signs, images=50, broken=0.0):
    for sign in signs:
        augment.after({"augment_sign": torch.tensor(sign)}, torch.tensor(broken), images)
    return augment.p.item()


def test_p_moves_every_fourth_update_towards_the_target_and_stays_in_its_range():
    augment = augmentation("ada", target=0.6, images=1000)
    assert follow(augment, [0.9] * 3) == 0
    assert follow(augment, [0.9]) == pytest.approx(0.2), "4 · 50 images of 1,000"
    assert follow(augment, [0.9, 0.9, 0.9, -0.4]) == pytest.approx(0.0), "their mean, 0.575, is below"
    assert follow(augment, [-1.0] * 8) == 0
    assert follow(augment, [1.0] * 40) == 1
    assert follow(augment, [0.6] * 4) == 1, "at the target it stays"
    assert follow(augment, [float("nan")] * 8, broken=1.0) == 1, "of void updates nothing counts"
    assert follow(augment, [-1.0] * 4) == pytest.approx(0.8)


def test_the_state_comes_back_and_what_cannot_be_is_refused():
    augment, other = augmentation("ada", images=777), augmentation("ada", images=777)
    follow(augment, [0.9, 0.8, 0.95, 0.9, 0.99, 0.3], 64)
    other.load(json.loads(json.dumps(augment.state())))
    assert other.state() == augment.state() and other.updates == 2 and 0 < other.p < 1
    assert follow(augment, [0.7] * 7, 64) == follow(other, [0.7] * 7, 64)
    other.load({})
    assert other.state() == augmentation("ada").state()
    assert augmentation("diffaugment").state() == {}
    for bad in (
        {"p": 1.5},
        {"p": "much"},
        {"p": float("nan")},
        {"updates": 4},
        {"updates": 0.5},
        {"q": 1},
        [0.5],
        None,
        0.5,
    ):
        with pytest.raises(ValueError, match="augmentation: expected p in"):
            other.load(bad)


def test_d_that_knows_the_real_images_by_heart_raises_p():
    """A D that scores every real image high: p rises; with its signs turned, p stays at 0."""
    for bias, rises in ((5.0, True), (-5.0, False)):
        _, step = make("ada", p=0.0)
        augmentation_of(step).images = 64
        step.model.discriminator.score_x.bias.data.fill_(bias)
        for _ in range(4):
            values = step.discriminator_update(with_numbers(make_batch(), "ada"))
        assert float(values["augment_p"]) == (0.5 if rises else 0.0), "4 · 8 images of 64"


RUN = (*SMALLEST, "--run.sample_every=144", "--run.images=144", "--run.checkpoint_every=24", "--run.log_every=24")


@pytest.mark.run
@pytest.mark.parametrize(
    "flags",
    [("--optim.augment=ada", "--optim.ada_images=300", "--optim.ada_target=-0.9"), ("--optim.augment=diffaugment",)],
)
def test_a_run_resumes_bit_for_bit(tmp_path, flags):
    """Iterations of 2 D updates and checkpoints after each: some lie between two changes of p."""
    train(tmp_path, "--run.name=straight", *RUN, *flags)
    train(tmp_path, "--run.name=cut", *RUN, *flags, "--run.images=72")
    train(tmp_path, "--run.name=cut", *RUN, *flags)
    assert same(weights(tmp_path / "cut", 144), weights(tmp_path / "straight", 144))
    p = [[line["augment_p"] for line in stats(tmp_path / run) if "augment_p" in line] for run in ("straight", "cut")]
    assert p[0] == p[1]
    if "ada" in flags[0]:
        state = [
            json.loads((tmp_path / r / "checkpoints" / f"{144:012d}" / "state.json").read_text())
            for r in ("straight", "cut")
        ]
        assert state[0]["augmentation"] == state[1]["augmentation"] and state[0]["augmentation"]["p"] > 0
        assert p[0] and p[0][0] < p[0][-1] <= 1
        damaged = tmp_path / "cut" / "checkpoints" / f"{144:012d}" / "state.json"
        damaged.write_text(damaged.read_text().replace('"p": ', '"p": 9'))
        _, err = train(tmp_path, "--run.name=cut", *RUN, *flags, code=2)
        assert "augmentation: expected p in [0, 1]" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"optim.augment": "ada", "loss.form": "wgan_gp", "model.encoder": "none"},
            "--optim.augment ada with --loss.form wgan_gp: expected hinge",
        ),
        (
            {"optim.augment": "ada", "optim.augment_policy": "cutout"},
            "--optim.augment_policy cutout: expected some of blit, geom",
        ),
        ({"optim.augment_policy": "color"}, "--optim.augment_policy color: expected none without --optim.augment"),
        ({"optim.augment": "ada", "optim.ada_target": 1.0}, "--optim.ada_target 1.0: expected a mean of signs"),
        ({"optim.ada_images": 0}, "--optim.ada_images 0: expected at least 1"),
    ],
)
def test_settings_that_cannot_be_are_named(change, message):
    config = Config()
    for key, value in change.items():
        section, name = key.split(".")
        setattr(getattr(config, section), name, value)
    with pytest.raises(ValueError, match="--") as error:
        config.validate()
    assert message in str(error.value)


def test_a_policy_is_read_from_its_names():
    config = Config()
    config.optim.augment, config.optim.augment_policy = "diffaugment", "translation, color"
    config.validate()
    assert set(DiscriminatorAugmentation.from_config(config).parts) == {"translation", "color"}
    config.optim.augment_policy = ""
    assert DiscriminatorAugmentation.from_config(config).parts == ("color", "translation", "cutout")


def its_share(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    torch.save(of_process(rank, processes), f"{folder}/{rank}.pt")


def of_process(rank, processes):
    model, step = make("ada", p=0.2)
    augment = augmentation_of(step)
    augment.images, augment.target = 200, 0.0
    ps = []
    for seed in range(9):
        whole = with_numbers(make_batch(seed=seed), "ada")
        share = Batch(*(c[rank::processes] for c in (whole.x, whole.z, whole.noise)))
        share.extra["augment"] = whole.extra["augment"][rank::processes]
        ps.append(float(step.discriminator_update(share)["augment_p"]))
    return {"p": ps, "state": augment.state(), "weights": copy.deepcopy(model.discriminator.state_dict())}


def test_two_processes_adapt_as_one(tmp_path):
    spawn(its_share, 2, free_port(), str(tmp_path))
    found, expected = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)], of_process(0, 1)
    assert len(set(expected["p"])) > 1
    for one in found:
        assert one["p"] == expected["p"] and one["state"] == pytest.approx(expected["state"])
        for name, value in expected["weights"].items():
            torch.testing.assert_close(one["weights"][name], value, msg=name)


def shown(augment, x, u):
    """Images (2n, 3, S, S) as F sees them, by numbers (n, 2, width)."""
    return augment.show(x, Batch(x, x, x, extra={"augment": u}))


def test_in_bf16_places_keep_their_precision():
    """Autocast must not touch coordinates: the transform is that of float32."""
    augment, x = augmentation("ada"), pictures(16, 64, torch.float32)
    augment.p.fill_(1)
    u = numbers(8, 56, dtype=torch.float32).unflatten(1, (2, 28))
    with torch.autocast("cpu", torch.bfloat16):
        found = shown(augment, x, u)
    assert found.dtype == torch.float32 and torch.equal(found, shown(augment, x, u))


@pytest.mark.parametrize("method", ["ada", "diffaugment"])
def test_one_graph_holds_the_transforms_and_follows_p(method):
    augment, x = augmentation(method), pictures(8, 8, torch.float32)
    u = numbers(4, 2 * augment.width, dtype=torch.float32).unflatten(1, (2, augment.width))
    torch.compiler.reset()
    compiled = torch.compile(partial(shown, augment), backend="aot_eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for p in (0.0, 0.5, 1.0):
            augment.p.fill_(p)
            torch.testing.assert_close(compiled(x, u), shown(augment, x, u))
