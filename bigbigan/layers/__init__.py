"""Parts the networks are made of."""

from bigbigan.layers.blocks import DiscriminatorBlock, GeneratorBlock, ResidualMLP, SelfAttention
from bigbigan.layers.collectives import (
    LostProcess,
    all_reduce,
    all_rows,
    alone,
    barrier,
    copy_from_main,
    joined_rows,
    own_rows,
    rank,
    world_size,
)
from bigbigan.layers.equalised import (
    ChannelLayerNorm,
    EqualisedConv2d,
    EqualisedLinear,
    MinibatchDiscrimination,
    MinibatchStddev,
    pixel_norm,
)
from bigbigan.layers.norm import ConditionalBatchNorm, CrossReplicaBatchNorm, batch_norms, record_statistics
from bigbigan.layers.resampling import set_folded, upsampled_conv
from bigbigan.layers.sizes import place_of_attention, split_size
from bigbigan.layers.spectral import (
    SNConv2d,
    SNEmbedding,
    SNLinear,
    advance_power_iteration,
    initialise,
    spectral_layers,
)

__all__ = [
    "ChannelLayerNorm",
    "ConditionalBatchNorm",
    "CrossReplicaBatchNorm",
    "DiscriminatorBlock",
    "EqualisedConv2d",
    "EqualisedLinear",
    "GeneratorBlock",
    "LostProcess",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "ResidualMLP",
    "SNConv2d",
    "SNEmbedding",
    "SNLinear",
    "SelfAttention",
    "advance_power_iteration",
    "all_reduce",
    "all_rows",
    "alone",
    "barrier",
    "batch_norms",
    "copy_from_main",
    "initialise",
    "joined_rows",
    "own_rows",
    "pixel_norm",
    "place_of_attention",
    "rank",
    "record_statistics",
    "set_folded",
    "spectral_layers",
    "split_size",
    "upsampled_conv",
    "world_size",
]
