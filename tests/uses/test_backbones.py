"""E in a training loop that knows nothing of this library: equal outputs, moving statistics, honest evaluation."""

import copy

import pytest
import timm
import torch
from torch import nn

import bigbigan
from bigbigan.errors import CheckpointError, InputError
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.layers import batch_norms, set_momentum
from bigbigan.networks.revnet import RevNet
from bigbigan.release.format import write_release
from tests.conftest import ROOT, make_step, tiny_model

ABOUT = {"name": "tiny", "images_seen": 1, "seed": 0, "data": {"path": "digits", "split": "train"}}
PROGRESSIVE = {
    "family": "progressive", "encoder": "progressive", "image_size": 16, "feature_base": 32, "feature_limit": 16,
}  # fmt: skip
KINDS = {
    "timm": {},
    "revnet": {"encoder": "revnet50", "encoder_width": 0.0625, "encoder_blocks": (1, 2)},
    "mlp": {"family": "mlp", "encoder": "mlp"},
    "progressive": PROGRESSIVE,
    "levit": {"encoder": "levit_128s", "encoder_width": 1.0, "encoder_image_size": 64},
    "vit": {"encoder": "test_vit", "encoder_width": 1.0, "encoder_image_size": 32},
}


def moved(model):
    """A model whose batch norms hold values that nothing starts from."""
    torch.manual_seed(1)
    for norm in batch_norms(model):
        norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
        if norm.weight is not None:
            norm.weight.data.uniform_(0.5, 2), norm.bias.data.uniform_(-1, 1)
    return model.eval()


@pytest.fixture
def model():
    return moved(tiny_model())


@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_e(kind):
    encoder = moved(tiny_model(**KINDS[kind])).encoder
    state = copy.deepcopy(encoder.state_dict())
    plain = bigbigan.backbone(encoder, trainable=True)
    assert not batch_norms(plain) and plain.num_features == encoder.features and plain.image_size == encoder.image_size
    x = torch.rand(4, 3, plain.image_size, plain.image_size) * 2 - 1
    for mode in (False, True):
        encoder.train(mode), plain.train(mode)
        ours, theirs = encoder.avepool(x), plain(x)
        assert torch.equal(ours, theirs) and ours.std() > 0
        features = plain.forward_features(x)
        if features.ndim == 4 and kind != "levit":
            torch.testing.assert_close(features.mean((2, 3)), theirs, rtol=1e-4, atol=1e-5)
    ours.square().sum().backward(), theirs.square().sum().backward()
    own = [p.grad for p in encoder.trunk.parameters()]
    for mine, other in zip(own, plain.trunk.parameters(), strict=True):
        assert (mine is None) == (other.grad is None)
        if mine is not None:
            torch.testing.assert_close(mine, other.grad, rtol=1e-3, atol=1e-4 * float(mine.abs().max() + 1))
    assert all(torch.equal(value, encoder.state_dict()[key]) for key, value in state.items()), "E moved"


@pytest.mark.parametrize("kind", ["timm", "revnet", "mlp", "progressive"])
def test_a_loaded_e_moves_its_statistics_as_torch_does(kind):
    encoder = moved(tiny_model(**KINDS[kind])).encoder
    plain = bigbigan.backbone(encoder, trainable=True).train()
    set_momentum(encoder)
    encoder.train()
    for seed in range(3):
        x = torch.rand(6, 3, plain.image_size, plain.image_size, generator=torch.Generator().manual_seed(seed)) * 2 - 1
        encoder.avepool(x).square().sum().backward(), plain(x).square().sum().backward()
    running = [(n.running_mean, n.running_var) for n in batch_norms(encoder.trunk)]
    theirs = [m for m in plain.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(running) == len(theirs) > 0
    used = [m for m in theirs if m.num_batches_tracked]
    assert used and all(m.num_batches_tracked == 3 for m in used)
    for (mean, var), norm in zip(running, theirs, strict=True):
        torch.testing.assert_close(mean, norm.running_mean)
        torch.testing.assert_close(var, norm.running_var)


def test_our_step_takes_the_statistics_back(model):
    set_momentum(model)
    make_step(model)
    before = [b.clone() for b in model.buffers()]
    model.train().encoder(torch.rand(4, 3, 8, 8))
    assert all(map(torch.equal, before, model.buffers()))


def test_load_and_from_pretrained_give_a_model_whose_statistics_move(model, tmp_path):
    write_release(tmp_path / "release", model, ABOUT)
    for loaded in (bigbigan.load(tmp_path / "release", "cpu"), bigbigan.BigBiGAN.from_pretrained(tmp_path / "release")):
        before = loaded.encoder.trunk.norm.running_mean.clone()
        with torch.no_grad():
            loaded.encoder(torch.rand(4, 3, 8, 8))
            assert torch.equal(before, loaded.encoder.trunk.norm.running_mean)  # evaluation mode
            loaded.encoder.train()(torch.rand(4, 3, 8, 8))
        assert not torch.equal(before, loaded.encoder.trunk.norm.running_mean)


def test_frozen_stays_frozen(model):
    frozen = bigbigan.backbone(model)
    network = nn.Sequential(frozen, nn.Linear(frozen.num_features, 3)).train()
    before = copy.deepcopy(frozen.state_dict())
    network(torch.rand(4, 3, 8, 8)).sum().backward()
    assert not frozen.training and network[1].training and network[1].weight.grad is not None
    assert all(p.grad is None for p in frozen.parameters())
    assert all(torch.equal(v, frozen.state_dict()[k]) for k, v in before.items())


def test_torchs_conversion_to_sync_batch_norm_keeps_the_activations(model):
    plain = bigbigan.backbone(model, trainable=True)
    x = torch.rand(4, 3, 8, 8)
    expected = plain(x)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(plain)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in synced.modules()) and torch.equal(synced.eval()(x), expected)


def test_checkpointing_is_left_behind():
    model = moved(tiny_model(checkpointing=True, encoder_blocks=(2, 1, 1, 1)))
    plain = bigbigan.backbone(model, trainable=True).train()
    plain(torch.rand(4, 3, 8, 8)).sum().backward()
    norms = [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(n.num_batches_tracked) for n in norms} == {1}, "a repeated forward moved the statistics twice"


def example() -> str:
    """The code of docs/own_code.md that fine-tunes on digits."""
    return (ROOT / "docs" / "own_code.md").read_text().split("```python\n")[1].split("```")[0]


class Features(nn.Module):
    """E as a user may hold it."""

    def __init__(self, model: bigbigan.BigBiGAN):
        super().__init__()
        self.encoder, self.num_features = model.encoder, model.encoder.features

    def forward(self, x):
        return self.encoder.avepool(x)


@pytest.mark.parametrize("how", ["backbone", "encoder"])
def test_fine_tuning_as_the_docs_say(how, tmp_path):
    write_release(tmp_path / "release", tiny_model(encoder_width=0.25).eval(), ABOUT)
    code = example().replace("runs/digits", str(tmp_path / "release"))
    if how == "encoder":
        call = f'bigbigan.backbone("{tmp_path / "release"}", trainable=True, device="cpu")'
        assert call in code
        code = code.replace(call, f'Features(bigbigan.load("{tmp_path / "release"}", "cpu"))')
    torch.manual_seed(0)
    names = {"Features": Features}
    exec(code, names)
    network, x, y, held_out = (names[name] for name in ("network", "x", "y", "held_out"))
    with torch.no_grad():
        training = (network.train()(x[held_out]).argmax(1) == y[held_out]).float().mean()
    assert training > 0.85 and abs(training - names["accuracy"]) < 0.02, (training, names["accuracy"])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(5, "expected a BigBiGAN, its encoder, a path or a hub id, found int"), ("gan", "found a GAN")],
)
def test_what_has_no_backbone_is_a_sentence(wrong, message):
    wrong = tiny_model(encoder="none") if wrong == "gan" else wrong
    with pytest.raises(InputError, match=message):
        bigbigan.backbone(wrong)
    with pytest.raises(CheckpointError, match="no such folder"):
        bigbigan.backbone("no/such/model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device: expected one of this machine, .* found 'gpu'"),
        ({"device": "meta"}, "device: .* found 'meta', which holds no values"),
        ({"trainable": "yes"}, "trainable: expected True or False, found 'yes'"),
    ],
)
def test_options_of_a_backbone_are_checked(options, message):
    model = tiny_model()
    for source in (model, model.encoder):
        with pytest.raises(InputError, match=message):
            bigbigan.backbone(source, **options)


TIMM = {
    "stride1": ({}, ("resnetv2_18", {"width_factor": 0.125})),
    "stride2": ({"encoder_image_size": 64}, ("resnetv2_18", {"width_factor": 0.125})),
    "imagenet": ({"encoder_stem": "imagenet", "encoder_image_size": 32}, ("resnetv2_18", {"width_factor": 0.125})),
    "blocks": (
        {"encoder_blocks": (1, 2, 1, 1)},
        ("resnetv2_18", {"width_factor": 0.125, "layers": [1, 2, 1, 1]}),
    ),
    "convnext": (
        {"encoder": "convnext_atto", "encoder_width": 1.0, "encoder_image_size": 32}, ("convnext_atto", {})
    ),
    "vit": (
        {"encoder": "test_vit", "encoder_width": 1.0, "encoder_image_size": 32}, ("test_vit", {"img_size": 32})
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMM)
def test_to_timm_is_timms_network_with_our_weights(case):
    changes, (name, options) = TIMM[case]
    model = moved(tiny_model(**changes))
    before = torch.get_rng_state()
    found = bigbigan.to_timm(model)
    assert torch.equal(before, torch.get_rng_state()) and not batch_norms(found) and not found.training
    size = model.encoder.image_size
    x = torch.rand(3, 3, size, size) * 2 - 1
    torch.testing.assert_close(found(x), model.encoder.avepool(x), rtol=1e-5, atol=1e-6)
    theirs = timm.create_model(name, num_classes=0, **options)
    assert type(found) is type(theirs)
    if case in ("stride1", "stride2", "blocks"):
        theirs.stem = copy.deepcopy(found.stem)
    theirs.load_state_dict(found.state_dict())
    assert torch.equal(theirs.eval()(x), found(x))
    for entry, maps in zip(found.feature_info, found.forward_intermediates(x, intermediates_only=True), strict=True):
        assert entry["reduction"] == size / maps.shape[-1] and entry["num_chs"] == maps.shape[1]
    prepared = timm.data.resolve_model_data_config(found)
    assert prepared["input_size"] == (3, size, size) and prepared["mean"] == prepared["std"] == (0.5, 0.5, 0.5)
    picture = timm.data.create_transform(**prepared)(bigbigan.to_pil(x)[0])
    torch.testing.assert_close(picture, x[0], rtol=0, atol=1 / 127)
    found.train()(x).sum().backward()


@pytest.mark.parametrize(
    ("kind", "named"),
    [("revnet", "revnet50"), ("mlp", "BiGAN's MLP"), ("progressive", "one that grows"), ("gan", "a GAN")],
)
def test_what_is_not_timms_is_refused(kind, named):
    model = tiny_model(encoder="none") if kind == "gan" else tiny_model(**KINDS[kind])
    with pytest.raises(InputError, match=f"expected an encoder of timm, such as resnetv2_50, found {named}"):
        bigbigan.to_timm(model)
    own = tiny_model()
    with pytest.raises(InputError, match="found your own networks"):
        bigbigan.to_timm(bigbigan.BigBiGAN(own.generator, Encoder(8, RevNet(0.0625, (1, 1)), 8, mlp_width=8), None))


def test_to_timm_does_not_ask_for_what_it_does_not_take(model):
    with pytest.raises(InputError, match="expected a BigBiGAN, a path or a hub id, found Encoder"):
        bigbigan.to_timm(model.encoder)
