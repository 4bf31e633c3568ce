"""Parts the networks are made of."""

from bigbigan.layers.blocks import DiscriminatorBlock, GeneratorBlock, ResidualMLP, SelfAttention
from bigbigan.layers.collectives import (
    LostProcess,
    all_reduce,
    all_rows,
    alone,
    average_gradients,
    barrier,
    copy_from_main,
    joined_rows,
    own_rows,
    rank,
    world_size,
)
from bigbigan.layers.deep_blocks import DeepDiscriminatorBlock, DeepGeneratorBlock, is_deep
from bigbigan.layers.devices import Later, compute_now, to_device
from bigbigan.layers.equalised import (
    ChannelLayerNorm,
    EqualisedConv2d,
    EqualisedLinear,
    MinibatchDiscrimination,
    MinibatchStddev,
    pixel_norm,
)
from bigbigan.layers.norm import (
    ConditionalBatchNorm,
    CrossReplicaBatchNorm,
    StatisticsRecorder,
    batch_norms,
    of_classes,
    record_statistics,
    unrecorded,
)
from bigbigan.layers.orthogonal import add_orthogonal_gradient, orthogonal_penalty
from bigbigan.layers.resampling import pool_to, set_folded, upsampled_conv
from bigbigan.layers.sizes import place_of_attention, split_size
from bigbigan.layers.spectral import (
    SNConv2d,
    SNEmbedding,
    SNLinear,
    advance_power_iteration,
    clamp_sigma,
    initialise,
    spectral_layers,
)

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
    "Later",
    "LostProcess",
    "MinibatchDiscrimination",
    "MinibatchStddev",
    "ResidualMLP",
    "SNConv2d",
    "SNEmbedding",
    "SNLinear",
    "SelfAttention",
    "StatisticsRecorder",
    "add_orthogonal_gradient",
    "advance_power_iteration",
    "all_reduce",
    "all_rows",
    "alone",
    "average_gradients",
    "barrier",
    "batch_norms",
    "clamp_sigma",
    "compute_now",
    "copy_from_main",
    "initialise",
    "is_deep",
    "joined_rows",
    "orthogonal_penalty",
    "of_classes",
    "own_rows",
    "pixel_norm",
    "place_of_attention",
    "pool_to",
    "rank",
    "record_statistics",
    "set_folded",
    "spectral_layers",
    "split_size",
    "to_device",
    "unrecorded",
    "upsampled_conv",
    "world_size",
]
