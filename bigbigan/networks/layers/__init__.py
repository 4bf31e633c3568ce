"""Parts the networks are made of."""

from bigbigan.networks.layers.blocks import DiscriminatorBlock, GeneratorBlock, ResidualMLP, SelfAttention
from bigbigan.networks.layers.checkpointing import run_block
from bigbigan.networks.layers.deep_blocks import DeepDiscriminatorBlock, DeepGeneratorBlock, is_deep
from bigbigan.networks.layers.equalised import (
    ChannelLayerNorm,
    EqualisedConv2d,
    EqualisedLinear,
    MinibatchDiscrimination,
    MinibatchStddev,
    pixel_norm,
)
from bigbigan.networks.layers.norm import (
    ConditionalBatchNorm,
    CrossReplicaBatchNorm,
    StatisticsRecorder,
    batch_norms,
    of_classes,
    record_statistics,
    set_momentum,
    unrecorded,
)
from bigbigan.networks.layers.orthogonal import add_orthogonal_gradient, orthogonal_penalty
from bigbigan.networks.layers.resampling import pool_to, set_folded, upsampled_conv
from bigbigan.networks.layers.sizes import place_of_attention, split_size
from bigbigan.networks.layers.spectral import (
    SNConv2d,
    SNEmbedding,
    SNLinear,
    advance_power_iteration,
    clamp_sigma,
    initialise,
    spectral_layers,
)
from bigbigan.networks.layers.window import WindowConv2d

__all__ = [
    "ChannelLayerNorm",
    "ConditionalBatchNorm",
    "CrossReplicaBatchNorm",
    "DeepDiscriminatorBlock",
    "DeepGeneratorBlock",
    "DiscriminatorBlock",
    "EqualisedConv2d",
    "EqualisedLinear",
    "GeneratorBlock",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "ResidualMLP",
    "SNConv2d",
    "SNEmbedding",
    "SNLinear",
    "SelfAttention",
    "StatisticsRecorder",
    "WindowConv2d",
    "add_orthogonal_gradient",
    "advance_power_iteration",
    "batch_norms",
    "clamp_sigma",
    "initialise",
    "is_deep",
    "of_classes",
    "orthogonal_penalty",
    "pixel_norm",
    "place_of_attention",
    "pool_to",
    "record_statistics",
    "run_block",
    "set_folded",
    "set_momentum",
    "spectral_layers",
    "split_size",
    "unrecorded",
    "upsampled_conv",
]
