"""The commands of the uses compute where --device says: on the pretend accelerator, which refuses mixed places."""

import contextlib
import importlib
from unittest import mock

import pytest

from tests.helpers import pretend
from tests.helpers.pretend import on_pretend_accelerator

STEPS = ("--discover_steps", "2", "--optimise_steps", "2", "--segmenter_steps", "2")
COMMANDS = {
    "anomalies": ["--anomalies", "{photos}", "--train_images", "50", "--test_images", "20"],
    "compression": ["--steps", "1", "--train_images", "50", "--test_images", "20"],
    "directions": ["--train_steps", "2", "--count", "2"],
    "directions sefa": ["--method", "sefa", "--count", "2"],
    "directions labels": ["--method", "labels"],
    "few_shot": ["--draws", "2", "--shots", "1"],
    "interpolation": ["--pairs", "4", "--rows", "2"],
    "inversion": ["--images", "4", "--steps", "2", "--rows", "2"],
    "linear_map": ["--pairs", "200", "--test_pairs", "20"],
    "masks": [*STEPS, "--rows", "2"],
    "masks compared": ["--masks", "{scenes}", *STEPS, "--rows", "2"],
    "retrieval": ["--untrained", "1"],
}


@pytest.mark.parametrize("name", COMMANDS)
@on_pretend_accelerator
def test_a_use_computes_on_the_accelerator(name, tmp_path):
    from benchmarks.scenes import draw_scenes, write_scenes
    from tests.conftest import picture

    (tmp_path / "photos").mkdir()
    for i in range(3):
        picture(i, (8, 8)).save(tmp_path / "photos" / f"{i}.png")
    write_scenes(tmp_path / "test.parquet", *draw_scenes(6, 8, True))
    module = importlib.import_module(f"bigbigan.uses.{name.split()[0]}")
    places = {"photos": tmp_path / "photos", "scenes": tmp_path}
    flags = [flag.format(**places) for flag in COMMANDS[name]]
    seen = []
    ready = module.ready

    def watched(*given):
        seen.append(ready(*given))
        return seen[-1]

    with mock.patch.object(module, "ready", watched), contextlib.chdir(tmp_path):
        module.main(["digits", "--device", str(pretend.DEVICE), "--out", str(tmp_path / "a.png"), *flags])
    assert all(parameter.device.type == pretend.NAME for parameter in seen[0].parameters())
    assert (tmp_path / "a.png").is_file()
