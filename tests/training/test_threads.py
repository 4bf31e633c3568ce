"""The number of CPU threads: how it is chosen, and that the choice touches nothing and stays."""

import json
from types import SimpleNamespace

import pytest
import torch

from bigbigan.data import RealImages
from bigbigan.training import threads
from bigbigan.training.batch import Drawer
from bigbigan.training.outline import outline_images
from tests.conftest import make_step, tiny_model, train


@pytest.fixture(autouse=True)
def same_threads_after():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optim.augment": "ada"}, {"optim.dropout": 0.1, "loss.r1": 1.0}, {"optim.simultaneous": True}],
    ids=str,
)
def test_a_pass_changes_no_state_and_draws_no_random_number(settings):
    model = tiny_model()
    step = make_step(model, {**settings, "optim.d_steps": 1})
    draw = Drawer(0, "normal", model.generator.latent_dim, draws=step.draws())
    state = {key: value.clone() for key, value in model.state_dict().items() if torch.is_tensor(value)}
    random = torch.get_rng_state()
    threads.one_pass(step, draw(outline_images(model, 4, torch.device("cpu"))))
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items() if key in state)
    assert torch.equal(random, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters()) and not step.health.judged
    assert not any(optimizer.state for optimizer in step.optimizers)


def trainer(times: dict[int, float], asked: int = 0, before: int = 0, saved: bool = False, **more) -> SimpleNamespace:
    """What `set_threads` reads of a trainer; times: of a pass over four images."""
    config = SimpleNamespace(
        run=SimpleNamespace(threads=asked), grow=SimpleNamespace(first_size=more.get("first_size", 0)),
        data=SimpleNamespace(batch_size=64, chunks=1),
    )  # fmt: skip
    device = torch.device(more.get("device", "cpu"))
    return SimpleNamespace(
        config=config, state=SimpleNamespace(threads=before), saved=saved, device=device, times=times
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (trainer({1: 0.2, 8: 0.1}), "8 (measured: 1 → 200 ms, 8 → 100 ms for 5 images)"),
        (trainer({1: 0.1, 8: 0.095}), "1 (measured: 1 → 100 ms, 8 → 95 ms for 10 images)"),
        (trainer({1: 0.1, 8: 0.3}), "1 (measured: 1 → 100 ms, 8 → 300 ms for 10 images)"),
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
    assert threads.set_threads(made) == expected and torch.get_num_threads() == int(expected.split()[0])


def test_another_number_than_before_is_said(monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 8)
    said = threads.set_threads(trainer({}, asked=3, before=2, saved=True))
    assert (
        said
        == "3 (--run.threads; the run computed with 2 before, so it no longer equals an uninterrupted one bit for bit)"
    )


def test_cores_are_divided_among_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
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
