"""model.checkpointing computes activations again in the backward pass: the same bits, fewer of them kept."""

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.autograd.graph import saved_tensors_hooks

from bigbigan.config import Config, Model, differences, flatten
from bigbigan.errors import ConfigError
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.layers import record_statistics
from tests.conftest import tiny_model
from tests.helpers.children import context, free_port

LARGER = {"image_size": 32, "latent_dim": 16}
KINDS = {
    "resnetv2": {},
    "timm's resnet": {"encoder": "resnet18", "encoder_width": 1.0},
    "convnext": {"encoder": "convnext_atto", "encoder_width": 1.0},
    "vit": {"encoder": "vit_tiny_patch16_224", "encoder_width": 1.0},
    "revnet, which does so in any case": {"encoder": "revnet50"},
    "deep": {"architecture": "biggan_deep", "classes": 3},
    "tables by class": {"shared_embedding": False, "skip_z": False, "classes": 3},
    "attention": {"generator_attention": 16, "discriminator_attention": 16, "generator_width": 8},
    "a GAN": {"encoder": "none"},
}


def computed(checkpointing: bool, r1: bool = False, **changes) -> dict[str, torch.Tensor]:
    """Gradients and recorded batch statistics of one forward and backward within the recorder; `saved`: bytes kept."""
    model = tiny_model(**LARGER | changes, checkpointing=checkpointing).double().train()
    if not checkpointing:
        assert "checkpointing" not in "".join(model.state_dict())
    torch.manual_seed(1)
    x, z = torch.randn(4, 3, 32, 32, dtype=torch.double), torch.randn(4, 16, dtype=torch.double)
    labels = torch.tensor([0, 1, 2, 1]) if changes.get("classes") else None
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with record_statistics(model) as recorder:
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            z_hat = z if model.encoder is None else model.encoder(x).mean
            images = torch.cat([x, model.generator(z, labels)])
            classes = None if labels is None else torch.cat([labels, labels])
            if r1:
                images = images.detach().requires_grad_()
            scores = model.discriminator(images, torch.cat([z_hat, z]), classes)
            loss = sum(score.square().sum() for score in scores if score is not None)
        if r1:
            (slope,) = torch.autograd.grad(loss, images, create_graph=True)
            loss = slope.square().sum()
        loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    names = {layer: name for name, layer in model.named_modules()}
    for layer, (count, mean, deviation) in recorder.moments.items():
        found |= {f"{names[layer]} mean": mean, f"{names[layer]} deviation": deviation}
        found[f"{names[layer]} count"] = torch.as_tensor(count)
    return found | {"saved": torch.tensor(sum(saved.values()))}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_statistics_are_equal_bit_for_bit(kind):
    plain, again = computed(False, **KINDS[kind]), computed(True, **KINDS[kind])
    assert again.pop("saved") < plain.pop("saved")
    assert plain.keys() == again.keys() and any(name.endswith("mean") for name in plain)
    for name, value in plain.items():
        assert torch.equal(value, again[name]), name


def test_second_derivatives_are_equal_bit_for_bit():
    plain, again = computed(False, r1=True), computed(True, r1=True)
    assert plain.keys() == again.keys()
    for name in plain.keys() - {"saved"}:
        assert torch.equal(plain[name], again[name]), name


def worker(rank: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save([computed(False), computed(True)], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_repeat_their_collectives_alike(tmp_path):
    port = free_port()
    children = [context().Process(target=worker, args=(rank, port, tmp_path)) for rank in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    for rank in range(2):
        plain, again = torch.load(tmp_path / f"{rank}.pt")
        assert all(torch.equal(plain[name], again[name]) for name in plain.keys() - {"saved"})


def test_a_run_may_resume_with_it_changed_and_from_a_version_without_it():
    old, new = flatten(Config()), Config(model=Model(checkpointing=True))
    del old["model.checkpointing"]
    assert differences(old, new) == []


@pytest.mark.parametrize(
    ("changes", "compile_mode", "message"),
    [
        ({"family": "mlp", "encoder": "mlp"}, "off", "expected --model.family biggan, or an encoder of timm"),
        ({"family": "progressive", "encoder": "none"}, "off", "expected --model.family biggan, or an encoder of timm"),
        ({}, "default", "--model.checkpointing True with --run.compile default: expected one of the two"),
    ],
)
def test_where_it_has_no_effect_it_is_refused(changes, compile_mode, message):
    config = Config(model=Model(**changes, checkpointing=True))
    config.run.compile = compile_mode
    with pytest.raises(ConfigError, match=message):
        config.validate()


def test_a_backbone_without_such_a_mode_is_named():
    encoder = Encoder(4, Pooled(), 8)
    with pytest.raises(ValueError, match="--model.checkpointing True: expected a timm backbone .* found Pooled"):
        encoder.set_grad_checkpointing()


class Pooled(torch.nn.Module):
    num_features = 3

    def forward(self, x):
        return x.mean((2, 3))
