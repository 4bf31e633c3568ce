"""The path of logistic regressions against scikit-learn, torch's autograd, and itself in several processes."""

import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eval_linear.linear import logistic
from eval_linear.linear import rows as logistic_rows
from eval_linear.linear.logistic import logistic_path
from tests.helpers.children import context


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """These problems are so small that a second thread only waits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n=300, features=20, classes=4, seed=0, noise=1.0, scales=None, prior=None, dtype=torch.float64):
    """Correlated features, class means of about the size of the noise."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), rng.choice(classes, n - classes, p=prior)])
    x = 0.5 * rng.normal(size=(classes, features))[y] + noise * rng.normal(size=(n, features)) @ rng.normal(
        size=(features, features)
    )
    x = (x + 2) * (1 if scales is None else scales)
    return torch.from_numpy(x).to(dtype), torch.from_numpy(y)


def features_of(x, standardise=True):
    x = x.double().numpy()
    return StandardScaler().fit_transform(x) if standardise else x


def reference(x, y, strength, standardise=True):
    """scikit-learn's tight solution, float64 → weight and bias for x itself, weight and bias for the features it was
    fitted on."""
    model = LogisticRegression(C=strength, tol=1e-11, max_iter=1000, solver="newton-cholesky")
    model.fit(features_of(x, standardise), y.numpy())
    weight, bias = model.coef_, model.intercept_
    if not standardise:
        return weight, bias, weight, bias
    scaler = StandardScaler().fit(x.double().numpy())
    raw = weight / scaler.scale_
    return raw, bias - raw @ scaler.mean_, weight, bias


def objective(features, y, weight, bias, strength):
    """Mean cross-entropy + ‖W‖² / (2 C n); one row of weights is scikit-learn's single logit."""
    logits = features @ weight.T + bias
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], 1)
    loss = np.logaddexp.reduce(logits, 1) - logits[np.arange(len(y)), y.numpy()]
    return loss.mean() + np.square(weight).sum() / (2 * strength * len(y))


def own_objective(solution, x, y, standardise=True):
    """The same of a solution of ours, from its weights for x, in float64."""
    weight, bias = solution.weight.double().numpy(), solution.bias.double().numpy()
    if standardise:
        scaler = StandardScaler().fit(x.double().numpy())
        weight, bias = weight * scaler.scale_, bias + weight @ scaler.mean_
    if len(weight) == 2:
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    return objective(features_of(x, standardise), y, weight, bias, solution.strength)


PROBLEMS = {
    "three classes": {"classes": 3},
    "unbalanced": {"n": 600, "classes": 5, "prior": [0.9, 0.04, 0.03, 0.02, 0.01]},
    "scales 1 … 1000": {"scales": np.logspace(0, 3, 20)},
    "separable": {"noise": 0.01},
    "more features than rows": {"n": 40, "features": 60},
    "many classes": {"n": 200, "classes": 66, "features": 6},
}


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("name", PROBLEMS)
def test_coefficients_are_those_of_scikit_learn(name, standardise):
    x, y = problem(**PROBLEMS[name])
    if name.startswith("scales") and not standardise:
        x = x / 100  # 1e6 in the Hessian's condition is what scikit-learn itself resolves
    classes = int(y.max()) + 1
    for solution in logistic_path(x, y, classes, [0.01, 1.0, 10.0], 1e-13, standardise):
        weight, bias, *fitted = reference(x, y, solution.strength, standardise)
        np.testing.assert_allclose(solution.weight, weight, rtol=2e-5, atol=2e-5 * np.abs(weight).max())
        np.testing.assert_allclose(solution.bias, bias, rtol=2e-5, atol=2e-5 * (1 + np.abs(bias).max()))
        expected = objective(features_of(x, standardise), y, *fitted, solution.strength)
        assert solution.objective == pytest.approx(expected, rel=1e-10)
        assert solution.converged


def test_two_classes_are_the_single_logit_of_scikit_learn():
    x, y = problem(classes=2)
    for solution in logistic_path(x, y, 2, [0.01, 1.0, 100.0], 1e-13):
        weight, bias, *fitted = reference(x, y, solution.strength)
        np.testing.assert_allclose(solution.weight[1] - solution.weight[0], weight[0], rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(solution.bias[1] - solution.bias[0], bias[0], rtol=2e-5, atol=1e-7)
        assert solution.objective == pytest.approx(objective(features_of(x), y, *fitted, solution.strength), rel=1e-10)
        torch.testing.assert_close(solution.weight.sum(0), torch.zeros_like(solution.weight[0]), rtol=0, atol=1e-12)


PATHS = {
    "even": {},
    "unbalanced": {"prior": [0.91, 0.05, 0.03, 0.01]},
    "separable": {"noise": 0.03},
    "more features than rows": {"n": 60, "features": 70},
    "two classes": {"classes": 2},
}


@pytest.mark.parametrize("kind", PATHS)
def test_every_strength_of_a_path_is_within_the_tolerance(kind):
    x, y = problem(**{"n": 400, "features": 30} | PATHS[kind], dtype=torch.float32)
    strengths, classes = np.logspace(-4, 2, 13), int(y.max()) + 1
    solutions = zip(*(logistic_path(given, y, classes, strengths[::-1]) for given in (x, x.double())), strict=True)
    for strength, both in zip(strengths, solutions, strict=True):
        *_, weight, bias = reference(x, y, strength)
        tight = objective(features_of(x), y, weight, bias, strength)
        for solution in both:
            assert solution.strength == strength and solution.converged and 0 <= solution.gap <= 1e-6
            assert own_objective(solution, x, y) / tight - 1 < 1e-6


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-8])
def test_the_estimated_gap_may_be_trusted(tolerance):
    x, y = problem(n=400, features=30, noise=0.3)
    for solution in logistic_path(x, y, 4, np.logspace(-3, 2, 6), tolerance):
        *_, weight, bias = reference(x, y, solution.strength)
        gap = own_objective(solution, x, y) / objective(features_of(x), y, weight, bias, solution.strength) - 1
        assert gap < tolerance and solution.gap <= tolerance


def test_the_estimated_gap_does_not_drift_along_a_fine_path():
    """Good starts make short steps, which show nothing of the slow directions: what earlier strengths showed must be
    remembered."""
    draw, (n, width, classes) = torch.Generator().manual_seed(0), (1000, 64, 10)
    scales = torch.arange(1, width + 1) ** -0.8
    y = torch.randint(classes, (n,), generator=draw)
    latent = (
        (2 * torch.randn(classes, width, generator=draw)[y] + torch.randn(n, width, generator=draw))
        * scales
        / scales.norm()
    )
    x = torch.relu(
        latent @ torch.randn(width, width, generator=draw) + 0.3 * torch.randn(n, width, generator=draw) - 0.5
    )
    strengths = np.logspace(-4, 2, 40)
    paths = logistic_path(x, y, classes, strengths), logistic_path(x.double(), y, classes, strengths, 1e-10)
    for solution, tight in zip(*paths, strict=True):
        assert solution.objective / tight.objective - 1 < 5e-7


def test_an_unreachable_tolerance_is_owned_up_to():
    x, y = problem(dtype=torch.float32)
    assert not next(logistic_path(x, y, 4, [1.0], 1e-16)).converged
    assert not next(logistic_path(x, y, 4, [100.0], 1e-10, max_steps=1)).converged


def test_objective_gradient_and_product_are_those_of_autograd():
    x, y = problem(classes=3, scales=np.logspace(0, 2, 20))
    rows, ridge = logistic_rows.Rows(x, y, 3, True, chunk_rows=77), 0.03
    parameters = 0.3 * torch.randn(3, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = torch.randn(3, 21, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scaled = torch.from_numpy(features_of(x))

    def f(p):
        return (
            torch.nn.functional.cross_entropy(scaled @ p[:, :-1].T + p[:, -1], y) + ridge / 2 * p[:, :-1].square().sum()
        )

    value, gradient = f(parameters), torch.func.grad(f)(parameters)
    for kept in (True, False):
        rows.keep = kept
        point = rows.evaluate(parameters, ridge)
        assert point.objective == pytest.approx(float(value), rel=1e-12)
        torch.testing.assert_close(point.gradient, gradient, rtol=1e-10, atol=1e-12)
        expected = torch.autograd.functional.hvp(f, parameters, direction)[1]
        torch.testing.assert_close(rows.product(point, direction, ridge), expected, rtol=1e-10, atol=1e-12)
    p = (scaled @ parameters[:, :-1].T + parameters[:, -1]).softmax(1)
    torch.testing.assert_close(point.curvature, (torch.diag_embed(p) - p[:, :, None] * p[:, None]).mean(0))


def test_preconditioner_is_the_inverse_of_the_averages():
    x, y = problem(classes=3)
    basis = logistic_rows.Basis(logistic_rows.Rows(x, y, 3, True, 100))
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    curvature, scaled = torch.diag(p) - torch.outer(p, p), torch.from_numpy(features_of(x))
    covariance = torch.block_diag(scaled.T @ scaled / len(x), torch.ones(1, 1, dtype=torch.float64))
    penalty = torch.diag(torch.tensor([0.02] * 20 + [0.0], dtype=torch.float64))
    matrix = torch.kron(curvature, covariance) + torch.kron(torch.eye(3, dtype=torch.float64), penalty)
    residual = torch.randn(3, 21, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    residual -= residual.mean(0)
    expected = torch.linalg.lstsq(matrix, residual.flatten()[:, None], driver="gelsd").solution.view(3, 21)
    torch.testing.assert_close(basis.preconditioner(curvature, 0.02)(residual), expected, rtol=1e-8, atol=1e-9)


def test_a_sketched_basis_gives_the_same_solution(monkeypatch):
    x, y = problem(features=40)
    full = list(logistic_path(x, y, 4, [0.01, 1.0], 1e-12))
    monkeypatch.setattr(logistic_rows, "FULL", 10)
    monkeypatch.setattr(logistic_rows, "RANK", 25)
    for one, other in zip(full, logistic_path(x, y, 4, [0.01, 1.0], 1e-12), strict=True):
        torch.testing.assert_close(other.weight, one.weight, rtol=1e-5, atol=1e-6)
        assert other.converged and other.products < 300


def test_chunks_and_half_precision_change_nothing():
    x, y = problem(n=1100, dtype=torch.float16)
    (one,) = logistic_path(x.float(), y, 4, [0.1], 1e-8)
    for other in (x, x.float().T.contiguous().T):
        (found,) = logistic_path(other, y, 4, [0.1], 1e-8, chunk_rows=700)
        torch.testing.assert_close(found.weight, one.weight, rtol=1e-3, atol=1e-4 * float(one.weight.abs().max()))
    assert found.logits(x).shape == (1100, 4) and found.weight.dtype == torch.float32


def test_constant_features_and_large_means():
    x, y = problem(n=400, features=12)
    x[:, 3], x[:, 7] = 0.1, 0.0
    x[:, 5] += 3000 * x[:, 5].std()
    x = x.float()
    for solution in logistic_path(x, y, 4, [0.01, 1.0]):
        *_, weight, bias = reference(x, y, solution.strength)
        expected = objective(features_of(x), y, weight, bias, solution.strength)
        assert solution.objective == pytest.approx(expected, rel=1e-6)
        assert solution.weight[:, [3, 7]].abs().max() < 1e-6


def test_what_rounding_leaves_of_a_constant_is_no_deviation():
    x, y = problem(n=301, features=40)
    x[:, 1:] = torch.linspace(0.1, 3e6, 39, dtype=torch.float64)
    rows = logistic_rows.Rows(x, y, 4, True)
    assert (rows.mean[1:] != x[0, 1:]).any(), "some means are rounded"
    assert (rows.scale[1:] == 1).all() and not rows.variance[1:].any() and rows.scale[0] != 1


@pytest.mark.parametrize("rows", [2, 3, 6])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_rows_of_many_mostly_constant_features(rows, seed):
    """As 1 % of a small data set's labels give: eigenvalues in float32 fail on four of five such matrices."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 512, generator=generator).relu()
    x[:, torch.randperm(512, generator=generator)[:300]] = 0
    y = torch.arange(rows) % 2
    (one,), (exact,) = logistic_path(x, y, 2, [0.1], 1e-8), logistic_path(x.double(), y, 2, [0.1], 1e-8)
    assert one.converged
    torch.testing.assert_close(one.weight, exact.weight.float(), rtol=1e-2, atol=1e-4)


def test_strengths_are_solved_once_each_and_in_their_order():
    x, y = problem(n=60, features=3)
    assert [solution.strength for solution in logistic_path(x, y, 4, [1.0, 0.1, 1.0, 0.01])] == [0.01, 0.1, 1.0]


def test_what_cannot_be_solved_is_said():
    x, y = problem(n=50)
    cases = [
        ("found NaN or infinity in 1 of 20", {"x": x.clone().index_fill_(1, torch.tensor([2]), float("nan"))}),
        ("found NaN or infinity in 20 of 20", {"x": torch.full_like(x, float("inf"))}),
        (r"found none of \[4\]", {"classes": 5}),
        ("found 50 others", {"y": y + 9}),
        ("found 1 others", {"y": torch.cat([y[:-1], torch.tensor([-1])])}),
        (r"expected \(n, D\) floats", {"y": y[:-1]}),
        (r"expected \(n, D\) floats", {"x": x.long()}),
        (r"expected \(n, D\) floats", {"y": y.double()}),
        ("expected classes ≥ 2", {"classes": 1, "y": torch.zeros_like(y)}),
        ("expected finite numbers above 0", {"strengths": [1.0, 0.0]}),
        ("expected finite numbers above 0", {"strengths": [1.0, np.inf]}),
        ("expected finite numbers above 0", {"strengths": []}),
    ]
    for message, changes in cases:
        with pytest.raises(ValueError, match=message):
            next(logistic_path(**{"x": x, "y": y, "classes": 4, "strengths": [1.0]} | changes))


def sharded(kind: str):
    """A problem and its two shares: uneven, one class only in the first, or nothing at all in the second."""
    x, y = problem(n=200, features=8, classes=3)
    if kind == "empty":
        return x, y, [torch.arange(200), torch.arange(0)]
    order = torch.argsort(y == 0, descending=True, stable=True)
    return x, y, [order[:130], order[130:]]


def solve(x, y):
    return [(s.weight, s.objective, s.products) for s in logistic_path(x, y, 3, np.logspace(-3, 1, 5), 1e-9)]


def worker(rank, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for kind in ("uneven", "empty"):
        x, y, shares = sharded(kind)
        found[kind] = solve(x[shares[rank]], y[shares[rank]])
    x, y, shares = sharded("uneven")
    x[shares[1][0]] = float("nan")  # every process hears of it
    with pytest.raises(ValueError, match="found NaN"):
        solve(x[shares[rank]], y[shares[rank]])
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    context()  # whose server has everything imported
    mp.start_processes(worker, (port, str(tmp_path)), nprocs=2, start_method="forkserver")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    for kind in ("uneven", "empty"):
        x, y, shares = sharded(kind)
        assert kind == "empty" or 0 not in y[shares[1]]
        for lone, one, two in zip(solve(x, y), first[kind], second[kind], strict=True):
            torch.testing.assert_close(one[0], two[0], rtol=0, atol=0)
            torch.testing.assert_close(one[0], lone[0], rtol=1e-6, atol=1e-8)
            assert one[1] == pytest.approx(lone[1], rel=1e-10)
            assert one[2] == two[2]


def test_smallest_ritz_value_is_the_smallest_eigenvalue_once_complete():
    matrix = torch.diag(torch.tensor([0.2, 1.0, 3.0, 7.0], dtype=torch.float64))
    residual, lengths, ratios = torch.ones(4, dtype=torch.float64), [], []
    search = residual
    for _ in range(4):
        length = residual @ residual / (search @ matrix @ search)
        fresh = residual - length * (matrix @ search)
        ratio = fresh @ fresh / (residual @ residual)
        search, residual = fresh + ratio * search, fresh
        lengths.append(float(length))
        ratios.append(float(ratio))
    assert logistic._smallest_ritz(lengths, ratios) == pytest.approx(0.2, rel=1e-6)
