"""BigBiGAN: E, G and D, with the methods of the published hub module: encode, generate, discriminate, reconstruct."""

from pathlib import Path

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor, nn

from bigbigan.config import Model
from bigbigan.losses import Scores
from bigbigan.networks.factory import build_discriminator, build_encoder, build_generator, resolve_latent_dim
from bigbigan.networks.layers import pool_to, set_momentum


class BigBiGAN(nn.Module, ModelHubMixin):
    """The three networks of one model.

    encoder None: a GAN.  discriminator None: E and G alone, to be used but not trained further.
    Build it from its flat config with `from_config`, from a release folder or a hub id with `from_pretrained`, or from
    your own networks, see `networks.interface`.
    """

    def __init__(
        self,
        generator: nn.Module,
        encoder: nn.Module | None,
        discriminator: nn.Module | None,
        config: Model | None = None,
    ):
        super().__init__()
        self.generator, self.encoder, self.discriminator = generator, encoder, discriminator
        self.config = config
        self.card: dict = {}  # what a release tells about itself: images seen, data, version

    @classmethod
    def from_config(cls, config: Model, discriminator: bool = True) -> "BigBiGAN":
        """Build randomly initialised networks from the section `model` of the config.

        discriminator: False for E and G alone.
        """
        config = resolve_latent_dim(config)
        # The order G, E, D decides the random weights of a seed.
        generator, encoder = build_generator(config), build_encoder(config)
        return cls(generator, encoder, build_discriminator(config) if discriminator else None, config)

    @property
    def prior(self) -> str:
        """The name of p(z), one of `latents.PRIORS`; "normal" for a model of your own networks."""
        return "normal" if self.config is None else self.config.prior

    def infer(self, x: Tensor, classes: Tensor | None = None):
        """Return E's posterior q(z|x), with mean and stddev (N, Z). x: (N, 3, S, S) in [−1, 1] at E's size.

        classes: (N,) of x in a conditional model, which are handed to E; E of this library ignores them. Training and
        evaluation ask here for every posterior, so that a conditional encoder changes none of their files.
        """
        return self.encoder(x, classes)

    def encode(self, x: Tensor, noise: Tensor | None = None, classes: Tensor | None = None) -> dict[str, Tensor]:
        """Return latents and features, named as the outputs of the hub module's `encode`.

        This is the network alone: x is taken as it is, and neither its range nor its size is checked. `bigbigan.encode`
        checks and resizes images.
        x: (N, 3, S, S) in [−1, 1] at E's size.  noise: (N, Z) ~ N(0, I) for z_sample, drawn anew when None.
        classes: as in `infer`.
        z_mean, z_stdev, z_sample: (N, Z); avepool_feat: (N, C); bn_crelu_feat: (N, 2C).
        """
        avepool = self.encoder.avepool(x)
        posterior = self.encoder.head(avepool, classes)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return {
            "z_mean": posterior.mean,
            "z_stdev": posterior.stddev,
            "z_sample": posterior.sample(noise),
            "avepool_feat": avepool,
            "bn_crelu_feat": self.encoder.bn_crelu(avepool),
        }

    def generate(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return images (N, 3, S, S) in [−1, 1] at G's size for latents z (N, Z)."""
        return self.generator(z, classes)

    def discriminate(self, x: Tensor, z: Tensor | None, classes: Tensor | None = None) -> dict[str, Tensor]:
        """Return score_x, score_z and score_xz, (N,) each, high for encoder pairs; x is taken as in `encode`.

        x: (N, 3, S, S) at G's or E's size.  z: (N, Z).  A GAN has score_x alone and ignores z.
        """
        scores: Scores = self.discriminator(self.for_discriminator(x), z, classes)
        named = {"score_x": scores.x, "score_z": scores.z, "score_xz": scores.xz}
        return {name: score for name, score in named.items() if score is not None}

    def reconstruct(
        self, x: Tensor, use_sample: bool = False, noise: Tensor | None = None, classes: Tensor | None = None
    ) -> Tensor:
        """Return G(z) for the mean of q(z|x), or for a sample of it; x is taken as in `encode`.

        x: (N, 3, S, S) at E's size → (N, 3, S', S') at G's size.  noise: (N, Z) ~ N(0, I) for a sample; None draws it.
        classes: (N,) of x, which a conditional model needs.
        """
        posterior = self.infer(x, classes)
        if not use_sample:
            return self.generator(posterior.mean, classes)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return self.generator(posterior.sample(noise), classes)

    def for_discriminator(self, x: Tensor) -> Tensor:
        """Average-pool E's image to D's size where E's is larger (the official notebook pools 256 px to 128 px)."""
        return pool_to(x, (self.discriminator or self.generator).image_size)

    # The two hooks of ModelHubMixin. The release format knows the model, so it is imported when they are called.

    def _save_pretrained(self, save_directory: Path) -> None:
        from bigbigan.release.format import write_weights

        write_weights(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id, **options) -> "BigBiGAN":
        from bigbigan.release.format import read_release_or_hub

        model = read_release_or_hub(str(model_id), **options)
        set_momentum(model)  # as `bigbigan.load` does
        return model
