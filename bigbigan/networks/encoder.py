"""The encoder E: x → q(z|x), a pre-activation ResNet, average pooling and a residual MLP (BigBiGAN, section 2).

The only place that builds backbones of timm; `training.optim` builds its optimisers.
"""

import difflib
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, DropPath, PatchDropout, create_pool2d
from timm.models.resnetv2 import PreActBottleneck
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from bigbigan.config.bounds import AtLeastOne, Positive, check_argument
from bigbigan.distributed import local_only
from bigbigan.errors import InputError
from bigbigan.latents import Posterior
from bigbigan.networks.growing import Growing
from bigbigan.networks.layers import CrossReplicaBatchNorm, ResidualMLP, WindowConv2d
from bigbigan.networks.revnet import RevNet

REVNET = "revnet50"
BOUNDED = ("tanh", "sigmoid")  # posteriors whose z is in (−1, 1)
POSTERIORS = ("gaussian", "log_sigma", "deterministic", *BOUNDED)
STEMS = ("auto", "imagenet", "stride2", "stride1")
STRIDE = {"stride2": 2, "stride1": 1}  # of the stems that replace timm's


@dataclass(frozen=True)
class TrunkForm:
    """Details in which ResNets of other codes differ from ours; for a ResNet-v2 or RevNet.

    padding: of strided convolutions, "symmetric" or "same" (TensorFlow's SAME).
    pool_padding: of the max-pool in the stem, "symmetric", "same", or "zeros": symmetric, with zeros for pixels.
    shortcut: what the 1×1 convolutions on a ResNet-v2's shortcuts see, the "preactivated" input or the "raw" one.
    last_relu: whether a ReLU follows the last batch norm, "yes", "no", or "auto": in a ResNet-v2 alone.
    """

    padding: str = "symmetric"
    pool_padding: str = "symmetric"
    shortcut: str = "preactivated"
    last_relu: str = "auto"


class Encoder(nn.Module):
    """The stochastic encoder predicts the posterior q(z|x) of an image.

    latent_dim: Z.
    backbone: "revnet50"; a timm model that yields a feature vector ("resnetv2_50" and _101 in the paper); or a network
        (N, 3, S, S) → (N, num_features), which may grow.
    image_size: E's input size in pixels, which may be a multiple of G's.
    width: factor of the channels of a ResNet-v2 or RevNet (2 for the paper's "×2").
    stem: "imagenet": 7×7/2 and a max-pool; "stride2": the 7×7/2 alone; "stride1": 3×3/1; "auto": see `automatic_stem`.
    mlp_width, mlp_layers: of the head (4,096 units and 4 layers in the paper); 0 layers: a linear map without bias.
    posterior: "gaussian" (mean, softplus stddev), "log_sigma" (mean, exp stddev: ALI), "deterministic" (z itself), or
        z in (−1, 1) for the uniform prior, from the last layer's a: "tanh" (tanh a) or "sigmoid" (2σ(a) − 1: BiGAN).
    blocks: blocks in each stage of a ResNet-v2 or RevNet; () for the backbone's own.
    form: see `TrunkForm`.

    forward: x (N, 3, S, S) in [−1, 1] → Posterior(mean, stddev), (N, Z) each. It and `head` are given the classes (N,)
    of x in a conditional model, and ignore them: this E sees no labels.

    In training mode no forward moves the running statistics of its batch norms: our training step does. In a training
    loop of your own take `bigbigan.backbone`, an E of `bigbigan.load`, or call `networks.layers.set_momentum` first.
    """

    def __init__(
        self,
        latent_dim: int,
        backbone: str | nn.Module = "resnetv2_50",
        image_size: int = 128,
        width: float = 1.0,
        *,
        stem: str = "auto",
        mlp_width: int = 4096,
        mlp_layers: int = 4,
        posterior: str = "gaussian",
        blocks: tuple[int, ...] = (),
        form: TrunkForm = TrunkForm(),
    ):
        super().__init__()
        check_argument("latent_dim", latent_dim, AtLeastOne), check_argument("image_size", image_size, AtLeastOne)
        check_argument("width", width, Positive), check_argument("mlp_width", mlp_width, AtLeastOne)
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior: expected one of {', '.join(POSTERIORS)}; found {posterior!r}")
        self.latent_dim, self.full_size, self.posterior = latent_dim, image_size, posterior
        if isinstance(backbone, str):
            backbone = build_trunk(
                backbone, width, automatic_stem(image_size) if stem == "auto" else stem, image_size, blocks
            )
            apply_form(backbone, form)
        if not hasattr(backbone, "num_features"):
            raise InputError(
                "backbone: expected a name or a network (N, 3, S, S) → (N, num_features) with this attribute, found "
                f"{type(backbone).__name__}"
            )
        self.trunk: Any = backbone  # a network (N, 3, S, S) → (N, num_features)
        self.features: int = self.trunk.num_features
        # Normalises the BN+CReLU features only; z does not depend on it.
        self.feature_norm = CrossReplicaBatchNorm(self.features, affine=False)
        outputs = latent_dim * (2 if posterior in ("gaussian", "log_sigma") else 1)
        self.mlp = (
            ResidualMLP(self.features, mlp_width, mlp_layers, spectral_norm=False) if mlp_layers else nn.Identity()
        )
        self.linear = nn.Linear(mlp_width if mlp_layers else self.features, outputs, bias=mlp_layers > 0)
        if mlp_layers:
            initialise_head(self.mlp, self.linear)

    @property
    def image_size(self) -> int:
        """Return the size of E's images in pixels, at the current level if E grows."""
        return self.trunk.image_size if isinstance(self.trunk, Growing) else self.full_size

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the inputs of each block of a timm backbone alone for the backward pass, which computes it again.

        A RevNet does so in any case. Raises ValueError for a backbone that cannot.
        """
        if isinstance(self.trunk, RevNet):
            return
        try:
            self.trunk.set_grad_checkpointing(enable)
        except (AttributeError, AssertionError):  # timm's answer where a model has no such mode
            raise ValueError(
                f"--model.checkpointing {enable}: expected a timm backbone with activation checkpointing, found "
                f"{type(self.trunk).__name__}, which has none"
            ) from None

    def avepool(self, x: Tensor) -> Tensor:
        """Return the AvePool feature (N, features) of x (N, 3, S, S): the last ReLU's output averaged over places."""
        return self.trunk(x)

    def bn_crelu(self, avepool: Tensor) -> Tensor:
        """Return [ReLU(ā), ReLU(−ā)], (N, 2C), with ā the batch norm without parameters of the AvePool feature (N, C).

        BigBiGAN, section 3.2.
        """
        normalised = self.feature_norm(avepool)
        return torch.cat([F.relu(normalised), F.relu(-normalised)], dim=1)

    def head(self, avepool: Tensor, classes: Tensor | None = None) -> Posterior:
        """Return the Posterior, mean and stddev (N, Z) each, of an AvePool feature (N, features)."""
        out = self.linear(self.mlp(avepool))
        out = out if out.dtype == torch.float64 else out.float()
        if self.posterior in ("gaussian", "log_sigma"):
            mean, raw = out.chunk(2, dim=1)  # stddev = log(1 + exp(raw)); in ALI's code exp(raw)
            return Posterior(mean, F.softplus(raw) if self.posterior == "gaussian" else raw.exp())
        mean = out
        if self.posterior in BOUNDED:
            mean = torch.tanh(out if self.posterior == "tanh" else out / 2)  # 2σ(a) − 1 = tanh(a/2)
        return Posterior(mean, torch.zeros_like(mean))

    def forward(self, x: Tensor, classes: Tensor | None = None) -> Posterior:
        """Return the posterior q(z|x), with mean and stddev (N, Z), of images x (N, 3, S, S) in [−1, 1].

        classes: (N,) of x, which this encoder ignores.
        """
        return self.head(self.avepool(x), classes)


def automatic_stem(image_size: int) -> str:
    """Return the stem that leaves a last map of 4×4 or larger: "imagenet" from 128 px, "stride2" from 64 px."""
    return "imagenet" if image_size >= 128 else "stride2" if image_size >= 64 else "stride1"


def build_trunk(backbone: str, width: float, stem: str, image_size: int, blocks: tuple[int, ...] = ()) -> nn.Module:
    """Build a backbone without classifier, (N, 3, S, S) → (N, num_features), with random weights.

    stem: replaces that of a ResNet-v2 or RevNet; others keep theirs. Raises ValueError.
    """
    if stem not in STEMS:
        raise ValueError(f"encoder stem: expected one of {', '.join(STEMS)}; found {stem!r}")
    if any(n < 1 for n in blocks):
        raise ValueError(f"encoder blocks {list(blocks)}: expected at least one block in each stage")
    trunk = (
        RevNet(width, tuple(blocks) or (3, 4, 6, 3))
        if backbone == REVNET
        else build_timm(backbone, width, image_size, blocks)
    )
    replace_convolutions(trunk)
    if backbone != REVNET and "resnetv2" not in backbone:
        # timm's own num_features may be the width before the last layers.
        trunk.num_features = checked_features(trunk, backbone, image_size)
    elif stem != "imagenet":
        replace_stem(trunk, stem)
    return trunk


def build_timm(backbone: str, width: float, image_size: int, blocks: tuple[int, ...]) -> nn.Module:
    """Build a timm network without classifier, dropout and stochastic depth, with our batch norms.

    Raises ValueError for an unknown name, or for a width or blocks that the network does not have.
    """
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, [REVNET, *timm.list_models()], n=3)
        raise ValueError(
            f"encoder {backbone!r}: expected {REVNET} or the name of a timm model"
            + (f"; did you mean {', '.join(near)}?" if near else "")
        )
    is_resnetv2 = "resnetv2" in backbone
    if width != 1.0 and not is_resnetv2:
        raise ValueError(
            f"encoder width {width}: expected 1 for {backbone!r}; only {REVNET} and the resnetv2 family can be widened"
        )
    if blocks and not is_resnetv2:
        raise ValueError(
            f"encoder blocks {list(blocks)}: expected none for {backbone!r}; only {REVNET} and the resnetv2 family "
            "take them"
        )
    trunk = create_timm(backbone, width, image_size, blocks)
    replace_batch_norms(trunk)
    remove_dropout(trunk)
    return trunk


def create_timm(backbone: str, width: float, image_size: int, blocks: tuple[int, ...]) -> nn.Module:
    """Build a timm network without classifier as timm makes it, for a known name. Raises ValueError."""
    changes = ({"width_factor": width} if width != 1.0 else {}) | ({"layers": list(blocks)} if blocks else {})
    known = timm.get_pretrained_cfg(backbone)
    if known is not None and known.fixed_input_size:  # transformers, whose position embeddings are made for one size
        changes["img_size"] = image_size
    try:
        return timm.create_model(backbone, pretrained=False, num_classes=0, **changes)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"encoder {backbone!r}: expected one that can be built for {image_size} px, found: "
            f"{error or type(error).__name__}"
        ) from None


def plain_timm(
    weights: dict[str, Tensor], backbone: str, width: float, stem: str, image_size: int, blocks: tuple[int, ...]
) -> nn.Module:
    """Build a backbone as timm makes it, with timm's batch norms and our stem, and load the weights of our trunk.

    stem: as in `build_trunk`.  Its `pretrained_cfg` says how images are prepared: the centre square of `image_size`
    pixels, bicubic, values in [−1, 1].  Raises ValueError where the weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = create_timm(backbone, width, image_size, blocks)
        if "resnetv2" in backbone and stem != "imagenet":
            replace_stem(network, stem)
            for entry in network.feature_info:  # timm's stem has stride 2, and its pooling another 2
                timms = 2 if entry["module"].startswith("stem") else 4
                entry["reduction"] = entry["reduction"] * STRIDE[stem] // timms
    missing, unexpected = network.load_state_dict(weights, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # which our batch norms lack
    if missing or unexpected:
        raise ValueError(f"weights of {backbone}: expected those of timm's network, found {[*missing, *unexpected]}")
    known = {name: network.pretrained_cfg.get(name) for name in ("architecture", "first_conv", "classifier")}
    network.pretrained_cfg = network.default_cfg = known | {
        "input_size": (3, image_size, image_size), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic",
        "crop_pct": 1.0, "crop_mode": "center", "num_classes": 0,
    }  # fmt: skip
    return network


@torch.no_grad()
def checked_features(trunk: nn.Module, backbone: str, image_size: int) -> int:
    """Return the width of the features of `trunk`; ValueError if it yields none, or if its forward is not pure."""
    weight = next(trunk.parameters())
    before, random = [b.clone() for b in trunk.buffers()], torch.get_rng_state()
    try:
        with local_only():
            out = trunk.train()(weight.new_zeros(2, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"encoder {backbone!r}: expected a network that takes {image_size} px images, found: {error}; "
            "choose another, or a larger --model.encoder_image_size"
        ) from None
    if not isinstance(out, Tensor) or out.ndim != 2 or out.shape[1] == 0:
        found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"encoder {backbone!r}: expected a network that yields a feature vector, (2, C) of two images; found "
            f"{found}"
        )
    if weight.is_meta:
        return out.shape[1]
    if not torch.equal(random, torch.get_rng_state()) or not all(map(torch.equal, before, trunk.buffers())):
        raise ValueError(
            f"encoder {backbone!r}: expected a network whose forward is pure, found one that draws random numbers or "
            "changes its buffers, so that chunks, processes and resumed runs would not agree; choose another backbone"
        )
    return out.shape[1]


def replace_convolutions(network: nn.Module) -> None:
    """Replace every padded convolution that is not dilated by a WindowConv2d with the same weights."""
    for name, conv in list(network.named_modules()):
        zeros = type(conv) is nn.Conv2d and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        if zeros and any(conv.padding) and conv.dilation == (1, 1):
            shape = conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
            ours = WindowConv2d(*shape, groups=conv.groups, bias=conv.bias is not None, device="meta")
            ours.weight, ours.bias = conv.weight, conv.bias
            network.set_submodule(name, ours)


def remove_dropout(network: nn.Module) -> None:
    """Turn off dropout, stochastic depth and patch dropout.

    They draw from torch's global generator, so a forward would not be pure, and the paper's encoders have none.
    """
    for module in network.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        elif isinstance(module, DropPath):
            module.drop_prob = 0.0
        elif isinstance(module, PatchDropout):
            module.prob = 0.0
        if isinstance(getattr(module, "drop_rate", None), float):
            module.drop_rate = 0.0


def replace_stem(trunk: nn.Module, stem: str) -> None:
    """Replace the stem of a ResNet-v2 or RevNet by one convolution: 7×7/2 for "stride2", 3×3/1 for "stride1"."""
    if not hasattr(trunk.stem, "conv"):  # the "d" kinds have three
        raise ValueError(
            f"encoder stem {stem!r}: expected a backbone whose stem is one convolution; choose --model.encoder_stem "
            "imagenet"
        )
    channels = trunk.stem.conv.out_channels
    kernel = 7 if stem == "stride2" else 3
    conv = nn.Conv2d(3, channels, kernel, stride=STRIDE[stem], padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    trunk.stem = nn.Sequential()
    trunk.stem.add_module("conv", conv)


def apply_form(trunk: nn.Module, form: TrunkForm) -> None:
    """Change the details of a ResNet-v2 or RevNet to those of `form`. Raises ValueError for another backbone."""
    if form == TrunkForm():
        return
    blocks = [name for name, module in trunk.named_modules() if isinstance(module, PreActBottleneck)]
    if not (blocks or isinstance(trunk, RevNet)) or not hasattr(trunk.stem, "conv"):
        raise ValueError(
            f"encoder {type(trunk).__name__}: expected {REVNET} or a resnetv2 of bottlenecks for {form}, which other "
            "backbones do not have"
        )
    if form.shortcut == "raw":
        if not blocks:
            raise ValueError(f"encoder {REVNET}: expected shortcut preactivated, since it has no projections")
        for name in blocks:
            trunk.set_submodule(name, _RawShortcutBottleneck(trunk.get_submodule(name)))
    if form.last_relu != "auto":
        trunk.norm.activation = nn.ReLU() if form.last_relu == "yes" else None
    if form.padding == "same":
        _pad_as_tensorflow(trunk)
    if form.pool_padding != "symmetric" and hasattr(trunk.stem, "pool"):
        zeros = form.pool_padding == "zeros"
        trunk.stem.pool = (
            nn.Sequential(nn.ConstantPad2d(1, 0.0), nn.MaxPool2d(3, 2))
            if zeros
            else create_pool2d("max", 3, stride=2, padding="same")
        )


def _pad_as_tensorflow(trunk: nn.Module) -> None:
    """Replace strided convolutions by ones that pad as TensorFlow's SAME, with the same weights."""
    for name, conv in list(trunk.named_modules()):
        if isinstance(conv, nn.Conv2d) and conv.stride != (1, 1) and conv.kernel_size != (1, 1):
            # On "meta", where it draws no random weights, so that a seed gives the other layers the same ones.
            same = Conv2dSame(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,
                conv.stride,
                bias=conv.bias is not None,
                device="meta",
            )
            same.weight, same.bias = conv.weight, conv.bias
            trunk.set_submodule(name, same)


class _RawShortcutBottleneck(nn.Module):
    """A bottleneck of a ResNet-v2 whose projection sees the input before the first batch norm and ReLU."""

    def __init__(self, block: PreActBottleneck):
        super().__init__()
        self.downsample = None
        for name, child in block.named_children():
            setattr(self, name, child)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        h = self.conv2(self.norm2(self.conv1(self.norm1(x))))
        return shortcut + self.conv3(self.norm3(h))


def replace_batch_norms(network: nn.Module) -> None:
    """Replace every batch norm by a CrossReplicaBatchNorm of equal gain, bias, eps and (in timm's) activation."""
    for name, child in network.named_children():
        if isinstance(child, _BatchNorm):
            activation = (
                child.act if isinstance(child, BatchNormAct2d) and not isinstance(child.act, nn.Identity) else None
            )
            norm = CrossReplicaBatchNorm(child.num_features, child.eps, child.affine, activation)
            norm.load_state_dict({k: v for k, v in child.state_dict().items() if k in norm.state_dict()})
            setattr(network, name, norm)
        else:
            replace_batch_norms(child)


@torch.no_grad()
def initialise_head(mlp: ResidualMLP, linear: nn.Linear) -> None:
    """Initialise E's head: He-normal hidden layers, residual branches that add 0 at first, a Xavier-normal end."""
    for block in mlp.blocks:
        for layer in block.values():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(block["linear2"].weight)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
