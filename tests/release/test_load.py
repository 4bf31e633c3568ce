"""Loading a model: no random weights are drawn, only the networks asked for are read, and little memory is taken."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import bigbigan
from bigbigan import api
from bigbigan.config import Model
from bigbigan.errors import CheckpointError, ExportError, InputError
from bigbigan.model import PARTS, BigBiGAN
from bigbigan.release import format as release
from tests.conftest import tiny_model, train

CARD = {"name": "tiny", "images_seen": 1, "seed": 0, "data": {"path": "digits", "split": "train"}}
SMALL = {"generator_width": 2, "discriminator_width": 2, "mlp_width": 16, "encoder_mlp_width": 16, "latent_dim": 8}
KINDS = {
    "bigbigan": {},
    "gan": {"encoder": "none"},
    "classes": {"classes": 3},
    "mlp": {"family": "mlp", "encoder": "mlp", "encoder_width": 1.0, "discriminator_norm": "none"},
    "revnet": {"encoder": "revnet50", "encoder_width": 0.125, "encoder_blocks": (1, 1, 1, 1)},
}
MEMORY = """
import re, sys
from pathlib import Path
import bigbigan.api
import bigbigan.networks.encoder
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
model = bigbigan.load(sys.argv[1], "cpu")
print(peak() - before, sum(p.nbytes for p in model.state_dict().values()))
"""


def write(folder, model):
    release.write_release(folder, model.eval(), dict(CARD))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("release"), tiny_model())


@pytest.fixture
def images():
    return torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


def loaded_as_before(folder) -> BigBiGAN:
    """Draw random weights and overwrite them, as loading once did."""
    settings = json.loads((folder / "config.json").read_text())["model"]
    model = BigBiGAN.from_config(Model(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_model_is_the_one_that_was_built_and_overwritten(tmp_path, kind, images):
    write(tmp_path, tiny_model(**KINDS[kind]))
    before = torch.get_rng_state()
    model = bigbigan.load(tmp_path, "cpu")
    assert torch.equal(before, torch.get_rng_state()), "random weights were drawn"
    expected = loaded_as_before(tmp_path)
    ours, theirs = model.state_dict(), expected.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert all(ours[k].dtype == theirs[k].dtype and ours[k].stride() == theirs[k].stride() for k in ours)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained == [name for name, p in expected.named_parameters() if p.requires_grad]
    assert [m.training for m in model.modules()] == [m.training for m in expected.modules()]
    assert torch.equal(bigbigan.generate(2, model), bigbigan.generate(2, expected))
    if model.encoder is not None:
        ours, theirs = bigbigan.encode(images, model), bigbigan.encode(images, expected)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("backbone", ["swin_s3_tiny_224", "vit_tiny_patch16_224"])
def test_tensors_that_no_file_holds_are_computed(tmp_path, backbone, monkeypatch):
    """A Swin's table of relative positions is a buffer that is not saved; an outline has no values for it."""
    settings = Model(
        **SMALL, image_size=8, generator_attention=0, discriminator_attention=0, encoder=backbone,
        encoder_image_size=224, mlp_layers=2, encoder_mlp_layers=2,
    )  # fmt: skip
    model = write_and_load(tmp_path, BigBiGAN.from_config(settings))
    tensors = [*model.parameters(), *model.buffers()]
    assert not any(t.is_meta for t in tensors)
    x = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.equal(model.encoder.avepool(x), loaded_as_before(tmp_path).encoder.avepool(x))


def write_and_load(folder, model):
    return bigbigan.load(write(folder, model), "cpu")


def test_only_the_networks_asked_for_are_loaded(folder, images):
    whole, model = bigbigan.load(folder, "cpu"), bigbigan.load(folder, "cpu", parts=("encoder",))
    assert (model.generator, model.discriminator, model.left_out) == (None, None, ("generator", "discriminator"))
    assert set(model.state_dict()) == {name for name in whole.state_dict() if name.startswith("encoder.")}
    ours, theirs = bigbigan.encode(images, model), bigbigan.encode(images, whole)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert model.prior == whole.prior and model.card == whole.card and model.classes == whole.classes
    with torch.no_grad():
        assert torch.equal(
            bigbigan.generate(2, bigbigan.load(folder, "cpu", parts="generator")), bigbigan.generate(2, whole)
        )


@pytest.mark.parametrize("parts", [("encoder",), ("generator",), ("discriminator",)])
def test_a_network_that_was_not_loaded_is_named_by_what_needs_it(folder, images, parts):
    model = bigbigan.load(folder, "cpu", parts=parts)
    z = torch.zeros(2, 8)
    uses = {
        "encoder": (lambda: bigbigan.encode(images, model), lambda: model.encode(images)),
        "generator": (lambda: bigbigan.generate(2, model), lambda: model.generate(z)),
        "discriminator": (lambda: bigbigan.discriminate(images, z, model), lambda: model.discriminate(images, z)),
    }
    for name in set(PARTS) - set(parts):
        for use in uses[name]:
            with pytest.raises(
                InputError, match=rf"expected a model with an? {name}, found one that was loaded without it"
            ):
                use()
    with pytest.raises(InputError, match="loaded without it; load it with parts="):
        bigbigan.reconstruct(images, model)
    with pytest.raises(ExportError, match="expected a whole model to write, found one that was loaded without its"):
        model.save_pretrained(folder.parent / "partly")


def test_parts_that_a_model_does_not_have_are_refused(folder, tmp_path):
    for wrong in ("E", ("encoder", "decoder"), (), 3):
        with pytest.raises(InputError, match="parts: expected some of generator, encoder, discriminator; found"):
            bigbigan.load(folder, parts=wrong)
    write(tmp_path / "gan", tiny_model(encoder="none"))
    with pytest.raises(CheckpointError, match="expected a model with an encoder, found a GAN, "):
        bigbigan.load(tmp_path / "gan", parts=("encoder",))
    light = tiny_model()
    light.discriminator = None
    write(tmp_path / "light", light)
    with pytest.raises(CheckpointError, match="with a discriminator, found one without a discriminator$"):
        bigbigan.load(tmp_path / "light", parts=("generator", "discriminator"))
    assert bigbigan.load(tmp_path / "light", "cpu").left_out == ()


def test_a_path_loads_what_the_call_needs_and_adds_what_a_later_one_needs(folder, images):
    api._cached.cache_clear()
    latents = bigbigan.encode(images, str(folder), "z_mean", device="cpu")
    kept = api._cached(str(folder), str(folder.absolute()), api._state_of(folder))
    encoder = kept.model.encoder
    assert kept.model.left_out == ("generator", "discriminator")
    whole = bigbigan.load(folder, "cpu")
    assert torch.equal(
        bigbigan.reconstruct(images, str(folder), device="cpu"), bigbigan.reconstruct(images, whole, device="cpu")
    )
    assert kept.model.left_out == ("discriminator",) and kept.model.encoder is encoder
    scores = bigbigan.discriminate(images, latents, str(folder), device="cpu")
    assert kept.model.left_out == () and kept.model.encoder is encoder
    assert torch.equal(scores["score_xz"], bigbigan.discriminate(images, latents, whole)["score_xz"])


def test_an_unneeded_file_of_a_checkpoint_is_not_read(run_folder, tmp_path):
    newest = sorted((run_folder / "checkpoints").iterdir())[-1]
    copied = tmp_path / newest.name
    shutil.copytree(newest, copied)
    whole = bigbigan.load(copied, "cpu")
    (copied / "model.safetensors").unlink()  # holds D and what was not averaged
    model = bigbigan.load(copied, "cpu", parts=("encoder", "generator"))
    ours, theirs = model.state_dict(), whole.state_dict()
    assert ours and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with pytest.raises(CheckpointError, match="expected a complete checkpoint"):
        bigbigan.load(copied, "cpu", parts=("discriminator",))


def test_a_loaded_model_does_not_change_with_its_file(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "release")
    model = bigbigan.load(tmp_path / "release", "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with open(tmp_path / "release" / "model.safetensors", "r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\1" * size)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.run
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory as Linux counts it")
def test_loading_takes_little_more_memory_than_the_weights(tmp_path):
    settings = Model(
        family="mlp",
        encoder="mlp",
        image_size=8,
        latent_dim=8,
        mlp_width=4096,
        discriminator_norm="none",
    )
    write(tmp_path, BigBiGAN.from_config(settings))
    found = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=True)
    taken, weights = map(int, found.stdout.split())
    assert weights > 2e8 and taken <= 1.2 * weights, f"{taken / weights:.2f} of the weights"


@pytest.mark.run
def test_a_damaged_checkpoint_is_refused_with_another_one_of_the_run(tmp_path):
    train(tmp_path, "--run.name=r", "--run.images=72", "--run.checkpoint_every=24", "--run.probe=False")
    shutil.rmtree(tmp_path / "r" / "release", ignore_errors=True)
    *_, before, newest = sorted((tmp_path / "r" / "checkpoints").iterdir())
    (newest / "averages.safetensors").write_bytes(b"cut")
    for given in (tmp_path / "r", newest):
        with pytest.raises(CheckpointError, match=f"is damaged; the run has another checkpoint, {before}"):
            bigbigan.load(given)
    assert bigbigan.load(before).generator is not None


@pytest.mark.parametrize("how", ["load", "encode", "from_pretrained", "backbone"])
def test_a_model_loaded_in_inference_mode_can_be_trained(folder, images, how):
    from bigbigan.api import _ready
    from bigbigan.uses.backbones import backbone

    with torch.inference_mode():
        if how == "encode":
            bigbigan.encode(images, folder, "z_mean", device="cpu")
        loaded = {
            "load": lambda: bigbigan.load(folder, "cpu"),
            "encode": lambda: _ready(folder, "cpu")[0],  # the model that is kept for the next call
            "from_pretrained": lambda: BigBiGAN.from_pretrained(str(folder)),
            "backbone": lambda: backbone(folder, trainable=True, device="cpu"),
        }[how]()
    network = loaded if how == "backbone" else loaded.encoder.avepool
    x = torch.zeros(2, 3, 8, 8)
    network(x).sum().backward()
    assert not any(tensor.is_inference() for tensor in (*loaded.parameters(), *loaded.buffers()))


def test_a_folder_beside_a_models_name_is_no_reason_for_encode_either(tmp_path, images, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = bigbigan.encode(images, bigbigan.load("digits", "cpu"), "z_mean")
    assert torch.equal(bigbigan.encode(images, "digits", "z_mean", device="cpu"), expected)


def test_the_best_checkpoint_of_a_run_is_read_anew(tmp_path):
    before = api._state_of(tmp_path)
    (tmp_path / "000000000048").mkdir()
    first = api._state_of(tmp_path)
    (tmp_path / "000000000048").rename(tmp_path / "000000000096")
    (tmp_path / "000000000096" / "state.json").touch()
    assert len({before, first, api._state_of(tmp_path)}) == 3
