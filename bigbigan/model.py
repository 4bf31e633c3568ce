"""BigBiGAN holds E, G and D, with the methods of the published hub module: encode, generate, discriminate, reconstruct."""

import dataclasses
import hashlib
import json
from pathlib import Path

import torch
from huggingface_hub import ModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bigbigan.bigan import LATENT_DIM, MLPDiscriminator, MLPGenerator, MLPTrunk, initialise_normal
from bigbigan.config import Model, check_model, merged
from bigbigan.discriminator import Discriminator
from bigbigan.encoder import Encoder
from bigbigan.files import read_json
from bigbigan.generator import Generator, default_latent_dim
from bigbigan.layers import pool_to
from bigbigan.losses import Scores
from bigbigan.progressive import GrowingDiscriminator, GrowingGenerator, GrowingTrunk

FORMAT = 1  # of a release


class BigBiGAN(nn.Module, ModelHubMixin):
    """The three networks of one model; or G and D of a GAN, with `encoder` None; or E and G to use, with `discriminator` None.

    Build it from its flat config with `from_config`, from a release folder or a hub id with `from_pretrained`, or of your own
    networks, which then need an `image_size` and a `latent_dim`.
    """

    def __init__(
        self, generator: nn.Module, encoder: nn.Module | None, discriminator: nn.Module | None, config: Model | None = None
    ):
        super().__init__()
        self.generator, self.encoder, self.discriminator = generator, encoder, discriminator
        self.config = config
        self.card: dict = {}  # what a release tells about itself: images seen, data, version

    @classmethod
    def from_config(cls, config: Model, discriminator: bool = True) -> "BigBiGAN":
        """Randomly initialised networks from the flat section `model` of the config, D among them unless told otherwise."""
        if not config.latent_dim:
            known = {"progressive": config.feature_limit, "mlp": LATENT_DIM}
            width = known.get(config.family) or default_latent_dim(config.image_size, config.architecture)
            config = dataclasses.replace(config, latent_dim=width)
        # in this order, which decides the random weights of a seed
        return cls(_generator(config), _encoder(config), _discriminator(config) if discriminator else None, config)

    def encode(self, x: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """x (N, 3, S, S) in [−1, 1] at E's size → the outputs of the hub module's `encode`.

        z_mean, z_stdev, z_sample: (N, Z); avepool_feat: (N, C); bn_crelu_feat: (N, 2C). noise: (N, Z) ~ N(0, I) for z_sample,
        drawn anew when None.
        """
        avepool = self.encoder.avepool(x)
        posterior = self.encoder.head(avepool)
        noise = torch.randn_like(posterior.mean) if noise is None else noise
        return {
            "z_mean": posterior.mean,
            "z_stdev": posterior.stddev,
            "z_sample": posterior.sample(noise),
            "avepool_feat": avepool,
            "bn_crelu_feat": self.encoder.bn_crelu(avepool),
        }

    def generate(self, z: Tensor, classes: Tensor | None = None) -> Tensor:
        """z (N, Z) → images (N, 3, S, S) in [−1, 1] at G's size."""
        return self.generator(z, classes)

    def discriminate(self, x: Tensor, z: Tensor | None, classes: Tensor | None = None) -> dict[str, Tensor]:
        """x (N, 3, S, S) at G's or E's size, z (N, Z) → score_x, score_z, score_xz, (N,) each; high for encoder pairs.

        A GAN without E has score_x alone, and no use for z."""
        scores: Scores = self.discriminator(self.for_discriminator(x), z, classes)
        named = {"score_x": scores.x, "score_z": scores.z, "score_xz": scores.xz}
        return {name: score for name, score in named.items() if score is not None}

    def reconstruct(self, x: Tensor, use_sample: bool = False, noise: Tensor | None = None) -> Tensor:
        """G(z) of the posterior's mean, or of a sample: x (N, 3, S, S) at E's size → (N, 3, S', S') at G's size."""
        posterior = self.encoder(x)
        if not use_sample:
            return self.generator(posterior.mean)
        return self.generator(posterior.sample(torch.randn_like(posterior.mean) if noise is None else noise))

    def for_discriminator(self, x: Tensor) -> Tensor:
        """E's image → D's: average-pooled where E's size is larger (the official notebook pools 256 px to 128 px)."""
        return pool_to(x, (self.discriminator or self.generator).image_size)

    def _save_pretrained(self, save_directory: Path) -> None:
        weights = save_directory / "model.safetensors"
        try:
            save_file({k: v.contiguous() for k, v in self.state_dict().items()}, weights)
        except SafetensorError as error:  # its name for a full disk
            raise OSError(f"{weights}: {error}") from None
        config = {"format": FORMAT, "sha256": sha256(weights), "model": dataclasses.asdict(self.config), "card": self.card}
        if self.discriminator is None:
            config["discriminator"] = False
        (save_directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")

    @classmethod
    def _from_pretrained(
        cls, *, model_id, revision=None, cache_dir=None, force_download=False, local_files_only=False, token=None, **_
    ) -> "BigBiGAN":  # fmt: skip
        def file(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            return Path(
                hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )  # fmt: skip
            )

        return read_release(file("config.json"), file("model.safetensors"), str(model_id))


def _generator(config: Model) -> nn.Module:
    if config.family == "progressive":
        return GrowingGenerator(
            config.latent_dim, config.image_size, config.feature_base, config.feature_limit, config.generator_norm,
            config.equalised, config.normalise_latents, config.generator_slope, config.generator_tanh,
        )  # fmt: skip
    if config.family == "mlp":
        generator = MLPGenerator(config.latent_dim, config.image_size, config.mlp_width, config.grey)
        return initialise_normal(generator, config.mlp_width)
    return Generator(
        config.latent_dim, config.image_size, config.generator_width, config.classes,
        config.embedding_dim, config.generator_attention, config.architecture,
        config.shared_embedding, config.skip_z,
    )  # fmt: skip


def _discriminator(config: Model) -> nn.Module:
    joint = config.joint and config.encoder != "none"
    if config.family == "progressive":
        trunk = GrowingTrunk(
            config.image_size, config.feature_base, config.feature_limit, config.discriminator_norm, config.equalised,
            config.minibatch, config.minibatch_group, drop=True,
        )  # fmt: skip
        spectral = config.discriminator_norm == "spectral"
        return GrowingDiscriminator(
            trunk, config.latent_dim, config.mlp_width, config.mlp_layers, spectral, config.equalised, joint
        )  # fmt: skip
    if config.family == "mlp":
        norm = config.discriminator_norm == "batch"
        discriminator = MLPDiscriminator(config.latent_dim, config.image_size, config.mlp_width, config.grey, joint, norm)
        return initialise_normal(discriminator, config.mlp_width)
    return Discriminator(
        config.latent_dim, config.image_size, config.discriminator_width, config.classes,
        config.mlp_width, config.mlp_layers, config.discriminator_attention, joint, config.architecture,
    )  # fmt: skip


def _encoder(config: Model) -> nn.Module | None:
    if config.encoder == "none":
        return None
    backbone = config.encoder
    if backbone == "mlp":
        backbone = MLPTrunk(config.image_size, config.mlp_width, config.grey)
        encoder = Encoder(config.latent_dim, backbone, config.image_size, mlp_layers=0, posterior=config.posterior)
        initialise_normal(encoder, config.mlp_width)
        if not config.joint:  # as in BiGAN's code
            nn.init.zeros_(encoder.linear.weight)
        return encoder
    if backbone == "progressive":
        maps = (config.feature_base, config.feature_limit)
        backbone = GrowingTrunk(config.image_size, *maps, config.encoder_norm, config.equalised, dense=False)
    return Encoder(
        config.latent_dim, backbone, config.encoder_image_size or config.image_size, config.encoder_width,
        config.encoder_stem, config.encoder_mlp_width, config.encoder_mlp_layers, config.posterior, config.encoder_blocks,
    )  # fmt: skip


def read_release(settings: Path, weights: Path, where: str) -> BigBiGAN:
    """A release's config.json and model.safetensors → the model in evaluation mode; ValueError says what does not fit."""
    try:
        config = read_json(settings)
    except (OSError, ValueError) as error:
        raise ValueError(f"{where}/config.json: {error}") from None
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{where}/config.json: expected a bigbigan release of format {FORMAT}, found {config.get('format', 'none')!r}"
        )
    expected = config.get("sha256")
    try:
        if expected is not None and expected != sha256(weights):
            raise ValueError(f"{weights}: its checksum is not the one in config.json; the file is damaged, get it again")
        tensors = load_file(weights)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{where}/model.safetensors: expected tensors, found {type(error).__name__}: {error}") from None
    model = build(config.get("model"), tensors, f"{where}/config.json", config.get("discriminator") is not False)
    model.card = config["card"] if isinstance(config.get("card"), dict) else {}
    load_weights(model, tensors, where)
    return model.eval()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build(section: object, tensors: dict[str, Tensor], where: str, discriminator: bool = True) -> BigBiGAN:
    """The networks of a section `model` that came with a file, for these tensors; ValueError if it cannot be.

    They are outlined without memory first: whatever size the section asks for, no more is taken than the file holds.
    """
    if not isinstance(section, dict):
        raise ValueError(f"{where}: expected the settings of a model, found {type(section).__name__}")
    unknown = set(section) - {f.name for f in dataclasses.fields(Model)}
    if unknown:
        raise ValueError(f"{where}: unknown keys {', '.join(sorted(unknown))}; was it written by a newer version?")
    config = merged(Model(), section, where)
    try:
        check_model(config)
        with torch.device("meta"):
            outline = BigBiGAN.from_config(config, discriminator).state_dict()
    except RuntimeError:  # a backbone that computes with its initial weights
        outline = None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    if outline is not None:
        check_weights(outline, tensors, where)
    return BigBiGAN.from_config(config, discriminator)


def load_weights(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Load strictly; ValueError lists the first tensors that are missing, unknown or of another shape."""
    check_weights(network.state_dict(), tensors, where)
    network.load_state_dict(tensors)


def check_weights(own: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> None:
    wrong = [f"{k} is missing" for k in own.keys() - tensors.keys()]
    wrong += [f"{k} is unknown" for k in tensors.keys() - own.keys()]
    wrong += [
        f"{k} has shape {tuple(tensors[k].shape)}, expected {tuple(own[k].shape)}"
        for k in own.keys() & tensors.keys()
        if own[k].shape != tensors[k].shape
    ]
    wrong += [
        f"{k} is of {tensors[k].dtype}, expected {own[k].dtype}"
        for k in own.keys() & tensors.keys()
        if own[k].is_floating_point() != tensors[k].is_floating_point()
    ]
    if wrong:
        shown = "; ".join(sorted(wrong)[:4])
        raise ValueError(f"{where}: the weights are of another architecture than the config ({len(wrong)} tensors): {shown}")
