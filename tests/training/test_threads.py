"""The number of CPU threads: how it is chosen, what it does, and that the choice touches nothing and stays."""

import copy
import json
import os
import time
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from bigbigan.config import Config
from bigbigan.data import RealImages
from bigbigan.training import side_by_side, threads
from bigbigan.training.batch import Drawer
from bigbigan.training.objectives import Objective
from bigbigan.training.outline import outline_images
from bigbigan.training.side_by_side import SideBySideStep, can_go_side_by_side
from bigbigan.training.state import TrainingState
from tests.conftest import make_step, tiny_model, train


@pytest.fixture(autouse=True)
def same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [{}, {"optim.augment": "ada"}, {"optim.dropout": 0.1, "loss.r1": 1.0}, {"optim.simultaneous": True}],
    ids=str,
)
def test_a_pass_changes_no_state_and_draws_no_random_number(settings, count):
    model = tiny_model()
    step = make_step(model, {**settings, "optim.d_steps": 1})
    step.set_threads(count)
    draw = Drawer(0, "normal", model.generator.latent_dim, draws=step.draws())
    state = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    random = torch.get_rng_state()
    threads.one_pass(step, draw(outline_images(model, 4, torch.device("cpu"))))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items() if key in state)
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in model.parameters()) and not step.health.judged
    assert not any(optimizer.state for optimizer in step.optimizers)


def trainer(times: dict[int, float], asked: int = 0, before: int = 0, saved: bool = False, **more) -> SimpleNamespace:
    """What `set_threads` reads of a trainer; times: of a pass over four images."""
    config = SimpleNamespace(
        run=SimpleNamespace(threads=asked), grow=SimpleNamespace(first_size=more.get("first_size", 0)),
        data=SimpleNamespace(batch_size=64, chunks=1),
    )  # fmt: skip
    device = torch.device(more.get("device", "cpu"))
    return SimpleNamespace(
        config=config, state=SimpleNamespace(threads=before), saved=saved, device=device, times=times,
        step=SimpleNamespace(set_threads=torch.set_num_threads),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (trainer({1: 0.3, 8: 0.1}), "8 (measured: 1 → 300 ms, 8 → 100 ms for 4 images)"),
        (trainer({1: 0.1, 8: 0.097}), "1 (measured: 1 → 100 ms, 8 → 97 ms for 64 images)"),
        (trainer({1: 0.1, 8: 0.3}), "1 (measured: 1 → 100 ms, 8 → 300 ms for 64 images)"),
        (trainer({1: 9.0}), "8 (all cores: one takes 9 s for 4 images)"),
        (trainer({"G": 5.0}), "8 (all cores: one takes 5 s for G(4 latents))"),
        (trainer({}, asked=3), "3 (--run.threads)"),
        (trainer({}, asked=3, before=3, saved=True), "3 (--run.threads)"),
        (trainer({}, before=2, saved=True), "2 (as before)"),
        (trainer({}, before=16, saved=True), "8 (of the 16 that the run began with)"),
        (trainer({}, saved=True), "8 (all cores of the process)"),  # from an older version, which took all
        (trainer({}, first_size=4), "8 (all cores of the process)"),
        (trainer({}, device="cuda"), "8 (all cores of the process)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_chosen(made, expected, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "time_generator", lambda t, count: t.times.get("G", 0.001))
    monkeypatch.setattr(threads, "time_passes", lambda t, count, numbers, repeats: {n: t.times[n] for n in numbers})
    assert threads.set_threads(made) == expected
    assert torch.get_num_threads() == made.state.threads_now == int(expected.split()[0])


def test_another_number_than_before_is_said(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    said = threads.set_threads(trainer({}, asked=3, before=2, saved=True))
    assert (
        said
        == "3 (--run.threads; the run computed with 2 before, so it no longer equals an uninterrupted one bit for bit)"
    )


@pytest.mark.parametrize("others", [1, 4])
def test_processes_of_unlike_machines_measure_all_or_none(others, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr(threads, "all_gather_rows", lambda row: torch.stack([row, torch.tensor([others])]))
    monkeypatch.setattr(threads, "measured", lambda trainer, most: (most, "measured"))
    assert threads.set_threads(trainer({})) == "8 (measured)" if others > 1 else "8 (all cores of the process)"


def test_cores_are_divided_among_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)  # of more that the machine has
    for processes, each in (("1", 8), ("2", 4), ("3", 2), ("16", 1)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
        assert threads.cores() == each


@pytest.mark.run
def test_a_resumed_run_keeps_the_measured_number(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(threads, "cores", lambda: 2)
    monkeypatch.setattr(threads, "measured", lambda *_: asked.append(0) or (2, "measured"))
    flags = ["--run.name=run", "--run.threads=0", "--run.probe=False", "--run.checkpoint_every=24"]
    out, _ = train(tmp_path, *flags, "--run.images=24")
    assert "threads    2 (measured)" in out
    state = json.loads((tmp_path / "run" / "checkpoints" / f"{24:012d}" / "state.json").read_text())
    assert state["threads"] == 2 and state["config"]["run.threads"] == 0
    out, _ = train(tmp_path, *flags, "--run.images=48")
    assert "threads    2 (as before)" in out and len(asked) == 1


def test_the_images_of_a_measurement_have_the_form_of_the_streams():
    images = outline_images(tiny_model(classes=3), 5, torch.device("cpu"))
    assert isinstance(images, RealImages) and images.x.shape == (5, 3, 8, 8) and images.x.dtype == torch.uint8
    assert images.labels.tolist() == [0] * 5


TOGETHER = {  # settings of step and model of runs whose two kinds of pairs cannot be computed apart
    "a compiled step": ({"run.compile": "default"}, {}),
    "augmentation": ({"optim.augment": "ada"}, {}),
    "noise in D": ({"optim.dropout": 0.1}, {}),
    "simultaneous updates": ({"optim.simultaneous": True, "optim.d_steps": 1}, {}),
    "recomputation": ({}, {"checkpointing": True}),
    "no E": ({}, {"encoder": "none"}),
    "E apart from D": ({}, {"joint": False}),
    "batch norms in D": ({}, {"family": "mlp", "discriminator_norm": "batch", "encoder": "mlp"}),
}


@pytest.mark.parametrize("reason", TOGETHER)
def test_what_cannot_go_side_by_side_is_computed_together(reason):
    settings, model = TOGETHER[reason]
    step = make_step(tiny_model(**model), settings)
    assert not isinstance(step, SideBySideStep)
    step.set_threads(2)
    assert torch.get_num_threads() == 2, "which share each operation"


def test_several_processes_are_computed_together(monkeypatch):
    """Their batch norms wait for each other, in an order that two threads would not keep."""
    assert isinstance(make_step(tiny_model()), SideBySideStep)
    monkeypatch.setattr(side_by_side, "world_size", lambda: 2)
    assert not isinstance(make_step(tiny_model()), SideBySideStep)


@pytest.mark.parametrize(("count", "each"), [(2, (1, 1)), (3, (2, 1)), (8, (4, 4))])
def test_each_kind_of_pairs_has_half_of_the_threads(count, each):
    step = make_step(tiny_model())
    step.set_threads(count)
    assert step.apart and step.at_once(torch.get_num_threads, torch.get_num_threads) == each
    step.set_threads(1)
    assert not step.apart and torch.get_num_threads() == 1


def test_a_compiled_step_is_computed_together():
    step = make_step(tiny_model())
    step.set_threads(2)
    step.compile()
    assert not step.apart
    step.set_threads(2)
    assert not step.apart and torch.get_num_threads() == 2


class Relativistic(Objective):
    """A loss of one's own that compares the two kinds with each other."""

    def discriminator_loss(self, encoder_pairs, generator_pairs):
        return (1 - encoder_pairs.total() + generator_pairs.total()).relu().mean()


def test_parts_of_ones_own_are_computed_together():
    config, model = Config(), tiny_model()
    assert can_go_side_by_side(config, model, (), Objective())
    assert not can_go_side_by_side(config, model, (), Relativistic())
    for layer in (torch.nn.Dropout(), torch.nn.BatchNorm1d(4)):
        model.discriminator.own = layer
        assert not can_go_side_by_side(config, model, (), Objective())


def test_a_copied_step_trains():
    step = make_step(tiny_model())
    step.set_threads(2)
    twin = copy.deepcopy(step)
    batch = Drawer(0, "normal", twin.model.generator.latent_dim)(outline_images(twin.model, 4, torch.device("cpu")))
    assert torch.equal(twin.discriminator_update(batch)["loss_d"], step.discriminator_update(batch)["loss_d"])


def test_a_roll_back_keeps_the_number_in_use():
    state = TrainingState(tiny_model(), None, {})
    state.threads_now = 8
    state.load_numbers({"images_seen": 0, "iterations": 0, "threads": 2})
    assert state.numbers()["threads"] == 8 and state.threads == 2


@pytest.mark.parametrize(
    "settings", [{"loss.form": form} for form in ("hinge", "joint_hinge", "logistic", "wgan_gp")]
    + [{"loss.r1": 1.0}, {"loss.unary_z": False}, {"loss.unary_x": False, "loss.unary_z": False}], ids=str
)  # fmt: skip
def test_side_by_side_is_the_same_for_every_loss(settings):
    """Gradients, statistics and what is reported, for two updates in float64."""
    found = []
    for count in (1, 2):
        model = tiny_model().double().train()
        step = make_step(model, settings, lr=1e-3)
        assert isinstance(step, SideBySideStep)
        step.set_threads(count)
        draw = Drawer(0, "normal", model.generator.latent_dim, draws=step.draws())
        batch = draw(outline_images(model, 6, torch.device("cpu")))
        generator = torch.Generator().manual_seed(0)
        batch.x = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64) * 2 - 1
        batch.z, batch.noise = batch.z.double(), batch.noise.double()
        batch.extra = {name: value.double() for name, value in batch.extra.items()}
        values = step.discriminator_update(batch) | step.encoder_generator_update(batch)
        found.append({**values, **model.state_dict()})
    assert found[0].keys() == found[1].keys()
    for name, one in found[0].items():
        if torch.is_tensor(one):
            torch.testing.assert_close(found[1][name], one, rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("network", ["encoder", "generator"])
def test_an_error_of_either_thread_reaches_the_caller_when_both_are_done(network, monkeypatch):
    model = tiny_model()
    step = make_step(model)
    step.set_threads(2)
    other, done = {"encoder": model.generator, "generator": model.encoder}[network], []
    monkeypatch.setattr(getattr(model, network), "forward", lambda *_: 1 / 0)
    forward = other.forward
    monkeypatch.setattr(other, "forward", lambda *x: (time.sleep(0.2), done.append(0), forward(*x))[-1])
    batch = Drawer(0, "normal", model.generator.latent_dim)(outline_images(model, 4, torch.device("cpu")))
    with pytest.raises(ZeroDivisionError):
        step.discriminator_update(batch)
    assert done


@pytest.mark.run
def test_a_resumed_run_on_two_threads_equals_an_uninterrupted_one(tmp_path):
    flags = ["--run.threads=2", "--run.probe=False", "--run.checkpoint_every=48"]
    train(tmp_path, "--run.name=whole", "--run.images=96", *flags)
    train(tmp_path, "--run.name=two", "--run.images=48", *flags)
    torch.set_num_threads(1)
    out, _ = train(tmp_path, "--run.name=two", "--run.images=96", *flags)
    assert "resumed" in out and "threads    2 (--run.threads)" in out
    checkpoints = [sorted((tmp_path / name / "checkpoints").glob("0*"))[-1] for name in ("whole", "two")]
    states = [json.loads((c / "state.json").read_text()) for c in checkpoints]
    assert [state["threads"] for state in states] == [2, 2]
    for file in sorted(checkpoints[0].glob("*.safetensors")):
        a, b = load_file(file), load_file(checkpoints[1] / file.name)
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), file.name
