"""Build G, E and D from the settings `model.*`, each with one builder that reads `family` and `encoder`."""

import dataclasses

from torch import nn

from bigbigan.config import Model
from bigbigan.networks.discriminator import Discriminator
from bigbigan.networks.encoder import Encoder, TrunkForm
from bigbigan.networks.generator import Generator, default_latent_dim
from bigbigan.networks.mlp import LATENT_DIM, MLPDiscriminator, MLPGenerator, MLPTrunk, initialise_normal
from bigbigan.networks.progressive import GrowingDiscriminator, GrowingGenerator, GrowingTrunk


def resolve_latent_dim(config: Model) -> Model:
    """Return the settings with a latent_dim of 0 replaced by the default of the family."""
    if config.latent_dim:
        return config
    known = {"progressive": config.feature_limit, "mlp": LATENT_DIM}
    width = known.get(config.family) or default_latent_dim(config.image_size, config.architecture)
    return dataclasses.replace(config, latent_dim=width)


def build_generator(config: Model) -> nn.Module:
    """Build G with random weights."""
    if config.family == "progressive":
        return GrowingGenerator(
            latent_dim=config.latent_dim,
            image_size=config.image_size,
            feature_base=config.feature_base,
            feature_limit=config.feature_limit,
            norm=config.generator_norm,
            equalised=config.equalised,
            normalise_latents=config.normalise_latents,
            slope=config.generator_slope,
            tanh=config.generator_tanh,
        )
    if config.family == "mlp":
        generator = MLPGenerator(
            latent_dim=config.latent_dim, image_size=config.image_size, width=config.mlp_width, grey=config.grey
        )
        return initialise_normal(generator, config.mlp_width)
    generator = Generator(
        latent_dim=config.latent_dim,
        image_size=config.image_size,
        width=config.generator_width,
        classes=config.classes,
        embedding_dim=config.embedding_dim,
        attention=config.generator_attention,
        architecture=config.architecture,
        shared_embedding=config.shared_embedding,
        skip_z=config.skip_z,
        grey=config.grey,
    )
    generator.set_grad_checkpointing(config.checkpointing)
    return generator


def build_encoder(config: Model) -> Encoder | None:
    """Build E with random weights; None for a GAN."""
    if config.encoder == "none":
        return None
    if config.encoder == "mlp":
        return _build_mlp_encoder(config)
    backbone: str | nn.Module = config.encoder
    if config.encoder == "progressive":
        backbone = GrowingTrunk(
            image_size=config.image_size,
            feature_base=config.feature_base,
            feature_limit=config.feature_limit,
            norm=config.encoder_norm,
            equalised=config.equalised,
            dense=False,
        )
    encoder = Encoder(
        latent_dim=config.latent_dim,
        backbone=backbone,
        image_size=config.encoder_image_size or config.image_size,
        width=config.encoder_width,
        stem=config.encoder_stem,
        mlp_width=config.encoder_mlp_width,
        mlp_layers=config.encoder_mlp_layers,
        posterior=config.posterior,
        blocks=config.encoder_blocks,
        form=TrunkForm(
            padding=config.encoder_padding,
            pool_padding=config.encoder_pool_padding,
            shortcut=config.encoder_shortcut,
            last_relu=config.encoder_last_relu,
        ),
    )
    if config.checkpointing and config.encoder != "progressive":
        encoder.set_grad_checkpointing()
    return encoder


def _build_mlp_encoder(config: Model) -> Encoder:
    """Build BiGAN's E: an MLP and one linear map."""
    trunk = MLPTrunk(image_size=config.image_size, width=config.mlp_width, grey=config.grey)
    encoder = Encoder(config.latent_dim, trunk, config.image_size, mlp_layers=0, posterior=config.posterior)
    initialise_normal(encoder, config.mlp_width)
    if not config.joint:  # the latent regressors of BiGAN's code start from zero
        nn.init.zeros_(encoder.linear.weight)
    return encoder


def build_discriminator(config: Model) -> nn.Module:
    """Build D with random weights: F, H and J; F alone for a GAN or a latent regressor."""
    joint = config.joint and config.encoder != "none"
    if config.family == "progressive":
        trunk = GrowingTrunk(
            image_size=config.image_size,
            feature_base=config.feature_base,
            feature_limit=config.feature_limit,
            norm=config.discriminator_norm,
            equalised=config.equalised,
            minibatch=config.minibatch,
            group=config.minibatch_group,
            drop=True,
        )
        return GrowingDiscriminator(
            trunk=trunk,
            latent_dim=config.latent_dim,
            mlp_width=config.mlp_width,
            mlp_layers=config.mlp_layers,
            spectral=config.discriminator_norm == "spectral",
            equalised=config.equalised,
            joint=joint,
        )
    if config.family == "mlp":
        discriminator = MLPDiscriminator(
            latent_dim=config.latent_dim,
            image_size=config.image_size,
            width=config.mlp_width,
            grey=config.grey,
            joint=joint,
            batch_norm=config.discriminator_norm == "batch",
        )
        initialise_normal(discriminator, config.mlp_width)
        if discriminator.compares_images:  # BiGAN's code; ALI's draws this layer as the others
            nn.init.zeros_(discriminator.score.weight)
        return discriminator
    discriminator = Discriminator(
        latent_dim=config.latent_dim,
        image_size=config.image_size,
        width=config.discriminator_width,
        classes=config.classes,
        mlp_width=config.mlp_width,
        mlp_layers=config.mlp_layers,
        attention=config.discriminator_attention,
        joint=joint,
        architecture=config.architecture,
    )
    discriminator.set_grad_checkpointing(config.checkpointing)
    return discriminator
