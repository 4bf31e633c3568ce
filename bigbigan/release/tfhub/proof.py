"""Prove a conversion with TensorFlow itself: the module and our model compute the same images and latents."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from bigbigan.errors import ConversionError
from bigbigan.release.tfhub.convert import LARGEST, Conversion, Difference, difference, run_ours

SCRIPT = Path(__file__).with_name("run_in_tensorflow.py")
MINUTES = 30  # after which TensorFlow is given up


def python_with_tensorflow() -> str:
    """Return this Python if TensorFlow is installed in it; "" if not. It is not imported."""
    return sys.executable if importlib.util.find_spec("tensorflow") else ""


def prove(module: Path, conversion: Conversion, python: str) -> dict[str, Difference]:
    """Return the largest difference of each output between the module in TensorFlow and our model, in float32.

    python: the interpreter that has TensorFlow. Raises ConversionError if TensorFlow cannot run the module, or if an
    output differs by more than `LARGEST`, relative to its largest value.
    """
    feeds = {name: {key: value.float() for key, value in own.items()} for name, own in conversion.feeds.items()}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"]
        arrays = {f"{name}.{key}": value.numpy() for name, own in feeds.items() for key, value in own.items()}
        np.savez(files[0], **arrays)
        command = [python, str(SCRIPT), str(module), *map(str, files)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConversionError(f"{python}: expected a Python with TensorFlow, found: {error}") from None
        if run.returncode or not files[1].is_file():
            last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
            raise ConversionError(f"{python}: expected TensorFlow to run {module}, found: {last}")
        theirs = dict(np.load(files[1], allow_pickle=False))
    ours = run_ours(conversion.model, feeds)
    found = {name: difference(value, torch.from_numpy(theirs[name])) for name, value in ours.items()}
    wrong = [f"{name}: {one}" for name, one in found.items() if not one.relative <= LARGEST]
    if wrong:
        raise ConversionError(
            f"{module}: expected the outputs of the module in TensorFlow, found differences in {'; '.join(wrong)}; "
            "nothing was written"
        )
    return found
