"""A run that was stopped or killed decides as one that was not: what the guard remembers is in its checkpoints."""

import json
from types import SimpleNamespace

import pytest
import torch

from bigbigan.errors import CheckpointError
from bigbigan.training import checkpoint
from bigbigan.training.checkpoint import complete
from bigbigan.training.guard import CollapseProbe, Guard
from bigbigan.training.guard.recovery import RecoveryPolicy
from bigbigan.training.state import GuardMemory, Recovery
from bigbigan.training.trainer import Trainer
from tests.conftest import train
from tests.runs.test_train import same, stats, weights
from tests.training.test_checkpoint import CONFIG, advance, make_state
from tests.training.test_guard import HEALTHY, QUICK, content, faults, recoveries  # noqa: F401 (a fixture)

LOOKING = (
    *QUICK,
    "--run.spectra_every=24",
    "--run.checkpoint_every=24",
    "--run.keep_checkpoints=20",
    "--run.probe=False",
)
FLAT = {"generator.linear": [1.0, 0.5, 0.5]}


@pytest.fixture
def looks(monkeypatch):
    """{images seen: (spectra, changes of healthy figures)}, to be filled: what a look finds from that moment on."""
    found, states, init = {0: (FLAT, {})}, [], Guard.__init__

    def remember(guard, state, *arguments, **named):
        states.append(state)
        init(guard, state, *arguments, **named)

    def measure(_):
        at = max(seen for seen in found if seen <= states[-1].images_seen)
        spectra, changes = found[at]
        return spectra, HEALTHY | changes

    monkeypatch.setattr(Guard, "__init__", remember)
    monkeypatch.setattr(CollapseProbe, "measure", measure)
    return found


def alarms(run):
    return [(line["images_seen"], line["alarm"].replace(str(run), "")) for line in stats(run) if "alarm" in line]


def kept(run):
    return sorted(path.name for path in (run / "before_collapse").glob("*"))


def in_pieces(tmp_path, name, stops, *flags):
    for images in stops:
        train(tmp_path, f"--run.name={name}", *flags, f"--run.images={images}")
    return tmp_path / name


DIVERSITY, SCORES = {"sample_diversity": 0.0}, {"score_gap": -9.0}


@pytest.mark.run
@pytest.mark.parametrize("stops", [(96,), (48, 144), (72, 120, 192), (24, 96, 168, 216)])
def test_alarms_and_what_they_keep(tmp_path, looks, stops):
    """One sign from 72 images on, another one with it from 168 on: two alarms, and the checkpoint from before both."""
    looks[72], looks[168] = (FLAT, DIVERSITY), (FLAT, DIVERSITY | SCORES)
    straight = in_pieces(tmp_path, "a", (240,), *LOOKING)
    cut = in_pieces(tmp_path, "b", (*stops, 240), *LOOKING)
    assert [seen for seen, _ in alarms(straight)] == [72, 168] and kept(straight) == [f"{48:012d}"]
    assert alarms(cut) == alarms(straight) and kept(cut) == kept(straight)
    assert content(cut)["guard"] == content(straight)["guard"]
    assert content(cut)["guard"]["good_at"] == 48 and content(cut)["guard"]["known"] == ["diversity", "scores"]


@pytest.mark.run
@pytest.mark.parametrize("stop", [120, 144, 168])
def test_growth_of_spectra_between_looks(tmp_path, looks, stop):
    """σ0 trebles from one look to the next, on both sides of a stop."""
    looks[144] = ({"generator.linear": [3.0, 0.5, 0.5]}, {})
    straight = in_pieces(tmp_path, "a", (240,), *LOOKING)
    cut = in_pieces(tmp_path, "b", (stop, 240), *LOOKING)
    assert [seen for seen, _ in alarms(straight)] == [144] and "3.0 times" in alarms(straight)[0][1]
    assert alarms(cut) == alarms(straight) and content(cut)["guard"] == content(straight)["guard"]


@pytest.mark.run
def test_a_resumed_run_rolls_back_to_the_checkpoint_from_before_the_first_sign(tmp_path, looks):
    looks[96], looks[168] = (FLAT, DIVERSITY), (FLAT, DIVERSITY | SCORES)
    run = in_pieces(tmp_path, "a", (144,), *LOOKING)
    train(tmp_path, "--run.name=a", *LOOKING, "--run.on_collapse=roll_back", "--run.recoveries=1", code=1)
    assert "back to" in recoveries(run)[0][1] and recoveries(run)[0][0] == 72, "144 was collapsed already"


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture
def killed_after_roll_back(monkeypatch):
    """The process dies when the loop opens its stream for the second time: after a roll-back, before a checkpoint."""
    opened, opening = [], Trainer.open_window

    def open_window(trainer):
        opened.append(0)
        if len(opened) == 2:
            raise Killed
        return opening(trainer)

    monkeypatch.setattr(Trainer, "open_window", open_window)


def killed(tmp_path, *flags):
    with pytest.raises(Killed):
        train(tmp_path, *flags)


@pytest.mark.run
def test_a_kill_after_a_roll_back_undoes_nothing_of_it(tmp_path, faults, request):  # noqa: F811
    faults.add(130)
    flags = (*QUICK, "--run.checkpoint_every=48")
    train(tmp_path, "--run.name=a", *flags)
    request.getfixturevalue("killed_after_roll_back")
    killed(tmp_path, "--run.name=b", *flags)
    assert content(tmp_path / "b", 96)["recovery"] == {"times": 1, "passed_over": 48, "factors": {}}
    train(tmp_path, "--run.name=b", *flags)
    assert same(weights(tmp_path / "b"), weights(tmp_path / "a"))
    a, b = ([text.replace("/b/", "/a/") for _, text in recoveries(tmp_path / name)] for name in "ab")
    assert a == b and len(a) == 1
    assert content(tmp_path / "b")["recovery"] == content(tmp_path / "a")["recovery"]
    assert content(tmp_path / "b")["guard"]["rolled_back_to"] == 96


@pytest.mark.run
def test_a_kill_between_two_roll_backs_to_one_checkpoint_leaves_the_second_one_its_lower_rates(
    tmp_path,
    faults,  # noqa: F811
    request,
):
    faults |= {130, 180}
    flags = (*QUICK, "--run.checkpoint_every=48")
    train(tmp_path, "--run.name=a", *flags)
    request.getfixturevalue("killed_after_roll_back")
    killed(tmp_path, "--run.name=b", *flags)
    train(tmp_path, "--run.name=b", *flags)
    assert content(tmp_path / "b")["recovery"] == content(tmp_path / "a")["recovery"]
    assert set(content(tmp_path / "b")["recovery"]["factors"].values()) == {0.5}
    assert same(weights(tmp_path / "b"), weights(tmp_path / "a"))


@pytest.mark.run
def test_a_kill_after_a_roll_back_from_a_collapse(tmp_path, looks, request):
    """The sign is there at one look alone, so a run that forgot its roll-back would train on with full rates."""
    looks[120], looks[144] = (FLAT, DIVERSITY), (FLAT, {})
    flags = (*LOOKING, "--run.on_collapse=roll_back")
    request.getfixturevalue("killed_after_roll_back")
    killed(tmp_path, "--run.name=b", *flags)
    looks[120] = (FLAT, {})
    train(tmp_path, "--run.name=b", *flags)
    expected = {"times": 1, "passed_over": 24, "factors": {"encoder": 0.5, "generator": 0.5}}
    assert content(tmp_path / "b")["recovery"] == expected


@pytest.mark.run
def test_a_roll_back_takes_the_memory_of_alarms_back_too(tmp_path, looks, faults):  # noqa: F811
    """The alarm at 72 images is undone with everything after 48, and raised again on the way back."""
    looks[72] = (FLAT, DIVERSITY)
    faults.add(90)
    train(tmp_path, "--run.name=a", *QUICK, "--run.spectra_every=24", "--run.checkpoint_every=48", "--run.probe=False")
    assert [seen for seen, _ in alarms(tmp_path / "a")] == [72] and len(recoveries(tmp_path / "a")) == 1
    assert content(tmp_path / "a")["guard"]["good_at"] == 48


# Files


@pytest.mark.parametrize(
    "memory",
    [
        GuardMemory(),
        GuardMemory(96, {"scores"}, {"a": [1.5, 0.1 + 0.2]}, 48),
        GuardMemory(0, {"b", "a"}, {"x": [float("nan")] * 3, "y": [1.0]}),
        GuardMemory(3_072_000_000, set(), {"discriminator.f.blocks.0.conv1": [1e-30, 1e30]}, 0),
    ],
)
def test_the_memory_is_json_and_back(memory):
    text = json.dumps(memory.to_json(), allow_nan=False)
    found = GuardMemory.from_json(json.loads(text), 5)
    assert found.to_json() == memory.to_json() and found.known == memory.known
    assert repr(found.spectra) == repr(memory.spectra), "NaN too"


def edited(folder, change):
    state, step = make_state()
    advance(state, step, 1)
    path = checkpoint.save(folder, state, CONFIG, keep=2)
    content = json.loads((path / "state.json").read_text())
    change(content)
    (path / "state.json").write_text(json.dumps(content))
    return make_state()[0]


def test_a_checkpoint_of_an_older_version_is_taken_for_good(tmp_path):
    state = edited(tmp_path, lambda content: content.pop("guard"))
    checkpoint.resume(tmp_path, state, CONFIG)
    assert state.guard == GuardMemory(good_at=16)


@pytest.mark.parametrize(
    "entry", [[], "x", {}, {"good_at": 1}, {"good_at": "1", "known": [], "spectra": {}, "rolled_back_to": 0},
              {"good_at": 1, "known": [[]], "spectra": {}, "rolled_back_to": 0},
              {"good_at": 1, "known": [], "spectra": {"a": ["x"]}, "rolled_back_to": 0},
              {"good_at": 1, "known": [], "spectra": {"a": []}, "rolled_back_to": 0}, 7],
)  # fmt: skip
def test_a_memory_that_cannot_be_is_named(tmp_path, entry):
    state = edited(tmp_path, lambda content: content.update(guard=entry))
    with pytest.raises(CheckpointError, match="state.json: guard: expected good_at") as error:
        checkpoint.resume(tmp_path, state, CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("entry", [[], {"times": "1"}, {"factors": {"encoder": "x"}}, {"factors": 5}])
def test_a_recovery_that_cannot_be_is_named(tmp_path, entry):
    state = edited(tmp_path, lambda content: content.update(recovery=entry))
    with pytest.raises(CheckpointError, match="state.json: recovery: expected times"):
        checkpoint.resume(tmp_path, state, CONFIG)


@pytest.mark.parametrize("value", ["x", 0, -5, None, float("inf")])
def test_an_older_half_life_that_cannot_be_is_named(tmp_path, value):
    state = edited(tmp_path, lambda content: content["config"].update({"optim.ema_half_life": value}))
    with pytest.raises(CheckpointError, match="ema_half_life: expected a number of images above 0"):
        checkpoint.resume(tmp_path, state, CONFIG)


def test_after_a_collapse_the_signs_that_its_checkpoint_knows_raise_an_alarm_again(tmp_path):
    """As where none is so old as the last look without a sign; and images that were skipped before stay skipped."""
    (state, step), said = make_state(), []
    advance(state, step, 1)
    state.guard.known = {"scores"}
    path = checkpoint.save(tmp_path, state, CONFIG, keep=2)
    policy = RecoveryPolicy(state, CONFIG, tmp_path, torch.device("cpu"), lambda *note: said.append(note[:2]))
    for times, factor in ((1, 0.5), (2, 0.25)):
        advance(state, step, 2)
        policy.after_collapse("they are all alike", path)
        assert state.images_seen == 16 and state.guard == GuardMemory(good_at=16, rolled_back_to=16)
        assert state.recovery == Recovery(times, 32 * times, {"encoder": factor, "generator": factor})
        written = json.loads((path / "state.json").read_text())
        assert written["recovery"] == state.recovery.to_json() and written["guard"] == state.guard.to_json()
    assert said[0] == ("recovery", f"at 48 images they are all alike; back to {path}, and past 32 images")
    assert said[3] == ("recovery", "rates now × 0.25 of the encoder, 0.25 of the generator") and len(said) == 4


def test_a_layer_grows_from_one_look_to_the_next(tmp_path):
    spectra = iter([1.0, 1.5, 2.5, 6.25])
    probe = SimpleNamespace(measure=lambda: ({"generator.linear": [next(spectra)]}, HEALTHY))
    log = SimpleNamespace(note=None, write=lambda *_: None)
    guard = Guard(make_state()[0], CONFIG, tmp_path, torch.device("cpu"), log, lambda: probe)
    assert [guard._new_signs() for _ in range(3)] == [[], [], []]
    assert guard._new_signs() == ["σ0 of generator.linear is 2.5 times what it was at the look before"]


@pytest.mark.parametrize(("good_at", "kept"), [(0, 16), (16, 16), (31, 16), (32, 32), (100, 48)])
def test_the_checkpoint_from_before_may_be_of_the_moment_of_the_last_good_look(tmp_path, good_at, kept):
    for seen in (16, 32, 48):
        (tmp_path / f"{seen:012d}").mkdir()
        (tmp_path / f"{seen:012d}" / "state.json").write_text("{}")
    state, log = make_state()[0], SimpleNamespace(note=None)
    guards = [Guard(state, CONFIG, at, torch.device("cpu"), log, None) for at in (tmp_path, tmp_path / "none")]
    state.guard.good_at = good_at
    assert [guard._from_before() for guard in guards] == [tmp_path / f"{kept:012d}", None]


def test_a_copy_of_a_checkpoint_keeps_what_it_was_copied_with(tmp_path):
    state, step = make_state()
    advance(state, step, 1)
    path = checkpoint.save(tmp_path / "checkpoints", state, CONFIG, keep=2)
    copy = checkpoint.keep(tmp_path / "before", path)
    state.recovery.times = 3
    checkpoint.record_recovery(path, state)
    assert json.loads((path / "state.json").read_text())["recovery"]["times"] == 3
    assert "recovery" not in json.loads((copy / "state.json").read_text())
    assert checkpoint.resume(tmp_path / "checkpoints", make_state()[0], CONFIG) == complete(tmp_path / "checkpoints")[0]
