"""Compute what a solver asks of a linear classifier's rows: loss, gradient, Hessian products and the covariance.

Loss with gradient, and each product, take one reading of x.

Every sum is over the rows of all processes; x may lie on a CPU or GPU and in half precision, and is never copied, only
its chunks.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bigbigan.distributed import all_reduce, rank, world_size

FULL = 4096  # features up to which Σ̂ is decomposed fully: 10 D³ operations, about a minute of two cores at this size
RANK = 1024  # directions of Σ̂ that are kept above it
CACHED = 2**18  # numbers of a block for each thread of a CPU: the second reading of its rows is from the L2 cache
CHUNK = 2**25  # numbers in a chunk of rows with its logits, their probabilities and so on: 128 MiB in float32
# |mean| / standard deviation up to which the mean is taken out by algebra; above, float32 would lose digits.
UNCENTRED = 30.0


@dataclass
class Point:
    """Hold what F was at a place, all float64. parameters, gradient: (K, D + 1), the last column the intercept.

    loss: the mean cross-entropy.  objective: with the penalty.  curvature: S̄ = mean of diag(p_i) − p_i p_iᵀ, (K, K).
    """

    parameters: Tensor
    loss: float
    objective: float
    gradient: Tensor
    curvature: Tensor


class Rows:
    """Hold this process's share of the rows, and compute sums over all rows in standardised coordinates.

    x̂ = (x − mean) / scale. The mean is always taken out, because with a free intercept that changes no minimum.
    """

    def __init__(self, x: Tensor, y: Tensor, classes: int, standardise: bool, chunk_rows: int | None = None):
        if x.ndim != 2 or y.shape != x.shape[:1] or not x.dtype.is_floating_point or y.dtype.is_floating_point:
            found = f"{tuple(x.shape)} {x.dtype} and {tuple(y.shape)} {y.dtype}"
            raise ValueError(f"x and y: expected (n, D) floats and (n,) integers, found {found}")
        per_row = x.shape[1] + 4 * classes
        chunk_rows = CHUNK // per_row + 1 if chunk_rows is None else chunk_rows
        if classes < 2 or chunk_rows < 1:
            raise ValueError(f"expected classes ≥ 2 and chunk_rows ≥ 1, found {classes} and {chunk_rows}")
        self.x, self.y, self.classes, self.chunk_rows = x, y.to(x.device, torch.int64), classes, chunk_rows
        self.block_rows = chunk_rows
        if x.device.type == "cpu":
            self.block_rows = min(chunk_rows, CACHED * torch.get_num_threads() // per_row + 1)
        self.dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        self.readings, self.shift = 0, None
        self._count()
        self._moments(standardise)
        # Kept between a point and the products there, if they take no more than Σ̂ does or an eighth of x.
        self.probabilities: list[Tensor] | None = None
        self.keep = len(x) * classes <= x.shape[1] ** 2 or classes <= x.shape[1] // 8

    def _count(self) -> None:
        inside = (self.y >= 0) & (self.y < self.classes)
        found = torch.bincount(torch.where(inside, self.y, self.classes), minlength=self.classes + 1)
        *self.counts, outside = all_reduce(found).tolist()
        self.total = sum(self.counts)
        if outside:
            raise ValueError(
                f"y: expected integers 0 … {self.classes - 1}, found {outside} others; set `classes` or drop those rows"
            )
        if empty := [k for k, count in enumerate(self.counts) if not count]:
            raise ValueError(
                f"y: expected rows of each of {self.classes} classes, found none of {empty[:9]}; renumber the classes"
            )

    def _moments(self, standardise: bool) -> None:
        """Compute mean and standard deviation in float64, in two readings.

        A constant feature is left at scale 1, as in scikit-learn.
        """
        chunks = range(0, len(self.x), self.chunk_rows)
        read = lambda i: self.x[i : i + self.chunk_rows].double()  # noqa: E731
        zero = torch.zeros(self.x.shape[1], dtype=torch.float64, device=self.x.device)
        self.mean = all_reduce(sum((read(i).sum(0) for i in chunks), zero.clone())) / self.total
        if bad := int((~self.mean.isfinite()).sum()):
            raise ValueError(
                f"x: expected finite values, found NaN or infinity in {bad} of {len(zero)} features; mend or drop them"
            )
        variance = all_reduce(sum(((read(i) - self.mean).square_().sum(0) for i in chunks), zero.clone())) / self.total
        # Relative, of a sum: what it leaves of a constant's variance.
        rounding = torch.finfo(torch.float64).eps * self.total
        constant = variance <= (rounding * self.mean).square() + rounding * variance
        self.variance = torch.where(constant, 0.0, variance)
        self.scale = torch.where(constant, 1.0, variance.sqrt()) if standardise else torch.ones_like(variance)
        if bool((self.mean.abs() > UNCENTRED * variance.sqrt())[~constant].any()):
            self.shift = self.mean.to(self.dtype)
        self.offset = self.mean if self.shift is None else self.mean - self.shift

    def blocks(self, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's rows (m, D), m ≤ rows, with their labels (1, m), in the dtype of the products."""
        for x, y in zip(self.x.split(rows), self.y[None].split(rows, 1), strict=True):
            yield (x if x.dtype == self.dtype else x.to(self.dtype)) if self.shift is None else x - self.shift, y

    def fold(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight (K, D) and bias (K, 1) for what `blocks` yields, of parameters (K, D + 1) for x̂."""
        weight = parameters[:, :-1] / self.scale
        return weight.to(self.dtype), (parameters[:, -1:] - (weight @ self.offset)[:, None]).to(self.dtype)

    def raw(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return weight (K, D) and bias (K,) for x, float64, of parameters (K, D + 1) for x̂."""
        weight = parameters[:, :-1] / self.scale
        return weight, parameters[:, -1] - weight @ self.mean

    def unfold(self, by_feature: Tensor, by_row: Tensor) -> Tensor:
        """Return Σ r_i (x̂_i, 1)ᵀ / n, (K, D + 1) float64, of Σ r_i x_iᵀ (K, D) and Σ r_i (K, 1) of all processes."""
        weight = (by_feature - by_row * self.offset) / self.scale
        return torch.cat([weight, by_row], 1) / self.total

    def evaluate(self, parameters: Tensor, ridge: float) -> Point:
        """Return loss, gradient and S̄ in one reading of x and one collective."""
        parameters = of_first_process(parameters)
        weight, bias = self.fold(parameters)
        classes, features = weight.shape
        # Σ r (x, 1)ᵀ | Σ p pᵀ | Σ p | Σ −log p[y] at the top
        sums = parameters.new_zeros(classes, features + classes + 3)
        gradient, squares, mass, loss = sums.split([features + 1, classes, 1, 1], 1)
        self.probabilities = [] if self.keep else None
        for x, y in self.blocks(self.block_rows):
            p, losses = _softmax(torch.addmm(bias, weight, x.T), y)
            loss[0] += losses.sum(dtype=torch.float64)
            if self.probabilities is not None:
                self.probabilities.append(p.clone())
            squares += p @ p.T
            mass += p.sum(1, keepdim=True)
            p.scatter_(0, y, 0)
            residual = p.scatter_(0, y, -p.sum(0, keepdim=True))  # p − 1 in the row's class, without its cancellation
            gradient[:, :-1] += residual @ x
            gradient[:, -1:] += residual.sum(1, keepdim=True)
        self.readings += 1
        all_reduce(sums)
        curvature = (torch.diag(mass[:, 0]) - squares) / self.total
        gradient = self.unfold(gradient[:, :-1], gradient[:, -1:])
        gradient[:, :-1] += ridge * parameters[:, :-1]
        mean = float(loss[0]) / self.total
        return Point(parameters, mean, mean + penalty(parameters, ridge), gradient, curvature)

    def product(self, point: Point, direction: Tensor, ridge: float) -> Tensor:
        """Return the Hessian at `point`, the last one evaluated, times a direction (K, D + 1).

        It takes one reading of x and one collective.
        """
        weight, bias = self.fold(direction)
        here, here_bias = self.fold(point.parameters)
        classes, features = weight.shape
        total, by_row = torch.zeros_like(weight), torch.zeros_like(bias)
        for i, (x, y) in enumerate(self.blocks(self.block_rows)):
            if self.probabilities is not None:
                p, change = self.probabilities[i], torch.addmm(bias, weight, x.T)
            else:  # both in one product
                both = torch.addmm(torch.cat([here_bias, bias]), torch.cat([here, weight]), x.T)
                p, change = _softmax(both[:classes], y)[0], both[classes:]
            change.sub_(change.gather(0, y)).mul_(p)  # small where p is near 1, as S is
            change.addcmul_(p, change.sum(0, keepdim=True), value=-1)
            total.addmm_(change, x)
            by_row += change.sum(1, keepdim=True)
        self.readings += 1
        sums = all_reduce(torch.cat([total, by_row], 1).double())
        result = self.unfold(sums[:, :-1], sums[:, -1:])
        result[:, :-1] += ridge * direction[:, :-1]
        return result


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors, in double precision where float32 fails: with many constant features."""
    try:
        return torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:
        values, vectors = torch.linalg.eigh(matrix.double())
        return values.to(matrix.dtype), vectors.to(matrix.dtype)


class Basis:
    """Hold eigenvectors (D, r) and eigenvalues (r,) of Σ̂, and the mean eigenvalue `rest` of what they leave out.

    With r = D they leave out nothing.

    Above `FULL` features, r = `RANK` directions from a random sketch (Halko, Martinsson & Tropp 2011, algorithms 4.1
    and 5.3).
    The basis only steers the conjugate gradients: what it lacks costs products, not accuracy.
    """

    def __init__(self, rows: Rows):
        self.rows = rows
        features = rows.x.shape[1]
        if features <= FULL:
            covariance, basis = self._times(None), None
        else:
            sketch = torch.randn(
                features, min(RANK, rows.total), generator=torch.Generator().manual_seed(0), dtype=rows.dtype
            )
            basis = torch.linalg.qr(self._times(sketch.to(rows.x.device))).Q
            covariance = basis.T @ self._times(basis)
        values, vectors = _eigh((covariance + covariance.T) / 2)
        self.vectors = of_first_process(vectors if basis is None else basis @ vectors)
        self.values = of_first_process(values.double().clamp(min=0))
        left = features - len(values)
        total = float((rows.variance / rows.scale.square()).sum())
        self.rest = max(total - float(self.values.sum()), 0.0) / left if left else None

    def _times(self, sketch: Tensor | None) -> Tensor:
        """Return Σ̂ (D, D), or Σ̂ times a sketch (D, r)."""
        rows = self.rows
        scale, offset = rows.scale.to(rows.dtype)[:, None], rows.offset.to(rows.dtype)[:, None]
        right = None if sketch is None else sketch / scale
        total = torch.zeros(
            len(scale), len(scale) if right is None else right.shape[1], dtype=rows.dtype, device=rows.x.device
        )
        for x, _ in rows.blocks(rows.chunk_rows):
            total.addmm_(x.T, x if right is None else x @ right)
        total = all_reduce(total) / rows.total - offset @ (offset.T if right is None else offset.T @ right)
        return total / scale if sketch is not None else total / scale / scale.T

    def preconditioner(self, curvature: Tensor, ridge: float) -> Callable[[Tensor], Tensor]:
        """Return the function r (K, D + 1) → (S̄ ⊗ Σ̂ + λI)⁻¹ r, with S̄⁻¹ r for the intercepts.

        It works among what sums to zero over the classes.

        A part that is the same in all classes is left out: softmax does not see it, and the penalty makes it zero at
        the minimum.
        """
        classes = len(curvature)
        ones = torch.ones(classes, 1, dtype=torch.float64, device=curvature.device)
        centred = torch.linalg.qr(torch.cat([ones, torch.eye(classes).to(ones)[:, 1:]], 1)).Q[:, 1:]
        spread, mixing = torch.linalg.eigh(centred.T @ curvature @ centred)
        spread = spread.clamp(min=max(float(spread[-1]) * 1e-6, torch.finfo(torch.float64).tiny))[:, None]
        mixing = (centred @ mixing).T  # (K − 1, K)
        small = self.vectors.dtype
        inverse, outside = (1 / (spread * self.values + ridge)).to(small), None
        if self.rest is not None:
            outside = (1 / (spread * self.rest + ridge)).to(small)

        def apply(residual: Tensor) -> Tensor:
            mixed = mixing @ residual
            weight = mixed[:, :-1].to(small)
            inside = weight @ self.vectors
            if outside is None:
                weight = (inside * inverse) @ self.vectors.T
            else:
                weight = weight * outside + (inside * (inverse - outside)) @ self.vectors.T
            return mixing.T @ torch.cat([weight.double(), mixed[:, -1:] / spread], 1)

        return apply


def _softmax(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities of logits (K, m), and −log p[y] (1, m) of labels (1, m).

    Both are exact to a relative rounding however small they are.
    """
    behind = (logits - logits.gather(0, y)).scatter_(0, y, -torch.inf)
    losses = torch.nn.functional.softplus(behind.logsumexp(0, keepdim=True), threshold=80)
    return behind.sub_(losses).exp_().scatter_(0, y, (-losses).exp_()), losses


def penalty(parameters: Tensor, ridge: float) -> float:
    """Return the penalty λ/2 ‖W‖² of parameters (K, D + 1), whose last column it leaves out."""
    return ridge / 2 * float(parameters[:, :-1].square().sum())


def of_first_process(tensor: Tensor) -> Tensor:
    """Return the first process's copy: rounding on unlike machines would leave processes with different numbers."""
    if world_size() == 1:
        return tensor
    return all_reduce(tensor.clone() if rank() == 0 else torch.zeros_like(tensor))


def agreed(scalars: Tensor) -> list[float]:
    """Return float64 scalars as the first process has them, so that decisions are the same everywhere."""
    return of_first_process(scalars.reshape(-1)).tolist()
