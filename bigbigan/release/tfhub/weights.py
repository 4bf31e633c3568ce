"""Put the numbers of a module's layers into tensors of our networks' state dict, each variable once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bigbigan.errors import ConversionError
from bigbigan.release.tfhub.interpreter import Interpreter, split
from bigbigan.release.tfhub.layers import Norm, Part


class Weights:
    """Tensors under our names, and what each variable was used for.

    places: our module's name → the tensor in the graph that it computes, to compare the two.
    """

    def __init__(self, graph: Interpreter):
        self.graph = graph
        self.tensors: dict[str, Tensor] = {}
        self.used: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.without_bias: list[str] = []
        self.other_eps: dict[tuple[float, float], list[str]] = {}

    def claim(self, variables: list[str], place: str) -> None:
        """Note what variables are used for. Raises ConversionError for one that another place uses."""
        for name in variables:
            before = self.used.setdefault(name, place)
            if before != place:
                raise ConversionError(f"variable {name}: expected one use, found it in {before} and in {place}")

    def layer(
        self, name: str, part: Part, *, bias: bool, spectral: bool, rows: Tensor | None = None,
        columns: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Put a convolution or linear layer under our module's name.

        bias, spectral: whether our module has a bias, and spectral norm.
        rows, columns: order in which our module has the outputs, and the inputs of a linear layer.
        """
        value = self.graph.constant(part.weight)
        turned = bool(self.graph.node(part.core).attributes.get("transpose_b"))
        raw, sigma, others = self._raw(name, part.weight, value)
        weight = value if raw is None else raw
        weight = weight.permute(3, 2, 0, 1) if value.ndim == 4 else weight if turned else weight.T
        weight = weight if rows is None else weight[rows]
        weight = weight if columns is None else weight[:, columns]
        if spectral:
            starts = [v.flatten() if rows is None else v.flatten()[rows] for v in others if v.numel() == len(weight)]
            u, v = singular_vectors(weight.flatten(1), sigma, starts, name)
            self.tensors |= {f"{name}.u": u.float(), f"{name}.v": v.float()}
        else:
            weight = weight / sigma  # a weight that the graph normalises is kept as it is used
        self.tensors[f"{name}.weight"] = weight.float().contiguous()
        self._bias(name, part, bias, rows)
        self.claim(self.graph.leaves(part.weight), name)

    def _raw(self, name: str, tensor: str, value: Tensor) -> tuple[Tensor | None, Tensor, list[Tensor]]:
        """Return (variable, σ, other variables) with value = variable / σ."""
        variables = [self.graph.read(leaf) for leaf in self.graph.leaves(tensor)]
        for i, raw in enumerate(variables):
            if raw.numel() != value.numel():
                continue
            raw = raw.reshape(value.shape)
            sigma = raw.square().sum() / (raw * value).sum()
            if torch.allclose(raw / sigma, value, rtol=1e-6, atol=1e-12):
                return raw, sigma, variables[:i] + variables[i + 1 :]
        raise ConversionError(
            f"{name}: expected a weight, or a weight divided by one number, in {split(tensor)[0]}, found another "
            f"function of {', '.join(self.graph.leaves(tensor)) or 'constants'}"
        )

    def _bias(self, name: str, part: Part, wanted: bool, rows: Tensor | None) -> None:
        outputs = len(self.tensors[f"{name}.weight"])
        if not part.bias:
            if wanted:
                self.without_bias.append(name)
                self.tensors[f"{name}.bias"] = torch.zeros(outputs)
            return
        if not wanted:
            raise ConversionError(f"{name}: expected no bias, found {', '.join(self.graph.leaves(part.bias))}")
        bias = self.graph.constant(part.bias).flatten()
        if len(bias) != outputs:
            raise ConversionError(f"{name}: expected a bias for each of {outputs} outputs, found {len(bias)}")
        self.tensors[f"{name}.bias"] = (bias if rows is None else bias[rows]).float()
        self.claim(self.graph.leaves(part.bias), name)

    def norm(self, name: str, part: Part, eps: float, affine: bool = True) -> None:
        """Put a batch norm under our module's name, whose epsilon is `eps`, with gain and bias if `affine`.

        Another epsilon in the module is kept by adding the difference to the variances.
        """
        norm = part.norm
        if norm is None or norm.gain:
            raise ConversionError(f"{name}: expected a batch norm without condition, found {part.kind}")
        self._statistics(name, norm, eps)
        if affine:
            self.tensors |= {f"{name}.weight": norm.weight.float(), f"{name}.bias": norm.bias.float()}
        elif not self._plain(norm):
            raise ConversionError(f"{name}: expected a batch norm without gain and bias, found them")

    def conditional_norm(self, name: str, norm: Norm, eps: float) -> None:
        """Put the statistics of a conditional batch norm under our module's name."""
        if not self._plain(norm):
            raise ConversionError(f"{name}: expected gains of 1 + W c and biases of V c, found other constants in them")
        self._statistics(f"{name}.norm", norm, eps)

    @staticmethod
    def _plain(norm: Norm) -> bool:
        return bool(torch.allclose(norm.weight, torch.ones_like(norm.weight)) and not norm.bias.any())

    def notes(self) -> list[str]:
        """Return sentences on what is not in the module as it is in our networks."""
        found = [
            f"{len(names)} batch norms ({_few(names)}) have the eps {theirs:.3g} in the module and {ours:g} here; "
            "their variances hold the difference"
            for (theirs, ours), names in self.other_eps.items()
        ]
        if self.without_bias:
            found.append(f"no bias in the module, 0 here: {', '.join(self.without_bias)}")
        return found

    def _statistics(self, name: str, norm: Norm, eps: float) -> None:
        if abs(norm.eps - eps) > 1e-3 * eps:
            self.other_eps.setdefault((norm.eps, eps), []).append(name)
        var = norm.var + (norm.eps - eps)
        self.tensors |= {f"{name}.running_mean": norm.mean.float(), f"{name}.running_var": var.float()}
        self.claim(norm.variables, name)


def _few(names: list[str]) -> str:
    return ", ".join(names[:2]) + ", ..." * (len(names) > 2)


def singular_vectors(weight: Tensor, sigma: Tensor, starts: list[Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return u and v with uᵀWv = σ, the number that the module divides the weight by.

    weight: (out, in).  starts: the module's own vectors (out,): σ comes from one of them by a step of the power
    iteration or by half a step. Without them, or if none fits, from the singular vectors themselves.
    Raises ConversionError.
    """
    best, error = None, 1e-3
    for start in [*starts, None]:
        if start is None and best is not None:
            break
        for u, v in _steps(weight, start):
            found = u @ weight @ v
            if abs(found / sigma - 1) < error * 0.999:
                best, error = (u, v * sigma / found), abs(found / sigma - 1)
    if best is None:
        raise ConversionError(
            f"{name}: expected a weight divided by its largest singular value, found it divided by {float(sigma):.6g}"
        )
    return best


def _steps(weight: Tensor, start: Tensor | None) -> list[tuple[Tensor, Tensor]]:
    """Return pairs (u, v): u as it is, and after a step; for no start the first singular vectors."""
    if start is None:
        u = torch.ones(len(weight), dtype=weight.dtype)
        for _ in range(200):
            u = F.normalize(weight @ (weight.T @ u), dim=0)
        return [(u, F.normalize(weight.T @ u, dim=0))]
    u = F.normalize(start, dim=0)
    v = F.normalize(weight.T @ u, dim=0)
    after = F.normalize(weight @ v, dim=0)
    return [(after, v), (u, v), (after, F.normalize(weight.T @ after, dim=0))]
