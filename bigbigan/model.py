"""BigBiGAN: E, G and D, with the methods of the published hub module: encode, generate, discriminate, reconstruct."""

from collections.abc import Collection
from os import PathLike
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from bigbigan.config import Model
from bigbigan.distributed import local_only
from bigbigan.distributed.device import default_on_cpu
from bigbigan.errors import InputError
from bigbigan.files import expanded
from bigbigan.latents import Posterior
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.factory import build_discriminator, build_encoder, build_generator, resolve_latent_dim
from bigbigan.networks.interface import AnyDiscriminator, AnyGenerator, scores_and_features
from bigbigan.networks.layers import pool_to, set_momentum

PARTS = ("generator", "encoder", "discriminator")  # the order decides the random weights of a seed


def absence(name: str, left_out: bool = False) -> str:
    """Return the words of an error that say that a model lacks a network: "expected ..., found ...".

    name: one of `PARTS`.  left_out: whether the model was loaded without it.
    """
    article = "an" if name == "encoder" else "a"
    found = "a GAN, which has no encoder" if name == "encoder" else f"one without {article} {name}"
    found = "one that was loaded without it" if left_out else found
    return f"expected a model with {article} {name}, found {found}"


def unwrapped(model: object) -> str:
    """Return advice for a message about what is no BigBiGAN: what to pass of one that is wrapped; "" for others."""
    for name, why in (("module", "DataParallel"), ("_orig_mod", "torch.compile; model.compile() changes it in place")):
        if isinstance(getattr(model, name, None), BigBiGAN):
            return f"; pass its .{name}, the model inside {why}"
    return ""


def weights_dtype(network: nn.Module | Any) -> torch.dtype:
    """Return the type of a network's weights, which that of its inputs must be: a caller may have called `half()`."""
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)


class BigBiGAN(nn.Module, ModelHubMixin):
    """The three networks of one model.

    encoder None: a plain GAN.  discriminator None: E and G alone, to be used but not trained further. `left_out` names
    the networks that are None because `bigbigan.load` was asked for others.
    Build it from its flat config with `from_config`, from a release folder or a hub id with `from_pretrained`, or from
    your own networks, see `networks.interface`.
    """

    def __init__(
        self,
        generator: nn.Module | None,
        encoder: Encoder | None,
        discriminator: nn.Module | None,
        config: Model | None = None,
    ):
        super().__init__()
        self.generator, self.encoder, self.discriminator = generator, encoder, discriminator
        self.config = config
        self.card: dict[str, Any] = {}  # what a release tells about itself: images seen, data, version
        self.readme = ""  # its model card in Markdown; "" for one that is written anew
        self.left_out: tuple[str, ...] = ()
        self.read_as: dict[str, int] = {}  # torch's count of writes to each parameter when it was read from a release

    @classmethod
    def from_config(cls, config: Model, discriminator: bool = True, *, parts: Collection[str] = PARTS) -> "BigBiGAN":
        """Build randomly initialised networks from the section `model` of the config.

        discriminator: False for E and G alone.  parts: names of the networks to build; the others are None.
        """
        config = resolve_latent_dim(config)
        build = {"generator": build_generator, "encoder": build_encoder, "discriminator": build_discriminator}
        wanted = [name for name in PARTS if name in parts and (discriminator or name != "discriminator")]
        networks = {name: build[name](config) for name in wanted}
        encoder = cast(Encoder | None, networks.get("encoder"))
        return cls(networks.get("generator"), encoder, networks.get("discriminator"), config)

    @property
    def prior(self) -> str:
        """The name of p(z), one of `latents.PRIORS`; "normal" for a model of your own networks."""
        return "normal" if self.config is None else self.config.prior

    @property
    def classes(self) -> int:
        """Return the number of classes of a conditional model, 0 for one without."""
        known = self.generator if self.generator is not None or self.config is None else self.config
        return getattr(known, "classes", 0)

    @overload
    def require(self, name: Literal["encoder"]) -> Encoder: ...
    @overload
    def require(self, name: Literal["generator"]) -> AnyGenerator: ...
    @overload
    def require(self, name: Literal["discriminator"]) -> AnyDiscriminator: ...
    def require(self, name: str) -> Any:
        """Return the network of this name, one of `PARTS`. Raises InputError where the model does not have it."""
        if (network := getattr(self, name)) is not None:
            return network
        cure = f"; load it with parts=(..., {name!r}), or without parts" if name in self.left_out else ""
        raise InputError(f"model: {absence(name, name in self.left_out)}{cure}")

    def infer(self, x: Tensor, classes: Tensor | None = None) -> Posterior:
        """Return E's posterior q(z|x), with mean and stddev (N, Z). x: (N, 3, S, S) in [−1, 1] at E's size.

        classes: (N,) of x in a conditional model, which are handed to E; E of this library ignores them. Training and
        evaluation ask here for every posterior, so that a conditional encoder changes none of their files.
        """
        encoder: Any = self.encoder  # as training calls it: compiled, without a look whether it is there
        return encoder(x, classes)

    def encode(self, x: Tensor, noise: Tensor | None = None, classes: Tensor | None = None) -> dict[str, Tensor]:
        """Return latents and features, named as the outputs of the hub module's `encode`.

        This is the network alone: x is taken as it is, and neither its range nor its size is checked. `bigbigan.encode`
        checks and resizes images.
        x: (N, 3, S, S) in [−1, 1] at E's size.  noise: (N, Z) ~ N(0, I) for z_sample, drawn anew when None.
        classes: as in `infer`.
        z_mean, z_stdev, z_sample: (N, Z); avepool_feat: (N, C); bn_crelu_feat: (N, 2C).
        """
        encoder = self.require("encoder")
        avepool = encoder.avepool(x)
        posterior = encoder.head(avepool, classes)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return {
            "z_mean": posterior.mean,
            "z_stdev": posterior.stddev,
            "z_sample": posterior.sample(noise),
            "avepool_feat": avepool,
            "bn_crelu_feat": encoder.bn_crelu(avepool),
        }

    def generate(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return images (N, 3, S, S) in [−1, 1] at G's size for latents z (N, Z), taken in the type of G's weights.

        A model of half precision has float32 latents, since E computes its posterior in float32.
        """
        generator = self.require("generator")
        return generator(z.to(weights_dtype(generator)), classes)

    def discriminate(
        self, x: Tensor, z: Tensor | None, classes: Tensor | None = None, features: bool = False
    ) -> dict[str, Tensor]:
        """Return score_x, score_z and score_xz, (N,) each, high for encoder pairs; x is taken as in `encode`.

        A D that compares the images of a batch compares these alone, whatever other processes do.
        x: (N, 3, S, S) at G's or E's size.  z: (N, Z).  A GAN has score_x alone and ignores z; BiGAN's D score_xz.
        features: also return D's penultimate features, feat_x, feat_z and feat_xz, (N, width) each: what the last layer
            of the score of this name sees. InputError if D is a network of your own that does not name its layers.
        """
        discriminator, x = self.require("discriminator"), self.for_discriminator(x)
        z = None if z is None else z.to(weights_dtype(discriminator))  # E's are float32, see `generate`
        seen: dict[str, Tensor] = {}
        with local_only():
            if features:
                scores, seen = scores_and_features(discriminator, x, z, classes)
            else:
                scores = discriminator(x, z, classes)
        if features and not seen:
            raise InputError(
                f"features: expected a discriminator that names the layers of its scores, found "
                f"{type(discriminator).__name__}; give it a method score_layers, see networks/interface.py"
            )
        all_scores = {"score_x": scores.x, "score_z": scores.z, "score_xz": scores.xz}
        named = {name: score for name, score in all_scores.items() if score is not None}
        return named | {f"feat_{name}": seen[name] for name in ("x", "z", "xz") if name in seen}

    def reconstruct(
        self, x: Tensor, use_sample: bool = False, noise: Tensor | None = None, classes: Tensor | None = None
    ) -> Tensor:
        """Return G(z) for the mean of q(z|x), or for a sample of it; x is taken as in `encode`.

        x: (N, 3, S, S) at E's size → (N, 3, S', S') at G's size.  noise: (N, Z) ~ N(0, I) for a sample; None draws it.
        classes: (N,) of x, which a conditional model needs.
        """
        self.require("encoder"), self.require("generator")
        posterior = self.infer(x, classes)
        if not use_sample:
            return self.generate(posterior.mean, classes)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return self.generate(posterior.sample(noise), classes)

    def for_discriminator(self, x: Tensor) -> Tensor:
        """Average-pool E's image to D's size where E's is larger (the official notebook pools 256 px to 128 px)."""
        network: Any = self.discriminator or self.generator
        return pool_to(x, network.image_size)

    # ModelHubMixin's. The release format knows the model, so it is imported when they are called.

    def save_pretrained(self, save_directory: str | PathLike[str], **options: Any) -> str | None:
        """Write a release folder, which `from_pretrained` and `bigbigan.load` read, as huggingface_hub's mixin does.

        options: of `ModelHubMixin.save_pretrained`.  Raises ExportError for a folder whose README.md, config.json or
        samples.png belong to something else, since they would be replaced; InputError where nothing can be written.
        """
        from bigbigan.release.format import check_place

        folder = expanded(save_directory)
        check_place(folder)
        return super().save_pretrained(folder, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        from bigbigan.release.format import write_card, write_weights

        write_weights(self, save_directory)
        write_card(self, save_directory)

    @classmethod
    @default_on_cpu()
    @torch.inference_mode(False)
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "BigBiGAN":
        from bigbigan.release.format import read_release_or_hub

        model = read_release_or_hub(str(model_id), **options)
        set_momentum(model)  # as `bigbigan.load` does
        return model
