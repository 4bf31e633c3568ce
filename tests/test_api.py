"""encode and friends: whatever comes in, in whatever form, gives the same features; a wrong range is a sentence."""

import io
import traceback
import warnings
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

import bigbigan
from bigbigan.data import to_rgb, to_signed, to_uint8
from bigbigan.data.arrays import as_images
from bigbigan.data.inputs import image_batches
from bigbigan.errors import BigBiGANError, CheckpointError, InputError, UnreadableImage
from bigbigan.noise import normal_noise
from bigbigan.release.format import write_release
from tests.conftest import ROOT, picture, tiny_model
from tests.data.test_tars import pack, samples
from tests.uses.test_hub import ABOUT


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


@pytest.fixture(scope="module")
def pictures():
    return [picture(i, (8, 8)) for i in range(5)]


def arrays(pictures):
    return np.stack([np.asarray(p) for p in pictures])


def test_outputs_are_the_hub_modules(model, pictures):
    out = bigbigan.encode(pictures, model)
    assert {k: tuple(v.shape) for k, v in out.items()} == {
        "z_mean": (5, 8), "z_stdev": (5, 8), "z_sample": (5, 8), "avepool_feat": (5, 64), "bn_crelu_feat": (5, 128),
    }  # fmt: skip
    x = to_signed(torch.from_numpy(arrays(pictures)).permute(0, 3, 1, 2))
    with torch.no_grad():
        torch.testing.assert_close(out["z_mean"], model.encoder(x).mean)
        torch.testing.assert_close(out["avepool_feat"], model.encoder.avepool(x))
    assert torch.equal(bigbigan.encode(pictures, model, "z_mean"), out["z_mean"])
    assert list(bigbigan.encode(pictures, model, ("z_stdev",))) == ["z_stdev"]
    with pytest.raises(InputError, match="outputs: expected some of z_mean, .* found 'z'"):
        bigbigan.encode(pictures, model, "z")


def test_images_as_the_encoder_sees_them(pictures):
    model = tiny_model(encoder_image_size=16).eval()
    x = bigbigan.as_tensor(pictures, model)
    assert x.shape == (5, 3, 16, 16) and x.dtype == torch.float32 and float(x.abs().max()) <= 1
    with torch.no_grad():
        torch.testing.assert_close(model.encode(x)["z_mean"], bigbigan.encode(pictures, model, "z_mean"))
    small = bigbigan.as_tensor((p for p in pictures), model, model.generator.image_size)
    assert torch.equal(to_uint8(small), torch.from_numpy(arrays(pictures)).permute(0, 3, 1, 2))
    assert bigbigan.as_tensor(pictures, tiny_model(encoder="none")).shape == (5, 3, 8, 8)
    for bad, message in (
        ({"images": []}, "at least one image, found none"),
        ({"size": 0}, "size: expected a whole num"),
    ):
        with pytest.raises(InputError, match=message):
            bigbigan.as_tensor(**{"images": pictures, "model": model} | bad)


def test_every_kind_of_input_is_the_same_image(model, pictures, tmp_path):
    expected = bigbigan.encode(pictures, model, "avepool_feat")
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for path, image in zip(paths, pictures, strict=True):
        image.save(path)
    uint8 = arrays(pictures)
    first = torch.from_numpy(uint8).permute(0, 3, 1, 2)
    column = Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature()}))
    forms = {
        "folder": str(tmp_path), "paths": paths, "pathlike": tmp_path, "generator": (p for p in pictures),
        "uint8 array": uint8, "channels-first array": uint8.transpose(0, 3, 1, 2), "uint8 tensor": first,
        "channels-last tensor": torch.from_numpy(uint8), "float tensor": to_signed(first),
        "float64 array": to_signed(first).double().numpy(),
        "list of arrays": list(uint8), "list of tensors": list(first), "column": column["image"], "table": column,
    }  # fmt: skip
    for name, form in forms.items():
        found = bigbigan.encode(form, model, "avepool_feat", batch_size=2)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(bigbigan.encode(paths[2], model, "avepool_feat"), expected[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bigbigan.encode(pictures[2], model, "avepool_feat"), expected[2:3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(bigbigan.encode(uint8[2], model, "avepool_feat"), expected[2:3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_pictures_are_the_plain_ones(model, mode):
    plain = picture(1, (8, 8), mode.upper())
    plain.putalpha(128)
    found = bigbigan.encode([plain.convert(mode), plain], model, "z_mean")
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.02)  # of 8 bits times an alpha


@pytest.mark.parametrize("size", [(8, 8), (31, 20), (5, 40)])
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_size_and_mode_are_the_librarys_business(model, size, mode):
    image = picture(1, size, mode)
    same = np.asarray(to_rgb(image))
    torch.testing.assert_close(bigbigan.encode(image, model, "z_mean"), bigbigan.encode(same, model, "z_mean"))


def test_grey_arrays(model):
    grey = np.asarray(picture(0, (8, 8), "L"))
    expected = bigbigan.encode(np.repeat(grey[None, :, :, None], 3, 3), model, "z_mean")
    for form in (grey, grey[None], grey[..., None], torch.from_numpy(grey.copy())[None]):
        torch.testing.assert_close(bigbigan.encode(form, model, "z_mean"), expected)
    stack = np.stack([grey] * 4)  # (4, 8, 8): a batch of grey images
    assert bigbigan.encode(stack, model, "z_mean").shape == (4, 8)


X = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (X * 2.0, r"expected float images in \[−1, 1\]"),
        ((X * 0.5 + 0.5 - 0.45) / 0.22, "looks like ImageNet's mean and standard deviation"),
        ((X + 1) * 127.5, r"found \[0, 255\] .*; pass value_range=\(0, 255\)"),
        (np.where(X > 0.9, np.nan, X), "found NaN or infinity"),
        (np.where(X > 0.9, np.inf, X), "found NaN or infinity"),
        (np.zeros((2, 8, 8, 2), np.uint8), "expected 1 or 3 channels"),
        (np.zeros((2, 8, 8, 4), np.uint8), "drop the alpha channel"),
        (np.zeros((2, 8, 8, 3), np.int64), "expected uint8 in 0 … 255 or float"),
        (np.zeros((2, 8, 8, 3), np.uint16), "uint16"),
        (np.zeros((0, 8, 8, 3), np.uint8), "expected at least one image, found the shape"),
        (np.zeros((0, 8, 8), np.float32), "expected at least one image, found the shape"),
        (pandas.DataFrame({"file": ["a.png"], "n": 1}), "found DataFrame; give one of its columns, 'file', 'n', as a"),
        (np.array([None], object), "image 0: expected a path, .* found NoneType"),
        (np.array([["a.png"], ["b.png"]]), "expected an array of uint8 or float, found <U5"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "expected one image or a batch"),
        (np.zeros(8, np.uint8), "expected one image or a batch"),
        ([], "expected at least one image, found none"),
        (list(X * 2.0), r"expected float images in \[−1, 1\]"),
        ([torch.from_numpy((X[0] + 1) * 127.5)], r"found \[0, 255\] .* first in image 0"),
        (np.zeros((32, 32, 2), np.uint8), "expected 1 or 3 channels"),
        ([X, np.arange(2)], "image 1: expected one image or a batch of images, .* these may be labels"),
        (5, "expected a path, an image, an array, a tensor or a list"),
        ([3.0], "expected a path, a PIL image, an array or a tensor, found float"),
        ("/no/such.png", "found no such file"),
    ],
)
def test_what_is_not_images_is_a_sentence(model, images, message):
    with pytest.raises(InputError, match=message):
        bigbigan.encode(images, model)


def test_an_unreadable_file_is_named(model, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(InputError, match="cut.png: expected a readable image"):
        bigbigan.encode(tmp_path, model)


FLOATS = to_signed(torch.from_numpy(np.random.default_rng(1).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)))
UNIT = (FLOATS + 1) / 2  # as torchvision's to_tensor gives them


def in_every_form(x: torch.Tensor) -> dict:
    """The images (5, 3, 8, 8) as a caller may hold them in memory."""
    last, pairs = x.permute(0, 2, 3, 1).numpy(), TensorDataset(x, torch.arange(5))
    return {
        "batch": x, "one": x[:1], "array": x.numpy(), "channels last": last, "half": x.half(), "bf16": x.bfloat16(),
        "double": x.double(), "single array": last[0], "single tensor": x[0], "grey": x[0, 0], "grey stack": x[:, 0],
        "list": list(x), "tuple": tuple(x.numpy()), "iterator": iter(x), "pairs": [(image, 3) for image in x],
        "data set": pairs, "loader": DataLoader(pairs, batch_size=2), "batches": iter(x.split(2)),
        "not masked": np.ma.masked_array(last), "rgb and grey": [x[0], x[1, 0]],
        "uint8 too": [x[0], np.zeros((8, 8), np.uint8)],
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*is read as one colour image")
@pytest.mark.parametrize("form", in_every_form(UNIT))
def test_zero_to_one_is_refused_however_it_comes(model, form):
    for verb in (bigbigan.encode, bigbigan.reconstruct):
        with pytest.raises(InputError, match=r"in \[−1, 1\], found \[0, 1\] .*; pass value_range=\(0, 1\)"):
            verb(in_every_form(UNIT)[form], model)
    with pytest.raises(InputError, match=r"found \[0, 1\]"):
        bigbigan.discriminate(in_every_form(UNIT)[form], torch.zeros(5, 8), model)
    said = bigbigan.encode(in_every_form(UNIT)[form], model, "avepool_feat", value_range=(0, 1))
    signed = bigbigan.encode(in_every_form(FLOATS)[form], model, "avepool_feat")
    torch.testing.assert_close(said, signed, rtol=0, atol=1e-2 if form in ("half", "bf16") else 1e-5)


@pytest.mark.parametrize("form", in_every_form(UNIT))
@pytest.mark.parametrize("white", [16, 255, 4095])
@pytest.mark.filterwarnings("ignore:.*is read as one colour image")
def test_other_ranges_are_named(model, form, white):
    with pytest.raises(InputError, match=rf"found \[0, {white}\] .*; pass value_range=\(0, {white}\)"):
        bigbigan.encode(in_every_form(UNIT * white)[form], model)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"found \[0, 1\] \(values from 0 to 0\)"),  # black or grey: refused
        (torch.full((2, 3, 8, 8), 0.5), r"found \[0, 1\]"),
        (-torch.zeros(2, 3, 8, 8), r"found \[0, 1\]"),
        (UNIT * 1.06 - 0.03, r"found about \[0, 1\] .*; pass value_range=\(0, 1\)"),  # a resize overshoots
        (UNIT * 2, "found values from 0 to 2; pass value_range=, the values of black and white"),
        (UNIT * 1e6, "found values from 0 to 1e.06; pass value_range="),
        (FLOATS * 127.5, "found values from -127.5 to 127.5; pass value_range="),
        ([FLOATS[0], FLOATS[1], FLOATS[2] * 200], "first in image 2"),
        ([FLOATS[0], FLOATS[1] * torch.nan], "image 1: expected finite values"),
        (iter([FLOATS[0], FLOATS[1] * torch.inf]), "image 1: expected finite values"),
    ],
)
def test_what_is_found_is_said(model, x, message):
    with pytest.raises(InputError, match=message):
        bigbigan.encode(x, model, value_range=None)


def test_images_in_minus_one_to_one_may_be_bright(model):
    bright = FLOATS.clamp(min=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = bigbigan.encode(bright, model, "z_mean", value_range=(-1, 1))
        with torch.no_grad():
            torch.testing.assert_close(expected, model.encoder(bright).mean)
        bigbigan.encode(torch.ones(2, 3, 8, 8), model)  # white in both ranges
        # A list is decided as a whole, a stream by what came before.
        mixed = bigbigan.encode([bright[0], FLOATS[1]], model, "z_mean")
        torch.testing.assert_close(mixed[:1], expected[:1])
        bigbigan.encode(iter([FLOATS[0], bright[1]]), model, batch_size=1)
        bigbigan.encode(DataLoader([FLOATS[0], bright[1]], batch_size=1), model)
    with pytest.raises(InputError, match=r"or value_range=\(-1, 1\) if they are in \[−1, 1\] and bright"):
        bigbigan.encode(iter([bright[1], FLOATS[0]]), model, batch_size=1)
    with pytest.raises(InputError, match="found values from 0 to 2"):
        bigbigan.encode(UNIT * 2, model, value_range=(-1, 1))


def test_uint8_and_bool_take_a_range_that_they_can_hold(model):
    encode = lambda x, value_range=None: bigbigan.encode(x, model, "z_mean", value_range=value_range)  # noqa: E731
    bits = np.random.default_rng(0).integers(0, 2, (2, 8, 8, 3)).astype(bool)
    expected = encode(bits.astype(np.uint8) * 255)
    for x, value_range in ((bits, (0, 1)), (torch.from_numpy(bits), 1), (bits.astype("u1"), 1), (bits * 16.0, 16)):
        assert torch.equal(encode(x, value_range), expected)
    assert torch.equal(encode(bits.astype(np.uint8) * 255, (0, 4095)), expected), "uint8 cannot hold 4095"
    assert torch.equal(encode(bits.astype(np.uint8) * 255, (-1, 1)), expected)
    with pytest.raises(InputError, match=r"found torch.bool; give value_range=.* such as \(0, 1\)"):
        encode(bits)


@pytest.mark.parametrize(
    ("x", "value_range", "message"),
    [
        ((UNIT > 0.5).to(torch.uint8), None, "read as 0 … 255, .* from 0 to 1, almost black; if 1 is white"),
        (
            [*(UNIT * 16).round().to(torch.uint8)],
            None,
            "read as 0 … 255, .* from 0 to 16, almost black; if 16 is white",
        ),
        (UNIT, 255, "read as 0 … 255, .* from 0 to 1, almost black"),
        ((UNIT * 4095).to(torch.int32), 65535, "read as 0 … 65535, .* from 0 to 4095, almost black"),
        (UNIT * 255, 1, r"read as 0 … 1, .* from 0 to 255: 9\d% of them were cut"),
        (iter(UNIT * 255), (0, 1), r"read as 0 … 1, .* from 0 to 255: 9\d% of them were cut"),
    ],
)
def test_a_range_that_hardly_fits_is_doubted_at_the_callers_line(model, x, value_range, message):
    with pytest.warns(UserWarning, match=message) as warned:
        bigbigan.encode(x, model, value_range=value_range, progress=False)
    assert [w.filename for w in warned] == [__file__] * len(warned)


def test_warnings_and_errors_show_the_callers_line(model):
    for call in (
        lambda: bigbigan.encode(FLOATS[0], model),
        lambda: bigbigan.discriminate(FLOATS[0], torch.zeros(1, 8), model),
        lambda: bigbigan.reconstruct(FLOATS[0], model, classes=[3]),
    ):
        with pytest.warns(UserWarning, match="one colour image|not conditional") as warned:
            call()
        lines = {(w.filename, w.lineno) for w in warned}
        assert lines == {(__file__, call.__code__.co_firstlineno)}
    for call in (
        lambda: bigbigan.encode(iter(UNIT), model),
        lambda: bigbigan.encode("/no/such.png", model),
        lambda: bigbigan.reconstruct([FLOATS[0], "x"], model),
        lambda: bigbigan.generate(0, model),
        lambda: bigbigan.load(5),
        lambda: bigbigan.to_pil(5),
    ):
        with pytest.raises(BigBiGANError) as refusal:
            call()
        shown = "".join(traceback.format_exception(refusal.value))
        assert len(traceback.extract_tb(refusal.value.__traceback__)) == 3, shown  # here, the lambda, the API
        assert "During handling" not in shown and "\n" not in str(refusal.value)


def test_samples_have_a_seed_and_do_not_depend_on_the_batch(model, pictures):
    a, b, c = (bigbigan.encode(pictures, model, "z_sample", batch_size=n, seed=s) for n, s in ((5, 0), (2, 0), (5, 1)))
    torch.testing.assert_close(a, b)
    assert not torch.allclose(a, c)


def test_generate(model):
    x = bigbigan.generate(3, model, seed=1)
    assert x.shape == (3, 3, 8, 8) and x.abs().max() <= 1
    assert torch.equal(x, bigbigan.generate(3, model, seed=1)) and not torch.equal(
        x, bigbigan.generate(3, model, seed=2)
    )
    z = torch.randn(5, 8)
    with torch.no_grad():
        torch.testing.assert_close(bigbigan.generate(z, model, batch_size=2), model.generate(z))
    near = bigbigan.generate(z, model, truncation=1e-3)
    assert near.std(0).max() < 0.01, "truncation to almost nothing leaves almost one image"
    with pytest.raises(InputError, match=r"z: expected the shape \(N, 8\), found \(5, 7\)"):
        bigbigan.generate(z[:, :7], model)
    assert bigbigan.to_pil(x)[0].size == (8, 8)


def test_reconstruct_and_discriminate(model, pictures):
    z = bigbigan.encode(pictures, model, "z_mean")
    torch.testing.assert_close(bigbigan.reconstruct(pictures, model), bigbigan.generate(z, model))
    assert not torch.allclose(
        bigbigan.reconstruct(pictures, model, use_sample=True), bigbigan.reconstruct(pictures, model)
    )
    scores = bigbigan.discriminate(pictures, z, model, batch_size=2)
    assert {k: tuple(v.shape) for k, v in scores.items()} == {"score_x": (5,), "score_z": (5,), "score_xz": (5,)}
    for images, found in ((pictures, 5), (iter(pictures), "more than 4"), (DataLoader(FLOATS, batch_size=2), 5)):
        with pytest.raises(InputError, match=f"as many images as latents, found {found} images and 4 latents"):
            bigbigan.discriminate(images, z[:4], model)
    with pytest.raises(InputError, match="as many images as latents, found 5 images and 6 latents"):
        bigbigan.discriminate(iter(pictures), torch.cat([z, z[:1]]), model)


def test_discriminate_takes_both_sizes():
    model = tiny_model(encoder_image_size=16).eval()
    small, large = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    z = torch.randn(2, 8)
    with torch.no_grad():
        for x, seen in ((small, small), (large, torch.nn.functional.avg_pool2d(large, 2))):
            expected = model.discriminator(seen, z).x
            for form in (x, list(x), iter(x), DataLoader(x, batch_size=2), x.permute(0, 2, 3, 1).numpy()):
                found = bigbigan.discriminate(form, z, model, value_range=(-1, 1))["score_x"]
                torch.testing.assert_close(found, expected)
    large = large * 2 - 1
    assert bigbigan.encode(large, model, "z_mean").shape == (2, 8)
    assert bigbigan.reconstruct(large, model).shape == (2, 3, 8, 8)


def test_load_takes_run_checkpoint_and_release(run_folder, pictures):
    newest = sorted((run_folder / "checkpoints").iterdir())[-1]
    features = [bigbigan.encode(pictures, path) for path in (run_folder, run_folder / "release", str(newest))]
    for other in features[1:]:
        assert all(torch.equal(features[0][k], other[k]) for k in other)
    assert bigbigan.load(run_folder).card["images_seen"] == 240


def test_a_mistyped_checkpoint_is_one_sentence(run_folder, monkeypatch):
    monkeypatch.chdir(run_folder.parent.parent)
    with pytest.raises(CheckpointError, match="expected a run folder, checkpoint, release or hub id; no such folder"):
        bigbigan.load("runs/nothing/here")
    for wrong in ("digit", "Digits", "dgits"):
        with pytest.raises(CheckpointError, match="did you mean 'digits'[?] models that come with the package: digits"):
            bigbigan.load(wrong)
    with pytest.raises(CheckpointError, match="runs here.*; models that come with the package: .*digits"):
        bigbigan.load("nothing")
    with pytest.raises(CheckpointError, match="found none of these"):
        bigbigan.load(run_folder.parent)
    monkeypatch.chdir(run_folder)  # which an empty text would be
    for empty in ("", " "):
        with pytest.raises(CheckpointError, match="found an empty path; '.' is the current folder"):
            bigbigan.load(empty)
    assert bigbigan.load(".").card["images_seen"] == 240


def test_a_mistyped_run_is_asked_for_and_no_model_of_the_package(tmp_path, monkeypatch):
    (tmp_path / "runs" / "digits" / "release").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "config.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match="runs here: runs/digits; did you mean runs/digits[?]; models that"
    ) as refusal:
        bigbigan.load("runs/digit")
    assert str(refusal.value).count("did you mean") == 1


def is_one_line(error: Exception) -> bool:
    """Whether a terminal shows one traceback that ends with one line, no chain of other libraries' errors."""
    text = "".join(traceback.format_exception(error))
    return text.count("Traceback") == 1 and text.rstrip().endswith(str(error)) and "\n" not in str(error)


@pytest.mark.parametrize("name", ["runs/digits", "fotos", "./fotos/digits", "photos/digits", "~/nothing"])
def test_a_mistyped_path_names_the_place_and_does_not_ask_the_hub(name, tmp_path, monkeypatch):
    import bigbigan.release.load

    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bigbigan.release.load, "get_hf_file_metadata", lambda url: pytest.fail("the hub was asked"))
    with pytest.raises(CheckpointError) as refusal:
        bigbigan.encode("photos", model=name)
    place = Path(name).expanduser() if name.startswith("~") else tmp_path / name
    assert f"no such folder as {place}; there are no runs here" in str(refusal.value)
    assert is_one_line(refusal.value)


def test_a_hub_that_cannot_be_reached_is_asked_once(tmp_path, monkeypatch):
    import bigbigan.release.load

    asked = []

    def unreachable(url):
        asked.append(url)
        raise ConnectionError("[Errno 111] Connection refused")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bigbigan.release.load, "get_hf_file_metadata", unreachable)
    with pytest.raises(CheckpointError) as refusal:
        bigbigan.encode("photos", model="someone/digits-of-nobody")
    assert len(asked) == 1 and "the hub gave none (ConnectionError)" in str(refusal.value)
    assert str(tmp_path / "someone" / "digits-of-nobody") in str(refusal.value) and is_one_line(refusal.value)


def test_pushing_and_pulling_a_release_keeps_the_model(run_folder, tmp_path, pictures, monkeypatch):
    """The hub's part is played by a folder: what `from_pretrained` downloads are the two files of a release."""
    import huggingface_hub.hub_mixin

    import bigbigan.release.format
    import bigbigan.release.load

    def download(repo_id, filename, **_):
        return str(run_folder / "release" / filename)

    monkeypatch.setattr(bigbigan.release.format, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub.hub_mixin, "hf_hub_download", download)
    monkeypatch.setattr(bigbigan.release.load, "get_hf_file_metadata", lambda url: None)
    model = bigbigan.load("someone/digits")
    expected = bigbigan.encode(pictures, run_folder, "z_mean")
    assert torch.equal(bigbigan.encode(pictures, model, "z_mean"), expected)
    model.save_pretrained(tmp_path / "copy")
    assert torch.equal(bigbigan.encode(pictures, tmp_path / "copy", "z_mean"), expected)


def test_decoding_keeps_the_order():
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(50)]  # the brightest is not almost black
    batches = list(image_batches(iter(images), 8, 7))
    assert [len(b) for b in batches] == [7] * 7 + [1]
    assert torch.equal(torch.cat(batches)[:, 0, 0, 0], to_signed(torch.arange(50, dtype=torch.uint8)))


class Folder:
    """A data set of pairs as torchvision's are: a length, items by number, no iterator."""

    def __init__(self, images, labels=None):
        self.images, self.labels = images, labels or list(range(len(images)))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


class Stream(IterableDataset):
    def __iter__(self):
        return ((image, {"box": i}) for i, image in enumerate(FLOATS))


def test_data_sets_and_loaders(model, pictures):
    expected = bigbigan.encode(FLOATS, model, "z_mean")
    forms = {
        "pairs": TensorDataset(FLOATS, torch.arange(5)), "images alone": TensorDataset(FLOATS),
        "subset": Subset(TensorDataset(FLOATS, torch.arange(5)), range(5)), "stream": Stream(),
        "loader": DataLoader(TensorDataset(FLOATS, torch.arange(5)), batch_size=2),
        "one-hot": DataLoader(TensorDataset(FLOATS, torch.eye(5)), batch_size=2),
        "loader of images": DataLoader(FLOATS, batch_size=5), "loader of a stream": DataLoader(Stream(), batch_size=2),
        "not batched": DataLoader(TensorDataset(FLOATS, torch.arange(5)), batch_size=None),
        "list of batches": [FLOATS[:2], FLOATS[2:]], "generator": (x for x in FLOATS),
        "generator of batches": ((x, None) for x in FLOATS.split(3)), "text labels": [(x, "cat") for x in FLOATS],
        "masks": [(x, x[0]) for x in FLOATS],
    }  # fmt: skip
    for name, form in forms.items():
        found = bigbigan.encode(form, model, "z_mean", batch_size=2, progress=False)
        torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(
        bigbigan.encode(Folder(pictures, list("abcde")), model, "z_mean"), bigbigan.encode(pictures, model, "z_mean")
    )
    loader = DataLoader(TensorDataset(FLOATS, torch.arange(5)), batch_size=2)
    torch.testing.assert_close(bigbigan.reconstruct(loader, model), bigbigan.generate(expected, model))
    sample = bigbigan.encode(loader, model, "z_sample", batch_size=3)
    torch.testing.assert_close(sample, bigbigan.encode(FLOATS, model, "z_sample"))


def test_batches_of_a_loader_stay_and_other_iterables_are_cut():
    sizes = lambda x, n: [len(batch) for batch in image_batches(x, 8, n)]  # noqa: E731
    assert sizes(DataLoader(FLOATS, batch_size=4), 2) == [4, 1]
    assert sizes(DataLoader(FLOATS, batch_size=1), 3) == [1] * 5
    assert sizes(DataLoader(FLOATS, batch_size=None), 2) == [2, 2, 1]
    assert sizes(iter(FLOATS.split(4)), 3) == [3, 1, 1]
    assert sizes([x[None] for x in FLOATS], 3) == [3, 2]
    assert sizes([FLOATS[0], FLOATS[1:4], FLOATS[4]], 8) == [1, 3, 1]


def test_loaders_of_grey_images(model):
    grey = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (7, 8, 8), dtype=np.uint8))
    expected = bigbigan.encode(grey, model, "z_mean")
    for size in (1, 2, 3, 4, 7):  # of 3 the batches look like colour images, of 4 the last one does
        torch.testing.assert_close(bigbigan.encode(DataLoader(grey, batch_size=size), model, "z_mean"), expected)
    with pytest.warns(UserWarning, match="is read as one colour image"):  # where nothing tells
        assert len(bigbigan.encode(DataLoader(grey[:3], batch_size=4), model, "z_mean")) == 1
    colour = DataLoader(FLOATS, batch_size=1, collate_fn=lambda images: images[0])
    assert len(bigbigan.encode(colour, model, "z_mean")) == 5


def test_paths_in_arrays_and_columns(model, tmp_path):
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    expected = bigbigan.encode(paths, model, "z_mean")
    objects = np.array([Path(path) for path in paths], object)
    for held in (np.array(paths), np.array(paths, object), objects, pandas.Series(paths), pandas.Index(paths)):
        assert torch.equal(bigbigan.encode(held, model, "z_mean"), expected)


def test_a_loader_that_shuffles_is_warned_of(model):
    pairs = TensorDataset(FLOATS, torch.arange(5))
    with pytest.warns(UserWarning, match="row i is not image i") as said:
        bigbigan.encode(DataLoader(pairs, batch_size=2, shuffle=True), model, "z_mean")
    assert [warning.filename for warning in said] == [__file__]
    for loader in (DataLoader(pairs, batch_size=2), DataLoader(pairs, batch_size=2, sampler=range(5))):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bigbigan.encode(loader, model, "z_mean")


@pytest.mark.parametrize(
    "sampler",
    [torch.utils.data.SubsetRandomSampler(range(5)), torch.utils.data.WeightedRandomSampler(torch.ones(5), 5)],
    ids=["subset", "weighted"],
)
def test_other_loaders_without_an_order_and_those_that_drop(model, sampler):
    batches = torch.utils.data.BatchSampler(torch.utils.data.RandomSampler(FLOATS), 2, False)
    for loader in (DataLoader(FLOATS, sampler=sampler), DataLoader(FLOATS, batch_sampler=batches)):
        with pytest.warns(UserWarning, match="row i is not image i"):
            bigbigan.encode(loader, model, "z_mean")
    with pytest.warns(UserWarning, match="drops the last 1 image:"):
        assert len(bigbigan.encode(DataLoader(FLOATS, batch_size=2, drop_last=True), model, "z_mean")) == 4
    grey = torch.arange(6 * 64, dtype=torch.uint8).reshape(6, 8, 8)  # a sampler's batches of 3 are no colour images
    own = torch.utils.data.BatchSampler(torch.utils.data.SequentialSampler(grey), 3, False)
    torch.testing.assert_close(
        bigbigan.encode(DataLoader(grey, batch_sampler=own), model, "z_mean"), bigbigan.encode(grey, model, "z_mean")
    )


@pytest.mark.parametrize("low", [-0.0005, -0.02, -0.09])
def test_unit_floats_with_some_overshoot_are_refused(model, low):
    x = UNIT * 0.9 + 0.05
    x[2, 1, 3, 3] = low
    for images in (x, list(x), DataLoader(x, batch_size=2), iter(x[2:3])):
        with pytest.raises(InputError, match=r"about \[0, 1\]|found \[0, 1\]"):
            bigbigan.encode(images, model)
    assert torch.equal(  # what is said is done
        bigbigan.encode(x, model, "z_mean", value_range=(0, 1)),
        bigbigan.encode(x.clip(0), model, "z_mean", value_range=(0, 1)),
    )
    with pytest.raises(InputError, match=r"a little beyond.*; clip them to"):
        bigbigan.encode(FLOATS * 1.01, model)


@pytest.mark.parametrize(
    "pair",
    [
        ("a.png", "b.PNG"), (Path("a.jpg"), "b.jpg"), (picture(0), picture(1, (9, 9))), (X[0], X[1][:5]),
        (X[0], torch.zeros(3, 8, 8)), (X[0, :, :, 0], np.zeros((5, 5))),
    ],
    ids=["paths", "Path and path", "pictures", "arrays", "array and tensor", "grey"],
)  # fmt: skip
def test_a_tuple_of_images_is_no_image_and_label(model, pair):
    for images in ([pair], iter([pair]), [(pair[0], 3, pair[1])]):
        with pytest.raises(
            InputError, match="image 0: expected an image, or an image and its label, found [23] images"
        ):
            bigbigan.encode(images, model, progress=False)


def test_of_an_image_and_its_mask_the_image_is_read_and_this_is_said(model):
    images = [picture(i) for i in range(3)]
    with pytest.warns(UserWarning, match="the first is read, and the other is ignored, as a mask would be"):
        found = bigbigan.encode([(image, image.convert("L")) for image in images], model, "z_mean")
    assert torch.equal(found, bigbigan.encode(images, model, "z_mean"))


def test_rows_as_long_as_the_models_images_are_no_picture(model):  # of 8 px
    for n in (30, 65, 1000):
        for width in (64, 192):
            with pytest.raises(InputError, match="looks like an image's pixels in each row"):
                bigbigan.encode(np.zeros((n, width), np.uint8), model)
    for picture_of in (np.zeros((64, 64), np.uint8), np.zeros((192, 192), np.uint8), np.zeros((1, 30, 64), np.uint8)):
        assert len(bigbigan.encode(picture_of, model, "z_mean")) == 1


@pytest.mark.parametrize(
    "images",
    [UNIT[0, 0].numpy() * 16, [UNIT[0], UNIT[1], (UNIT[2] * 255).byte()], Image.fromarray(UNIT[0, 0].numpy() * 255)],
    ids=["sixteenths", "one of bytes", "a float picture"],
)
def test_one_value_far_beyond_a_usual_range_is_doubted(model, images):
    with pytest.warns(UserWarning, match="were cut to black or white; is value_range right"):
        bigbigan.encode(images, model, value_range=(0, 1))


def test_a_window_of_values_is_not_doubted(model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bigbigan.encode((np.arange(192).reshape(8, 8, 3) * 10).astype(np.int16), model, value_range=(-200, 1200))
        bigbigan.encode(UNIT, model, value_range=(0, 1))


def test_a_deep_picture_that_comes_out_black_is_doubted(model, tmp_path):
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64  # 12 bits
    Image.fromarray(grey).save(tmp_path / "deep.png")
    for images in (tmp_path / "deep.png", [Image.fromarray(grey.astype(np.int32))]):
        with pytest.warns(UserWarning, match="from 0 to 4032, almost black; if 4032 is white, say so by value_range="):
            bigbigan.encode(images, model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            bigbigan.encode(images, model, value_range=(0, 4095))


def test_a_pattern_of_paths_and_an_empty_one(model, tmp_path):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("none")
    assert torch.equal(
        bigbigan.encode(str(tmp_path / "*.png"), model, "z_mean"), bigbigan.encode(tmp_path, model, "z_mean")
    )
    assert bigbigan.list_images(str(tmp_path / "[12].png")) == [str(tmp_path / f"{i}.png") for i in (1, 2)]
    for path in (tmp_path / "*.gif", ""):
        with pytest.raises(InputError, match="found (no such file|an empty path)"):
            bigbigan.encode(path, model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_of_another_precision_takes_the_same_images(dtype):
    model = tiny_model().eval()
    expected = bigbigan.encode(FLOATS, model, "z_mean"), bigbigan.generate(3, model)
    model = model.to(dtype)
    found = bigbigan.encode(FLOATS, model, "z_mean"), bigbigan.generate(3, model)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)
    assert bigbigan.discriminate(FLOATS, found[0], model)["score_xz"].isfinite().all()


def test_pictures_in_the_unit_range_are_doubted_when_drawn():
    for draw in (bigbigan.to_pil, bigbigan.grid):
        with pytest.warns(UserWarning, match=r"if they are in \[0, 1\], give 2 \* images - 1"):
            draw(UNIT)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            draw(FLOATS)
            draw(torch.ones(1, 3, 8, 8))
            draw(np.broadcast_to(FLOATS[:1].numpy()[..., ::-1], (2, 3, 8, 8)))


@pytest.mark.parametrize("broken", [True, False])
def test_what_a_network_computed_as_nan_is_warned_of(broken):
    """By weights that hold NaN, or by float16, which ends at 65,504."""
    model = tiny_model().eval()
    with torch.no_grad():
        if broken:
            model.encoder.linear.bias.fill_(torch.nan)
        else:
            model.encoder.half().trunk.stem.conv.weight.fill_(6e4)
        model.generator.linear.bias[0] = torch.nan
    said = "its weights hold such values; load" if broken else r"its weights are torch.float16; .*: model.float\(\)"
    with pytest.warns(UserWarning, match=f"NaN or infinity in 4 of 4 rows, .* row 0: the Encoder .*{said}"):
        bigbigan.encode(FLOATS[:4], model)
    with pytest.warns(UserWarning, match="pixels: NaN or infinity in 3 of 3 rows, .*: the Generator computed it"):
        bigbigan.generate(3, model)
    with pytest.warns(UserWarning, match="its weights are finite; look for very large numbers among its inputs"):
        bigbigan.generate(torch.full((2, 8), 1e30), tiny_model())


def test_whole_numbers_are_told_the_range_that_fits(model):
    for values, said in (
        (range(17), r"\(0, 16\)"),
        ((0, 1), r"\(0, 1\)"),
        ((0, 3000), r"\(0, 4095\)"),
        ((-128, 127), r"\(-128, 127\)"),
    ):
        x = np.resize(np.array(values, np.int64), (2, 8, 8))
        with pytest.raises(InputError, match=f"such as {said}"):
            bigbigan.encode(x, model)


def test_numbers_of_numpy_are_numbers(model):
    torch.testing.assert_close(
        bigbigan.encode(FLOATS, model, "z_mean", batch_size=np.int64(2)),
        bigbigan.encode(FLOATS, model, "z_mean", 10**30),
    )
    torch.testing.assert_close(
        bigbigan.encode(UNIT, model, "z_mean", value_range=np.array([0, 1])),
        bigbigan.encode(UNIT, model, "z_mean", value_range=(0, 1)),
    )


def test_a_model_path_is_that_of_the_current_folder(tmp_path, monkeypatch):
    for name, scale in (("a", 1.0), ("b", 2.0)):
        model = tiny_model()
        with torch.no_grad():
            model.encoder.linear.weight.mul_(scale)
        write_release(tmp_path / name / "m", model, ABOUT)
    found = []
    for name in ("a", "b"):
        monkeypatch.chdir(tmp_path / name)
        found.append(bigbigan.encode(FLOATS, "m", "z_mean"))
    assert not torch.equal(*found)


def test_a_transform_that_is_not_applied_is_said(model):
    data = Dataset.from_dict({"image": [picture(i) for i in range(3)]})
    flipped = data.with_transform(lambda rows: {"image": [image.transpose(0) for image in rows["image"]]})
    with pytest.warns(UserWarning, match="the transform of the data set is not applied"):
        as_stored = bigbigan.encode(flipped, model, "z_mean")
    assert torch.equal(as_stored, bigbigan.encode(data, model, "z_mean"))
    applied = bigbigan.encode((row["image"] for row in flipped), model, "z_mean")  # as the warning says
    assert not torch.allclose(applied, as_stored)


def test_encode_says_nothing_of_labels(model, tmp_path, caplog):
    rows = {"image": [picture(i) for i in range(12)], "label": list(range(12)), "kind": ["a", "b"] * 6}
    table = Dataset.from_dict(rows)
    table.to_parquet(tmp_path / "rows.parquet")
    pack(tmp_path / "rows.tar", samples(0, 12) | {f"{i:04}.cls": str(i).encode() for i in range(12)})
    caplog.clear()
    for images in (table, tmp_path / "rows.parquet", tmp_path / "rows.tar"):
        assert len(bigbigan.encode(images, model, "z_mean")) == 12
    assert not caplog.messages


def test_a_file_mapped_into_memory_is_not_copied(tmp_path):
    np.save(tmp_path / "images.npy", FLOATS.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert as_images(mapped).data_ptr() == mapped.ctypes.data
        assert torch.equal(torch.cat(list(image_batches(mapped, 8, 2))), FLOATS)


def test_what_is_no_pair_or_data_set_is_a_sentence(model):
    class Endless(torch.utils.data.Dataset):
        def __getitem__(self, i):
            return FLOATS[0]

    for images, message in (
        ([(FLOATS[0], FLOATS[1])], "image 0: expected an image, or an image and its label, found 2 images"),
        ([(picture(0), picture(1), 3)], "image 0: expected an image, or an image and its label, found 3 images"),
        ([{"image": FLOATS[0], "label": 1}], "found dict of image, label; give its images alone"),
        (DataLoader([{"image": FLOATS[0]}]), "found dict of image; give its images alone"),
        (next(iter(DataLoader(TensorDataset(FLOATS, torch.arange(5))))), "image 1: .* these may be labels"),
        (Endless(), "found Endless, which has no length"),
        (Endless, "found type"),
        ([()], "image 0: expected a path, .* found tuple"),
    ):
        with pytest.raises(InputError, match=message):
            bigbigan.encode(images, model, progress=False)


def test_generators_are_read_once_and_not_far_ahead():
    given = []

    def images():
        for i in range(40):
            given.append(i)
            yield FLOATS[i % 5]

    for ahead in (0, 2):
        given.clear()
        seen = 0
        for batch in image_batches(images(), 8, 4, ahead=ahead):
            seen += len(batch)
            assert len(given) <= seen + 4 * ahead
        assert seen == len(given) == 40


def test_an_error_of_the_callers_own_generator_is_not_changed(model):
    def images():
        yield FLOATS[0]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        bigbigan.encode(images(), model, batch_size=1, progress=False)


@settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    pixels=hnp.arrays("u1", st.sampled_from([(8, 8, 3), (8, 8), (11, 9, 3), (21, 10), (16, 16, 3)])),
    count=st.integers(1, 4),
)
@pytest.mark.filterwarnings("ignore:.*(almost black|one colour image)")
def test_the_same_pictures_have_the_same_features(model, tmp_path_factory, pixels, count):
    images = [np.roll(pixels, i, axis=0) for i in range(count)]
    folder = tmp_path_factory.mktemp("pictures")
    paths = [str(folder / f"{i}.png") for i in range(count)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    colour = np.stack([image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images])
    first = torch.from_numpy(colour.transpose(0, 3, 1, 2).copy())
    column = Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature()}))["image"]
    unit, loader = first / 255, lambda x: DataLoader(TensorDataset(x, torch.arange(count)), batch_size=2)
    forms = {
        "PIL": [Image.fromarray(image) for image in images], "data set": Folder(images), "column": column,
        "folder": str(folder), "list": images, "channels last": colour, "channels first": first.numpy(),
        "tensor": first, "loader": loader(first), "int": first.short() * 16, "unit": unit,
        "unit loader": loader(unit), "unit list": list(unit.double()), "digits": colour / 255 * 16,
    }  # fmt: skip
    ranges = {"int": (0, 255 * 16), "unit": (0, 1), "unit loader": (0, 1), "unit list": (0, 1), "digits": (0, 16)}
    if pixels.shape[0] == 8:  # at other sizes floats are resized as floats
        signed = to_signed(first)
        forms |= {"signed": signed, "signed loader": loader(signed), "signed list": list(signed.numpy())}
        ranges |= dict.fromkeys(("signed", "signed loader", "signed list"), (-1, 1))
    expected = bigbigan.encode(paths, model, "avepool_feat")
    for name, form in forms.items():
        found = bigbigan.encode(form, model, "avepool_feat", value_range=ranges.get(name), batch_size=3)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def test_the_classes_of_pairs_are_those_of_their_places_in_all_batches():
    conditional = tiny_model(classes=10).eval()
    x, z, classes = FLOATS[:1].expand(5, -1, -1, -1), torch.ones(5, 8), torch.arange(5)
    found = bigbigan.discriminate(x, z, conditional, classes=classes, batch_size=2)["score_x"]
    with torch.no_grad():
        expected = conditional.discriminator(x, z, classes).x
    torch.testing.assert_close(found, expected)
    assert len(found.unique()) == 5, "of one image, so that the class alone tells the scores apart"


@pytest.mark.parametrize(("factor", "found"), [(127.5, "from -127.5 to 127.5"), (-3, "from -3 to 3")])
def test_pictures_far_beyond_the_range_are_refused(factor, found):
    for draw in (bigbigan.to_pil, bigbigan.grid):
        for x in (FLOATS * factor, (FLOATS * factor).clamp(min=-1), (FLOATS * factor).clamp(max=1)):
            with pytest.raises(InputError, match=r"expected float \(N, 3, S, S\), .* found values from"):
                draw(x)
        with pytest.raises(InputError, match=found):
            draw(FLOATS * factor)


def test_to_pil_gives_the_pixels(model):
    x = bigbigan.generate(3, model)
    made = bigbigan.to_pil(x)
    assert [np.asarray(image).tolist() for image in made] == to_uint8(x).permute(0, 2, 3, 1).tolist()
    one = bigbigan.to_pil(x[1])
    assert isinstance(one, Image.Image) and one.tobytes() == made[1].tobytes()
    assert bigbigan.to_pil(x.numpy())[2].tobytes() == made[2].tobytes()
    assert np.asarray(bigbigan.to_pil(torch.full((3, 2, 2), 1.5))).min() == 255, "a little beyond is cut"


@pytest.mark.parametrize(("n", "size", "scale"), [(5, 8, None), (1, 8, None), (6, 48, None), (3, 100, None), (4, 8, 1)])
def test_grid_shows_every_pixel(n, size, scale):
    x = torch.rand(n, 3, size, size) * 2 - 1
    made = np.asarray(bigbigan.grid(x, columns=2, scale=scale)).astype(int)
    step = scale or -(-64 // size)
    assert scale or size * step >= 64
    gap = 4 if n > 1 else 0
    for i in range(n):
        top, left = (gap + (size * step + gap) * place for place in divmod(i, 2))
        tile = made[top : top + size * step, left : left + size * step]
        assert np.array_equal(tile, np.asarray(bigbigan.to_pil(x[i])).repeat(step, 0).repeat(step, 1))
    assert bigbigan.grid(x[0]).tobytes() == bigbigan.grid(x[:1]).tobytes()


def test_a_grid_is_about_square_unless_columns_are_said():
    x = torch.zeros(7, 3, 64, 64)
    sizes = {columns: bigbigan.grid(x, columns).size for columns in (None, 1, 3, 7, 100)}
    assert sizes == {None: (208, 208), 1: (72, 480), 3: (208, 208), 7: (480, 72), 100: (480, 72)}


def test_the_examples_of_the_docs_run(model, pictures, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    pictures[0].save(tmp_path / "photos" / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bigbigan.api, "load_model", lambda source, parts=None: model)
    code = (ROOT / "docs" / "api.md").read_text().split("```python\n")[1].split("```")[0]
    exec(code, found := {})
    assert found["features"].shape == (1, 64) and found["samples"].shape == (64, 3, 8, 8)
    assert Image.open("samples.png").size == (8 * 68 + 4, 8 * 68 + 4)


def test_every_public_name_is_in_the_docs():
    text = (ROOT / "docs" / "api.md").read_text()
    assert all(name in text for name in bigbigan.__all__ if name.islower() and "__" not in name)


@pytest.fixture
def half_broken(tmp_path, pictures):
    """A folder of five pictures and two files that are none: the third and the last one."""
    for i, image in enumerate(pictures):
        image.save(tmp_path / f"{i}.png")
    for name in ("1b.png", "9.png"):
        (tmp_path / name).write_bytes(b"no picture")
    return tmp_path


def test_unreadable_images_are_skipped_on_demand_and_listed(model, pictures, half_broken):
    with pytest.raises(UnreadableImage, match="1b.png: expected a readable image"):
        bigbigan.encode(half_broken, model)
    with pytest.warns(UserWarning, match=r"(?s)2 of 7 images cannot be read and are left out:.*1b\.png.*9\.png"):
        found, paths = bigbigan.encode(half_broken, model, batch_size=3, on_error="skip", paths=True)
    assert [Path(path).name for path in paths] == [f"{i}.png" for i in range(5)]
    assert paths == [path for path in bigbigan.list_images(half_broken) if Path(path).name not in ("1b.png", "9.png")]
    whole = bigbigan.encode(pictures, model)
    for name in ("z_mean", "avepool_feat"):
        torch.testing.assert_close(found[name], whole[name])
    noise = (found["z_sample"] - found["z_mean"]) / found["z_stdev"]  # of the images' places among all
    expected = normal_noise(0, "encode", np.asarray([0, 1, 3, 4, 5]), 8)
    torch.testing.assert_close(noise, expected, atol=1e-3, rtol=1e-3)
    with warnings.catch_warnings(), pytest.raises(InputError, match="none that can be read among 1, such as .*1b.png"):
        warnings.simplefilter("error")
        bigbigan.encode([half_broken / "1b.png"], model, on_error="skip")
    with pytest.raises(InputError, match="on_error: expected 'raise' or 'skip', found 'ignore'"):
        bigbigan.encode(half_broken, model, on_error="ignore")
    with pytest.raises(InputError, match="found \\[0, 1\\]"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bigbigan.encode([np.full((8, 8, 3), 0.5, np.float32)], model, on_error="skip")


def test_a_broken_image_in_a_table_is_skipped_by_way_of_its_column_too(model, pictures, half_broken):
    cells = [{"bytes": path.read_bytes(), "path": None} for path in sorted(half_broken.iterdir())]
    table = Dataset.from_dict({"image": cells}, features=Features({"image": ImageFeature()}))
    expected = bigbigan.encode(pictures, model, "avepool_feat")
    for form in (table, table["image"], table.select(range(7))["image"]):
        with pytest.warns(UserWarning, match="2 of 7 images"):
            found, names = bigbigan.encode(form, model, "avepool_feat", on_error="skip", paths=True)
        torch.testing.assert_close(found, expected)
        assert names == [f"row {i}" for i in (0, 1, 3, 4, 5)]
        with pytest.raises(UnreadableImage, match="the data set, row 2"):
            bigbigan.encode(form, model)
    flipped = table.select([0]).with_transform(lambda rows: {"image": [rows["image"][0].rotate(180)]})
    for changed in (flipped, table.select([0]).cast_column("image", ImageFeature(mode="L"))):  # `datasets` decodes
        seen = changed[0]["image"]
        assert torch.equal(bigbigan.as_tensor(changed["image"], model), bigbigan.as_tensor(seen, model))


def test_names_come_back_with_the_features(model, pictures, half_broken):
    names = lambda images: bigbigan.encode(images, model, "z_mean", batch_size=2, paths=True)[1]  # noqa: E731
    assert names(pictures) == [f"image {i}" for i in range(5)] == names(arrays(pictures))
    assert names([half_broken / "0.png", pictures[1]]) == [str(half_broken / "0.png"), "image 1"]
    assert names(DataLoader(TensorDataset(torch.zeros(5, 3, 8, 8) - 0.5), batch_size=4)) == names(pictures)


def test_tars_are_encoded_in_the_order_that_is_listed(model, pictures, tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    encoded = []
    for image in pictures:
        image.save(stream := io.BytesIO(), "PNG")
        encoded.append(stream.getvalue())
    pack(tmp_path / "t" / "train-0.tar", {f"{i}.png": encoded[i] for i in range(3)} | {"0.cls": b"4"})
    pack(tmp_path / "t" / "val-0.tar", {"3.png": encoded[3], "3b.png": b"no picture", "4.png": encoded[4]})
    with pytest.warns(UserWarning, match="1 of 6 images cannot be read"):
        found, paths = bigbigan.encode(tmp_path / "t", model, "z_mean", on_error="skip", paths=True)
    torch.testing.assert_close(found, bigbigan.encode(pictures, model, "z_mean"))
    listed = bigbigan.list_images(tmp_path / "t")
    assert len(listed) == 6 and paths == listed[:4] + listed[5:] and listed[0].endswith("train-0.tar, 0.png")
    assert bigbigan.list_images(str(tmp_path / "t" / "train-{0..0}.tar")) == listed[:3]


def test_a_folder_of_several_splits_names_them(tmp_path):
    from datasets import Dataset, DatasetDict, Features
    from datasets import Image as ImageFeature

    rows = Dataset.from_dict({"image": [picture(i) for i in range(3)]}, features=Features({"image": ImageFeature()}))
    DatasetDict({"train": rows, "test": rows}).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(InputError, match="expected images of one split, found train, test; name one, by its folder or"):
        bigbigan.encode(tmp_path / "set", model=tiny_model())
    assert len(bigbigan.encode(tmp_path / "set" / "train", model=tiny_model(), outputs="z_mean")) == 3


def test_a_run_without_a_checkpoint_is_called_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs/r").mkdir(parents=True)
    Path("runs/r/config.yaml").write_text("{}")
    with pytest.raises(CheckpointError, match="found a run without a checkpoint in .*; the command that began it goes"):
        bigbigan.load("runs/r")
    with pytest.raises(CheckpointError, match="there are no runs here"):
        bigbigan.load("nothing")


def test_a_wrapped_model_is_refused_with_what_to_pass():
    model = tiny_model()
    for wrapped, name in ((torch.nn.DataParallel(model), "module"), (torch.compile(model), "_orig_mod")):
        with pytest.raises(InputError, match=f"found [A-Za-z]+; pass its .{name}, the model inside"):
            bigbigan.encode(np.zeros((2, 8, 8), np.uint8), wrapped)


def test_four_grey_images_are_told_from_one_with_four_channels():
    with pytest.raises(InputError, match=r"if these are four grey images, give \(4, 1, H, W\)"):
        bigbigan.encode(torch.zeros(4, 8, 8, dtype=torch.uint8), tiny_model())
    assert len(bigbigan.encode(np.zeros((4, 1, 8, 8), np.uint8), tiny_model(), "z_mean")) == 4
    with pytest.raises(InputError, match="laid over white$"):
        bigbigan.encode(np.zeros((8, 8, 4), np.uint8), tiny_model())


@pytest.mark.parametrize(
    ("images", "count", "message"),
    [
        (np.zeros((40, 30, 13), np.uint8), 40, r"^the shape \(40, 30, 13\) is read as 40 grey images of 30×13 pixels"),
        (
            torch.zeros(40, 30, 13, dtype=torch.uint8),
            40,
            r"^the shape \(40, 30, 13\) .*: give \(40, 1, 30, 13\) to say",
        ),
        (
            [np.zeros((13, 9, 9), np.uint8)] * 2,
            26,
            r"^image 0: the shape \(13, 9, 9\) is read as 13 grey images of 9×9",
        ),
    ],
)
def test_many_bands_read_as_grey_images_are_doubted_once(images, count, message):
    model = tiny_model()
    with pytest.warns(UserWarning, match=message) as warned:
        assert len(bigbigan.encode(images, model, "z_mean", progress=False)) == count
    assert len(warned) == 1


def test_a_stack_of_grey_images_is_not_doubted(recwarn):
    bigbigan.encode(np.zeros((40, 8, 8), np.uint8), tiny_model(), "z_mean", progress=False)
    assert not list(recwarn)


def test_lists_of_numbers_are_refused_with_the_cure():
    with pytest.raises(InputError, match=r"found list; give each picture as an array, such as numpy.uint8\(picture\)"):
        bigbigan.encode([np.zeros((8, 8), np.uint8).tolist()], tiny_model())


def test_what_cannot_skip_does_not_advise_to(tmp_path):
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    model = tiny_model()
    for call in (
        lambda: bigbigan.reconstruct(str(tmp_path / "torn.png"), model),
        lambda: bigbigan.BigBiGANFeatures(model).fit_transform([str(tmp_path / "torn.png")]),
    ):
        with pytest.raises(UnreadableImage) as error:
            call()
        assert "or pass on_error" not in str(error.value) and "leave it out" in str(error.value)
