"""Where a run stands, and what the page of an unfinished run says; `bigbigan-report`."""

import json
import re
import shlex
from pathlib import Path

import pytest

import bigbigan.report.finish
from bigbigan.report import write_page
from bigbigan.report.__main__ import main
from bigbigan.report.progress import Progress, probing, progress
from bigbigan.training.pace import Pace
from tests.conftest import launch, train
from tests.helpers.fake_run import fake_run


def standing(stage: str = "", seen: int = 400, total: int | None = 1000, each: float | None = 0.6, **more) -> Progress:
    return Progress(seen, total, stage, each, every=100, **more)


@pytest.mark.parametrize(
    ("at", "sentence"),
    [
        (standing("training"), "In training: 400 of 1,000 images, 40.0\u00a0%; 6 min left."),
        (standing("stopped"), "Stopped at 400 of 1,000 images, 40.0\u00a0%; 6 min left."),
        (standing(), "Not finished: 400 of 1,000 images, 40.0\u00a0%; 6 min left."),
        (standing(each=None), "Not finished: 400 of 1,000 images, 40.0\u00a0%."),
        (standing(full_size_at=500), "Not finished: 400 of 1,000 images, 40.0\u00a0%; over 6 min left."),
        (standing("training", 1000), "Trained to the end, 1,000 images; the closing figures are being measured."),
        (standing("", 1008), "Finished at 1,008 images."),
        (standing("", total=None), "400 images seen."),
    ],
)
def test_sentence(at, sentence):
    assert at.sentence() == sentence


def test_an_unfinished_page_loads_itself_anew_and_a_finished_one_does_not(tmp_path):
    run = fake_run(tmp_path / "run", 3, lines=10, frames=1, side=8)
    assert 'http-equiv="refresh"' not in write_page(run).read_text()
    lines = (run / "stats.jsonl").read_text().splitlines()
    (run / "stats.jsonl").write_text("\n".join(lines[:3]) + "\n")
    for stage in ("training", "stopped", ""):
        assert 'http-equiv="refresh"' in write_page(run, stage).read_text()
    assert standing("", 1000).reload() is None and standing("training", 1000).reload()["seconds"] == 30
    assert standing(each=1e-9).reload()["seconds"] == 5 and standing(each=1e9).reload()["seconds"] == 60


def test_time_left_is_that_of_the_log(tmp_path):
    """By the speed of late, without the first line and without lines that are no training; a resumed run goes on."""
    rates = [1, 100, 100, 100, 100]
    records = [{"images_seen": 100 * (k + 1), "images_per_second": rate, "loss_d": 1.0} for k, rate in enumerate(rates)]
    records += [{"images_seen": 500, "images_per_second": 1e-9, "kind": "evaluation"}]
    at = progress(tmp_path, records, {"run": {"images": 6500}}, "")
    assert at.each == pytest.approx(0.01) and at.left == "60 s left"


def test_what_probes_a_run(tmp_path):
    """No command that would fail: none before a checkpoint, and of a GAN its parts."""
    at = standing()
    assert probing(tmp_path, {}, at).command == ""
    state = tmp_path / "checkpoints" / "000000000400" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"images_seen": 400, "data": {"class_names": ["a"]}}))
    name = shlex.quote(str(tmp_path))
    assert probing(tmp_path, {}, at).command == f"bigbigan-probe {name}"
    gan = {"model": {"encoder": "none", "classes": 2}}
    assert probing(tmp_path, gan, at).command == f"bigbigan-probe {name} --parts generation classes"
    state.write_text(json.dumps({"images_seen": 400, "data": {"class_names": None}}))
    assert probing(tmp_path, {}, at).command == f"bigbigan-probe {name}", "without labels it measures what needs none"
    assert progress(tmp_path, [], {"run": {"images": 800}}, "").seen == 400  # the checkpoint is ahead of the log
    state.write_text("[")
    assert probing(tmp_path, {}, at).command == ""


# The command


def test_the_command_writes_the_page_and_prints_its_path(tmp_path, capsys):
    run = fake_run(tmp_path / "run", 3, lines=3, frames=1, side=8)
    main([str(run)])
    assert capsys.readouterr().out.strip() == str(run / "report.html") and (run / "report.html").is_file()


@pytest.mark.parametrize(
    ("name", "found"),
    [("none", "no folder of this name"), ("file", "a file"), ("empty", "a folder with none of config.yaml")],
)
def test_one_sentence_where_it_is_no_run(tmp_path, capsys, name, found):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / name)])
    err = capsys.readouterr().err
    assert (
        stop.value.code == 2
        and err.count("\n") == 1
        and f"expected a run folder, such as runs/NAME, found {found}" in err
    )


@pytest.mark.run
def test_as_a_module(tmp_path):
    run = fake_run(tmp_path / "run", 3, lines=3, frames=1, side=8)
    assert launch("-m", "bigbigan.report", run)[0].strip() == str(run / "report.html")


# Real runs


def said(folder: Path) -> str:
    return re.search(r'id="state">([^<]*)<', (folder / "report.html").read_text())[1]


@pytest.mark.run
def test_a_run_has_a_page_from_its_first_grid_on(tmp_path, monkeypatch):
    """What the page says after every grid, after a stop, and at the end."""

    seen = []

    def noting(folder, stage=""):
        page = write_page(folder, stage)
        seen.append(said(folder).partition(";")[0])
        return page

    monkeypatch.setattr(bigbigan.report, "write_page", noting)
    monkeypatch.setattr(Pace, "seconds_left", lambda pace: 42.0)  # so small a run has less than a second left
    flags = ["--run.name=run", "--run.probe=False", "--run.sample_every=96"]
    out, _ = train(tmp_path, *flags)
    assert [text.rstrip(".") for text in seen] == [
        "In training: 96 of 240 images, 40.0\u00a0%", "In training: 192 of 240 images, 80.0\u00a0%",
        "Trained to the end, 240 images",
    ]  # fmt: skip
    assert said(tmp_path / "run") == "Finished at 240 images."
    assert re.search(r"images  20\.0%  +[\d,]+ img/s  42 s left +scores real/fake", out)


@pytest.mark.run
def test_a_failed_run_has_a_page_that_says_where_it_ended(tmp_path):
    train(tmp_path, "--run.name=boom", "--optim.generator_lr=1e30", "--optim.encoder_lr=1e30", code=1)
    assert said(tmp_path / "boom").startswith("Stopped at ")


@pytest.mark.run
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError("a mistake")])
def test_a_page_that_cannot_be_written_ends_no_training(tmp_path, monkeypatch, caplog, error):
    """It is said once."""

    def failing(folder, stage=""):
        raise error

    monkeypatch.setattr("bigbigan.report.write_page", failing)
    train(tmp_path, "--run.name=run", "--run.probe=False", "--run.sample_every=48")
    assert caplog.text.count("report.html could not be written") == 1 and str(error) in caplog.text
    assert (tmp_path / "run" / "report.html").is_file()  # the end of the run writes its own
