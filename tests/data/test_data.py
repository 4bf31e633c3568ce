"""Test the readers, the decoding of pictures, the crops, and the stream, whose order is f(seed, position)."""

import logging
import signal
import socket
import sys
import time
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torchvision.transforms import v2

from bigbigan.data import (
    Crop,
    Images,
    Stream,
    centre_square,
    crop_and_resize,
    evaluation_batches,
    open_images,
    sources,
    to_rgb,
    to_signed,
    to_uint8,
)
from bigbigan.data.crops import UNIFORMS, random_crop, random_crops, resample
from bigbigan.data.images import Arrays, Found
from bigbigan.data.stream import _serve_the_main_process as serve_the_main_process
from bigbigan.errors import DataError
from bigbigan.noise import uniforms
from tests.conftest import SHARED, picture


def test_digits_have_a_fixed_test_split():
    train, test = open_images("digits"), open_images("digits", test=True)
    assert (len(train), len(test)) == (1438, 359)
    assert train.class_names == test.class_names == list("0123456789")
    pixels = {np.asarray(train[i]).tobytes() for i in range(len(train))}
    assert sum(np.asarray(test[i]).tobytes() in pixels for i in range(len(test))) == 0
    assert max(np.asarray(train[i]).max() for i in range(20)) == 255 and np.asarray(train[0]).shape == (8, 8)


def test_another_kind_of_data_is_one_function_and_one_row(tmp_path, monkeypatch):
    """Read images from one .npy file, which no reader takes, and leave everything else to the readers there are."""

    def open_npy(request):
        if request.location.suffix != ".npy":
            return None
        return Found(Images(Arrays(np.load(request.location)), None, None, request.path, "arrays"), whole=True)

    np.save(tmp_path / "a.npy", np.zeros((10, 4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="found another file"):
        open_images(str(tmp_path / "a.npy"))
    monkeypatch.setattr(sources, "READERS", (open_npy, *sources.READERS))
    train, test = (open_images(str(tmp_path / "a.npy"), test=t) for t in (False, True))
    assert (len(train), len(test)) == (9, 1) and train[0].size == (4, 4)
    assert len(open_images("digits")) == 1438


def test_class_folders(image_folder):
    images = open_images(str(image_folder), test_share=0)
    assert len(images) == 16 and images.class_names == ["ant", "bee"]
    assert images.labels.tolist() == [0] * 8 + [1] * 8
    assert "16 images, 2 classes (8 .jpg, 8 .png)" in images.summary()


def test_held_out_share_is_fixed_and_disjoint(image_folder):
    train, test = (open_images(str(image_folder), test=t, test_share=0.25) for t in (False, True))
    names = [{images.name(i) for i in range(len(images))} for images in (train, test)]
    assert len(names[0]) == 12 and len(names[1]) == 4 and not names[0] & names[1]


def test_flat_and_nested_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    picture(0).save(tmp_path / "1.png")
    picture(1).save(tmp_path / "a" / "b" / "2.JPG")
    picture(2).save(tmp_path / ".hidden.png")
    (tmp_path / "notes.txt").write_text("no image")
    images = open_images(str(tmp_path), test_share=0)
    assert len(images) == 2 and images.labels is None


def test_train_and_validation_folders(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for label in "ab":
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(count):
                picture(i).save(tmp_path / split / label / f"{i}.png")
    train, test = open_images(str(tmp_path)), open_images(str(tmp_path), "test", test=True)
    assert (len(train), len(test)) == (6, 4)
    assert train.class_names == test.class_names == ["a", "b"]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "saved"])
def test_tables(tmp_path, kind):
    files = []
    for i in range(6):
        files.append(str(tmp_path / f"{i}.png"))
        picture(i).save(files[-1])
    features = Features({"picture": ImageFeature(), "kind": __import__("datasets").ClassLabel(names=["x", "y"])})
    table = Dataset.from_dict({"picture": files, "kind": [0, 1] * 3}, features=features)
    folder = tmp_path / "table"
    folder.mkdir()
    if kind == "parquet":
        table.to_parquet(folder / "train-0.parquet")
        table.select([0, 1]).to_parquet(folder / "test-0.parquet")
    else:
        table.save_to_disk(str(folder))
    if kind == "arrow":
        folder = next(folder.glob("*.arrow"))
    if kind == "parquet":  # which names the files by their paths
        with pytest.raises(
            DataError, match=r"expected a file or folder of .*, or follow it with --data.follow_links True"
        ):
            open_images(str(folder), test_share=0)
    images = open_images(str(folder), test_share=0, follow_links=True)
    assert len(images) == 6 and images.class_names == ["x", "y"]
    assert np.array_equal(np.asarray(to_rgb(images[3])), np.asarray(picture(3)))
    if kind == "parquet":
        assert len(open_images(str(folder), "test", test=True, follow_links=True)) == 2
    with pytest.raises(DataError, match="expected a column of images 'photo', found the columns picture, kind"):
        open_images(str(folder), image_column="photo")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/no/such/folder", "no such folder or file"),
        ("./nothing", "no such folder or file"),
        ("empty", "expected images .* found none"),
        ("notes.txt", "expected a folder, a .parquet, .arrow or .tar file or a data set's name, found another file"),
        ("cut.parquet", "expected a readable parquet file"),
    ],
)
def test_unusable_paths(tmp_path, path, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("text")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(DataError, match=message):
        open_images(path if path.startswith((".", "/")) else str(tmp_path / path))


@pytest.mark.parametrize("name", ["someone/something", "fotos", "photos/train"])
def test_a_mistyped_path_asks_the_hub_once_and_is_one_sentence(name, tmp_path, monkeypatch):
    """Neither `datasets`, which asks for half a minute, nor a second question."""
    import datasets
    import huggingface_hub

    asked = []

    def refuse(_api, name, timeout):
        asked.append((name, timeout))
        raise ConnectionError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda *_: pytest.fail("asked again"))
    with pytest.raises(DataError, match=rf"no such file or folder as {tmp_path}/{name}, .*ConnectionError: no network"):
        open_images(name)
    assert asked == [(name, 10)]


@pytest.mark.parametrize("name", ["photos/*.jpg", "photos*", "p/q/[ab].png", "{a,b}/c"])
def test_a_pattern_is_not_asked_of_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="found no such folder or file; a pattern names .tar files alone: give the fol"):
        open_images(name)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(mode):
    grey = np.linspace(0, 255, 30).astype(np.uint8).reshape(5, 6)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "I":
        image = Image.fromarray(grey.astype(np.int32) * 257)
    elif mode == "F":
        image = Image.fromarray(grey.astype(np.float32))
    else:
        image = Image.fromarray(grey).convert("RGB").convert(mode)
    rgb = to_rgb(image, (0, 255) if mode == "F" else None)  # floats have no range of their own
    assert rgb.mode == "RGB" and rgb.size == (6, 5)
    if mode not in ("1", "P"):
        assert np.abs(np.asarray(rgb)[..., 0].astype(int) - grey).max() <= 2


def test_transparency_lies_over_white_and_photos_stand_upright(tmp_path):
    clear = Image.new("RGBA", (2, 2), (10, 20, 30, 0))
    assert to_rgb(clear).getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2))
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned
    picture(0, (6, 3)).save(tmp_path / "turned.jpg", exif=exif)
    assert to_rgb(Image.open(tmp_path / "turned.jpg")).size == (3, 6)


@pytest.mark.parametrize("augment", ["resnet", "light", "tf_resnet"])
@pytest.mark.parametrize("size", [(500, 375), (30, 300), (8, 8), (1, 1), (1, 200)])
def test_crops_never_leave_the_picture(augment, size):
    width, height = size
    u = uniforms(0, "crop", np.arange(300), UNIFORMS)
    for row, box in zip(u, random_crops(u, width, height, augment), strict=True):
        left, top, right, bottom = random_crop(row, width, height, augment)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert (left, top, right, bottom) == tuple(box), "many at once are cut as each alone"


def test_resnet_crops_have_torchvisions_distribution():
    torch.manual_seed(0)
    theirs = np.array([_torchvision_box(500, 375) for _ in range(4000)])
    ours = np.array([random_crop(u, 500, 375, "resnet") for u in uniforms(0, "crop", np.arange(4000), UNIFORMS)])
    for a, b in zip(theirs.T, ours.T, strict=True):
        assert abs(a.mean() - b.mean()) < 12 and abs(a.std() - b.std()) < 8


def _torchvision_box(width, height):
    from torchvision.transforms import RandomResizedCrop

    top, left, h, w = RandomResizedCrop.get_params(torch.empty(3, height, width), (0.08, 1.0), (3 / 4, 4 / 3))
    return left, top, left + w, top + h


@pytest.mark.parametrize("filter", ["bicubic", "bilinear"])
def test_cutting_a_batch_equals_pillow_one_by_one(filter):
    pictures = [picture(i, (40, 30)) for i in range(6)]
    boxes = [(0, 0, 40, 30), (3, 2, 35, 29), (10, 10, 14, 16), (0, 0, 30, 30), (5, 0, 6, 1), (20, 5, 40, 30)]
    stacked = torch.stack([torch.from_numpy(np.asarray(p).copy()).permute(2, 0, 1) for p in pictures])
    ours = resample(stacked, torch.tensor(boxes), 16, filter)
    for mine, p, box in zip(ours, pictures, boxes, strict=True):
        theirs = torch.from_numpy(crop_and_resize(p, box, 16, filter).copy())
        difference = (mine.int() - theirs.int()).abs().float()
        assert difference.mean() < 0.5 and difference.max() <= 12, box  # of noise, the hardest picture


def test_evaluation_equals_torchvisions_resize_and_centre_crop(image_folder):
    images = open_images(str(image_folder), test_share=0)
    reference = v2.Compose(
        [v2.Resize(8, v2.InterpolationMode.BICUBIC, antialias=True), v2.CenterCrop(8), v2.PILToTensor()]
    )
    ours = torch.cat([x for x, _ in evaluation_batches(images, 8, 5)])
    square = [i for i in range(len(images)) if images[i].size[0] == images[i].size[1]]
    assert square
    for i in square:  # elsewhere the order of cutting and resizing moves pixels
        assert (ours[i].int() - reference(to_rgb(images[i])).int()).abs().max() <= 1


def test_signed_and_back():
    x = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert to_signed(x).min() == -1 and to_signed(x).max() == 1
    assert torch.equal(to_uint8(to_signed(x)), x)
    assert centre_square(10, 4) == (3, 0, 7, 4)


def make_stream(images, **options):
    options = {"size": 8, "seed": 3, "augment": Crop("resnet", True), "cache": "none"} | options
    return Stream(images, **options)


def take(stream, start, count, batch):
    found = list(stream.batches(start, start + count, batch))
    return torch.cat([b.x for b in found]), np.concatenate([b.positions for b in found])


def test_order_is_a_function_of_seed_and_position(image_folder):
    images = open_images(str(image_folder), test_share=0)
    x, positions = take(make_stream(images), 0, 48, 8)
    assert positions.tolist() == list(range(48))
    late, _ = take(make_stream(images), 24, 24, 12)  # from the middle, at another batch size
    assert torch.equal(late, x[24:])
    halves = [take(make_stream(images, rank=r, processes=2), 0, 48, 8) for r in (0, 1)]
    for part, places in halves:
        assert torch.equal(part, x[places])
    assert sorted(np.concatenate([p for _, p in halves])) == list(range(48))
    other, _ = take(make_stream(images, seed=4), 0, 48, 8)
    assert not torch.equal(other, x)


def test_a_worker_whose_main_process_is_gone_adds_nothing_to_what_that_has_said(monkeypatch, capsys):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # and have it back afterwards
    serve_the_main_process(0)
    offered = resource_sharer.DupFd(0)  # as a worker offers a picture's memory
    try:
        with socket.socket(socket.AF_UNIX) as main:
            main.connect(offered._id[0])  # and is gone before it has taken it
        time.sleep(0.3)
    finally:
        resource_sharer.stop(5)
    assert capsys.readouterr().err == ""
    sys.excepthook(ValueError, ValueError("an error of its own"), None)
    assert "an error of its own" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_change_the_stream(image_folder, workers):
    images = open_images(str(image_folder), test_share=0)
    expected, _ = take(make_stream(images), 0, 24, 8)
    found, _ = take(make_stream(images, workers=workers), 0, 24, 8)
    assert torch.equal(found, expected)


def test_an_epoch_shows_each_image_once():
    images = open_images("digits")
    stream = make_stream(images, augment=Crop("none", False), cache="auto")
    for epoch in range(2):
        order = [stream.order[p] for p in range(epoch * len(images), (epoch + 1) * len(images))]
        assert sorted(order) == list(range(len(images)))


def test_the_cache_gives_what_decoding_gives(tmp_path):
    for i in range(6):
        picture(i, (20, 16)).save(tmp_path / f"{i}.png")
    images = open_images(str(tmp_path), test_share=0)
    for kind in ("none", "light", "resnet"):
        cached = make_stream(images, cache="device", augment=Crop(kind, True))
        plain = make_stream(images, augment=Crop(kind, True))
        assert cached.cached is not None and plain.cached is None
        a, b = take(cached, 0, 24, 8)[0], take(plain, 0, 24, 8)[0]
        assert (a.int() - b.int()).abs().float().mean() < 0.5


def test_turned_images_are_kept_at_their_upright_size(tmp_path):
    """Photographs of one size, some of them turned by their EXIF tag."""
    for i, turn in enumerate((6, 1, 8)):
        size = (20, 16) if turn == 1 else (16, 20)
        exif = Image.Exif()
        exif[0x0112] = turn
        picture(i, size).save(tmp_path / f"{i}.jpg", exif=exif)
    images = open_images(str(tmp_path), test_share=0)
    assert make_stream(images, cache="device").cached.shape == (3, 3, 16, 20)


@pytest.mark.parametrize("damage", [lambda data: data[:60], lambda data: b"no picture"])
@pytest.mark.parametrize("place", [0, 2])
def test_an_unreadable_image_cannot_be_kept(place, damage, tmp_path):
    """Also the first one, whose size the others are compared with."""
    for i in range(3):
        picture(i, (20, 16)).save(tmp_path / f"{i}.png")
    broken = tmp_path / f"{place}.png"
    broken.write_bytes(damage(broken.read_bytes()))
    images = open_images(str(tmp_path), test_share=0)
    assert make_stream(images, cache="auto").cached is None
    with pytest.raises(DataError, match=rf"found that .*{place}.png is unreadable; use --data.cache none"):
        make_stream(images, cache="device")


def test_images_of_several_sizes_cannot_be_kept(image_folder):
    images = open_images(str(image_folder), test_share=0)
    assert make_stream(images, cache="auto").cached is None
    with pytest.raises(DataError, match="expected readable images of one size, found that .* use --data.cache none"):
        make_stream(images, cache="device")


def test_an_unreadable_image_is_skipped_named_and_counted(image_folder, caplog):
    broken = image_folder / "ant" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    images = open_images(str(image_folder), test_share=0)
    stream = make_stream(images, max_unreadable=0.1)
    with caplog.at_level(logging.WARNING):
        x, _ = take(stream, 0, 64, 8)
    assert len(x) == 64 and stream.unreadable == {str(broken)}
    assert sum(str(broken) in r.message for r in caplog.records) == 1, "named once"
    with pytest.raises(
        DataError,
        match=r"1 of 16 images .* are unreadable, as .*3.png .*: expected at most 0, by --data.max_unreadable 0;",
    ):
        take(make_stream(images, max_unreadable=0), 0, 64, 8)


@pytest.mark.parametrize(
    ("n", "share", "allowed"), [(5, 0.01, 0), (16, 0.01, 1), (53, 0.01, 3), (53, 0, 0), (900, 0.01, 9), (53, 0.5, 26)]
)
def test_few_unreadable_images_end_no_run(n, share, allowed):
    images = Images(Arrays(np.zeros((n, 8, 8, 3), np.uint8)), None, None, "", "")
    assert images.unreadable_allowed(share) == allowed
    images.check_unreadable(allowed, share, "a.png")
    with pytest.raises(DataError, match=f"expected at most {allowed}, "):
        images.check_unreadable(allowed + 1, share, "a.png")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data are not here")
def test_cifar10_and_imagenette_open():
    train, test = open_images(str(SHARED / "cifar10")), open_images(str(SHARED / "cifar10"), "test", test=True)
    assert (len(train), len(test), len(train.class_names)) == (50_000, 10_000, 10)
    images = open_images(str(SHARED / "imagenette128"), "test", test=True)
    x, _ = next(evaluation_batches(images, 64, 16))
    assert x.shape == (16, 3, 64, 64) and x.float().std() > 20
