"""Write scenes of digits on textured fields with the exact mask of each digit, for `bigbigan.uses.masks`.

    python benchmarks/scenes.py FOLDER [--size 16] [--train 12000] [--test 1000] [--seed 0]

FOLDER gets `train.parquet` and `test.parquet` with the columns `image` and `mask`: grey PNGs of SIZE×SIZE pixels, the
mask 255 on the digit and 0 on the field. `--data.path FOLDER` reads them. Training takes the column `image`, so nothing
tells it where the digit is.

A scene is x = m·d + (1 − m)·f. The field f is a grating of random direction, wavelength and amplitude around a random
grey. The digit's grey d differs from the field's mean grey by at least `CONTRAST`, in either direction, so that neither
"the lighter part" nor "the darker part" is the object. m is one of scikit-learn's digits, enlarged, at a random place;
the mask is m > 1/2. Training scenes take digits of the training split, and test scenes those of the test split.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

CONTRAST = 0.6  # of the range from black (−1) to white (1), between the digit's grey and the field's mean grey
AMPLITUDE = (0.1, 0.4)  # of the grating
WAVELENGTH = (0.25, 1.0)  # of the grating, as shares of the image's side
SHARE = 0.75  # side of the enlarged digit, as a share of the image's side


def draw_scenes(count: int, size: int = 16, test: bool = False, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw scenes: (images float32 (count, size, size) in [−1, 1], masks bool of the same shape).

    test: take the digits of the test split, every fifth of scikit-learn's.  seed: the same seed draws the same scenes.
    """
    rng = np.random.default_rng([seed, test])
    digits = load_digits().images / 16
    digits = digits[(np.arange(len(digits)) % 5 == 4) == test]
    side = round(SHARE * size)
    covers = np.zeros((count, size, size), np.float32)
    for cover in covers:
        digit = Image.fromarray((255 * digits[rng.integers(len(digits))]).astype(np.uint8))
        top, left = rng.integers(0, size - side + 1, 2)
        cover[top : top + side, left : left + side] = np.asarray(digit.resize((side, side), Image.BICUBIC)) / 255
    fields, means = _gratings(rng, count, size)
    greys = rng.uniform(-1, 1, count)
    while (close := np.abs(greys - means) < CONTRAST).any():
        greys[close] = rng.uniform(-1, 1, int(close.sum()))
    images = covers * greys[:, None, None] + (1 - covers) * fields
    return images.clip(-1, 1).astype(np.float32), covers > 0.5


def _gratings(rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw gratings (count, size, size) and their mean greys (count,)."""
    angle, phase = rng.uniform(0, np.pi, (2, count, 1, 1)) * np.array([1, 2])[:, None, None, None]
    wavelength = rng.uniform(*WAVELENGTH, (count, 1, 1)) * size
    amplitude, means = rng.uniform(*AMPLITUDE, (count, 1, 1)), rng.uniform(-0.7, 0.7, count)
    y, x = np.mgrid[:size, :size]
    wave = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / wavelength + phase)
    return means[:, None, None] + amplitude * wave, means


def write_scenes(path: Path, images: np.ndarray, masks: np.ndarray) -> None:
    """Write one Parquet file with the columns `image` and `mask`, each as `datasets` stores images."""
    pixels = {"image": np.rint((images + 1) * 127.5).astype(np.uint8), "mask": masks.astype(np.uint8) * 255}
    columns = {name: [{"bytes": _png(x), "path": None} for x in values] for name, values in pixels.items()}
    pq.write_table(pa.table(columns), path)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--train", type=int, default=12_000)
    parser.add_argument("--test", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", options.train), ("test", options.test)):
        write_scenes(
            options.folder / f"{name}.parquet", *draw_scenes(count, options.size, name == "test", options.seed)
        )
    print(f"{options.train:,} training and {options.test:,} test scenes of {options.size} px in {options.folder}")


if __name__ == "__main__":
    main()
