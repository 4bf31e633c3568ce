"""Trackers through Accelerate: what reaches them, that a resumed run goes on in them, that none of them ends a run."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from bigbigan.config import Config
from bigbigan.errors import ConfigError
from bigbigan.training import trackers
from bigbigan.training.launch import chosen_trackers
from bigbigan.training.trackers import Trackers, as_setting, init_arguments
from tests.conftest import picture, train


class Fake:
    """A tracker that keeps what it is given, and raises at what it is told to."""

    name, requires_logging_directory, fails, kept = "fake", False, (), []

    def __init__(self, project, **arguments):
        self.note("init", project)

    def note(self, what, value):
        Fake.kept.append((what, value))
        if what in self.fails:
            raise ConnectionError("no network\nmore lines")

    def start(self):
        self.note("start", None)

    def store_init_configuration(self, values):
        self.note("config", values)

    def log(self, values, step):
        self.note("log", (step, values))

    def finish(self):
        self.note("finish", None)


class Other(Fake):
    name = "other"


class Accelerator:
    log_with = ["fake", "other"]


@pytest.fixture
def fakes(monkeypatch):
    Fake.kept.clear()
    monkeypatch.setattr(Other, "fails", ())
    monkeypatch.setattr(trackers, "LOGGER_TYPE_TO_CLASS", {"fake": Fake, "other": Other})


def test_settings_arrive_as_numbers(fakes, tmp_path):
    Trackers(Accelerator(), Config(), tmp_path, 0)
    settings = dict(Fake.kept)["config"]
    assert settings["data.batch_size"] == Config().data.batch_size and type(settings["data.batch_size"]) is int
    assert type(settings["optim.generator_lr"]) is float and type(settings["data.flip"]) is bool
    assert {type(value) for value in settings.values()} <= {bool, int, float, str}
    assert as_setting((1, 2)) == "(1, 2)" and as_setting(None) == "None"


@pytest.mark.parametrize("stage", ["init", "start", "config", "log", "finish"])
def test_one_that_fails_is_named_once_and_left_out(stage, fakes, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Other, "fails", (stage,))
    with caplog.at_level(logging.WARNING):
        both = Trackers(Accelerator(), Config(), tmp_path, 0)
        for seen in (10, 20):
            both.figures({"loss_d": 1.0}, seen)
        both.pictures({}, 20)
        both.close()
    assert [record.getMessage() for record in caplog.records] == [
        "--run.trackers other failed and is left out from here on (ConnectionError: no network)"
    ]
    assert [value[0] for what, value in Fake.kept if what == "log"].count(20) == (2 if stage == "finish" else 1)
    assert ("finish", None) in Fake.kept


def test_a_run_folder_keeps_the_id_of_its_run(tmp_path):
    first = init_arguments("wandb", "digits", tmp_path, 0)
    assert first == init_arguments("wandb", "digits", tmp_path, 500) and first["resume"] == "allow"
    (tmp_path / "trackers.json").write_text("{")  # damaged: another id, and no error
    assert init_arguments("wandb", "digits", tmp_path, 500)["id"] != first["id"]
    assert init_arguments("tensorboard", "digits", tmp_path, 0) == {}
    assert init_arguments("tensorboard", "digits", tmp_path, 500) == {"purge_step": 501}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("nothing_of_the_kind", "expected trackers of Accelerate, which are .*wandb"),
        ("numpy", "expected trackers of Accelerate"),
        ("../x", "expected trackers of Accelerate"),
        ("tensorbord", "did you mean tensorboard"),
        ("clearml", "it is not installed; pip install clearml"),
    ],
)
def test_names_that_are_no_trackers(names, message):
    config = Config()
    config.run.trackers = names
    with pytest.raises(ConfigError, match=message):
        chosen_trackers(config)


SHORT = ["--run.probe=False", "--run.images=96", "--run.sample_every=48"]


@pytest.mark.run
def test_tensorboard_holds_figures_and_grids_of_both_sessions(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "photos").mkdir()
    for i in range(30):
        picture(i).save(tmp_path / "photos" / f"{i}.png")  # without labels an evaluation is quick
    flags = ["--run.name=board", "--run.trackers=tensorboard", f"--data.path={tmp_path / 'photos'}", *SHORT]
    flags += ["--run.evaluate_every=48"]
    train(tmp_path, *flags)
    train(tmp_path, *flags, "--run.images=144", "--run.accept_changes=True")
    board = EventAccumulator(str(tmp_path / "board" / "bigbigan"))
    board.Reload()
    lines = [json.loads(line) for line in (tmp_path / "board" / "stats.jsonl").read_text().splitlines()]
    for key in ("loss_d", "score_xz_real", "reconstruction_error_relative", "iteration"):
        steps = {event.step for event in board.Scalars(key)}
        assert steps == {line["images_seen"] for line in lines if key in line and line["kind"] != "closing"} | (
            {96, 144} if key == "reconstruction_error_relative" else set()
        ), key
    losses = {event.step: event.value for event in board.Scalars("loss_d")}
    assert losses[24] == pytest.approx(next(x["loss_d"] for x in lines if x["images_seen"] == 24), rel=1e-5)
    for kind in ("samples", "reconstructions"):
        assert [event.step for event in board.Images(kind)] == [48, 96, 144]
    with Image.open(tmp_path / "board" / "samples" / "000000000048.png") as grid:
        assert (board.Images("samples")[0].width, board.Images("samples")[0].height) == grid.size


@pytest.mark.run
def test_wandb_offline(tmp_path):
    """Two sessions with one id; the run folder, whose links are checked, is not written into by wandb."""
    pytest.importorskip("wandb")
    env = {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}
    flags = ["--run.name=bias", "--run.trackers=wandb", *SHORT]
    train(tmp_path / "runs", *flags, env=env)
    train(tmp_path / "runs", *flags, "--run.images=144", "--run.accept_changes=True", env=env)
    name = json.loads((tmp_path / "runs" / "bias" / "trackers.json").read_text())["wandb"]
    sessions = list((tmp_path / "wandb").glob(f"offline-run-*-{name}"))
    assert len(sessions) == 2
    pictures = {path.name.split("_")[0] for session in sessions for path in session.rglob("*.png")}
    assert pictures == {"samples", "reconstructions"}


@pytest.mark.run
def test_a_tracker_that_raises_ends_no_training(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    broken = lambda *arguments, **named: (_ for _ in ()).throw(ConnectionError("no network"))  # noqa: E731
    monkeypatch.setattr(trackers.LOGGER_TYPE_TO_CLASS["tensorboard"], "log", broken)
    train(tmp_path, "--run.name=board", "--run.trackers=tensorboard", *SHORT)
    assert caplog.text.count("--run.trackers tensorboard failed") == 1
    assert (tmp_path / "board" / "release" / "config.json").is_file()


def test_pictures_are_the_pixels_of_the_grid(tmp_path):
    """What tensorboard is given: one picture, (1, H, W, 3)."""
    taken = {}

    class Board:
        name = "tensorboard"
        tracker = type("Writer", (), {"flush": lambda self: None})()

        def log_images(self, values, step, dataformats):
            taken.update(values, step=step, dataformats=dataformats)

    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "grid.png")
    trackers._log_pictures(Board(), {"samples": tmp_path / "grid.png"}, 7)
    np.testing.assert_array_equal(taken["samples"], pixels[None])
    assert (taken["step"], taken["dataformats"]) == (7, "NHWC")
