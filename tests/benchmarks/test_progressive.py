"""The benchmark of growing trains both forms and measures their checkpoints."""

import json
import subprocess
import sys

import pytest

from benchmarks import progressive
from tests.conftest import train
from tests.runs.test_growing_runs import GROWING


@pytest.mark.run
def test_both_forms_are_trained_and_their_checkpoints_measured(tmp_path, image_folder, monkeypatch, capsys):
    other = subprocess.run  # of git, for the run's record

    def run(command, **options):
        if not command[1].endswith("train.py"):
            return other(command, **options)
        grown = [] if "--grow.first_size=0" in command else ["--grow.first_size=4"]  # as the preset has it
        train(tmp_path, *grown, *(flag for flag in command if flag.startswith("--") and flag != "--config"))

    monkeypatch.setattr(subprocess, "run", run)
    further = [*(flag for flag in GROWING if "first_size" not in flag), "--run.images=48", "--run.checkpoint_every=24"]
    further += [f"--data.path={image_folder}", "--data.test_share=0.25"]
    compared = []
    distance = progressive.sliced_wasserstein
    monkeypatch.setattr(progressive, "sliced_wasserstein", lambda a, b: compared.append(b) or distance(a, b))
    monkeypatch.setattr(sys, "argv", ["progressive.py", "quality", "--seeds=0", f"--out={tmp_path}", "--", *further])
    progressive.main()
    assert {tuple(real.shape) for real in compared} == {(12, 3, 16, 16)}, "of the data that the flags name"
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [(row["form"], row["images"]) for row in rows] == [
        ("growing", 24), ("growing", 48), ("full size", 24), ("full size", 48),
    ]  # fmt: skip
    assert all(row["seconds"] >= 0 and row["swd_16"] > 0 and 0 <= row["top1_linear"] <= 100 for row in rows), rows
    assert [row["encoder_px"] for row in rows] == [4, 4, 16, 16]
