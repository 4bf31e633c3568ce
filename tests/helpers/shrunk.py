"""Presets with networks, images and batches of the smallest size, which keep every variant of the preset."""

from bigbigan.config import Config, find_config, presets, read_yaml
from bigbigan.networks.factory import resolve_latent_dim

BATCH = 8


def shrunk(name: str) -> Config:
    """Return the settings of a preset in small. What decides the operations of an iteration stays as it is."""
    config = read_yaml(find_config(name), Config())
    m = config.model
    ratio = m.encoder_image_size // m.image_size
    if m.family == "biggan":
        m.image_size, m.latent_dim, m.embedding_dim = 8, 8, 4
        m.generator_width = m.discriminator_width = 2
        m.generator_attention = 8 * (m.generator_attention > 0)
        m.discriminator_attention = 4 * (m.discriminator_attention > 0)
    else:
        m.image_size, m.latent_dim, m.feature_base, m.feature_limit = 16, 8, 32, 16
        m.minibatch_group = min(m.minibatch_group, BATCH // 2)
        config.grow.first_size = 4 * (config.grow.first_size > 0)
    m.encoder_image_size = ratio * m.image_size if ratio > 1 else 0
    m.classes, m.mlp_width, m.mlp_layers = min(m.classes, 3), 16, 2
    m.encoder_mlp_width, m.encoder_mlp_layers = 16, 2
    if m.encoder.startswith(("resnetv2", "revnet")):
        m.encoder_width, m.encoder_blocks = 0.125, (1, 1, 1, 1)
        m.encoder = m.encoder.replace("101", "50")  # which differ in the number of blocks
    config.data.batch_size, config.data.chunks, config.grow.batch_sizes = BATCH, min(config.data.chunks, 2), ()
    config.data.path, config.run.choose_settings = "digits", False
    config.model = resolve_latent_dim(m)
    return config


def different() -> dict[str, Config]:
    """Return {preset: settings in small} of the presets that differ in what decides the operations of an iteration."""
    found = {}
    for name in presets():
        config = shrunk(name)
        o, loss = config.optim, config.loss
        key = repr((config.model, loss, o.name, o.d_steps, o.simultaneous, o.augment, o.dropout, o.sigma_clamp > 0,
                    o.weight_decay > 0, o.sigma_clamp_ratio > 0, o.sigma_networks, config.data.chunks,
                    config.grow.first_size))
        found.setdefault(key, (name, config))
    return dict(found.values())
