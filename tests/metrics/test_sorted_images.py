"""Where a part of the images stands for all, it is spread over them: data sets are often sorted by class."""

import numpy as np
import pytest
from PIL import Image

import bigbigan
from bigbigan.config import Config
from bigbigan.data import Images, spread
from bigbigan.data.images import Arrays
from bigbigan.metrics import reconstruction
from bigbigan.training import own_images
from bigbigan.training.guard.collapse import CollapseProbe
from bigbigan.training.pictures import KINDS, draw_grids
from bigbigan.uses import demo_page
from tests.conftest import tiny_model

COUNT, CLASSES = 400, 10


class Recorded(Arrays):
    """Remember which images were asked for."""

    def __init__(self):
        super().__init__(np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8), np.uint8))
        self.asked: list[int] = []

    def __getitem__(self, i):
        self.asked.append(int(i))
        return super().__getitem__(i)


@pytest.fixture
def images() -> Images:
    labels = np.arange(COUNT) * CLASSES // COUNT
    return Images(Recorded(), labels, [str(i) for i in range(CLASSES)], "memory", "arrays")


def grids(images, folder):
    for name in KINDS:
        (folder / name).mkdir()
    config = Config()
    config.run.grid = 8
    draw_grids(tiny_model().eval(), images, config, folder, 0)


LOOKS = {
    "reconstruction error": lambda images, _: reconstruction.reconstruction_figures(
        tiny_model(), images, images, False
    ),
    "grid of reconstructions": grids,
    "collapse probe": lambda images, _: CollapseProbe(tiny_model(), images, images, "normal", 0, 40),
    "sides of own images": lambda images, _: own_images.shorter_side(images),
    "colour": lambda images, _: images.coloured(),
    "values": lambda images, _: images.values_used(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_look_sees_all_classes(look, images, tmp_path, monkeypatch):
    monkeypatch.setattr(reconstruction, "EVALUATION_LIMIT", 40)
    monkeypatch.setattr(own_images, "MEASURED", 40)
    look(images, tmp_path)
    asked = np.unique(images.items.asked)
    assert len(asked) <= COUNT // 2, "a part of them"
    assert np.bincount(images.labels[asked], minlength=CLASSES).min() >= 2


@pytest.mark.parametrize(
    ("n", "most", "expected"), [(7, 3, [0, 3, 6]), (3, 7, [0, 1, 2]), (3, 0, [0, 1, 2]), (0, 4, [])]
)
def test_spread(n, most, expected):
    assert spread(n, most).tolist() == expected


@pytest.mark.parametrize("count, said", [(12, "the 12 images of shots"), (60, "20 of the 60 images of shots")])
def test_the_demo_searches_a_whole_folder(count, said, tmp_path, monkeypatch):
    monkeypatch.setattr(demo_page, "GALLERY", 20)
    (folder := tmp_path / "shots").mkdir()
    for i in range(count):  # dark first, bright last
        Image.new("L", (8, 8), 4 * i).save(folder / f"{i:03}.png")
    gallery = demo_page.Player(bigbigan.load("digits", "cpu"), str(folder)).gallery
    assert gallery.of == said
    shown = (gallery.pictures.mean((1, 2, 3)) + 1) * 127.5 / 4
    assert shown.round().tolist() == pytest.approx(spread(count, 20))
