"""What an update reports, by name, and what D is right about by its own objective; what a G update draws anew."""

import numpy as np
import pytest
import torch

from bigbigan.data import RealImages
from bigbigan.losses import Scores, decision_boundary, discriminator_loss
from bigbigan.metrics.bidirectional import scored_as_encoder_pairs
from bigbigan.release.load import card, load_model
from bigbigan.training.batch import Drawer
from bigbigan.training.guard import CollapseProbe, signs
from bigbigan.training.objectives import LSGAN, WGANGP, Objective
from bigbigan.training.trainer import Window
from bigbigan.training.variants import build_objective
from tests.conftest import make_step, tiny_model, train
from tests.runs.test_train import stats
from tests.training.test_guard import HEALTHY
from tests.training.test_step import make_batch

PROGRESSIVE = {
    "family": "progressive", "image_size": 16, "feature_base": 16, "feature_limit": 8, "encoder": "progressive",
}  # fmt: skip
REAL, FAKE = torch.tensor([1.1, 0.9, 0.6, 0.4]), torch.tensor([0.1, 0.3, 0.45, 0.8])


def objective(form: str, **unaries):
    if form == "wgan_gp":
        return WGANGP(**unaries)
    if form == "lsgan":
        return LSGAN(tiny_model(**PROGRESSIVE, discriminator_norm="none").discriminator, **unaries)
    return Objective(form, **unaries)


# What D is right about


@pytest.mark.parametrize(
    ("form", "shift", "right", "wrong"),
    [("lsgan", 0.0, 3 / 4, 3 / 4), ("hinge", -0.5, 3 / 4, 3 / 4), ("logistic", -0.5, 3 / 4, 3 / 4),
     ("joint_hinge", 0.0, 1.0, 0.0), ("wgan_gp", 100.0, 3 / 4, 3 / 4), ("wgan_gp", -7.0, 3 / 4, 3 / 4)],
)  # fmt: skip
def test_a_look_judges_d_by_the_targets_of_its_objective(monkeypatch, form, shift, right, wrong):
    from bigbigan.data import open_images

    split = open_images("digits", "train", "", "", False, 0.1)
    probe = CollapseProbe(
        tiny_model(encoder_blocks=(1, 1, 1, 1)), split, split, "normal", 0, 8, objective=objective(form)
    )
    monkeypatch.setattr(CollapseProbe, "_encoder_pairs", lambda *_: REAL + shift)
    monkeypatch.setattr(CollapseProbe, "_sums", lambda *_: FAKE + shift)
    figures = probe.measure()[1]
    assert figures["d_right_on_training_images"] == figures["d_right_on_held_out_images"] == right
    assert figures["d_right_on_samples"] == wrong
    assert figures["score_gap"] == pytest.approx(float(REAL.mean() - FAKE.mean()), rel=1e-4)


@pytest.mark.parametrize(("unaries", "kept"), [
    ({}, "x z xz"), ({"unary_x": False}, "z xz"), ({"unary_z": False}, "x xz"),
    ({"unary_x": False, "unary_z": False}, "xz"),
])  # fmt: skip
def test_a_look_sums_the_scores_that_are_trained(unaries, kept):
    from bigbigan.data import open_images

    split = open_images("digits", "train", "", "", False, 0.1)
    model = tiny_model(encoder_blocks=(1, 1, 1, 1)).train()
    probe = CollapseProbe(model, split, split, "normal", 0, 8, objective=Objective(**unaries))
    with torch.no_grad():
        samples = model.generator(probe.z)
        scores = model.discriminator(samples, probe.z)
        total = sum(getattr(scores, name) for name in kept.split())
        torch.testing.assert_close(probe._sums(samples, probe.z, torch.zeros(8, dtype=torch.long)), total)


def test_d_of_lsgan_has_lost_where_its_targets_are_exchanged():
    for gap, lost in ((1.0, False), (0.0, False), (-0.9, False), (-1.1, True)):
        assert ("scores" in signs(HEALTHY | {"score_gap": gap}, {}, {}, "lsgan")) == lost
        assert "scores" not in signs(HEALTHY | {"score_gap": gap}, {}, {})


@pytest.mark.parametrize("form", ["lsgan", "wgan_gp", "hinge", "logistic"])
@pytest.mark.parametrize("level", [0.0, 0.7, -3.0])
def test_shares_of_encoder_pairs_are_by_the_targets_of_the_objective(form, level):
    """D's scores moved by a constant: only a Wasserstein loss does not see it."""
    model, x = tiny_model(encoder_blocks=(1, 1, 1, 1)).eval(), make_batch(64).x.float()
    model.card["loss"] = {"form": form, "unary_x": True, "unary_z": True}
    with torch.no_grad():
        model.discriminator.score_xz.bias += level
        scores = Scores(*model.discriminate(x, model.encoder(x).mean).values())
    found = scored_as_encoder_pairs(model, x)
    if form == "wgan_gp":
        model.discriminator.score_xz.bias.data -= 50
        assert scored_as_encoder_pairs(model, x) == found
    else:
        boundary = decision_boundary(form, scores.total(), scores.total())
        assert found["sum"] == float((scores.total() > boundary).double().mean())
        assert boundary == (0.5 if form == "lsgan" else 0)
    assert ("score_x" in found) == (form in ("hinge", "logistic")), "a loss of the sum leaves s_x alone open"


def test_shares_leave_out_scores_that_were_not_trained():
    model, x = tiny_model(encoder_blocks=(1, 1, 1, 1)).eval(), make_batch(64).x.float()
    model.card["loss"] = {"form": "hinge", "unary_x": False, "unary_z": False}
    joint = model.discriminate(x, model.encoder(x).mean)["score_xz"]
    assert scored_as_encoder_pairs(model, x) == {"sum": float((joint > 0).double().mean())}


@pytest.mark.run
def test_a_release_says_what_its_scores_were_trained_for(tmp_path):
    train(tmp_path, "--run.name=a", "--run.images=48", "--run.probe=False", "--loss.unary_z=False")
    for source in (tmp_path / "a" / "release", tmp_path / "a" / "checkpoints"):
        assert load_model(source).card["loss"] == {"form": "hinge", "unary_x": True, "unary_z": False}
    assert card({}, 0)["loss"]["form"] == "hinge"


# Reports


def mean(values, term, side):
    return float(values[f"score_{term}_{side}"])


def test_wgan_gp_reports_its_terms_by_name():
    model = tiny_model(**PROGRESSIVE, discriminator_norm="none").double().train()
    step, batch = make_step(model, {"loss.form": "wgan_gp", "loss.drift": 0.1}), make_batch(size=16)
    batch.extra["mix"] = torch.rand(8)
    values = step.discriminator_update(batch)
    difference = sum(mean(values, t, "fake") - mean(values, t, "real") for t in ("x", "z", "xz"))
    assert float(values["loss_d"]) == pytest.approx(difference, rel=1e-4, abs=1e-5)
    assert float(values["gradient_penalty"]) > 0 and float(values["drift"]) > 0


@pytest.mark.parametrize(("interval", "chunks"), [(1, 1), (2, 1), (3, 2), (16, 4)])
def test_r1_is_reported_by_its_name_and_at_its_usual_strength(interval, chunks):
    settings = {"loss.r1": 2.0, "loss.r1_interval": interval, "data.chunks": chunks}
    model = tiny_model(encoder_blocks=(1, 1, 1, 1)).double().train()
    reported = []
    for number in range(2 * interval):
        values = make_step(model, settings, lr=0.0).discriminator_update(make_batch(), number)
        assert ("r1" in values) == (number % interval == 0)
        reported += [float(values["r1"])] if "r1" in values else []
    batch = make_batch()
    step = make_step(model, {"loss.r1": 2.0}, lr=0.0)
    assert reported == pytest.approx([float(step.discriminator_update(batch)["r1"])] * 2, rel=0.1)


def test_loss_d_with_r1_is_that_without():
    model = tiny_model(encoder_blocks=(1, 1, 1, 1)).double().train()
    plain, with_r1 = (
        make_step(model, {"loss.r1": r1}, lr=0.0).discriminator_update(make_batch())["loss_d"] for r1 in (0.0, 5.0)
    )
    torch.testing.assert_close(plain, with_r1, rtol=1e-3, atol=1e-3)  # one power iteration apart


def test_latent_regressors_report_e_apart_from_the_adversarial_loss():
    model = tiny_model(joint=False, posterior="deterministic", encoder_blocks=(1, 1, 1, 1)).double().train()
    step, batch = make_step(model, {"loss.latent_weight": 0.25}, lr=0.0), make_batch()
    values = step.encoder_generator_update(batch)
    with torch.no_grad():
        fake = step.objective.select(model.discriminator(model.generator(batch.z), None)).total().mean()
    assert float(values["loss_eg"]) == pytest.approx(-float(fake), rel=1e-3, abs=1e-4)
    assert float(values["loss_latent"]) > 0


def test_means_are_over_the_iterations_that_had_a_value():
    window = Window(None, None)
    for i in range(4):
        window.add({"a": torch.tensor(float(i))} | ({"r1": torch.tensor(6.0)} if i == 2 else {}))
    assert {k: float(v) for k, v in window.means().items()} == {"a": 1.5, "r1": 6.0} and window.means() == {}


@pytest.mark.run
def test_a_lazy_r1_is_in_the_log(tmp_path):
    """With two D updates an iteration and R1 in every fourth one, it is never in an iteration's last update."""
    train(tmp_path, "--run.name=a", "--loss.r1=1", "--loss.r1_interval=4", "--run.probe=False", "--run.log_every=48")
    lines = [line for line in stats(tmp_path / "a") if "loss_d" in line]
    assert len(lines) == 5 and all(line["r1"] > 0 for line in lines)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "R1 penalty" in page


def test_the_loss_itself_is_as_before():
    pairs = Scores(*torch.randn(3, 8)), Scores(*torch.randn(3, 8))
    for form in ("hinge", "joint_hinge", "logistic", "wgan_gp", "lsgan"):
        ours = objective(form).discriminator_loss(*pairs)
        torch.testing.assert_close(ours, discriminator_loss(*pairs, form))


# What the G update of a GAN draws anew


def drawer(**settings):
    model = tiny_model(**settings.pop("model", {}))
    step = make_step(model, settings)
    return Drawer(0, "normal", 8, model.generator.classes, draws=step.draws()), step


def real(n=64):
    return RealImages(torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.zeros(n, dtype=torch.long), np.arange(n))


@pytest.mark.parametrize("model", [{"classes": 10}, {"classes": 10, "encoder": "none"}, {"encoder": "none"}])
@pytest.mark.parametrize(
    "settings", [{}, {"optim.dropout": 0.5}, {"optim.augment": "ada"}, {"optim.augment": "diffaugment"}]
)
def test_the_g_update_of_a_gan_repeats_nothing_of_d_s_last_batch_but_its_places(model, settings):
    draw, _ = drawer(model=model, **settings)
    d, g, again = draw(real()), draw(real(), " of G"), draw(real())
    assert torch.equal(d.z, again.z) and not torch.equal(d.z, g.z)
    if "classes" in model:
        assert torch.equal(d.z_classes, again.z_classes) and (d.z_classes != g.z_classes).float().mean() > 0.5
        assert set(g.z_classes.tolist()) <= set(range(10)) and torch.equal(d.x_classes, g.x_classes)
    for name, values in d.extra.items():
        assert torch.equal(values, again.extra[name]) and not torch.equal(values, g.extra[name]), name


def test_the_objective_of_a_config():
    from bigbigan.config import Config, Loss

    model = tiny_model(encoder_blocks=(1, 1, 1, 1))
    for form, boundary in (("hinge", 0.0), ("wgan_gp", 2.0)):
        made = build_objective(Config(loss=Loss(form=form)), model)
        assert made.boundary(torch.full((4,), 3.0), torch.full((4,), 1.0)) == boundary
