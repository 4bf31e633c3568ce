"""Test that pictures of more than 8 bits are scaled by their mode and bit depth, never by what they hold."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError

import bigbigan
from bigbigan.config import Config, check_value_range, parse
from bigbigan.data import Images, open_images, to_rgb
from bigbigan.data.images import Arrays
from bigbigan.data.pictures import PictureError, decode_rgb
from bigbigan.errors import ConfigError, DataError, InputError
from bigbigan.release.load import card
from bigbigan.training.start import values_rows
from tests.conftest import tiny_model, train

RAMP = np.array([[0, 1, 255, 256], [4095, 4096, 65534, 65535]], np.uint16)


def reopened(image: Image.Image, format: str, **options) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values: np.ndarray, depth: int, clear: tuple[int, ...] = ()) -> Image.Image:
    """Make a grey or colour PNG of 2, 4, 8 or 16 bits; clear: its transparent value, in that depth."""
    height, width = values.shape[:2]
    bits = [((v[:, None].astype(np.uint32) >> np.arange(depth)[::-1]) & 1).ravel() for v in values.reshape(height, -1)]
    rows = b"".join(b"\0" + np.packbits(row.astype(np.uint8)).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", width, height, depth, 2 if values.ndim == 3 else 0, 0, 0, 0)
    key = chunk(b"tRNS", struct.pack(f">{len(clear)}H", *clear)) if clear else b""
    parts = chunk(b"IHDR", header), key, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))


def tiff(*arguments, **settings) -> Image.Image:
    return Image.open(io.BytesIO(tiff_file(*arguments, **settings)))


def tiff_file(data: bytes, width: int, height: int, bits: int, white_is_zero: bool = False, kind: int = 1) -> bytes:
    """Make a grey TIFF, little-endian and uncompressed; kind: 1 unsigned, 2 signed, 3 floats."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: int(not white_is_zero), 273: 8, 277: 1, 278: height,
            279: len(data), 339: kind}  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    data += b"\0" * (len(data) % 2)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + entries + b"\0" * 4


def seen(image: Image.Image, value_range=None) -> list[list[int]]:
    """Return the greys that the networks get, after asserting that the picture is grey."""
    pixels = np.asarray(to_rgb(image, value_range))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


CONTAINERS = {
    "png": lambda a: reopened(Image.fromarray(a), "PNG"),
    "tiff": lambda a: reopened(Image.fromarray(a), "TIFF"),
    "tiff, big-endian": lambda a: reopened(Image.fromarray(a.astype(">u2")), "TIFF"),
    "tiff, packed": lambda a: reopened(Image.fromarray(a), "TIFF", compression="tiff_lzw"),
    "tiff, 32 bits": lambda a: reopened(Image.fromarray(a.astype(np.int32)), "TIFF"),
    "pgm": lambda a: reopened(Image.fromarray(a), "PPM"),
    "jpeg 2000": lambda a: reopened(Image.fromarray(a), "JPEG2000"),
    "in memory": Image.fromarray,
    "in memory, mode I": lambda a: Image.fromarray(a.astype(np.int32)),
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("most", [1, 16, 255, 256, 4095, 65535])
def test_the_scale_of_16_bits_is_65535_whatever_they_hold(container, most):
    values = np.array([[0, most // 2, most]], np.uint16).repeat(2, 0)
    assert seen(CONTAINERS[container](values)) == np.rint(values / 257).astype(int).tolist()


def test_12_bits_of_a_tiff_are_12_bits():
    packed = bytes([0x00, 0x00, 0x80, 0xFF, 0xF0, 0x10])  # 0, 128, 4095, 16
    assert seen(tiff(packed, 4, 1, 12)) == [[0, 8, 255, 1]]


def test_a_pgm_has_its_own_maximum():
    """12 bits, which the header says: white is 4095, with and without a range in the file's own values."""
    file = b"P5 4 1 4095\n" + np.array([0, 2048, 4000, 4095], ">u2").tobytes()
    assert seen(Image.open(io.BytesIO(file))) == [[0, 128, 249, 255]]
    assert seen(Image.open(io.BytesIO(file)), (0, 4095)) == [[0, 128, 249, 255]]
    assert seen(Image.open(io.BytesIO(file)), (2048, 4000)) == [[0, 0, 255, 255]]
    plain = b"P2 4 1 1000\n0 500 900 1000\n"
    assert seen(Image.open(io.BytesIO(plain))) == seen(Image.open(io.BytesIO(plain)), (0, 1000)) == [[0, 128, 230, 255]]
    floats = b"Pf\n4 1\n-1.0\n" + np.array([0, 50, 90, 100], "<f4").tobytes()
    assert seen(Image.open(io.BytesIO(floats)), (0, 100)) == [[0, 128, 230, 255]]


def test_a_range_says_what_black_and_white_are():
    for image in (Image.fromarray(RAMP), reopened(Image.fromarray(RAMP), "PNG")):
        assert seen(image, (0, 4095)) == [[0, 0, 16, 16], [255, 255, 255, 255]]
        assert seen(image, (256, 4096)) == [[0, 0, 0, 0], [255, 255, 255, 255]]
    celsius = np.array([[-40, 0, 40, 100]], np.float32)
    assert seen(Image.fromarray(celsius), (-40, 60)) == [[0, 102, 204, 255]]
    assert seen(Image.fromarray(celsius.astype(np.int32)), (-40, 60)) == [[0, 102, 204, 255]]
    shallow = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert seen(shallow, (0, 4095)) == [[0, 100, 255]], "8 bits have their own range"


@pytest.mark.parametrize("most", [0.5, 1.0, 1.5, 100.0, 255.0, 65535.0])
def test_floats_are_refused_without_a_range(most):
    image = Image.fromarray(np.linspace(0, most, 16, dtype=np.float32).reshape(4, 4))
    for given in (image, reopened(image, "TIFF")):
        with pytest.raises(ValueError, match="expected a picture of mode F with the values of black and white"):
            to_rgb(given)
        assert seen(given, (0, most))[3][3] == 255 and seen(given, (0, 2 * most))[3][3] == 128


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_with_a_range_too(value):
    with pytest.raises(ValueError, match="with finite values, found NaN or infinity"):
        to_rgb(Image.fromarray(np.array([[0, value]], np.float32)), (0, 1))


def test_white_is_zero_at_any_depth():
    grey = np.array([[0, 64, 191, 255]])
    expected = (255 - grey).tolist()
    assert seen(tiff(grey.astype(np.uint8).tobytes(), 4, 1, 8, white_is_zero=True)) == expected
    assert seen(tiff((grey * 257).astype("<u2").tobytes(), 4, 1, 16, white_is_zero=True)) == expected
    assert seen(tiff((grey * 16).astype("<u2").tobytes(), 4, 1, 16, True), (0, 4080)) == expected
    assert seen(tiff(grey.astype("<f4").tobytes(), 4, 1, 32, True, kind=3), (0, 255)) == expected
    plain = Image.fromarray((grey * 257).astype(np.uint16))
    packed = reopened(plain, "TIFF", compression="tiff_lzw", tiffinfo={262: 0})
    assert packed.tag_v2[262] == 0 and seen(packed) == expected
    assert seen(reopened(plain, "TIFF", tiffinfo={262: 1})) == grey.tolist()


@pytest.mark.parametrize(("depth", "step"), [(2, 85), (4, 17), (8, 1), (16, 257)])
def test_a_transparent_grey_lies_over_white_at_any_depth(depth, step):
    values = np.array([[0, 1, 2, 3]])
    assert seen(png(values, depth)) == [[0, *(round(v * (step if depth < 16 else 1 / 257)) for v in (1, 2, 3))]]
    for clear in (0, 1, 3):
        image = png(values, depth, (clear,))
        once, again = seen(image), seen(image)
        assert once[0][clear] == 255 and once == again
        others = [v for v in range(4) if v != clear]
        assert [once[0][v] for v in others] == [seen(png(values, depth))[0][v] for v in others]


def test_a_transparent_colour_lies_over_white_at_16_bits():
    dark, light = np.array([4096, 8192, 0]), np.array([60000, 100, 30000])
    pixels = np.stack([dark, light, np.zeros(3, int)])[None]
    for clear, at in ((dark, 0), (light, 1)):
        found = np.asarray(to_rgb(png(pixels, 16, tuple(int(v) for v in clear))))[0]
        assert found[at].tolist() == [255, 255, 255]
        for other in {0, 1, 2} - {at}:  # a zero is no transparent pixel, although the key's lower bytes are zero
            assert np.abs(found[other].astype(int) - pixels[0, other] / 257).max() <= 1


def test_dark_frames_that_differ_by_one_count_stay_alike(tmp_path):
    """The failing case of old: scaled by their own maximum, one became white and the other nearly black."""
    model = tiny_model().eval()
    for most in (255, 256):
        Image.fromarray(np.linspace(0, most, 64).astype(np.uint16).reshape(8, 8)).save(tmp_path / f"{most}.png")
    first, second = bigbigan.encode(tmp_path, model, "avepool_feat")
    assert torch.equal(first, second)


def camera(folder, scenes=16, most=4095):
    """Make frames of 12 bits, stored in 16."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(scenes):
        Image.fromarray((rng.random((8, 8)) * most).astype(np.uint16)).save(folder / f"{i:02d}.png")
    return folder


@pytest.mark.run
def test_a_run_keeps_its_range_and_encode_and_the_probe_use_it(tmp_path):
    from eval_linear.probe import ProbeData, open_splits

    folder = camera(tmp_path / "frames")
    flags = ("--data.path", str(folder), "--data.augment=none", "--run.images=24", "--run.probe=False")
    out, _ = train(tmp_path / "runs", *flags, "--run.name=a", "--data.value_range", "0", "4095")
    assert "  values" not in out
    model = bigbigan.load(tmp_path / "runs" / "a")
    assert list(model.card["data"]["value_range"]) == [0, 4095]
    splits = open_splits(ProbeData(), model)
    assert splits.train.value_range == splits.test.value_range == (0, 4095)
    frame = np.asarray(Image.open(folder / "00.png"))
    eight = np.rint(frame / 4095 * 255).astype(np.uint8)
    expected = bigbigan.encode([eight], model, "z_mean")
    for given in ([folder / "00.png"], [Image.open(folder / "00.png")], frame, torch.from_numpy(frame.astype(int))):
        assert torch.equal(bigbigan.encode(given, model, "z_mean"), expected), type(given)
    assert not torch.equal(bigbigan.encode([folder / "00.png"], model, "z_mean", value_range=(0, 65535)), expected)
    x = torch.from_numpy(eight)[None, None] / 127.5 - 1
    assert torch.allclose(bigbigan.encode(x, model, "z_mean"), expected, atol=1e-5), "floats in [−1, 1] stay so"
    assert torch.equal(bigbigan.reconstruct([folder / "00.png"], model), bigbigan.reconstruct([eight], model))
    assert open_splits(ProbeData(value_range=(0, 1)), model).train.value_range == (0, 1)


@pytest.mark.run
def test_the_start_block_warns_of_values_in_a_small_part_of_their_range(tmp_path):
    out, _ = train(
        tmp_path / "runs", "--data.path", str(camera(tmp_path / "frames")), "--data.augment=none", "--dry-run"
    )
    (line,) = (line for line in out.splitlines() if line.startswith("  values"))
    assert "% (black) to 6." in line and "--data.value_range 0 4095" in line
    deep = Images(Arrays(np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 1000), None, None, "", "")
    assert values_rows(deep) == []
    deep.value_range = (0, 4095)
    assert "is cut" in values_rows(deep)[0][1]
    masks = Images(Arrays(np.eye(8, dtype=np.uint8)[None]), None, None, "", "")  # of 0 and 1 in 8 bits
    assert "0.39% (white)" in values_rows(masks)[0][1]
    digits = open_images("digits")
    assert values_rows(digits) == []


@pytest.mark.parametrize("bad", [(4095, 0), (0, 0), (0, 1, 2), (float("nan"), 1), (0, float("inf")), ("a", "b"), "0 1"])
def test_a_range_that_cannot_be_is_one_sentence(bad, tmp_path):
    with pytest.raises(ConfigError, match="--data.value_range .*: expected the values of black and of white"):
        check_value_range(bad, "--data.value_range")
    with pytest.raises(InputError, match="value_range: expected the values of black and of white.*found "):
        bigbigan.encode(RAMP, tiny_model(), value_range=bad)
    with pytest.raises(DataError, match="--data.value_range .*: expected the values of black and of white"):
        open_images(str(camera(tmp_path / "a", 2)), value_range=bad)


def test_the_range_on_the_command_line(capsys):
    config, _ = parse(["--data.value_range", "0", "4095"])
    assert tuple(config.data.value_range) == (0, 4095)
    config, _ = parse(["--data.value_range", "4095"])
    assert check_value_range(config.data.value_range, "") == (0, 4095) and check_value_range((), "") is None
    with pytest.raises(SystemExit):
        parse(["--data.value_range", "5", "1"])
    assert "--data.value_range (5.0, 1.0): expected the values of black and of white" in capsys.readouterr().err
    assert card({}, 0)["data"]["value_range"] == Config().data.value_range == ()


def test_arrays_are_scaled_by_a_range_as_files_are(tmp_path):
    model = tiny_model().eval()
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 16384, (3, 12, 9)).astype(np.uint16)
    files = []
    for i, frame in enumerate(counts):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(frame).save(files[-1])
    encode = lambda images: bigbigan.encode(images, model, "z_mean", value_range=(0, 16383))  # noqa: E731
    expected = encode(files)
    for given in (
        [*counts],
        counts[..., None],
        counts.astype(np.int32)[..., None],
        counts.astype(np.float64)[..., None],
        counts.astype(">u2")[..., None],
        torch.from_numpy(counts.astype(np.float32))[:, None],
        torch.from_numpy(counts.astype(np.int64))[:, None],
    ):
        assert torch.equal(encode(given), expected)
    with pytest.raises(InputError, match="found torch.uint16; give value_range="):
        bigbigan.encode(counts, model)
    with pytest.raises(InputError, match="finite values"):
        encode(np.full((8, 8), np.nan))


def bands_of_a_satellite(count: int, bits: int, order: str, kind: int = 1) -> bytes:
    """Make a TIFF of 4 × 4 pixels of many bands; order: of bytes, < or >.  kind: as of `tiff`."""
    data = bytes(16 * count * bits // 8)
    each = struct.pack(f"{order}{count}H", *[bits] * count)
    kinds = struct.pack(f"{order}{count}H", *[kind] * count)
    tags = {256: 4, 257: 4, 258: 8 + len(data), 259: 1, 262: 1, 273: 8, 277: count, 278: 4, 279: len(data),
            284: 1, 339: 8 + len(data) + len(each)}  # fmt: skip
    entries = b"".join(
        struct.pack(f"{order}HH", tag, 3 if tag in (258, 339) else 4)
        + struct.pack(f"{order}II", count if tag in (258, 339) else 1, value)
        for tag, value in sorted(tags.items())
    )
    whole = data + each + kinds
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(whole))
    return head + whole + struct.pack(f"{order}H", len(tags)) + entries + b"\0" * 4


@pytest.mark.parametrize(
    ("count", "bits", "order", "kind", "found"),
    [
        (13, 16, "<", 1, "13 bands of 16 bits;"), (13, 16, ">", 1, "13 bands of 16 bits;"),
        (5, 8, "<", 1, "5 bands of 8 bits;"), (4, 32, "<", 3, "4 bands of 32 bits as floats;"),
    ],
)  # fmt: skip
def test_a_picture_of_many_bands_is_refused_with_what_it_holds(count, bits, order, kind, found, tmp_path):
    content = bands_of_a_satellite(count, bits, order, kind)
    (tmp_path / "tile.tif").write_bytes(content)
    for source in (content, tmp_path / "tile.tif"):
        with pytest.raises(PictureError, match=f"of three or four of 8 bits, found {found}"):
            decode_rgb(source)


@pytest.mark.parametrize("length", [4, 8, 12, 300, 430, 440, 445])
def test_a_torn_picture_of_many_bands_is_unknown_as_others_are(length):
    with pytest.raises((UnidentifiedImageError, PictureError)):
        decode_rgb(bands_of_a_satellite(13, 16, "<")[:length])


@pytest.mark.parametrize(
    ("bits", "kind", "found"),
    [
        (64, 3, "one band of 64 bits as floats; save it as float32"),
        (16, 3, "one band of 16 bits as floats; save it as float32"),
        (8, 2, "one band of 8 bits with a sign; save it as float32"),
    ],
)
def test_a_band_of_unusual_numbers_is_refused_with_what_it_holds(bits, kind, found):
    with pytest.raises(PictureError, match=f"expected a TIFF of one band of 8, 12, 16 or 32 bits, found {found}"):
        decode_rgb(tiff_file(bytes(16 * bits // 8), 4, 4, bits, kind=kind))


def test_unsigned_numbers_of_32_bits_may_be_large():
    values = np.array([[0, 2**31 - 1], [2**31, 2**32 - 1]], "<u4")
    assert seen(tiff(values.tobytes(), 2, 2, 32), (0, 2**32 - 1)) == [[0, 127], [128, 255]]
    signed = np.array([[-(2**31), -1], [0, 2**31 - 1]], "<i4")
    assert seen(tiff(signed.tobytes(), 2, 2, 32, kind=2), (-(2**31), 2**31 - 1)) == [[0, 127], [128, 255]]


@pytest.mark.parametrize(
    ("count", "colours", "extra"), [(2, 1, (0,)), (5, 3, (0, 0)), (5, 3, (2, 0)), (4, 3, (0,)), (4, 3, ())]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_no_band_is_dropped_without_a_word(count, colours, extra, bits):
    """Radar has two bands, aerial pictures have infrared beside their colours."""
    data = bytes(16 * count * bits // 8)
    shorts = {258: [bits] * count, 339: [1] * count} | ({338: extra} if extra else {})
    single = {256: 4, 257: 4, 259: 1, 262: 1 if colours == 1 else 2, 273: 8, 277: count, 278: 4, 279: len(data), 284: 1}
    tags, beside = [], b""
    for tag, value in sorted((shorts | single).items()):
        if tag in single:
            tags.append(struct.pack("<HHII", tag, 4, 1, value))
        elif len(value) < 3:  # lies in the entry itself
            tags.append(struct.pack("<HHI4s", tag, 3, len(value), struct.pack(f"<{len(value)}H", *value)))
        else:
            tags.append(struct.pack("<HHII", tag, 3, len(value), 8 + len(data) + len(beside)))
            beside += struct.pack(f"<{len(value)}H", *value)
    head = b"II*\0" + struct.pack("<I", 8 + len(data) + len(beside))
    content = head + data + beside + struct.pack("<H", len(tags)) + b"".join(tags) + b"\0" * 4
    with pytest.raises(PictureError, match=f"found {count} bands"):
        decode_rgb(content)
