"""What a run does when something in it is no longer finite, or it collapses: found at once, named, alike everywhere,
bounded."""

import copy
import json
import os
import re
import signal
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist

import bigbigan.train
from bigbigan.networks.layers import spectral_layers
from bigbigan.training.batch import Drawer
from bigbigan.training.checkpoint import complete, read
from bigbigan.training.guard import CollapseProbe, recovery, signs
from bigbigan.training.guard.spectra import singular_values, spectra
from bigbigan.training.step import Step
from tests.conftest import make_step, tiny_model, train
from tests.helpers.children import SMALLEST, context, free_port
from tests.runs.test_distributed import spawn
from tests.runs.test_train import same, stats, weights
from tests.training.test_step import make, make_batch

NAN = float("nan")
SMALL = {"encoder_blocks": (1, 1, 1, 1), "encoder_width": 0.03125}
QUICK = [*SMALLEST, "--run.sample_every=240", "--run.images=240"]  # 24 images an iteration
SHORT = (*QUICK, "--run.checkpoint_every=48")


def state_of(model, step):
    moments = {
        f"{i} {k}": v.clone()
        for o in (step.optimizers.discriminator, step.optimizers.encoder_generator)
        for i, s in enumerate(o.state.values())
        for k, v in s.items()
    }
    return {k: v.clone() for k, v in model.state_dict().items() if k[-2:] not in (".u", ".v")} | moments


def test_all_is_well_in_a_healthy_iteration():
    _, step = make(**SMALL)
    for _ in range(2):
        step.discriminator_update(make_batch())
        step.encoder_generator_update(make_batch())
        assert step.health.found() == ""


NAMES = [
    "discriminator.f.blocks.0.conv1.weight",
    "discriminator.score_xz.bias",
    "generator.embedding.weight",
    "encoder.trunk.stem.conv.weight",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_gradient_is_named_and_its_update_moves_nothing(name, value):
    model, step = make(**SMALL)
    parameters = dict(model.named_parameters())
    name = name if name in parameters else next(n for n in parameters if n.startswith("encoder."))
    step.discriminator_update(make_batch())
    step.encoder_generator_update(make_batch())
    assert step.health.found() == ""
    before = state_of(model, step)
    model.requires_grad_(True)  # D is frozen after an update of E and G
    parameters[name].register_hook(lambda g: torch.where(torch.arange(g.numel()).view_as(g) == 0, value, g))
    (step.discriminator_update if name.startswith("discriminator") else step.encoder_generator_update)(make_batch())
    after = state_of(model, step)
    assert step.health.found() == f"the gradient of {name} became {'nan' if value != value else 'inf'}"
    assert before.keys() == after.keys() and [k for k in before if not torch.equal(before[k], after[k])] == []


def test_a_value_and_a_weight_come_before_the_gradients_they_spoil():
    model, step = make(**SMALL)
    batch = make_batch()
    batch.x[3, 0, 0, 0] = NAN
    before = state_of(model, step)
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    assert step.health.found().startswith("loss_d, with ")
    assert all(torch.equal(v, before[k]) for k, v in state_of(model, step).items() if k in before), "E's statistics too"
    with torch.no_grad():
        model.generator.blocks[0].conv1.weight[0, 0, 0, 0] = NAN
    step.discriminator_update(make_batch())
    step.encoder_generator_update(make_batch())
    assert step.health.found().startswith("the weight generator.blocks.0.conv1.weight, with ")


@pytest.mark.parametrize("value", [NAN, float("-inf")])
@pytest.mark.parametrize(
    "part",
    [
        "discriminator.f.blocks.1.conv2.weight",
        "discriminator.h.blocks.0.linear1.weight",
        "discriminator.score_z.bias",
        "generator.linear.weight",
        "generator.embedding.weight",
        "generator.blocks.0.norm1.gain.weight",
        "encoder.mlp",
        "encoder.linear",
        "encoder.trunk",
    ],
)
def test_no_weight_hides_for_more_than_an_iteration(part, value):
    """One entry of each kind of parameter; of E's trunk and head, of each."""
    model, step = make(**SMALL)
    original = copy.deepcopy(model.state_dict())
    for name, parameter in model.named_parameters():
        if not name.startswith(part):
            continue
        model.load_state_dict(original)
        with torch.no_grad():
            parameter.view(-1)[0] = value
        step.discriminator_update(make_batch())
        step.encoder_generator_update(make_batch())
        assert step.health.found().startswith(f"the weight {name}, with"), name


def test_a_healthy_step_is_that_of_plain_adam():
    """found_inf = 0 changes no bit."""
    results = []
    for guarded in (True, False):
        model = tiny_model(**SMALL).train()
        step = make_step(model, betas=(0.5, 0.999))
        if not guarded:
            step.health.judge_gradients, step.health.judge_weights = lambda *_: None, lambda: None
        batch = make_batch()
        for column in ("x", "z", "noise"):
            setattr(batch, column, getattr(batch, column).float())
        for _ in range(3):
            step.discriminator_update(batch)
            step.encoder_generator_update(batch)
        results.append(state_of(model, step))
    assert results[0].keys() == results[1].keys() and all(torch.equal(v, results[1][k]) for k, v in results[0].items())


@pytest.fixture
def faults(monkeypatch):
    """A set of places in the run, to be filled: the images there are NaN."""
    places, draw = set(), Drawer.__call__

    def spoiled(self, real, *arguments):
        batch = draw(self, real, *arguments)
        for row in [i for i, place in enumerate(real.positions.tolist()) if place in places]:
            batch.x[row] = NAN
        return batch

    monkeypatch.setattr(Drawer, "__call__", spoiled)
    return places


def recoveries(run):
    return [(line["images_seen"], line["recovery"]) for line in stats(run) if "recovery" in line]


def content(run, images=240):
    return json.loads((run / "checkpoints" / f"{images:012d}" / "state.json").read_text())


@pytest.mark.run
def test_a_roll_back_passes_over_the_images_that_broke_and_resumes_bit_for_bit(faults, tmp_path):
    faults.add(130)  # in the sixth iteration, after the checkpoint at 96 images
    out, _ = train(tmp_path, "--run.name=a", *SHORT)
    run = tmp_path / "a"
    (found,) = recoveries(run)
    assert found[0] == 96 and "at 144 images loss_d, with" in found[1] and "past 48 images" in found[1]
    assert f"back to {run / 'checkpoints' / '000000000096'}" in out
    assert content(run)["recovery"] == {"times": 1, "passed_over": 48, "factors": {}}
    logged = [line["images_seen"] for line in stats(run) if "loss_d" in line]
    assert logged == list(range(24, 241, 24)), "each image count once, though some were trained twice"
    # The same with a stop before and one after: the recovery is repeated, and remembered.
    for images in (96, 192, 240):
        train(tmp_path, "--run.name=b", *SHORT, f"--run.images={images}")
    assert same(weights(tmp_path / "b"), weights(run))
    faults.clear()
    train(tmp_path, "--run.name=c", *SHORT)
    assert "recovery" not in content(tmp_path / "c") and not same(weights(tmp_path / "c"), weights(run))


@pytest.mark.run
def test_a_second_roll_back_to_the_same_checkpoint_also_halves_the_rates(faults, tmp_path):
    faults |= {130, 180}  # the way on, from 96 + 48, meets the second
    train(tmp_path, "--run.name=a", *SHORT)
    assert [text.split(" × ")[0] for _, text in recoveries(tmp_path / "a")][-1] == "rates now"
    found = content(tmp_path / "a")["recovery"]
    assert found["times"] == 2 and found["passed_over"] == 96 and set(found["factors"].values()) == {0.5}


@pytest.mark.run
@pytest.mark.parametrize("how", ["skip", "shrink"])
def test_an_update_is_left_out_and_the_run_goes_on(faults, tmp_path, how):
    faults.add(130)
    train(tmp_path, "--run.name=a", *SHORT, f"--run.on_nonfinite={how}")
    run = tmp_path / "a"
    assert recoveries(run)[0][0] == 144 and recoveries(run)[0][1].endswith("the update was left out")
    factors = dict.fromkeys(("discriminator", "encoder", "generator"), 0.5) if how == "shrink" else {}
    assert content(run)["recovery"] == {"times": 1, "passed_over": 0, "factors": factors}
    assert all(v == v for line in stats(run) for v in line.values()), "no NaN was logged"


@pytest.mark.run
@pytest.mark.parametrize(("how", "times"), [("roll_back", 3), ("skip", 3), ("stop", 0)])
def test_it_ends_with_a_report_after_a_bounded_number_of_times(faults, tmp_path, how, times):
    faults |= set(range(130, 10_000))
    _, err = train(tmp_path, "--run.name=a", *SHORT, f"--run.on_nonfinite={how}", code=1)
    newest = complete(tmp_path / "a" / "checkpoints")[-1]
    assert (
        f"The run went on {times} times" in err
        and f"The newest good checkpoint is {newest}" in err
        and "Traceback" not in err
    )
    assert "loss_d" in err and "expected finite numbers" in err
    read(newest)


@pytest.mark.run
@pytest.mark.parametrize("how", ["roll_back", "skip"])
def test_a_weight_that_is_not_finite_is_named_within_one_iteration_and_undone(tmp_path, monkeypatch, how):
    done, update = [], Step.encoder_generator_update

    def spoil(step, batch):
        done.append(update(step, batch))
        if len(done) == 5:
            with torch.no_grad():
                step.model.encoder.mlp.blocks[0]["linear1"].weight[0, 0] = float("inf")
        return done[-1]

    monkeypatch.setattr(Step, "encoder_generator_update", spoil)
    train(tmp_path, "--run.name=a", *SHORT, f"--run.on_nonfinite={how}")
    (found,) = recoveries(tmp_path / "a")
    assert (
        found[0] == 96
        and "at 144 images the weight encoder.mlp.blocks.0.linear1.weight" in found[1]
        and "back to" in found[1]
    )


@pytest.mark.run
def test_before_the_first_checkpoint_there_is_nothing_to_go_back_to(faults, tmp_path):
    faults.add(3)
    _, err = train(tmp_path, "--run.name=a", *SHORT, code=1)
    assert "at 24 images loss_d" in err and "before the first checkpoint" in err
    train(tmp_path, "--run.name=a", *SHORT, "--run.on_nonfinite=skip")


# Several processes


def one_broken_rank(rank, port, folder):
    """Only rank 1 meets a NaN: both leave the update out."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model, step = make(**SMALL)
    batch = make_batch(seed=rank)
    if rank:
        batch.x[0, 0, 0, 0] = NAN
    before = state_of(model, step)
    step.discriminator_update(batch)
    step.encoder_generator_update(batch)
    still = all(torch.equal(v, before[k]) for k, v in state_of(model, step).items() if k in before)
    torch.save((step.health.found(), still), f"{folder}/{rank}.pt")


def whole_run(rank, port, root, collapsing):
    """A run of two processes; rank 1 meets a NaN at image 81, or the main process sees a collapse at 72 images."""
    torch.set_num_threads(1)
    draw = Drawer.__call__

    def spoiled(self, real, *arguments):
        batch = draw(self, real, *arguments)
        batch.x[[i for i, place in enumerate(real.positions.tolist()) if place == 81]] = NAN
        return batch

    seen = []
    collapse = lambda *_: seen.append(0) or ({"spectra": "made up"} if len(seen) == 3 else {})  # noqa: E731
    patch = (
        mock.patch("bigbigan.training.guard.collapse.signs", collapse)
        if collapsing
        else mock.patch.object(Drawer, "__call__", spoiled)
    )
    group = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    os.environ.update({key: str(value) for key, value in group.items()})
    flags = [*SMALLEST, "--run.name=run", f"--run.root={root}", "--run.spectra_every=24", "--run.on_collapse=roll_back"]
    with patch:
        bigbigan.train.main(flags)


def test_two_processes_agree_though_only_one_met_it(tmp_path):
    context()
    spawn(one_broken_rank_of, 2, free_port(), str(tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert found[0] == found[1] and found[0][1] and found[0][0].startswith("loss_d, with ")


def one_broken_rank_of(rank, _processes, port, folder):
    one_broken_rank(rank, port, folder)


def whole_run_of(rank, _processes, port, root, collapsing):
    whole_run(rank, port, root, collapsing)


@pytest.mark.run
@pytest.mark.parametrize("collapsing", [False, True])
def test_two_processes_go_back_together(tmp_path, collapsing):
    spawn(whole_run_of, 2, free_port(), str(tmp_path), collapsing)
    run = tmp_path / "run"
    found = recoveries(run)
    if collapsing:
        assert found[0][0] == 48 and "signs of collapse: made up" in found[0][1] and "0.5 of the encoder" in found[1][1]
        assert content(run, 96)["recovery"] == {
            "times": 1,
            "passed_over": 24,
            "factors": {"encoder": 0.5, "generator": 0.5},
        }
        assert [p.name for p in complete(run / "before_collapse")] == [f"{48:012d}"]
    else:
        assert found[0][0] == 72 and content(run, 96)["recovery"]["passed_over"] == 24


# Spectra and collapse


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (8, 3, 3, 3), (1, 7), (2, 9), (64, 64)])
def test_singular_values_are_those_of_torch(shape):
    torch.manual_seed(0)
    weight = torch.randn(shape) * 3
    expected = torch.linalg.svdvals(weight.flatten(1).double())[:3]
    assert singular_values(weight) == pytest.approx(expected.tolist(), rel=1e-6)
    assert all(v != v for v in singular_values(weight * NAN))


def test_the_spectra_name_every_spectrally_normalised_layer_of_g_and_d():
    model = tiny_model(generator_attention=8, generator_width=4)
    found = spectra(model)
    assert len(found) == len(spectral_layers(model.generator)) + len(spectral_layers(model.discriminator)) > 20
    modules = dict(model.named_modules())
    for name, values in found.items():
        expected = torch.linalg.svdvals(modules[name].weight.detach().flatten(1).double())[:3]
        assert values == pytest.approx(expected.tolist(), rel=1e-5), name
    assert not any(name.startswith("encoder") for name in found)


def test_a_look_changes_nothing_and_sees_what_it_says():
    from bigbigan.data import open_images

    model = tiny_model().train()
    split = [open_images("digits", name, "", "", name == "test", 0.1) for name in ("train", "test")]
    watch, before = CollapseProbe(model, *split, "normal", 0, 64), copy.deepcopy(model.state_dict())
    found, figures = watch.measure()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items()) and model.training
    assert watch.measure() == (found, figures)
    z = watch.z
    samples = model.generator(z)
    fake = sum(model.discriminator(samples, z).terms())
    assert figures["d_right_on_samples"] == (fake < 0).double().mean()
    variance = [v.detach().double().var(0).mean().item() for v in (samples, watch.test[0])]
    assert figures["sample_diversity"] == pytest.approx(variance[0] / variance[1])
    assert figures["sigma0_generator"] == max(v[0] for k, v in found.items() if k.startswith("generator"))


def made_up(monkeypatch, at):
    """A guard that sees a collapse at its looks number `at`."""
    looks = []

    def signs(*_):
        looks.append(0)
        return {"made up": "a made up sign"} if len(looks) in at else {}

    monkeypatch.setattr("bigbigan.training.guard.collapse.signs", signs)


LOOKING = (*QUICK, "--run.spectra_every=24", "--run.keep_checkpoints=1")


@pytest.mark.run
def test_an_alarm_is_said_once_and_keeps_the_checkpoint_from_before(tmp_path, monkeypatch):
    made_up(monkeypatch, {5, 6, 8})  # at 120, 144, 192 images
    out, _ = train(tmp_path, "--run.name=a", *LOOKING)
    run = tmp_path / "a"
    kept = run / "before_collapse" / f"{96:012d}"
    assert out.count("alarm: signs of collapse: a made up sign") == 1 and str(kept) in out
    assert [line["images_seen"] for line in stats(run) if "alarm" in line] == [120]
    assert json.loads((kept / "alarm.json").read_text())["images_seen"] == 120
    assert read(kept)[0]["images_seen"] == 96 and [p.name for p in complete(run / "checkpoints")] == [f"{240:012d}"]
    assert [line["images_seen"] for line in stats(run) if "spectra" in line] == list(range(24, 241, 24))
    page = (run / "report.html").read_text()
    assert "a made up sign" in page and "generator.blocks.0.conv1" in page


@pytest.mark.run
def test_looking_changes_no_weight(tmp_path):
    train(tmp_path, "--run.name=a", *LOOKING)
    train(tmp_path, "--run.name=b", *LOOKING, "--run.spectra_every=0")
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))


@pytest.mark.run
def test_a_collapse_stops_the_run_if_so_wished(tmp_path, monkeypatch):
    made_up(monkeypatch, {5})
    _, err = train(tmp_path, "--run.name=a", *LOOKING, "--run.on_collapse=stop", code=1)
    assert (
        "at 120 images signs of collapse: a made up sign" in err
        and f"before is {tmp_path}" in err
        and "Traceback" not in err
    )


@pytest.mark.run
def test_a_stop_after_a_roll_back_names_a_checkpoint_that_is_there(tmp_path, monkeypatch):
    made_up(monkeypatch, {5})
    inner = recovery.RecoveryPolicy.after_collapse

    def then_stop(*arguments):
        inner(*arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(recovery.RecoveryPolicy, "after_collapse", then_stop)
    out, err = train(tmp_path, "--run.name=a", *LOOKING, "--run.on_collapse=roll_back", code=75)
    named = re.search(r"goes on from (\S+)", out + err)[1]
    assert Path(named).is_dir()


@pytest.mark.run
def test_a_collapse_rolls_back_with_lower_rates_even_past_rotation(tmp_path, monkeypatch):
    made_up(monkeypatch, {5})
    train(tmp_path, "--run.name=a", *LOOKING, "--run.on_collapse=roll_back")
    run = tmp_path / "a"
    assert content(run)["recovery"] == {"times": 1, "passed_over": 24, "factors": {"encoder": 0.5, "generator": 0.5}}
    assert [at for at, _ in recoveries(run)] == [96, 96]
    made_up(monkeypatch, set(range(5, 100)))
    _, err = train(tmp_path, "--run.name=b", *LOOKING, "--run.on_collapse=roll_back", "--run.recoveries=2", code=1)
    assert "The run went on 2 times" in err and "newest good checkpoint" in err


HEALTHY = {
    "d_right_on_training_images": 0.9,
    "d_right_on_held_out_images": 0.85,
    "d_right_on_samples": 0.9,
    "score_gap": 3.0,
    "score_gap_held_out": 2.9,
    "memorised": 0.55,
    "sample_diversity": 0.9,
    "sigma0_generator": 2.0,
    "sigma0_discriminator": 2.0,
}


def test_there_are_no_signs_in_a_healthy_look():
    assert signs(HEALTHY, {"generator.linear": [2.0, 1.0, 1.0]}, {"generator.linear": [1.9, 1.0, 1.0]}) == {}


@pytest.mark.parametrize(
    ("change", "sigma", "name", "words"),
    [
        ({"memorised": 0.9}, 2.0, "memorising", "with chance 0.90 (right on 90% and 85%)"),
        ({"score_gap": -40.0}, 2.0, "scores", "40 higher than real ones"),
        ({"score_gap": NAN}, 2.0, "scores", "nan"),
        ({"sample_diversity": 0.05}, 2.0, "diversity", "0.05 of the variance"),
        ({}, 8.0, "spectra", "σ0 of generator.linear is 4.2 times"),
    ],
)
def test_each_sign_is_seen_alone(change, sigma, name, words):
    found = signs(HEALTHY | change, {"generator.linear": [sigma, 1.0, 1.0]}, {"generator.linear": [1.9, 1.0, 1.0]})
    assert set(found) == {name} and words in found[name]
    assert "spectra" not in signs(HEALTHY | change, {"generator.linear": [sigma, 1.0, 1.0]}, {}), (
        "the first look has none before it"
    )


def test_the_chance_of_being_higher_is_that_of_scikit_learn():
    from sklearn.metrics import roc_auc_score

    from bigbigan.training.guard.collapse import higher

    torch.manual_seed(0)
    a, b = torch.randn(30).round(decimals=1) + 0.5, torch.randn(50).round(decimals=1)
    assert higher(a, b) == pytest.approx(roc_auc_score([1] * 30 + [0] * 50, torch.cat([a, b]).numpy()))
