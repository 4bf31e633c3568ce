"""Type checkers read the public surface without an error, and know what a user's calls return."""

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

USER = """
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from typing_extensions import assert_type

import bigbigan
from bigbigan.errors import BigBiGANError
from bigbigan.networks.encoder import Encoder

model = bigbigan.load("digits", parts=("encoder", "generator"))
assert_type(model, bigbigan.BigBiGAN)
assert_type(model.encoder, Encoder | None)
assert_type(bigbigan.encode("photos", model, "z_mean"), Tensor)
assert_type(bigbigan.encode("photos", model, "z_mean", 64, "cpu"), Tensor)
assert_type(bigbigan.encode(Path("photos"), outputs="z_mean", on_error="skip"), Tensor)
assert_type(bigbigan.encode("photos"), dict[str, Tensor])
assert_type(bigbigan.encode(np.zeros((2, 8, 8)), "digits", ("z_mean",), value_range=(0, 1)), dict[str, Tensor])
assert_type(bigbigan.encode("photos", model, "z_mean", paths=True), tuple[Tensor, list[str]])
assert_type(bigbigan.encode(["a.png"], outputs="z_mean", paths=True), tuple[Tensor, list[str]])
assert_type(bigbigan.encode("photos", model, paths=True), tuple[dict[str, Tensor], list[str]])
assert_type(bigbigan.generate(4, model), Tensor)
assert_type(bigbigan.reconstruct(torch.zeros(1, 3, 8, 8), model), Tensor)
assert_type(bigbigan.discriminate("photos", torch.zeros(1, 8), model), dict[str, Tensor])
assert_type(bigbigan.neighbours(np.zeros(3), "features", 5, index="hnsw").indices, Tensor)
assert_type(bigbigan.models()[0].worth, dict[str, str])
assert_type(bigbigan.backbone(model).num_features, int)
assert_type(model.encode(torch.zeros(1, 3, 8, 8)), dict[str, Tensor])
assert_type(model.require("encoder").image_size, int)
assert_type(model.require("generator")(torch.zeros(1, 8)), Tensor)
try:
    bigbigan.BigBiGANFeatures(model, "z_mean", image_shape=(8, 8)).fit_transform(np.zeros((2, 64)))
except BigBiGANError as error:
    assert_type(error.status, int)

bigbigan.load(3)  # wrong: arg-type
bigbigan.encode("photos", modle=model)  # wrong: call-overload
bigbigan.encode("photos", model, on_error="ignore")  # wrong: call-overload
bigbigan.neighbours(np.zeros(3), "features", metric="l1")  # wrong: arg-type
bigbigan.encod("photos")  # wrong: attr-defined
"""


def test_mypy_reads_the_public_files_and_a_users_calls(tmp_path):
    """One run: reading torch takes most of its time."""
    pytest.importorskip("mypy")
    user = tmp_path / "user.py"
    user.write_text(USER)
    files = re.findall(r'"(bigbigan/[^"]+\.py)"', (ROOT / "pyproject.toml").read_text().split("[tool.mypy]")[1])
    assert "bigbigan/api.py" in files
    flags = ("--config-file", "pyproject.toml", "--cache-dir", str(tmp_path / "cache"), "--no-error-summary")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, *files, str(user)], cwd=ROOT, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    own = [line for line in lines if str(user) not in line]
    assert not own and not done.stderr, done.stdout + done.stderr
    found = {(int(n), kind) for n, kind in re.findall(r"user\.py:(\d+): error: .*\[([a-z-]+)\]", done.stdout)}
    expected = {(n, line.split("# wrong: ")[1]) for n, line in enumerate(USER.splitlines(), 1) if "# wrong" in line}
    assert found == expected, done.stdout
