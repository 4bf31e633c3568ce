"""Progressive GAN's networks (Karras et al. 2018, table 2): G, the trunk of F and of E, and BigBiGAN's D = (F, H, J).

Every resolution has two 3×3 convolutions and a 1×1 convolution to or from RGB. At stage s (bottom · 2^s px) there are
min(feature_base/2^(s+1), feature_limit) feature maps: with 8,192 and 512, 512 maps up to 32 px and 16 at 1,024 px.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigbigan.losses import Scores
from bigbigan.networks.growing import Growing, fade_in
from bigbigan.networks.interface import DiscriminatorInterface, GeneratorInterface
from bigbigan.networks.layers import (
    ChannelLayerNorm,
    CrossReplicaBatchNorm,
    EqualisedConv2d,
    EqualisedLinear,
    MinibatchDiscrimination,
    MinibatchStddev,
    ResidualMLP,
    SNConv2d,
    SNLinear,
    initialise,
    pixel_norm,
    upsampled_conv,
)
from bigbigan.networks.layers.equalised import GAIN

SLOPE = 0.2  # of the leaky ReLU
NORMS = ("none", "pixel", "batch", "layer", "spectral")


def feature_maps(stage: int, base: int, limit: int) -> int:
    """Return the number of maps at bottom · 2^stage px; for stage −1 the size of D's last hidden layer."""
    return min(base // 2 ** (stage + 1), limit)


class ConvLayer(nn.Module):
    """A convolution, a normalisation and a leaky ReLU.

    norm: "pixel" acts after the leaky ReLU; "batch" (over all processes) and "layer" before it, with their own bias;
        "spectral" on the weights.
    equalised: equalised learning rate (no effect with "spectral", which removes the scale of the weights).
    padding: kernel // 2 if None.
    forward: (N, in, H, W) → (N, out, H, W), or (N, out, 2H, 2W) with `upsample`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        norm: str = "none",
        equalised: bool = True,
        slope: float = SLOPE,
        upsample: bool = False,
        padding: int | None = None,
    ):
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm: expected one of {', '.join(NORMS)}; found {norm!r}")
        padding = kernel // 2 if padding is None else padding
        self.gain = 1.0
        if norm == "spectral":
            self.conv = SNConv2d(inputs, outputs, kernel, padding)
            self.gain = GAIN  # makes up for the variance that the leaky ReLU removes, as there are no shortcuts
            initialise(self)
        else:
            bias = norm not in ("batch", "layer")
            self.conv = EqualisedConv2d(inputs, outputs, kernel, padding, bias, equalised=equalised)
        norms = {"batch": CrossReplicaBatchNorm, "layer": ChannelLayerNorm}
        self.norm = norms[norm](outputs) if norm in norms else nn.Identity()
        self.pixel, self.slope, self.upsample = norm == "pixel", slope, upsample
        self.folded = True  # see `layers.resampling`

    def forward(self, x: Tensor) -> Tensor:
        conv = self.conv
        x = upsampled_conv(x, conv.scaled_weight(), conv.bias, self.folded) if self.upsample else conv(x)
        x = F.leaky_relu(self.norm(x), self.slope) * self.gain
        return pixel_norm(x) if self.pixel else x


class GrowingGenerator(Growing, GeneratorInterface):
    """G draws images of the resolution of its level.

    latent_dim: Z.  image_size: the full size.  feature_base, feature_limit: see `feature_maps`.
    norm: "pixel" (the paper), "batch" or "none".  equalised: equalised learning rates.
    normalise_latents: scale z to the length √Z first.  slope: of the leaky ReLUs, 0 for ReLUs.
    tanh: end with a tanh; the paper's G is linear.

    forward: z (N, Z) → (N, 3, S, S) with S = `image_size` at this level, near [−1, 1]; in evaluation clamped to it.
    """

    def __init__(
        self,
        latent_dim: int,
        image_size: int,
        feature_base: int = 8192,
        feature_limit: int = 512,
        *,
        norm: str = "pixel",
        equalised: bool = True,
        normalise_latents: bool = True,
        slope: float = SLOPE,
        tanh: bool = False,
    ):
        super().__init__(image_size)
        self.latent_dim, self.normalise_latents, self.tanh = latent_dim, normalise_latents, tanh
        self.norm, self.slope = norm, slope
        maps = [feature_maps(stage, feature_base, feature_limit) for stage in range(self.stages + 1)]
        # √2/4: the paper's first layer is a 4×4 convolution of a single pixel, whose fan-in counts its 16 taps.
        self.linear = EqualisedLinear(
            latent_dim, maps[0] * self.bottom**2, bias=False, gain=2**0.5 / 4, equalised=equalised
        )
        self.bias = nn.Parameter(torch.zeros(maps[0]))
        self.first_norm = CrossReplicaBatchNorm(maps[0]) if norm == "batch" else nn.Identity()
        layer = partial(ConvLayer, norm=norm, equalised=equalised, slope=slope)
        self.blocks = nn.ModuleList([layer(maps[0], maps[0])])
        for before, after in zip(maps[:-1], maps[1:], strict=True):
            self.blocks.append(nn.Sequential(layer(before, after, upsample=True), layer(after, after)))
        self.to_rgb = nn.ModuleList(EqualisedConv2d(n, 3, 1, gain=1, equalised=equalised) for n in maps)

    def forward(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        z = pixel_norm(z) if self.normalise_latents else z
        h = self.linear(z).unflatten(1, (-1, self.bottom, self.bottom)) + self.bias[:, None, None]
        h = F.leaky_relu(self.first_norm(h), self.slope)
        h = self.blocks[0](pixel_norm(h) if self.norm == "pixel" else h)
        for block in self.blocks[1 : self.stage + 1]:
            before, h = h, block(h)
        x = self.to_rgb[self.stage](h)
        if self.fade < 1:
            x = F.interpolate(self.to_rgb[self.stage - 1](before), scale_factor=2, mode="nearest").lerp(x, self.fade)
        x = torch.tanh(x) if self.tanh else x
        return x if self.training else x.clamp(-1, 1)

    def latent_weights(self) -> list[tuple[slice, Tensor]]:
        """Return the weights that z meets: those of the first layer."""
        return [(slice(0, self.latent_dim), self.linear.weight * self.linear.scale)]

    def prepare(self, x: Tensor) -> Tensor:
        """Return real images at this level's size and fade, see `fade_in`."""
        return fade_in(x, self.image_size, self.fade)


class GrowingTrunk(Growing):
    """The trunk of F or E maps images of the resolution of its level to features.

    image_size: the full size.  feature_base, feature_limit: see `feature_maps`.
    norm, equalised: of its layers, see `ConvLayer`.
    minibatch: the statistic of the minibatch that its last layers see: "stddev" (over groups of `group` images, 0 for
        all), "discrimination", or "none".
    dense: True: end in a dense layer of all places (F); False: average over places (E's AvePool feature).
    drop: LSGAN's multiplicative noise before every 3×3 convolution (section B): x·(1 + s√C·n) with n ~ N(0, 1) for
        every image and channel and s = 0.2·max(0, d̂ − 0.5)², where d̂ averages how surely D recognises generated
        images, see `follow`.

    forward: x (N, 3, S, S) with S = `image_size` at this level; drop (N, `drop_channels`) ~ N(0, 1), or None for no
        noise → (N, num_features).
    """

    def __init__(
        self,
        image_size: int,
        feature_base: int = 8192,
        feature_limit: int = 512,
        *,
        norm: str = "none",
        equalised: bool = True,
        minibatch: str = "none",
        group: int = 0,
        dense: bool = True,
        drop: bool = False,
    ):
        super().__init__(image_size)
        if minibatch not in ("none", "stddev", "discrimination"):
            raise ValueError(f"minibatch: expected none, stddev or discrimination; found {minibatch!r}")
        maps = [feature_maps(stage, feature_base, feature_limit) for stage in range(-1, self.stages + 1)]
        layer = partial(ConvLayer, norm=norm, equalised=equalised)
        plain = partial(ConvLayer, norm=norm if norm == "spectral" else "none", equalised=equalised)
        self.from_rgb = nn.ModuleList(plain(3, n, kernel=1) for n in maps[1:])
        self.blocks = nn.ModuleList(
            nn.Sequential(layer(fine, fine), layer(fine, coarse))
            for coarse, fine in zip(maps[1:-1], maps[2:], strict=True)
        )
        self.stddev = MinibatchStddev(group) if minibatch == "stddev" else nn.Identity()
        self.last = nn.Sequential(layer(maps[1] + (minibatch == "stddev"), maps[1]))
        if dense:
            self.last.append(layer(maps[1], maps[0], kernel=self.bottom, padding=0))  # all places: (N, maps, 1, 1)
        self.discrimination = MinibatchDiscrimination(maps[0]) if minibatch == "discrimination" else nn.Identity()
        self.compares_images = minibatch != "none"
        self.num_features = maps[0 if dense else 1] + (100 if minibatch == "discrimination" else 0)
        self.drop_channels = sum(layer.conv.in_channels for layer in self._dropped()) if drop else 0
        if drop:
            self.register_buffer("confidence", torch.zeros(()))  # d̂

    def forward_features(self, x: Tensor, drop: Tensor | None = None) -> Tensor:
        """Return the last map, before the average over places; `drop` as in forward."""
        if x.shape[-1] != self.image_size:
            raise ValueError(f"level {self.level:g}: expected images of {self.image_size} px, found {tuple(x.shape)}")
        noise = self._noise(drop)
        h = self.from_rgb[self.stage](x)
        for stage in range(self.stage, 0, -1):
            for layer in self.blocks[stage - 1]:
                h = layer(h * noise[layer] if noise else h)
            h = F.avg_pool2d(h, 2)
            if stage == self.stage and self.fade < 1:
                h = self.from_rgb[stage - 1](F.avg_pool2d(x, 2)).lerp(h, self.fade)
        h = self.stddev(h)
        for layer in self.last:
            h = layer(h * noise[layer] if noise else h)
        return h

    def forward(self, x: Tensor, drop: Tensor | None = None) -> Tensor:
        return self.discrimination(self.forward_features(x, drop).mean((2, 3)))

    def _dropped(self) -> list[ConvLayer]:
        """Return the 3×3 convolutions whose inputs get LSGAN's noise, in the order of the columns of `drop`."""
        return [*self.last, *(layer for block in self.blocks for layer in block)]

    def _noise(self, drop: Tensor | None) -> dict[ConvLayer, Tensor]:
        """Return the factors of the inputs of the 3×3 convolutions, (N, C, 1, 1) each; none without `drop`."""
        if drop is None:
            return {}
        strength = 0.2 * (self.confidence - 0.5).clamp_min(0).square()
        sizes = [layer.conv.in_channels for layer in self._dropped()]
        columns = drop.split(sizes, dim=1)
        return {
            layer: 1 + strength * size**0.5 * share[:, :, None, None]
            for layer, size, share in zip(self._dropped(), sizes, columns, strict=True)
        }

    @torch.no_grad()
    def follow(self, confidence: Tensor) -> None:
        """Update d̂ ← 0.9 d̂ + 0.1 d with d in [0, 1], 1 if D is sure about all generated images of an update.

        confidence: d, 1 minus the mean score of the update's generated images.
        """
        self.confidence.lerp_(confidence.to(self.confidence).clamp(0, 1), 0.1)


class GrowingDiscriminator(nn.Module, DiscriminatorInterface):
    """BigBiGAN's D = (F, H, J) with an F that grows.

    trunk: F.  latent_dim: Z.  mlp_width, mlp_layers: of H and J.
    spectral, equalised: spectral norm, equalised learning rates of H, J and the layers of the scores.
    joint: False leaves H and J out, as in Progressive GAN's D: only s_x.

    forward: x (N, 3, S, S) with S = `image_size` at this level, z (N, Z) → Scores, (N,) each.
    """

    def __init__(
        self,
        trunk: GrowingTrunk,
        latent_dim: int,
        mlp_width: int = 2048,
        mlp_layers: int = 8,
        *,
        spectral: bool = False,
        equalised: bool = True,
        joint: bool = True,
    ):
        super().__init__()
        self.latent_dim, self.joint = latent_dim, joint
        linear = SNLinear if spectral else partial(EqualisedLinear, gain=1, equalised=equalised)
        self.score_x = linear(trunk.num_features, 1)  # θ_x
        if joint:
            self.h = ResidualMLP(latent_dim, mlp_width, mlp_layers, layer=linear)
            self.score_z = linear(mlp_width, 1)  # θ_z
            self.j = ResidualMLP(trunk.num_features + mlp_width, mlp_width, mlp_layers, layer=linear)
            self.score_xz = linear(mlp_width, 1)  # θ_xz
        if spectral:
            initialise(self)
        self.f = trunk

    @property
    def image_size(self) -> int:
        """Return the size of D's images in pixels, at its level."""
        return self.f.image_size

    @property
    def compares_images(self) -> bool:
        """Return whether an image's scores depend on the other images of its minibatch."""
        return self.f.compares_images

    @property
    def noise_width(self) -> int:
        """Normal random numbers that F takes for each image, see `GrowingTrunk`."""
        return self.f.drop_channels

    def score_layers(self) -> dict[str, nn.Module]:
        """Return θ_x, θ_z and θ_xz, which see F(x), H(z) and J of both; θ_x alone without H and J."""
        joint = {"z": self.score_z, "xz": self.score_xz} if self.joint else {}
        return {"x": self.score_x} | joint

    def forward(
        self, x: Tensor, z: Tensor | None = None, classes: Tensor | None = None, drop: Tensor | None = None
    ) -> Scores:  # fmt: skip
        f = self.f(x, drop)
        s_x = self.score_x(f).squeeze(1)
        if not self.joint:
            return Scores(s_x, None, None)
        h = self.h(z)
        both = torch.cat([pixel_norm(f), pixel_norm(h)], dim=1)  # at one scale, whatever the level
        return Scores(s_x, self.score_z(h).squeeze(1), self.score_xz(self.j(both)).squeeze(1))
