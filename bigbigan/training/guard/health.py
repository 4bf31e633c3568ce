"""Are losses, gradients and weights finite? Judged on the device; the host reads the answer without waiting for it.

It costs one norm a tensor. A norm is not finite if an entry is not, or if the squares of the entries overflow.

All gradients are judged before they are used. Of the weights only those are judged whose NaN would not show in the next
loss: not spectrally normalised ones, whose σ would not be finite, and not convolutions of E, whose batch norm would not
be. But a WindowConv2d may leave out a part of its kernel, so it is judged.
"""

import math
from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bigbigan.distributed import ScalarReader
from bigbigan.networks.layers import WindowConv2d, spectral_layers


class Judgement(NamedTuple):
    """The norms of one update.

    values: names of reported numbers.  parameters: whose gradients or weights (`kind`) come after them.
    norms: one per entry of `values`, then one per parameter.  broken: 1.0 if any norm is not finite.  Both on the
    device.
    """

    values: list[str]
    kind: str
    parameters: list[nn.Parameter]
    norms: Tensor
    broken: Tensor


class Health:
    """Judges the updates of an iteration. Processes with equal gradients, weights and values judge alike."""

    def __init__(self, model: nn.Module):
        self.model, self.names = model, {parameter: name for name, parameter in model.named_parameters()}
        normalised = {layer.weight for layer in spectral_layers(model)}
        windows = {layer.weight for layer in model.modules() if isinstance(layer, WindowConv2d)}
        self.hiding = [p for p in self.names if p not in normalised and (p.ndim < 4 or p in windows)]
        self.judged: deque[Judgement] = deque(maxlen=64)  # since the last look at them
        self.reader = ScalarReader()

    @torch.no_grad()
    def judge_gradients(self, parameters: list[nn.Parameter], values: dict[str, Tensor]) -> Tensor:
        """Return 1.0 if a gradient or a value is not finite, else 0.0: the float32 tensor that a fused optimiser takes.

        values: 0-dim numbers by name, such as the loss.
        """
        parameters = [p for p in parameters if p.grad is not None]
        norms = torch._foreach_norm([p.grad for p in parameters])
        return self._judge(list(values), "gradient", parameters, [*values.values(), *norms])

    @torch.no_grad()
    def judge_weights(self) -> None:
        """Judge the weights whose NaN would not show in the next loss."""
        self._judge([], "weight", self.hiding, torch._foreach_norm(self.hiding))

    def _judge(self, values: list[str], kind: str, parameters: list[nn.Parameter], norms: list[Tensor]) -> Tensor:
        together = torch.stack(norms)
        total = together.sum()
        broken = (total - total).ne(0).float()  # of a number that is not finite the difference to itself is NaN
        self.judged.append(Judgement(values, kind, parameters, together, broken))
        return broken

    def found(self, wait: bool = True) -> str:
        """Return what was not finite in this iteration, in words, or "".

        Off the CPU and without `wait`, the answer is that of the iteration before.
        """
        judged = list(self.judged)
        self.judged.clear()
        none = torch.zeros((), device=next(self.model.parameters()).device)
        broken = torch.stack([j.broken for j in judged]).sum() if judged else none
        known = self.reader.push(broken.reshape(1), judged, wait)
        broken = any(number for number, _ in known)
        return self._describe([j for _, judged in known for j in judged]) if broken else ""

    def forget(self) -> None:
        """Drop all judgements: what follows starts from another state."""
        self.judged.clear()
        self.reader = ScalarReader()

    def _describe(self, judged: list[Judgement]) -> str:
        """Name the tensor that was not finite first, and count the others.

        A weight comes before everything, since it spoils the rest; then values, in their order; else the gradient
        nearest the loss, the last of its network, since a backward pass carries it from there to the layers before.
        """
        found: dict[str, list[tuple[str, float]]] = {"weight": [], "value": [], "gradient": []}
        for j in judged:
            names = [("value", name) for name in j.values]
            names += [(j.kind, f"the {j.kind} of {self.names[p]}") for p in j.parameters]
            for (kind, name), norm in zip(names, j.norms.tolist(), strict=True):
                if not math.isfinite(norm):
                    found[kind].append((name, norm))
        count = sum(map(len, found.values()))
        if weight := unsound(dict(self.model.named_parameters())):
            return f"the weight {weight}, with {count} values and gradients after it, is not finite"
        name, norm = (found["value"] or found["gradient"][-1:] or [("the sum of all norms", math.inf)])[0]
        return f"{name}{f', with {count - 1} others,' if count > 1 else ''} became {norm}"


def unsound(tensors: dict[str, Tensor]) -> str:
    """Return the name of the first tensor that is not finite, "" if all are finite. Waits for the device."""
    tensors = {name: t for name, t in tensors.items() if t.is_floating_point()}
    norms = torch.stack([norm.float() for norm in torch._foreach_norm(list(tensors.values()))]).tolist()
    return next((name for name, norm in zip(tensors, norms, strict=True) if not math.isfinite(norm)), "")
