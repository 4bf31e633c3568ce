"""`torch.compile` for the two updates, used only after its gradients were compared with eager ones."""

import math

import torch
from torch import Tensor, nn

from bigbigan.distributed import all_reduce
from bigbigan.errors import CompilationError, LostProcess
from bigbigan.networks.layers import record_statistics
from bigbigan.training.batch import Batch
from bigbigan.training.step import Step

# Of the gradient's norm. Compilers have been wrong by 0.18 and more; rounding in float32 stays below 1e-5.
TOLERANCE = 1e-3
ROUNDING = 2.0  # a compiled bf16 gradient may be that many times as far from the float32 one as the eager bf16 one is


def compile_step(step: Step, batch: Batch, mode: str) -> str:
    """Compile `step` and return a sentence on how its gradients compare; raises CompilationError where they differ.

    batch: one of the run's.  The compiled gradient of every network, at the precision of the run, is compared with the
    eager one in float32. It may differ by TOLERANCE of its norm, and by ROUNDING times the difference of the eager
    gradient at that precision. Weights, buffers and optimisers stay as they were.
    """
    part = next(batch.chunks(step.chunks))
    autocast = step.autocast
    step.autocast = lambda: torch.autocast(batch.x.device.type, enabled=False)
    exact = gradients(step, part)
    step.autocast = autocast
    eager = gradients(step, part)
    step.compile(mode)
    try:
        compiled = gradients(step, part)
    except LostProcess:
        raise
    except Exception as error:  # compilers fail in many ways
        reason = str(error).strip().splitlines()[0]
        raise CompilationError(
            f"torch.compile failed with {type(error).__name__}: {reason}; train with --run.compile off"
        ) from error
    found = {name: (difference(compiled[name], g), difference(eager[name], g)) for name, g in exact.items()}
    wrong = [name for name, (ours, rounding) in found.items() if not ours <= TOLERANCE + ROUNDING * rounding]
    text = ", ".join(f"{name} {ours:.1e} (eager {rounding:.1e})" for name, (ours, rounding) in found.items())
    if all_reduce(torch.tensor([float(len(wrong))], device=batch.x.device)).item():
        raise CompilationError(
            "expected the gradients of the compiled updates to be those of the eager ones, found them away from eager "
            f"float32 by {text}, relative to their norms; train with --run.compile off"
        )
    return f"{mode}; its gradients differ from eager float32 by {text}"


def gradients(step: Step, part: Batch) -> dict[str, list[Tensor]]:
    """Return {"D", "E", "G": gradients of its parameters} for one chunk, each in the update that moves the network."""
    model = step.model
    model.discriminator.requires_grad_(True)
    with step.autocast(), record_statistics(model.discriminator):  # as in the update, whose graph this is to be
        loss = step.discriminator_forward(part)[0]
    loss.backward()
    found = {"D": _take(model.discriminator)}
    model.discriminator.requires_grad_(False)
    with step.autocast(), record_statistics(model.encoder):
        loss = step.encoder_generator_forward(part)[0]
    loss.backward()
    found |= {} if model.encoder is None else {"E": _take(model.encoder)}
    return found | {"G": _take(model.generator)}


def _take(network: nn.Module) -> list[Tensor]:
    """Return the gradients of `network`, zeros where there are none, and drop them."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in network.parameters()]
    network.zero_grad(set_to_none=True)
    return found


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    """Return ‖a − b‖/‖b‖ over all tensors together."""
    apart = _square_sum([x - y for x, y in zip(a, b, strict=True)])
    return math.sqrt(apart / max(_square_sum(b), 1e-30))


def _square_sum(tensors: list[Tensor]) -> float:
    """Return the sum of all squares. A sum is in float64 once it is on the host; not all devices have that."""
    return float(torch.stack([t.float().square().sum() for t in tensors]).cpu().double().sum())
