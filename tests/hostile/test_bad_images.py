"""Read unusual pictures as documented; refuse broken or hostile ones, and in a data set skip and count them."""

import contextlib
import io
import logging
import os
import struct
import subprocess
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import bigbigan
from bigbigan.data import Crop, Stream, evaluation_batches, open_images, to_rgb
from bigbigan.errors import DataError, InputError
from tests.conftest import picture, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def encoded(format: str, image: Image.Image | None = None, **options) -> bytes:
    file = io.BytesIO()
    (image or picture(0, (40, 30))).save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, *more: bytes) -> bytes:
    """Make a PNG whose header says it is this large, and which has no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def text_bomb() -> bytes:
    data = b"key\0\0" + zlib.compress(b"\0" * 2**26)
    return png(8, 8, struct.pack(">I", len(data)) + b"zTXt" + data + struct.pack(">I", zlib.crc32(b"zTXt" + data)))


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file closefile showpage\n"
JPEG, PNG = encoded("JPEG", quality=95), encoded("PNG")

# name → (the file's bytes, what the message says of it)
REFUSED = {
    "zero.jpg": (b"", "UnidentifiedImageError"),
    "half.jpg": (JPEG[: len(JPEG) // 2], "OSError: image file is truncated"),
    "header.jpg": (JPEG[:20], "cannot identify image file|UnidentifiedImageError|broken|truncated|OSError"),
    "half.png": (PNG[: len(PNG) // 2], "OSError: image file is truncated|OSError"),
    "half.gif": (encoded("GIF")[:100], "UnidentifiedImageError|OSError"),
    "half.webp": (encoded("WEBP")[:100], "OSError|UnidentifiedImageError"),
    "half.tif": (encoded("TIFF")[:200], "OSError|UnidentifiedImageError|SyntaxError|TypeError|KeyError"),
    "half.bmp": (encoded("BMP")[:500], "OSError: image file is truncated"),
    "half.ppm": (encoded("PPM")[:500], "OSError: image file is truncated|not enough image data"),
    "flipped.png": (flipped(PNG, 20), "UnidentifiedImageError|SyntaxError|broken PNG"),
    "text.jpg": (b"this is no picture\n", "UnidentifiedImageError"),
    "page.png": (b"<html>404 not found</html>", "UnidentifiedImageError"),
    "pickle.png": (b"\x80\x04\x95cos\nsystem\n", "UnidentifiedImageError"),
    "bomb.png": (png(50_000, 50_000), "expected from 1 to 178,956,970 pixels, found 2,500,000,000; cut it into tiles"),
    "strip.png": (png(2**31 - 1, 1), "expected from 1 to 178,956,970 pixels, found 2,147,483,647; cut it into tiles"),
    "text-bomb.png": (text_bomb(), "ValueError: Decompressed data too large"),
    "postscript.jpg": (POSTSCRIPT, "expected one of JPEG, MPO, PNG, .*; found EPS"),
    "drawing.png": (encoded("ICO"), "found ICO"),
    "nan.tif": (
        encoded("TIFF", Image.fromarray(np.full((9, 9), np.nan, np.float32))),
        "the values of black and white, found values from nan",
    ),
    "share.tif": (
        encoded("TIFF", Image.fromarray(np.full((9, 9), 0.5, np.float32))),
        "found values from 0.5 to 0.5 and nothing that says what they mean; give --data.value_range",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_named_by_encode_and_skipped_in_a_data_set(model, tmp_path, caplog, name, monkeypatch):
    def started(*_, **__):
        raise AssertionError("expected no other program to be started")

    monkeypatch.setattr(subprocess, "Popen", started)
    data, message = REFUSED[name]
    for i in range(12):
        picture(i).save(tmp_path / f"good-{i}.png")
    bad = tmp_path / name
    bad.write_bytes(data)
    expected = rf"{name}: expected a readable image; .*({message}).*; mend it, leave it out, or pass on_error=.skip."
    if name == "share.tif":  # no broken file: the caller says what its values mean
        expected = rf"{name}: .*({message})"
        with pytest.raises(InputError, match=expected):
            bigbigan.encode([tmp_path / "good-0.png", bad], model, on_error="skip")
    with pytest.raises(InputError, match=expected):
        bigbigan.encode([tmp_path / "good-0.png", bad], model)
    images = open_images(str(tmp_path), test_share=0)
    stream = Stream(images, 8, 0, Crop("resnet", True), cache="none", max_unreadable=0.1)
    with caplog.at_level(logging.WARNING):
        assert sum(len(b.x) for b in stream.batches(0, 48, 8)) == 48
    assert stream.unreadable == {str(bad)}
    assert len([r for r in caplog.records if f"unreadable image {bad}: skipped (1 so far)" in r.getMessage()]) == 1
    assert sum(len(x) for x, _ in evaluation_batches(images, 8, 5)) == 12
    assert sum(len(x) for x, _ in evaluation_batches(images, 8, 5)) == 12
    assert caplog.text.count(f"unreadable image {bad}: left out of evaluations: ") == 1


def grey16() -> bytes:
    return encoded("PNG", Image.fromarray(np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)))


def see_through_palette() -> bytes:
    image = picture(0, (8, 8)).convert("P")
    return encoded("PNG", image, transparency=bytes(range(0, 256)))


def animation(format: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    return encoded(format, frames[0], save_all=True, append_images=frames[1:], lossless=True)


# name → (bytes, what is seen of it: a colour everywhere, or None)
ACCEPTED = {
    "dot.png": (encoded("PNG", Image.new("RGB", (1, 1), "red")), (255, 0, 0)),
    "line.png": (encoded("PNG", Image.new("RGB", (1, 20_000), "lime")), (0, 255, 0)),
    "row.png": (encoded("PNG", Image.new("RGB", (20_000, 1), "blue")), (0, 0, 255)),
    "deep.png": (grey16(), None),
    "inks.jpg": (encoded("JPEG", picture(0).convert("CMYK")), None),
    "palette.png": (see_through_palette(), None),
    "bilevel.png": (encoded("PNG", Image.new("1", (9, 9), 1)), (255, 255, 255)),
    "film.gif": (animation("GIF"), (255, 0, 0)),
    "film.png": (animation("PNG"), (255, 0, 0)),
    "film.webp": (animation("WEBP"), (255, 0, 0)),
    "pages.tif": (animation("TIFF"), (255, 0, 0)),
    "really-a-png.jpg": (PNG, None),
    "upper.JPG": (JPEG, None),
    "clear.png": (encoded("PNG", Image.new("RGBA", (8, 8), (9, 9, 9, 0))), (255, 255, 255)),
    "tail.jpg": (JPEG + b"what some cameras append", None),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_it_is_read_as_stated(model, tmp_path, name):
    data, colour = ACCEPTED[name]
    (tmp_path / name).write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        several = name.startswith(("film", "pages"))
        with pytest.warns(UserWarning, match="the first is read") if several else contextlib.nullcontext():
            assert bigbigan.encode(tmp_path, model, "avepool_feat").isfinite().all()
        images = open_images(str(tmp_path), test_share=0)
        rgb = to_rgb(images[0])
        (batch,) = Stream(images, 8, 0, Crop("resnet", True), cache="none").batches(0, 4, 4)
    assert rgb.mode == "RGB" and batch.x.shape == (4, 3, 8, 8)
    if colour is not None:
        assert torch.equal(batch.x, torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1).expand(4, 3, 8, 8))
    if name == "deep.png":
        assert np.asarray(rgb).max() == 255 and np.asarray(rgb)[0, 7, 0] == round(7 / 63 * 255)


def test_the_largest_picture(tmp_path, model, monkeypatch):
    """Our limit holds even where a program has switched Pillow's own off."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png(20_000, 9_000))
    with pytest.raises(InputError, match="pixels, found 20,000 × 9,000; cut it into tiles, or make it smaller"):
        bigbigan.encode(tmp_path, model)


def good(folder, count=3):
    folder.mkdir(exist_ok=True)
    for i in range(count):
        picture(i).save(folder / f"{i}.png")
    return folder


def test_what_is_no_file_is_left_out_and_counted(tmp_path, model, caplog):
    """A folder named .jpg is a folder; pipes, loops and broken links are counted, and not opened."""
    folder = good(tmp_path / "photos")
    (folder / "album.jpg").mkdir()
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nothing.jpg")
    os.mkfifo(folder / "pipe.png")
    (folder / "again").symlink_to(folder, target_is_directory=True)
    with caplog.at_level(logging.WARNING):
        assert len(open_images(str(folder), test_share=0)) == 3
    assert f"{folder}: left out: 3 that are no files, such as {folder}/gone.jpg" in caplog.text
    for name, found in (("pipe.png", "a pipe or a device"), ("album.jpg", "a folder")):
        with pytest.raises(InputError, match=f"{name}: expected a readable image; expected a file, found {found}"):
            bigbigan.encode([str(folder / name)], model)
    with pytest.raises(
        InputError, match="loop.jpg: expected a readable image; OSError: .*Too many levels of symbolic links"
    ):
        bigbigan.encode([folder / "loop.jpg"], model)


@pytest.mark.parametrize("kind", ["file", "folder", "split"])
def test_links_that_lead_out_of_a_folder_are_refused(tmp_path, model, kind):
    elsewhere = good(tmp_path / "elsewhere")
    folder = good(tmp_path / "photos") if kind != "split" else tmp_path / "photos"
    folder.mkdir(exist_ok=True)
    link = {"file": "portrait.png", "folder": "more", "split": "train"}[kind]
    (folder / link).symlink_to(elsewhere / "1.png" if kind == "file" else elsewhere)
    message = rf"{link}: expected a file or folder of {folder} itself, found that it leads to {elsewhere}"
    with pytest.raises(DataError, match=f"{message}.*--data.follow_links True"):
        open_images(str(folder))
    if kind != "split":
        with pytest.raises(InputError, match=f"{message}.*give a list of paths"):
            bigbigan.encode(folder, model)
    followed = open_images(str(folder), test_share=0, follow_links=True)
    assert len(followed) == {"file": 4, "folder": 6, "split": 3}[kind]
    (tmp_path / "alias").symlink_to(elsewhere)
    assert len(open_images(str(tmp_path / "alias"), test_share=0)) == 3, "what the user names may be a link"
    assert len(bigbigan.encode([folder / link] if kind == "file" else tmp_path / "alias", model, "z_mean")) in (1, 3)


def test_names_that_are_no_utf8_are_read_and_shown_with_escapes(tmp_path, model, caplog, capsys):
    folder = os.fsencode(tmp_path / "photos")
    for label in (b"caf\xe9", b"bar\x1b[2J"):
        os.makedirs(folder + b"/" + label)
        for i in range(8):
            with open(folder + b"/" + label + b"/%d.png" % i, "wb") as file:
                file.write(PNG)
    with open(folder + b"/caf\xe9/cut.png", "wb") as file:
        file.write(PNG[:50])
    images = open_images(os.fsdecode(folder), test_share=0)
    assert images.class_names == ["bar\\x1b[2J", "caf\\udce9"]
    stream = Stream(images, 8, 0, Crop("resnet"), cache="none", max_unreadable=0.5)
    list(stream.batches(0, 48, 8))
    print(images.summary(), *stream.unreadable)  # encodes to UTF-8
    assert "caf\\udce9/cut.png" in capsys.readouterr().out.encode().decode()
    with pytest.raises(InputError, match=r"caf\\udce9/cut.png: expected a readable image"):
        bigbigan.encode(os.fsdecode(folder), model)


def test_a_picture_that_may_not_be_read(tmp_path, model, monkeypatch):
    """Imitate the refusal in Pillow's `open`, since the superuser may read everything."""
    from PIL import Image as pillow

    before = pillow.open

    def refuse(source, *arguments):
        if str(source).endswith("secret.png"):
            raise PermissionError(13, "Permission denied", str(source))
        return before(source, *arguments)

    folder = good(tmp_path / "photos", 12)
    PNG and (folder / "secret.png").write_bytes(PNG)
    monkeypatch.setattr(pillow, "open", refuse)
    with pytest.raises(InputError, match="secret.png: expected a readable image; PermissionError: .*Permission denied"):
        bigbigan.encode(folder, model)
    stream = Stream(open_images(str(folder), test_share=0), 8, 0, Crop("resnet"), cache="none", max_unreadable=0.1)
    assert sum(len(b.x) for b in stream.batches(0, 48, 8)) == 48 and len(stream.unreadable) == 1


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    """Refuse the folder: to skip it silently would lose a class."""
    folder = good(tmp_path / "photos")
    good(folder / "secret")
    before = os.scandir

    def refuse(path="."):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return before(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="expected data that can be read, found .*Permission denied.*secret"):
        open_images(str(folder))
