"""What is published works away from the repository: an installed wheel brings the presets, a model and the probe."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bigbigan.release.shipped import names as shipped_names
from tests.conftest import ROOT, check_marked, launch, picture

RELEASE = ("config.json", "model.safetensors", "README.md", "samples.png")
WHERE = """
import json, sys
import bigbigan, eval_linear.probe
from bigbigan.config.presets import preset_folder
from bigbigan.release.shipped import SHIPPED
from pathlib import Path
features = bigbigan.encode("picture.png", "digits", "avepool_feat", device="cpu")
found = {"bigbigan": bigbigan.__file__, "eval_linear": eval_linear.__file__, "shipped": str(SHIPPED)}
found |= {"configs": str(preset_folder()), "typed": str(Path(bigbigan.__file__).with_name("py.typed"))}
print(json.dumps(found | {"shape": tuple(features.shape), "finite": bool(features.isfinite().all())}))
"""

pytestmark = pytest.mark.run


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """An sdist of the files here, and a wheel that was made of the sdist."""
    check_marked()
    source, out = tmp_path_factory.mktemp("source") / "bigbigan", tmp_path_factory.mktemp("dist")
    skipped = shutil.ignore_patterns("__pycache__", ".*", "tests", "docs", "benchmarks", "runs", "*.egg-info", "build")
    shutil.copytree(ROOT, source, ignore=skipped)
    launch("-c", f"from setuptools import build_meta; build_meta.build_sdist({str(out)!r})", cwd=source)
    (sdist,) = out.glob("*.tar.gz")
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet")
    launch("-m", "pip", "wheel", *offline, "--wheel-dir", out, sdist)
    (wheel,) = out.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Path:
    """A folder in which the wheel was installed, without what it depends on."""
    folder = tmp_path_factory.mktemp("site")
    launch("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", folder, built[1])
    return folder


def command(installed: Path, name: str, *arguments: str, cwd: Path) -> str:
    """Run an installed command away from the repository, and return what it printed."""
    check_marked()
    environment = os.environ | {"PYTHONPATH": str(installed), "BIGBIGAN_CACHE": str(cwd.parent / "cache")}
    done = subprocess.run(
        [sys.executable, installed / "bin" / name, *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_what_the_wheel_holds(built):
    sdist, wheel = built
    names = zipfile.ZipFile(wheel).namelist()
    assert shipped_names(), "a model comes with the package"
    modules = {str(p.relative_to(ROOT)) for room in ("bigbigan", "eval_linear") for p in (ROOT / room).rglob("*.py")}
    presets = {f"bigbigan/{p.relative_to(ROOT)}" for p in (ROOT / "configs").rglob("*.yaml")}
    shipped = {f"bigbigan/release/shipped/{name}/{file}" for name in shipped_names() for file in RELEASE}
    assert modules | presets | shipped | {"bigbigan/py.typed"} <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"bigbigan", "eval_linear"}
    if importlib.util.find_spec("twine"):
        out, _ = launch("-m", "twine", "check", "--strict", sdist, wheel)
        assert out.count("PASSED") == 2, out


def test_it_works_away_from_the_repository(installed, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = command(installed, "bigbigan-train", "--config", "table1_digits/no_unaries", "--dry-run", cwd=elsewhere)
    assert "1,438 images, 10 classes" in out and "one forward" in out
    assert "table1_digits-no_unaries (--config table1_digits/no_un" in out
    flags = ("--parts", "linear", "knn", "--labels", "1", "--untrained", "0", "--features", "avepool_feat")
    out = command(installed, "bigbigan-probe", "digits", *flags, cwd=elsewhere)
    assert "n_train 1,438, n_test 359" in out and "the encoder did not move" in out
    top1 = next(line for line in out.splitlines() if line.split()[:2] == ["trained", "AvePool"])
    assert float(top1.split()[2]) > 90, top1
    assert not list(elsewhere.iterdir())
    picture(0).save(elsewhere / "picture.png")
    out, _ = launch("-c", WHERE, cwd=elsewhere, env={"PYTHONPATH": str(installed)})
    found = json.loads(out.splitlines()[-1])
    assert found.pop("finite") and found.pop("shape")[0] == 1
    assert len(found) == 5 and all(Path(p).exists() and Path(p).is_relative_to(installed) for p in found.values())
