"""Few labels: variations are G near E(x), tasks need no labels, and the classifiers count what they should."""

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.errors import InputError
from bigbigan.uses import few_shot
from bigbigan.uses.command_line import draw_latents
from bigbigan.uses.few_shot import accuracy, draw_labelled, tasks, variations
from tests.conftest import tiny_model
from tests.networks.test_score_layers import KINDS
from tests.uses.test_anomalies import images


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_draws_variations_and_tasks(kind):
    model = tiny_model(**KINDS[kind]).eval()
    drawn, z = tasks(model, ways=3, shots=2, seed=5)
    assert drawn.shape == (3, 2, 3, 8, 8) and float(drawn.abs().max()) <= 1
    assert torch.equal(z, draw_latents(model, 3, "few-shot classes", 5).cpu())
    if model.encoder is None:
        with pytest.raises(InputError, match="found a GAN, which has no encoder"):
            variations(model, images(2))
        return
    x, classes = images(2, model.encoder.image_size), torch.tensor([2, 0]) if model.classes else None
    plain = bigbigan.reconstruct(x, model, classes=classes, value_range=(-1, 1))
    still = variations(model, x, 3, 0.0, classes=classes)
    torch.testing.assert_close(still, plain[:, None].expand(-1, 3, -1, -1, -1), rtol=1e-4, atol=1e-5)
    near, far = (variations(model, x, 40, noise, seed=1, classes=classes) for noise in (0.05, 1.0))
    assert torch.equal(near, variations(model, x, 40, 0.05, seed=1, classes=classes))
    assert not torch.equal(near, variations(model, x, 40, 0.05, seed=2, classes=classes))
    assert 0 < float((near - still[:, :1]).square().mean()) < float((far - still[:, :1]).square().mean())


def test_a_conditional_generator_draws_one_class_for_each_image(monkeypatch):
    model = tiny_model(classes=5).eval()
    seen = []
    picture = lambda z, _, classes: seen.append(classes.tolist()) or torch.zeros(len(z), 3, 8, 8)  # noqa: E731
    monkeypatch.setattr(few_shot, "generate", picture)
    variations(model, images(2), 3)
    tasks(model, ways=40, shots=3)
    tasks(model, ways=40, shots=3, seed=1)
    for found in seen:
        assert found == [label for label in found[::3] for _ in range(3)]
    assert set(seen[1]) == set(range(5)) and seen[1] != seen[2]


def test_the_noise_is_as_said(monkeypatch):
    model = tiny_model().eval()
    seen = []
    monkeypatch.setattr(few_shot, "generate", lambda z, *_, **__: seen.append(z) or torch.zeros(len(z), 3, 8, 8))
    variations(model, images(2), 4000, 0.2)
    z = bigbigan.encode(images(2), model, "z_mean", value_range=(-1, 1))
    shift = seen[0].unflatten(0, (2, 4000)) - z[:, None]
    assert float(shift.std()) == pytest.approx(0.2, rel=0.02) and float(shift.mean().abs()) < 0.005


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: variations(m, images(2), 0), "count: expected a whole number of at least 1, found 0"),
        (lambda m: variations(m, images(2), noise=-1), "noise: expected a number of at least 0, found -1"),
        (lambda m: tasks(m, ways=0), "ways: expected a whole number of at least 1, found 0"),
        (
            lambda m: draw_labelled(torch.tensor([0, 0, 1]), 0, 0),
            "shots: expected a whole number of at least 1, found 0",
        ),
        (
            lambda m: draw_labelled(torch.tensor([0, 0, 1, -1]), 2, 0),
            "expected at most 1, the images of class 1; found 2",
        ),
    ],
)
def test_what_cannot_be_is_a_sentence(call, message):
    with pytest.raises(InputError, match=message):
        call(tiny_model().eval())


def test_latents_stay_in_the_uniform_prior(monkeypatch):
    model = tiny_model(**KINDS["mlp"]).eval()
    seen = []
    monkeypatch.setattr(few_shot, "generate", lambda z, *_, **__: seen.append(z) or torch.zeros(len(z), 3, 8, 8))
    variations(model, images(2), 50, 3.0)
    assert float(seen[0].abs().max()) == 1


@pytest.mark.parametrize("arguments", [["--draws", "0"], ["--shots", "0"], ["--test_images", "0"]])
def test_what_the_command_refuses(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        few_shot.main(["digits", *arguments])
    assert stop.value.code == 2 and "expected at least" in capsys.readouterr().err


def test_labelled_images_are_so_many_of_each_class():
    y = torch.arange(60) % 3
    at = draw_labelled(y, 4, 0)
    assert y[at].tolist() == [0] * 4 + [1] * 4 + [2] * 4 and len(set(at.tolist())) == 12
    assert not torch.equal(at, draw_labelled(y, 4, 1))


def test_variations_move_the_boundary_by_their_weight():
    x, y = np.array([[-1.0], [1.0]]), np.array([0, 1])
    none = np.empty((2, 0, 1))
    assert accuracy(x, y, none, np.array([[-0.1], [0.1]]), y) == 1
    more = np.array([[[-1.0]], [[-0.5]]])  # of class 1, to the left: between them the boundary moves
    test = np.array([[-2.0], [0.0], [2.0]])
    assert accuracy(x, y, none, test, np.array([0, 1, 1])) >= 2 / 3
    assert accuracy(x, y, more, test, np.array([0, 1, 1])) == 1
    many = np.repeat(more, 50, axis=1)  # weigh no more than one
    edges = np.linspace(-1, 1, 201)[:, None]
    share = [accuracy(x, y, m, edges, np.ones(201)) for m in (none, more, many)]
    assert share[0] < share[1] and share[2] == pytest.approx(share[1], abs=0.01)


def test_the_command(tmp_path, capsys):
    few_shot.main(
        ["digits", "--shots", "1", "3", "--draws", "2", "--count", "2", "--noise", "0.2", "--train_images", "300",
         "--test_images", "60", "--out", str(tmp_path / "f.png")]
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert (tmp_path / "f.png").is_file() and lines[-1].startswith("mean ± standard deviation of 2 draws; 60 held-out")
    assert [line[:36].strip() for line in lines[1:4]] == ["pixels", "AvePool", "AvePool, 2 variations, σ = 0.2"]
    assert all(float(line[36:].split()[0]) > 15 for line in lines[1:4])
