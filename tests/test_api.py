"""encode and friends: whatever comes in, in whatever form, gives the same features; a wrong range is a sentence."""

import traceback
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature

import bigbigan
from bigbigan.data import to_rgb, to_signed
from bigbigan.data.inputs import image_batches
from bigbigan.errors import CheckpointError, InputError
from tests.conftest import picture, tiny_model


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
        ((X + 1) * 127.5, "looks like 0 … 255 in float"),
        (np.where(X > 0.9, np.nan, X), "found NaN or infinity"),
        (np.where(X > 0.9, np.inf, X), "found NaN or infinity"),
        (np.zeros((2, 8, 8, 2), np.uint8), "expected 1, 3 or 4 channels"),
        (np.zeros((2, 8, 8, 4), np.uint8), "drop the alpha channel"),
        (np.zeros((2, 8, 8, 3), np.int64), "expected uint8 in 0 … 255 or float"),
        (np.zeros((2, 8, 8, 3), np.uint16), "uint16"),
        (np.zeros((0, 8, 8, 3), np.uint8), "expected one image or a batch"),
        (np.zeros((2, 2, 8, 8, 3), np.uint8), "expected one image or a batch"),
        (np.zeros(8, np.uint8), "expected one image or a batch"),
        ([], "expected at least one image, found none"),
        (list(X * 2.0), r"expected float images in \[−1, 1\]"),
        ([torch.from_numpy((X[0] + 1) * 127.5)], "looks like 0 … 255 in float"),
        (np.zeros((32, 32, 2), np.uint8), "expected 1, 3 or 4 channels"),
        ([X], "expected one image per item of the list, found a batch of 2"),
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


def test_zero_to_one_is_doubted(model):
    with pytest.warns(UserWarning, match=r"if they are in \[0, 1\], give 2x − 1"):
        bigbigan.encode((X + 1) / 2, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bigbigan.encode(X, model)


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
    with pytest.raises(InputError, match="as many images as latents, found 5 and 4"):
        bigbigan.discriminate(pictures, z[:4], model)


def test_discriminate_takes_both_sizes():
    model = tiny_model(encoder_image_size=16).eval()
    small, large = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 16, 16)
    z = torch.randn(2, 8)
    with torch.no_grad():
        for x, seen in ((small, small), (large, torch.nn.functional.avg_pool2d(large, 2))):
            torch.testing.assert_close(bigbigan.discriminate(x, z, model)["score_x"], model.discriminator(seen, z).x)
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
    with pytest.raises(CheckpointError, match="found none of these"):
        bigbigan.load(run_folder.parent)


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
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(50)]
    batches = list(image_batches(iter(images), 8, 7))
    assert [len(b) for b in batches] == [7] * 7 + [1]
    assert torch.equal(torch.cat(batches)[:, 0, 0, 0], to_signed(torch.arange(50, dtype=torch.uint8)))
