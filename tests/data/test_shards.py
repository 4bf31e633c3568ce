"""Folders that keep a series in parts are no classes; folders of classes are, whatever numbers they are called by."""

import pytest

from bigbigan.data import open_images
from bigbigan.data.shards import are_shards
from tests.conftest import picture

SHARDS = {
    "FFHQ": [f"{n // 1000 * 1000:05}/{n:05}.png" for n in range(0, 3000, 50)],
    "FFHQ, a part of it": [f"{n // 1000 * 1000:05}/{n:05}.png" for n in (7, 8, 9, 4100, 4900, 69_999)],
    "StyleGAN's dataset tool": [f"{n // 1000:05}/img{n:08}.png" for n in range(2_100)],
    "img2dataset": [f"{n // 10_000:05}/{n:09}.jpg" for n in range(21_000) if n % 3],
    "Danbooru": [f"{n % 1000:04}/{n}.jpg" for n in (1, 1001, 91_001, 1_234_002, 5_002, 999_003, 3_003)],
    "IMDB-WIKI": [f"{n % 100:02}/nm{n:07}_rm{n * 7919}_1955-1-6_2003.jpg" for n in range(100, 900)],
    "hashes": [f"{n % 64:02x}/{n % 64:02x}{n:08x}.jpg" for n in range(256)],
    "hashes, two levels": [f"{n % 64:02x}/a7/{n % 64:02x}a7{n:08x}.jpg" for n in range(256)],
}
CLASSES = {
    "MNIST as PNG": [f"{n % 10}/{n * 7919 % 100}.png" for n in range(100)],
    "MNIST, each class counted from 0": [f"{c}/{n}.png" for c in range(10) for n in range(10)],
    "ORL": [f"{person}/{n}.pgm" for person in range(1, 41) for n in range(1, 11)],
    "Flowers": [f"{c}/image_{100 * c + n:05}.jpg" for c in range(1, 103) for n in range(4)],
    "CASIA": [f"{person:07}/{n:03}.jpg" for person in (45, 99, 100) for n in range(1, 60)],
    "Caltech": [f"{c:03}/{c:03}_{n:04}.jpg" for c in range(1, 6) for n in range(1, 9)],
    "GTSRB of Kaggle": [f"{c}/{c:05}_{t:05}_{n:05}.png" for c in range(43) for t in range(2) for n in range(3)],
    "named after their class": [f"{c:02}/{c:02}{n:03}.jpg" for c in range(5) for n in range(1000)],
    "samples of each class": [f"{c:05}/{c:05}{n:03}.png" for c in range(5) for n in range(50)],
    "an image each": [f"{n:03}/{n:03}.png" for n in range(50)],
    "words that are hexadecimal": [f"{c}/{c}{n:04}.jpg" for c in ("ace", "bee", "dad") for n in range(4)],
    "words": [f"{c}/{n}.jpg" for c in ("cat", "dog") for n in range(4)],
}


@pytest.mark.parametrize("name", [*SHARDS, *CLASSES])
def test_shards_and_classes(name):
    paths = (SHARDS | CLASSES)[name]
    assert are_shards([path.split("/")[0] for path in paths], paths) == (name in SHARDS)


def test_shards_give_no_labels_unless_the_folders_are_said_to_be_classes(tmp_path, caplog):
    for i, path in enumerate(SHARDS["FFHQ"]):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        picture(i, (4, 4)).save(tmp_path / path)
    assert open_images(str(tmp_path), "train", other_split="test").labels is None
    assert (
        "no labels" in caplog.text and "3 folders, such as 00000" in caplog.text and "--data.split all" in caplog.text
    )
    assert open_images(str(tmp_path), "all", other_split="all").class_names == ["00000", "01000", "02000"]
