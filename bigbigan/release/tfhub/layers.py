"""Find layers in a graph of single operations: convolutions, linear layers, batch norms, and what lies between them.

What an operation is called, and in which order a batch norm's arithmetic is written, does not matter: names are not
looked at, and a chain of additions and multiplications is understood by computing it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.release.tfhub.interpreter import VALUE, VARIABLES, Interpreter, key, split
from bigbigan.release.tfhub.operations import integers, window
from bigbigan.release.tfhub.saved_model import Node

AFFINE = {"Add", "AddV2", "Sub", "Mul", "RealDiv", "Div", "BiasAdd", "FusedBatchNorm", "FusedBatchNormV2",
          "FusedBatchNormV3"}  # fmt: skip
SUMS = {"Add", "AddV2", "AddN"}
ROOTS = {"Rsqrt", "Sqrt", "Pow"}
WHOLE = {"AddN", "MatMul", "BatchMatMul", "BatchMatMulV2", "Pack", "Maximum", "Minimum", *AFFINE}  # all inputs matter


@dataclass(eq=False)
class Part:
    """A piece of a network that ends in `tensor`.

    kind: "input", "conv", "linear", "norm" (batch norm), "relu", "add" (of two maps), "concat", "slice" (of the last
        axis), "scale" (by a variable of one number), "other" (anything else).
    inputs: the tensors that it takes.  op: the operation, of "other".
    weight, bias: of "conv" and "linear", as names of tensors.  core: "conv" or "linear" before the bias is added.
    norm: of "norm".  start, stop: of "slice".
    """

    kind: str
    tensor: str
    inputs: tuple[str, ...] = ()
    op: str = ""
    weight: str = ""
    bias: str = ""
    core: str = ""
    norm: "Norm | None" = None
    start: int = 0
    stop: int = 0


@dataclass(eq=False)
class Norm:
    """A batch norm's numbers, (C,) each, and the tensors of gain and bias where a condition decides them.

    gain, offset: the linear layers' tensors in a conditional batch norm, with gain 1 + W c; else "".
    """

    mean: Tensor
    var: Tensor
    eps: float
    weight: Tensor
    bias: Tensor
    gain: str = ""
    offset: str = ""
    variables: list[str] = field(default_factory=list)


class Layers:
    """The parts of a graph, found on demand from a tensor's name.

    shapes: of the tensors that vary, for the inputs of a run; (N, H, W, C) for images.
    """

    def __init__(self, interpreter: Interpreter, shapes: dict[str, tuple[int, ...]]):
        self.graph, self.shapes = interpreter, shapes
        self._parts: dict[str, Part] = {}
        self._seen_through: dict[str, bool] = {}

    def part(self, tensor: str) -> Part:
        """Return the part that ends in this tensor."""
        tensor = self.graph.canonical(tensor)
        if tensor not in self._parts:
            self._parts[tensor] = self._find(tensor)
        return self._parts[tensor]

    def shape(self, tensor: str) -> tuple[int, ...]:
        return self.shapes[key(self.graph.canonical(tensor))]

    def behind(self, tensor: str, passed: list[Part] | None = None) -> Part:
        """Return the nearest part before this tensor that is a layer, a sum, a concatenation, a slice or an input.

        passed: the activations, pools, reshapes and the like in between are appended to it.
        """
        part = self.part(tensor)
        while self._transparent(part):
            if passed is not None:
                passed.append(part)
            part = self.part(part.inputs[0])
        return part

    def _transparent(self, part: Part) -> bool:
        """Return whether a part has no layer of its own: an activation, a pool, a sum of slices of one map."""
        if part.tensor not in self._seen_through:
            several = part.kind in ("other", "add") and len(part.inputs) > 1
            self._seen_through[part.tensor] = (
                part.kind == "relu"
                or (part.kind == "other" and len(part.inputs) == 1)
                or (several and len({id(self.behind(i)) for i in part.inputs}) == 1)
            )
        return self._seen_through[part.tensor]

    def _find(self, tensor: str) -> Part:
        node = self.graph.node(tensor)
        if not node.inputs:
            return Part("input", tensor)
        varying = tuple(self.graph.canonical(i) for i in node.inputs if self.graph.varies(i))
        if node.op == "Conv2D" and not self.graph.varies(node.inputs[1]):
            return Part("conv", tensor, varying, weight=node.inputs[1], core=tensor)
        if node.op == "MatMul" and self.graph.varies(node.inputs[0]) and not self.graph.varies(node.inputs[1]):
            return Part("linear", tensor, varying, weight=node.inputs[1], core=tensor)
        if node.op == "Relu":
            return Part("relu", tensor, varying)
        if node.op in ("Concat", "ConcatV2"):
            return Part("concat", tensor, varying)
        if node.op in ("Split", "SplitV", "Slice", "StridedSlice"):
            return self._slice(node, tensor)
        if node.op in SUMS and len(varying) == 2 and self.shape(varying[0]) == self.shape(varying[1]):
            return Part("add", tensor, varying)
        if node.op in AFFINE:
            found = self._norm(tensor) or self._bias_or_scale(node, tensor)
            if found:
                return found
        return Part("other", tensor, varying if node.op in WHOLE else varying[:1], op=node.op)

    def _slice(self, node: Node, tensor: str) -> Part:
        """Return a range of the last axis as a slice; a part of a concatenation as that part itself."""
        x = self.graph.canonical(next(i for i in node.inputs if self.graph.varies(i)))
        source, shape = self.part(x), self.shape(x)
        labels = torch.arange(shape[-1], dtype=VALUE).expand(shape)
        taken = self.graph.run([tensor], {x: labels})[0]
        first = taken.flatten()[0]
        width = taken.shape[-1] if taken.ndim == len(shape) and taken.shape[:-1] == shape[:-1] else 0
        if not width or not torch.equal(taken, (first + torch.arange(width, dtype=VALUE)).expand(taken.shape)):
            return Part("other", tensor, (x,), op=node.op)
        start, stop = int(first), int(first) + width
        at = 0
        for piece in source.inputs if source.kind == "concat" else ():
            if (at, at + self.shape(piece)[-1]) == (start, stop):
                return self.part(piece)
            at += self.shape(piece)[-1]
        return Part("slice", tensor, (x,), start=start, stop=stop)

    def _operands(self, node: Node) -> tuple[str, list[str]] | None:
        """Return the one operand of an affine operation that has the result's size, and the others; None if none."""
        shape = self.shape(f"{node.name}:0")
        full = [i for i in node.inputs if self.graph.varies(i) and self.shape(i) == shape]
        if len(full) != 1 or (node.op in ("Sub", "RealDiv", "Div") and full[0] != node.inputs[0]):
            return None
        others = list(node.inputs)
        others.remove(full[0])
        return self.graph.canonical(full[0]), others

    def _bias_or_scale(self, node: Node, tensor: str) -> Part | None:
        """Return a layer with its bias, or a scale by one variable number; None for other arithmetic."""
        found = self._operands(node)
        if found is None or any(self.graph.varies(side) for side in found[1]):
            return None
        x, (side,) = found
        below = self.graph.node(x)
        if node.op in ("Add", "AddV2", "BiasAdd") and below.op in ("Conv2D", "MatMul"):
            layer = self.part(x)
            if layer.kind in ("conv", "linear") and self.graph.leaves(side):
                return Part(layer.kind, tensor, layer.inputs, weight=layer.weight, bias=side, core=x)
        if node.op == "Mul" and self.graph.leaves(side) and self.graph.constant(side).numel() == 1:
            return Part("scale", tensor, (x,), weight=side)
        return None

    def _norm(self, tensor: str) -> Part | None:
        """Return the batch norm that ends here; None if this chain of affine operations divides by no root."""
        chain, x = [], tensor  # (operation, its other operands) from the result down
        while self.graph.node(x).op in AFFINE:
            found = self._operands(self.graph.node(x))
            if found is None:
                break
            chain.append((self.graph.node(x), found[0], found[1]))
            x = found[0]
        rooted = [i for i, (node, _, sides) in enumerate(chain) if self._root(node, sides)]
        if not rooted:
            return None
        last = rooted[-1]
        if last + 1 < len(chain) and chain[last + 1][0].op == "Sub":  # (x − mean) stands below the division
            last += 1
        x = chain[last][1]
        sides = [side for _, _, others in chain[: last + 1] for side in others]
        root = self._root(chain[rooted[-1]][0], chain[rooted[-1]][2])
        return Part("norm", tensor, (x,), norm=self._numbers(tensor, x, sides, root))

    def _root(self, node: Node, sides: list[str]) -> tuple[Tensor, float, list[str]] | None:
        """Return (variance, eps, variables) of the root that these operands hold; None without any."""
        if node.op.startswith("FusedBatchNorm"):  # of stored statistics, or the graph could not have been computed
            var = node.inputs[4]
            return self.graph.constant(var).flatten(), node.attributes["epsilon"], self.graph.leaves(var)
        roots = {n.name: n for n in self._near(sides) if n.op in ROOTS and self._is_variance(n)}
        if any(self.graph.varies(name) for name in roots):
            raise ConversionError(f"{node.name}: expected a batch norm of stored statistics, found one of its batch's")
        if not roots:
            return None
        if len(roots) > 1:
            raise ConversionError(f"{node.name}: expected a batch norm with one root, found {', '.join(sorted(roots))}")
        (inside,) = (self.graph.node(root.inputs[0]) for root in roots.values())
        inside = self.graph.node(self.graph.canonical(f"{inside.name}:0"))
        for eps, var in (inside.inputs[::-1], inside.inputs) if inside.op in SUMS else ():
            if not self.graph.leaves(eps) and self.graph.constant(eps).numel() == 1:
                return self.graph.constant(var).flatten(), float(self.graph.constant(eps)), self.graph.leaves(var)
        var = self.graph.constant(f"{inside.name}:0").flatten()
        return var, 0.0, self.graph.leaves(inside.name)

    def _near(self, sides: list[str]) -> list[Node]:
        """Return the operations that these operands are computed from, not looking behind layers of the network."""
        found: dict[str, Node] = {}
        stack = list(sides)
        while stack:
            node = self.graph.node(stack.pop())
            layer = node.op in ("Conv2D", "MatMul") and self.graph.varies(node.name)
            if node.name not in found and not layer:
                found[node.name] = node
                stack += node.inputs
        return list(found.values())

    def _is_variance(self, root: Node) -> bool:
        """Return whether a root is that of a batch norm; those of spectral norm are of a product of matrices."""
        inside = self._near(root.inputs[:1])
        return not any(n.op == "MatMul" for n in inside) and any(n.op in VARIABLES or n.op == "Mean" for n in inside)

    def _numbers(self, tensor: str, x: str, sides: list[str], root: tuple[Tensor, float, list[str]]) -> Norm:
        """Compute what a batch norm's arithmetic does: out = scale · x + shift, as functions of what it takes."""
        var, eps, of_variance = root
        channels = self.shape(x)[-1]
        conditions = self._conditions(sides)
        zeros = {c: torch.zeros(1, self.shape(c)[-1], dtype=VALUE) for c in conditions}
        scale, shift = self._line(tensor, x, zeros)
        if len(var) != channels:
            raise ConversionError(f"{split(tensor)[0]}: expected {channels} variances, found {len(var)}")
        weight = scale * (var + eps).sqrt()
        gain, offset = self._roles(tensor, x, zeros, scale, shift)
        bias, mean = torch.zeros_like(shift), None
        variables = self.graph.leaves(*[s for s in sides if not self.graph.varies(s)], *self._constants_beside(sides))
        for name, node in self._variable_nodes(sides):
            if name in of_variance or self.graph.read(name).numel() != channels:
                continue
            value = self.graph.read(name)
            moved = self._line(tensor, x, zeros | {f"{node}:0": value + 1})
            if torch.allclose(moved[0], scale, rtol=1e-9, atol=1e-12):
                by = moved[1] - shift
                if torch.allclose(by, torch.ones_like(by)):
                    bias = value.flatten()
                elif torch.allclose(by, -scale):
                    mean = value.flatten()
        if mean is None:  # it is computed from several variables
            mean = torch.where(scale == 0, 0.0, (bias - shift) / torch.where(scale == 0, 1.0, scale))
        exact = torch.allclose(shift, bias - mean * scale, rtol=1e-6, atol=1e-9)
        if not exact:
            raise ConversionError(
                f"{split(tensor)[0]}: expected (x − mean) / √(var + eps) · gain + bias, found another"
            )
        return Norm(mean, var, eps, weight, bias, gain, offset, sorted({*variables, *of_variance}))

    def _line(self, tensor: str, x: str, feeds: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return (scale, shift) of out = scale · x + shift, (C,) each, with these values of other tensors."""
        rank, channels = len(self.shape(x)), self.shape(x)[-1]
        zeros = torch.zeros([1] * (rank - 1) + [channels], dtype=VALUE)
        (shift,), (sum_,) = (self.graph.run([tensor], feeds | {x: value}) for value in (zeros, zeros + 1))
        return (sum_ - shift).flatten(), shift.flatten()

    def _conditions(self, sides: list[str]) -> list[str]:
        """Return the linear layers nearest to these operands whose results they depend on."""
        found: dict[str, None] = {}
        for side in sides:
            stack, seen = [side] if self.graph.varies(side) else [], set()
            while stack:
                tensor = self.graph.canonical(stack.pop())
                if tensor in seen:
                    continue
                seen.add(tensor)
                part = self.part(tensor) if self.graph.node(tensor).op in ("MatMul", *AFFINE) else None
                if part is not None and part.kind == "linear":
                    found[tensor] = None
                else:
                    stack += [i for i in self.graph.node(tensor).inputs if self.graph.varies(i)]
        return list(found)

    def _roles(self, tensor: str, x: str, zeros: dict, scale: Tensor, shift: Tensor) -> tuple[str, str]:
        """Return which of the linear layers is the gain, and which the bias, of a conditional batch norm."""
        gain = offset = ""
        for condition in zeros:
            moved = self._line(tensor, x, zeros | {condition: zeros[condition] + 1})
            if torch.allclose(moved[0], 2 * scale):
                gain = condition
            elif torch.allclose(moved[0], scale) and torch.allclose(moved[1], shift + 1):
                offset = condition
            else:
                raise ConversionError(
                    f"{split(tensor)[0]}: expected a conditional batch norm x̂ · (1 + W c) + V c, found another use of "
                    f"{split(condition)[0]}"
                )
        if bool(gain) != bool(offset) or len(zeros) > 2:
            raise ConversionError(
                f"{split(tensor)[0]}: expected a gain and a bias from the condition, found {len(zeros)} linear layers"
            )
        return gain, offset

    def _constants_beside(self, sides: list[str]) -> list[str]:
        """Return the constant tensors between these operands and the linear layers that they depend on."""
        conditions, found = set(self._conditions(sides)), []
        stack = [side for side in sides if self.graph.varies(side)]
        while stack:
            tensor = self.graph.canonical(stack.pop())
            if tensor not in conditions:
                for i in self.graph.node(tensor).inputs:
                    (stack if self.graph.varies(i) else found).append(i)
        return found

    def _variable_nodes(self, sides: list[str]) -> list[tuple[str, str]]:
        """Return (variable, node) of the variables that these operands are computed from, behind no linear layer."""
        constants = [s for s in sides if not self.graph.varies(s)] + self._constants_beside(sides)
        nodes = [n for s in constants for n in self.graph.ancestors(s) if n.op in VARIABLES]
        return list({n.name: (self.graph.variable(n), n.name) for n in nodes}.values())

    def padding(self, part: Part) -> tuple[str, tuple[int, ...], int]:
        """Return how a convolution or pool pads.

        (Its input before any explicit padding, pixels added (left, right, top, bottom), height of that input.)
        """
        node, x = self.graph.node(part.core or part.tensor), part.inputs[0]
        kernel = tuple(self.graph.constant(part.weight).shape[:2]) if part.weight else node.attributes["ksize"][1:3]
        _, own = window(node, torch.empty(self.shape(x), device="meta"), kernel)
        below, explicit = self.graph.node(x), [0, 0, 0, 0]
        if below.op in ("Pad", "PadV2"):
            pads = integers(self.graph.constant(below.inputs[1]))
            explicit, x = [pads[4], pads[5], pads[2], pads[3]], self.graph.canonical(below.inputs[0])
        return x, tuple(a + b for a, b in zip(explicit, own, strict=True)), self.shape(x)[1]
