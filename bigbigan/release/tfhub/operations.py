"""Compute TensorFlow's operations, as far as BigBiGAN's graphs have them, with torch, in TensorFlow's layout.

Each takes its node and its inputs, and returns a tensor, or a tuple for several outputs. Images are (N, H, W, C).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.release.tfhub.saved_model import Node

PASSING = {"Identity", "StopGradient", "PreventGradient", "Snapshot", "CheckNumerics", "ReadVariableOp", "EnsureShape",
           "PlaceholderWithDefault"}  # fmt: skip
RANDOM = {"RandomStandardNormal", "RandomUniform", "TruncatedNormal", "StatelessRandomNormal"}


def integers(tensor: Tensor) -> list[int]:
    return [int(number) for number in tensor.flatten().tolist()]


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many pixels TensorFlow's SAME adds before and after an axis of this size."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def window(node: Node, x: Tensor, kernel: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return a sliding window's strides (2) and padding (left, right, top, bottom), for x (N, H, W, C)."""
    check_layout(node)
    strides = node.attributes["strides"][1:3]
    if node.attributes["padding"] == "SAME":
        sides = [same_padding(x.shape[i + 1], kernel[i], strides[i]) for i in (1, 0)]
        return strides, [*sides[0], *sides[1]]
    explicit = node.attributes.get("explicit_paddings") or [0] * 8
    return strides, [explicit[4], explicit[5], explicit[2], explicit[3]]


def check_layout(node: Node) -> None:
    """Raise ConversionError for an operation on (N, C, H, W)."""
    layout = node.attributes.get("data_format") or "NHWC"
    if layout != "NHWC":
        raise ConversionError(f"{node.name}: expected images as NHWC, found {layout}")


def _conv(node: Node, x: Tensor, weight: Tensor) -> Tensor:
    strides, padding = window(node, x, weight.shape[:2])
    if (node.attributes.get("dilations") or [1, 1, 1, 1]) != [1, 1, 1, 1]:
        raise ConversionError(f"{node.name}: expected a convolution without dilation, found one")
    padded = F.pad(x.permute(0, 3, 1, 2), padding)
    return F.conv2d(padded, weight.permute(3, 2, 0, 1), stride=strides).permute(0, 2, 3, 1)


def _pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.attributes["ksize"][1:3]
    strides, padding = window(node, x, kernel)
    x = x.permute(0, 3, 1, 2)
    if node.op == "MaxPool":
        return F.max_pool2d(F.pad(x, padding, value=-torch.inf), kernel, strides).permute(0, 2, 3, 1)
    ones = F.pad(torch.ones_like(x[:1, :1]), padding)  # SAME divides by the pixels that are there
    summed = F.avg_pool2d(F.pad(x, padding), kernel, strides) / F.avg_pool2d(ones, kernel, strides)
    return summed.permute(0, 2, 3, 1)


def _resize(node: Node, x: Tensor, size: Tensor) -> Tensor:
    if any(node.attributes.get(name) for name in ("align_corners", "half_pixel_centers")):
        raise ConversionError(f"{node.name}: expected resizing without align_corners and half_pixel_centers")
    (rows, columns), (height, width) = integers(size), x.shape[1:3]
    y, z = torch.arange(rows) * height // rows, torch.arange(columns) * width // columns
    return x[:, y][:, :, z]


def _batch_norm(node: Node, x: Tensor, scale: Tensor, offset: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    check_layout(node)
    if node.attributes.get("is_training", True):
        raise ConversionError(f"{node.name}: expected a batch norm of stored statistics, found one of its batch's")
    return (x - mean) * (scale * (var + node.attributes["epsilon"]).rsqrt()) + offset


def _matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    turned = [node.attributes.get(name) for name in ("transpose_a", "transpose_b", "adj_x", "adj_y")]
    return (a.mT if turned[0] or turned[2] else a) @ (b.mT if turned[1] or turned[3] else b)


def _reduce(function: Callable) -> Callable:
    def reduce(node: Node, x: Tensor, axes: Tensor) -> Tensor:
        dims = integers(axes)
        return function(x, dims, bool(node.attributes.get("keep_dims"))) if dims else x

    return reduce


def _product(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        x = x.prod(dim, keepdim=keep)
    return x


def _strided_slice(node: Node, x: Tensor, begin: Tensor, end: Tensor, strides: Tensor) -> Tensor:
    masks = {name: int(node.attributes.get(f"{name}_mask") or 0) for name in
             ("begin", "end", "ellipsis", "new_axis", "shrink_axis")}  # fmt: skip
    index = []
    for i, (first, last, step) in enumerate(zip(integers(begin), integers(end), integers(strides), strict=True)):
        bit = 1 << i
        if masks["ellipsis"] & bit:
            index.append(Ellipsis)
        elif masks["new_axis"] & bit:
            index.append(None)
        elif masks["shrink_axis"] & bit:
            index.append(first)
        elif step < 0:
            raise ConversionError(f"{node.name}: expected a slice with steps above 0, found {step}")
        else:
            index.append(slice(None if masks["begin"] & bit else first, None if masks["end"] & bit else last, step))
    return x[tuple(index)]


def _slice(node: Node, x: Tensor, begin: Tensor, size: Tensor) -> Tensor:
    for dim, (first, length) in enumerate(zip(integers(begin), integers(size), strict=True)):
        x = x.narrow(dim, first, x.shape[dim] - first if length < 0 else length)
    return x


def _pad(node: Node, x: Tensor, paddings: Tensor, value: Tensor | None = None) -> Tensor:
    flat = [side for pair in reversed(paddings.tolist()) for side in pair]
    return F.pad(x, [int(side) for side in flat], value=0.0 if value is None else float(value))


def _squeeze(node: Node, x: Tensor) -> Tensor:
    dims = node.attributes.get("squeeze_dims") or [i for i, size in enumerate(x.shape) if size == 1]
    return x.squeeze(tuple(dims))


def _elementwise(function: Callable) -> Callable:
    return lambda node, *inputs: function(*inputs)


def _unpack(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    return x.unbind(int(node.attributes.get("axis") or 0))


def _gather(node: Node, x: Tensor, index: Tensor, axis: Tensor | None = None) -> Tensor:
    dim = 0 if axis is None else int(axis)
    picked = x.index_select(dim, index.flatten().long())
    return picked.reshape(*x.shape[:dim], *index.shape, *x.shape[dim + 1 :])


def _one_hot(node: Node, index: Tensor, depth: Tensor, on: Tensor, off: Tensor) -> Tensor:
    return torch.where(F.one_hot(index.long(), int(depth)).bool(), on, off)


def _cast(node: Node, x: Tensor) -> Tensor:
    """Cast numbers to integers or booleans; floats keep the precision of the computation, whatever the graph's is."""
    target = {3: torch.int32, 9: torch.int64, 10: torch.bool}.get(node.attributes.get("DstT"))
    if target:
        return x.to(target)
    return x if x.is_floating_point() else x.to(torch.float64)


OPERATIONS: dict[str, Callable] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(torch.add),
    "AddN": _elementwise(lambda *xs: sum(xs[1:], xs[0])),
    "AddV2": _elementwise(torch.add),
    "AvgPool": _pool,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BiasAdd": lambda node, x, bias: check_layout(node) or x + bias,
    "BroadcastTo": lambda node, x, size: x.expand(integers(size)),
    "Cast": _cast,
    "Concat": lambda node, axis, *xs: torch.cat(xs, int(axis)),
    "ConcatV2": lambda node, *xs: torch.cat(xs[:-1], int(xs[-1])),
    "Conv2D": _conv,
    "Div": _elementwise(torch.div),
    "Equal": _elementwise(torch.eq),
    "Exp": _elementwise(torch.exp),
    "ExpandDims": lambda node, x, axis: x.unsqueeze(int(axis)),
    "Fill": lambda node, size, value: value.expand(integers(size)),
    "FloorDiv": _elementwise(lambda a, b: torch.div(a, b, rounding_mode="floor")),
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "Gather": _gather,
    "GatherV2": _gather,
    "Greater": _elementwise(torch.gt),
    "GreaterEqual": _elementwise(torch.ge),
    "IdentityN": lambda node, *xs: tuple(xs),
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.attributes.get("alpha") or 0.2),
    "Less": _elementwise(torch.lt),
    "LessEqual": _elementwise(torch.le),
    "Log": _elementwise(torch.log),
    "Log1p": _elementwise(torch.log1p),
    "LogicalAnd": _elementwise(torch.logical_and),
    "LogicalNot": _elementwise(torch.logical_not),
    "LogicalOr": _elementwise(torch.logical_or),
    "MatMul": _matmul,
    "Max": _reduce(lambda x, dims, keep: x.amax(dims, keep)),
    "MaxPool": _pool,
    "Maximum": _elementwise(torch.maximum),
    "Mean": _reduce(lambda x, dims, keep: x.mean(dims, keep)),
    "Minimum": _elementwise(torch.minimum),
    "Mul": _elementwise(torch.mul),
    "Neg": _elementwise(torch.neg),
    "NotEqual": _elementwise(torch.ne),
    "OneHot": _one_hot,
    "OnesLike": _elementwise(torch.ones_like),
    "Pack": lambda node, *xs: torch.stack(xs, int(node.attributes.get("axis") or 0)),
    "Pad": _pad,
    "PadV2": _pad,
    "Pow": _elementwise(torch.pow),
    "Prod": _reduce(_product),
    "Range": lambda node, first, last, step: torch.arange(int(first), int(last), int(step)),
    "Rank": lambda node, x: torch.tensor(x.ndim),
    "RealDiv": _elementwise(torch.div),
    "Reciprocal": _elementwise(torch.reciprocal),
    "Relu": _elementwise(torch.relu),
    "Reshape": lambda node, x, size: x.reshape(integers(size)),
    "ResizeNearestNeighbor": _resize,
    "Rsqrt": _elementwise(torch.rsqrt),
    "Select": _elementwise(torch.where),
    "SelectV2": _elementwise(torch.where),
    "Shape": lambda node, x: torch.tensor(x.shape),
    "Sigmoid": _elementwise(torch.sigmoid),
    "Size": lambda node, x: torch.tensor(x.numel()),
    "Slice": _slice,
    "Softmax": _elementwise(lambda x: x.softmax(-1)),
    "Softplus": _elementwise(lambda x: F.softplus(x, threshold=50)),
    "Split": lambda node, axis, x: x.chunk(int(node.attributes["num_split"]), int(axis)),
    "SplitV": lambda node, x, sizes, axis: x.split(integers(sizes), int(axis)),
    "Sqrt": _elementwise(torch.sqrt),
    "Square": _elementwise(torch.square),
    "SquaredDifference": _elementwise(lambda a, b: (a - b).square()),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sub": _elementwise(torch.sub),
    "Sum": _reduce(lambda x, dims, keep: x.sum(dims, keep)),
    "Tanh": _elementwise(torch.tanh),
    "Tile": lambda node, x, times: x.tile(integers(times)),
    "Transpose": lambda node, x, order: x.permute(integers(order)),
    "Unpack": _unpack,
    "ZerosLike": _elementwise(torch.zeros_like),
} | dict.fromkeys(PASSING, _elementwise(lambda x: x))  # fmt: skip
