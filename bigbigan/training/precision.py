"""Say what bf16 costs on a CPU without instructions for it, and refuse it where a CPU computes it wrongly."""

import platform
import time

import torch
from accelerate import Accelerator
from torch import nn

from bigbigan.data import to_signed
from bigbigan.errors import ConfigError
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import WindowConv2d
from bigbigan.training.outline import outline_images

CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch's; without both, bf16 is emulated on x86
SIZE = 512  # rows and columns of the matrices whose products are timed
LIMIT = 0.4  # seconds after which no further round begins


def cpu_has_bf16() -> bool:
    """Return whether this processor has instructions for products in bf16; True where torch cannot tell."""
    checks = [getattr(torch.cpu, name) for name in CHECKS if hasattr(torch.cpu, name)]
    known = platform.machine().lower() in ("x86_64", "amd64") and checks
    return not known or any(check() for check in checks)


def precision_name(precision: str) -> str:
    """Return our name of Accelerate's precision: "no" is float32."""
    return "float32" if precision == "no" else precision


def device_name(accelerator: Accelerator) -> str:
    """Return the kind of device and the precision that a process computes on and in, as "cpu, float32"."""
    return f"{accelerator.device.type}, {precision_name(accelerator.mixed_precision)}"


@torch.no_grad()
def slowdown(size: int = SIZE) -> float:
    """Measure in under a second how many times as long a product of matrices takes in bf16 as in float32, on this CPU.

    size: rows and columns of the matrices.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    begun, rounds = time.perf_counter(), 0
    while rounds < 2 or (rounds < 10 and time.perf_counter() - begun < LIMIT):
        for dtype in best:
            a = torch.ones(size, size, dtype=dtype)
            started = time.perf_counter()
            a @ a
            best[dtype] = min(best[dtype], time.perf_counter() - started)
        rounds += 1
    return best[torch.bfloat16] / best[torch.float32]


def bf16_note(device: torch.device, precision: str) -> str:
    """Return what bf16 costs on this CPU, for the start block; "" on another device, in float32, or where it is fast.

    precision: Accelerate's name.
    """
    if device.type != "cpu" or precision != "bf16" or cpu_has_bf16():
        return ""
    return (
        f"; this processor has no instructions for bf16, whose products take {slowdown():.1f} times as long as "
        "float32's here: --run.precision float32"
    )


def check_convolutions(model: BigBiGAN, device: torch.device, precision: str) -> None:
    """Raise ConfigError for a run in bf16 on a CPU whose encoder has a convolution with a stride larger than its map.

    The gradients of such a convolution, 3×3 with stride 2 on a 1×1 map say, are wrong or infinite there in most calls
    (torch 2.14 with oneDNN); those in float32 are right.  precision: Accelerate's name.
    """
    if device.type == "cpu" and precision == "bf16" and (name := strided_beyond_map(model)):
        raise ConfigError(
            f"--run.precision bf16: expected convolutions with strides up to the size of their maps, since a CPU's "
            f"gradients of others are wrong in bf16, found {name}; train with --run.precision float32, larger images "
            "or an encoder that halves them less often"
        )


@torch.no_grad()
def strided_beyond_map(model: BigBiGAN) -> str:
    """Return the first convolution of E whose stride is larger than its map, and both, as a phrase; "" without one.

    Kernels of 1×1 are left out, whose gradients are right, and layers without padding of their own: what pads its map
    beforehand, as timm's Conv2dSame does, computes on a larger one.
    """
    if model.encoder is None:
        return ""
    found: list[str] = []

    def look(name: str):
        def hook(layer: nn.Conv2d, inputs) -> None:
            stride, sides = max(layer.stride), inputs[0].shape[-2:]
            padded = isinstance(layer.padding, str) or any(layer.padding)
            whole = isinstance(layer, WindowConv2d) and layer.gives_one_place(sides)  # computed without a stride
            if padded and not whole and max(layer.kernel_size) > 1 and stride > min(sides):
                found.append(f"stride {stride} on {sides[0]}×{sides[1]} in encoder.{name}")

        return hook

    layers = [(name, layer) for name, layer in model.encoder.named_modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_pre_hook(look(name)) for name, layer in layers]
    try:
        x = to_signed(outline_images(model, 2, torch.device("cpu")).x)
        model.encoder(model.generator.prepare(x))  # at the size of a growing network
    finally:
        for hook in hooks:
            hook.remove()
    return next(iter(found), "")
