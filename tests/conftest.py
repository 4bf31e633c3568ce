"""What several tests need: tiny settings, a way to launch the real commands, small data sets made on the spot."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"

torch.set_num_threads(1)  # of each of the processes that `pytest -n 2` starts

# The smallest sensible BigBiGAN, as flags.
TINY_MODEL = {
    "image_size": 8, "latent_dim": 8, "embedding_dim": 4, "generator_width": 2, "generator_attention": 0,
    "discriminator_width": 2, "discriminator_attention": 0, "mlp_width": 16, "mlp_layers": 2,
    "encoder": "resnetv2_18", "encoder_width": 0.125, "encoder_mlp_width": 16, "encoder_mlp_layers": 2,
}  # fmt: skip
TINY_RUN = [f"--model.{k}={v}" for k, v in TINY_MODEL.items()] + [
    "--data.batch_size=8", "--data.workers=0", "--run.images=240", "--run.log_every=24", "--run.sample_every=120",
    "--run.checkpoint_every=48", "--run.statistics_images=64", "--run.grid=2", "--run.threads=1",
    "--model.grey=False", "--optim.lower_after=0", "--optim.lower_images=0", "--run.evaluate_every=0",
]  # fmt: skip


current_test: pytest.Item | None = None


def pytest_collection_modifyitems(config, items):
    """Leave the soaks out unless they are asked for by name."""
    if "soak" not in config.option.markexpr:
        soaks = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in soaks]
        config.hook.pytest_deselected(items=soaks)


def pytest_runtest_setup(item):
    global current_test
    current_test = item


def check_marked() -> None:
    """Fail a test that launches training or another command without the mark `run`, which `-m "not run"` leaves out."""
    if current_test is not None and not any(current_test.get_closest_marker(name) for name in ("run", "soak")):
        pytest.fail(f"{current_test.nodeid} launches a command: give it the mark `run`", pytrace=False)


def launch(
    *arguments: str, cwd: Path | str | None = None, timeout: float = 240, env: dict | None = None, code: int | None = 0
):
    """Run `python ARGUMENTS` and return (stdout, stderr); fails unless it exits with `code` (None: any)."""
    check_marked()
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd or ROOT, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert code is None or result.returncode == code, (
        f"exit {result.returncode}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    )
    return result.stdout, result.stderr


def train(root: Path, *flags: str, code: int = 0, env: dict | None = None, shared: bool = False) -> tuple[str, str]:
    """Train a tiny model under `root` by train.py's main, in this process, and return (stdout, stderr).

    shared: for a fixture that many tests share, which need no mark.
    """
    if not shared:
        check_marked()
    from accelerate.state import AcceleratorState

    from bigbigan.train import main

    AcceleratorState._reset_state(reset_partial_state=True)
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, env or {}), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([*TINY_RUN, f"--run.root={root}", *flags])
            status = 0
        except SystemExit as stop:
            status = stop.code
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)
    assert status == code, f"exit {status}\n{out.getvalue()[-3000:]}\n{err.getvalue()[-3000:]}"
    return out.getvalue(), err.getvalue()


def tiny_model(**changes):
    from bigbigan.config import Model
    from bigbigan.model import BigBiGAN

    torch.manual_seed(0)
    return BigBiGAN.from_config(Model(**{**TINY_MODEL, **changes}))


def make_step(
    model, settings: dict | None = None, *, optimizers=None, lr=1e-3, betas=(0.0, 0.999), autocast=None, **optim
):
    """The step that settings, {"section.field": value}, describe, built as a run builds it; lr: of all networks.

    optimizers: a pair in place of Adam's.  optim: further fields of the section `optim`.
    """
    from bigbigan.config import Config, Optim
    from bigbigan.training.optim import Optimizers, build_optimizers
    from bigbigan.training.variants import build_step

    config = Config(optim=Optim(generator_lr=lr, discriminator_lr=lr, encoder_lr=lr, betas=betas, **optim))
    config.model = model.config or config.model
    for key, value in (settings or {}).items():
        section, name = key.split(".")
        assert hasattr(getattr(config, section), name), key
        setattr(getattr(config, section), name, value)
    optimizers = build_optimizers(model, config.optim) if optimizers is None else Optimizers(*optimizers)
    return build_step(config, model, optimizers, autocast or contextlib.nullcontext)


def picture(seed: int, size=(12, 10), mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """A finished tiny run with its release."""
    root = tmp_path_factory.mktemp("runs")
    train(root, "--run.name=done", "--run.probe=False", shared=True)
    return root / "done"


@pytest.fixture
def image_folder(tmp_path) -> Path:
    """Two classes of eight pictures each, of several sizes and formats."""
    for label in ("ant", "bee"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(8):
            picture(i, (12 + i, 10 + 2 * i)).save(tmp_path / "photos" / label / f"{i}.{'png' if i % 2 else 'jpg'}")
    return tmp_path / "photos"
