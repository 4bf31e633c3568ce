"""The wheel carries the presets and the probe, and works away from the repository."""

import shutil
import zipfile

import pytest

from bigbigan.release.shipped import names as shipped_names
from tests.conftest import ROOT, launch

RELEASE = ("config.json", "model.safetensors", "README.md", "samples.png")

pytestmark = pytest.mark.run


def test_the_wheel_runs_elsewhere(tmp_path):
    source = tmp_path / "source"
    for name in ("bigbigan", "eval_linear", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    assert shipped_names(), "a model comes with the package"
    wheels = tmp_path / "wheels"
    launch(
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--quiet",
        "--wheel-dir",
        wheels,
        source,
    )
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {
        "bigbigan/configs/digits.yaml",
        "bigbigan/configs/table1_digits/no_e.yaml",
        *(f"bigbigan/release/shipped/{name}/{file}" for name in shipped_names() for file in RELEASE),
        "bigbigan/train.py",
        "eval_linear/probe.py",
    } <= set(names)
    assert not [name for name in names if name.startswith("tests")]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {"PYTHONPATH": str(tmp_path / "site")}
    out, _ = launch(
        "-c",
        "from bigbigan.train import main; main()",
        "--config",
        "table1_digits/no_unaries",
        "--dry-run",
        cwd=elsewhere,
        env=environment,
    )
    assert (
        "1,438 images, 10 classes" in out
        and "one forward" in out
        and "table1_digits-no_unaries (--config table1_digits/no_un" in out
    )
    assert not list(elsewhere.iterdir())
