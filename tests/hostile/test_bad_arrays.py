"""Refuse what `encode` cannot use with one sentence; unusual layouts give the features of the usual one."""

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

import bigbigan
from bigbigan.errors import CheckpointError, InputError
from tests.conftest import picture, tiny_model

U = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
X = (U / 127.5 - 1).astype(np.float32)
T = torch.from_numpy(X).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (X > 0, "expected uint8 in 0 … 255 or float in [−1, 1], found torch.bool"),
        (X.astype(np.complex64), "expected an array of uint8 or float, found complex64"),
        (X.astype(object), "expected an array of uint8 or float, found object"),
        (X.astype("U8"), "expected an array of uint8 or float, found <U8"),
        (
            np.zeros((2, 8, 8), [("r", "u1"), ("g", "u1")]),
            "expected an array of uint8 or float, found [('r', 'u1'), ('g', 'u1')]",
        ),
        (np.zeros((2, 8, 8, 3), "M8[s]"), "expected an array of uint8 or float, found datetime64[s]"),
        (X.astype(np.longdouble), "expected an array of uint8 or float, found float128"),
        (np.ma.masked_array(U, U > 200), "expected an array of uint8 or float, found masked values"),
        (U.astype(np.int8), "found torch.int8"),
        (U.astype(np.uint32), "found torch.uint32"),
        (np.uint8(3), "expected a path, an image, an array, a tensor or a list of these, found uint8"),
        (np.zeros((), np.uint8), "expected one image or a batch of images, found the shape ()"),
        (np.zeros((0, 0), np.uint8), "expected one image or a batch of images, found the shape (0, 0)"),
        (np.zeros((2, 0, 0), np.uint8), "expected one image or a batch of images, found the shape (2, 0, 0)"),
        (np.zeros((2, 0, 8, 3), np.uint8), "expected one image or a batch of images, found the shape (2, 0, 8, 3)"),
        (np.zeros((8, 8, 5), np.uint8), "expected 1 or 3 channels, first or last; found the shape (8, 8, 5)"),
        (
            torch.zeros(8, 8, 5, dtype=torch.uint8),
            "found the shape (8, 8, 5); grey images are (8, 1, 8, 5); of more bands give 1 or 3",
        ),
        (torch.zeros(8, 8, 4, dtype=torch.uint8), "expected 1 or 3 channels, found 4 in the shape (8, 8, 4)"),
        (X * np.float32(1e30), "expected float images in [−1, 1], found values from"),
        (np.full((2, 8, 8, 3), -np.inf), "expected finite values in [−1, 1], found NaN or infinity"),
        (T.to(torch.complex64), "found torch.complex64"),
        (T.to(torch.float8_e4m3fn), "found torch.float8_e4m3fn"),
        (T.to_sparse(), "expected a dense tensor with values, found layout torch.sparse_coo"),
        (T.to("meta"), "expected a dense tensor with values, found layout torch.strided on the device meta"),
        (torch.nested.nested_tensor([T[0], T[1]], layout=torch.strided), "expected a dense tensor"),
        (T[:, :2], "expected 1 or 3 channels"),
        (None, "expected a path, an image, an array, a tensor or a list of these, found NoneType"),
        (b"photos", "expected a path, an image, an array, a tensor or a list of these, found bytes"),
        ({"image": U}, "expected a path, an image, an array, a tensor or a list of these, found dict"),
        ({"a.png"}, "expected a path, an image, an array, a tensor or a list of these, found set"),
        ([None], "expected a path, a PIL image, an array or a tensor, found NoneType"),
        ([U[0], [1, 2]], "expected a path, a PIL image, an array or a tensor, found list"),
        ([U[0], U[0, :, :, :2]], "expected 1 or 3 channels"),
        ((x for x in ()), "expected at least one image, found none"),
        (Image.new("RGB", (0, 4)), "expected from 1 to 178,956,970 pixels, found 0 × 4"),
        (
            Image.fromarray(np.full((4, 4), np.nan, np.float32)),
            "expected a picture of mode F with the values of black and white, found values from nan",
        ),
        (
            Image.fromarray(X[0, :, :, 0] ** 2),
            "expected a picture of mode F with the values of black and white, found values from",
        ),
        (
            Image.fromarray(np.full((4, 4), -5, np.int32)),
            "expected a picture of mode I in 0 … 65535, found values from -5",
        ),
        ("", "found an empty path"),
        ("x" * 5000, "File name too long"),
        ("a\0b", "a\\x00b: expected an image or a folder of images, found no such file"),
        ("/no/such\n\x1b[2Jfile.png", "/no/such\\n\\x1b[2Jfile.png: expected an image or a folder of images"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_it_is_refused_with_a_sentence(model, images, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where "" has no images
    with pytest.raises(InputError) as refusal:
        bigbigan.encode(images, model)
    assert message in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1, found 0"),
        ({"batch_size": 2.5}, "batch_size: expected a whole number of at least 1, found 2.5"),
        ({"outputs": 3}, "outputs: expected some of z_mean, z_stdev, z_sample, avepool_feat, bn_crelu_feat; found 3"),
        ({"outputs": ()}, "found ()"),
        ({"outputs": ("z_mean", "z")}, "found ('z_mean', 'z')"),
        ({"outputs": {"z_mean"}}, "found {'z_mean'}"),
        ({"batch_size": True}, "found True"),
        ({"seed": 0.5}, "seed: expected a whole number of 64 bits, found 0.5"),
        ({"device": "gpu"}, "device: expected one of this machine, such as 'cpu', found 'gpu', which names no device"),
        ({"device": "meta"}, "found 'meta', which holds no values"),
        (
            {"value_range": "0 1"},
            "value_range: expected the values of black and of white, the smaller first, such as (0",
        ),
        ({"value_range": (1, 0)}, "found (1, 0)"),
        ({"value_range": np.eye(3)}, "found array([[1., 0., 0.],\\n"),
        ({"model": 5}, "model: expected a BigBiGAN, a path or a hub id, found int"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " "),
)
def test_options_too(model, options, message):
    with pytest.raises(InputError) as refusal:
        bigbigan.encode(U, **{"model": model} | options)
    assert message in str(refusal.value)


NAN = float("nan")
LATENTS = r"z: expected the shape \(N, 8\)"
WHOLE = "z: expected a whole number of at least 1, or latents"
CLASSES = r"classes: expected the shape \(2,\), or weights \(2, 3\), found "
PICTURES = r"images: expected float \(N, 3, S, S\), or \(3, S, S\) for one"


@pytest.mark.parametrize(
    ("z", "options", "message"),
    [
        *((z, {}, f"{WHOLE}.*found") for z in (0, -1, True, False, 2.5, NAN, np.bool_(1), np.float32(2), np.int8(-3))),
        *((z, {}, LATENTS) for z in ("3", None, 1j, [1, 2], [[0.0] * 8, [0.0]], torch.tensor(3), torch.zeros(8))),
        *((torch.zeros(shape), {}, LATENTS) for shape in ((0, 8), (2, 7), (2, 8, 1), ())),
        *((np.zeros((2, 8), kind), {}, LATENTS) for kind in (object, "U3", "M8[s]")),
        (torch.zeros(2, 8, dtype=torch.complex64), {}, LATENTS),
        (torch.zeros(2, 8).to_sparse(), {}, LATENTS),
        (torch.zeros(2, 8, device="meta"), {}, LATENTS),
        (torch.full((2, 8), NAN), {}, "z: expected finite values"),
        (torch.full((2, 8), torch.inf), {}, "z: expected finite values"),
        *((2, {"truncation": t}, "truncation: expected a number above 0") for t in (0, -1, NAN, True, "1", [1.0])),
        *((2, {"batch_size": n}, "batch_size: expected a whole number of at least 1") for n in (0, -1, 2.0, True, "4")),
        *((2, {"seed": s}, "seed: expected a whole number") for s in (1.5, None, "x", True, 2**64, np.zeros((2, 2)))),
        *((2, {"device": d}, "device: expected one of this machine") for d in ("gpu", "cuda:99", "meta", 3.5, True)),
        (2, {"model": 5}, "model: expected a BigBiGAN"),
        (2, {"model": torch.nn.Linear(1, 1)}, "model: expected a BigBiGAN"),
    ],
    ids=lambda value: str(value)[:30].replace("\n", " "),
)  # fmt: skip
def test_generate_refuses_with_a_sentence(model, z, options, message):
    with pytest.raises(InputError, match=message) as refusal:
        bigbigan.generate(z, **{"model": model} | options)
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def conditional():
    return tiny_model(classes=3).eval()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 3], "classes: expected whole numbers from 0 to 2, found 3"),
        ([-1, 0], "found -1"),
        ([0.5, 1], "found 0.5"),
        ([NAN, 1], "found nan"),
        ([True, False], "found True or False"),
        ([2**60, 0], "found 1.15292e"),
        ("ab", f"{CLASSES}str"),
        ([0], rf"{CLASSES}\(1,\)"),
        ([0, 1, 2], rf"{CLASSES}\(3,\)"),
        (1, rf"{CLASSES}\(\)"),
        ([[1, 0], [0, 1]], rf"{CLASSES}\(2, 2\)"),
        ([[NAN, 0, 0], [0, 1, 0]], "classes: expected finite weights"),
        ([0, [1]], f"{CLASSES}list"),
    ],
    ids=str,
)
def test_classes_are_refused_with_a_sentence(conditional, classes, message):
    with pytest.raises(InputError, match=message):
        bigbigan.generate(2, conditional, classes=classes)
    with pytest.raises(InputError, match="classes: expected"):
        bigbigan.reconstruct(U, conditional, classes=classes)
    with pytest.raises(InputError, match="classes: expected"):
        bigbigan.discriminate(U, np.zeros((2, 8)), conditional, classes=classes)


def test_other_kinds_of_classes(model, conditional):
    expected = bigbigan.generate(2, conditional, classes=[0, 2])
    for classes in (np.array([0, 2], np.uint64), (0.0, 2.0), torch.tensor([0, 2], dtype=torch.int8), np.eye(3)[[0, 2]]):
        torch.testing.assert_close(bigbigan.generate(2, conditional, classes=classes), expected)
    with pytest.raises(InputError, match="classes: expected one for each image, found 3 and 2 images"):
        bigbigan.encode(U, conditional, classes=[0, 1, 2])
    with pytest.raises(InputError, match=r"classes: expected one for each image, \(2,\), since the model is cond"):
        bigbigan.discriminate(U, np.zeros((2, 8)), conditional)
    with pytest.raises(InputError, match=r"classes: expected the shape \(2,\), found \(2, 3\)"):
        bigbigan.discriminate(U, np.zeros((2, 8)), conditional, classes=np.eye(3)[:2])
    for call in (
        lambda: bigbigan.generate(2, model, classes=[0, 1]),
        lambda: bigbigan.encode(U, model, classes=[0, 1]),
    ):
        with pytest.warns(UserWarning, match="classes are ignored: the model is not conditional"):
            call()


@pytest.mark.parametrize("verb", [bigbigan.to_pil, bigbigan.grid])
@pytest.mark.parametrize(
    ("images", "found"),
    [
        (5, "int"), (None, "NoneType"), ([T[0]], "list"), (T[0, 0], r"the shape \(8, 8\)"), (T[:, :1], r"the shape"),
        (T[:0], r"the shape \(0, 3, 8, 8\)"), (T[None], "the shape"), (X, r"the shape \(2, 8, 8, 3\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "torch.uint8"), (np.zeros((3, 8, 8), int), "torch.int64"),
        (T * 255, "values from"), (T * NAN, "values from nan"), (T * torch.inf, "values from"),
        (T.to_sparse(), ".*torch.sparse_coo"), (T.to("meta"), ".* on meta"), (T.to(torch.complex64), "torch.complex64"),
        (np.zeros((3, 8, 8), object), "ndarray"),
    ],
    ids=range(17),
)  # fmt: skip
def test_pictures_are_refused_with_a_sentence(verb, images, found):
    with pytest.raises(InputError, match=f"{PICTURES}.*found {found}") as refusal:
        verb(images)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["columns", "scale"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "2", NAN])
def test_a_grid_has_whole_columns_and_scales(name, value):
    with pytest.raises(InputError, match=f"{name}: expected a whole number of at least 1, or None, found"):
        bigbigan.grid(T, **{name: value})


@pytest.mark.parametrize("source", [5, [], b"runs/x", 2.5, {}, True])
def test_load_takes_names_alone(source):
    with pytest.raises(
        CheckpointError, match="checkpoint: expected a run folder, checkpoint, release or hub id, found"
    ):
        bigbigan.load(source)
    with pytest.raises(InputError, match="device: expected one of this machine, such as 'cpu', found 'gpu'"):
        bigbigan.load(source, device="gpu")


def test_discriminate_wants_latents(model):
    for z, message in ((None, LATENTS), (5, LATENTS), (np.full((2, 8), NAN), "z: expected finite values")):
        with pytest.raises(InputError, match=message):
            bigbigan.discriminate(U, z, model)


@pytest.mark.parametrize(
    "images",
    [
        U[:, ::-1][:, ::-1],
        U[..., ::-1].copy()[..., ::-1],
        X.astype(">f4"),
        X.astype(np.float64),
        np.asfortranarray(U),
        np.broadcast_to(U, (1, *U.shape))[0],
        np.ma.masked_array(U),
        T.double(),
        T.requires_grad_(False).flip(0).flip(0),
        torch.nn.Parameter(T.clone()),
        [U[0], T[1]],
        (U[0], U[1]),
        U.view(np.ndarray).copy(order="F"),
    ],
    ids=range(13),
)
def test_odd_in_memory_only(model, images):
    """Encode reversed views, other byte orders and strides, read-only memory, parameters and mixed lists."""
    expected = bigbigan.encode(U, model, "z_mean")
    torch.testing.assert_close(bigbigan.encode(images, model, "z_mean"), expected, rtol=1e-3, atol=1e-4)


def table(cells, feature=None):
    return Dataset.from_dict({"image": cells}, features=Features({"image": feature or ImageFeature()}))


def test_tables_with_bad_cells_name_the_row(model, tmp_path):
    picture(0).save(tmp_path / "good.png")
    good = str(tmp_path / "good.png")
    for cell, found in (
        (None, "expected an image, found an empty cell"),
        ({"bytes": b"", "path": None}, "UnidentifiedImageError"),
        ({"bytes": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "path": None}, "found EPS"),
        (str(tmp_path), "expected a file, found a folder"),
    ):
        with pytest.raises(InputError, match=f"the data set, row 1: expected a readable image; .*{found}.*; mend it"):
            bigbigan.encode(table([good, cell]), model)
    with pytest.raises(InputError, match="expected a column of images, found the columns image"):
        bigbigan.encode(table([1, 2], Value("int64")), model)
