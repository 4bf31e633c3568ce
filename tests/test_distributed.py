"""Several gloo processes equal one that holds the joined batch: batch norm, updates, averages, statistics (float64)."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from bigbigan.ema import Averages
from bigbigan.layers import CrossReplicaBatchNorm, record_statistics
from bigbigan.step import Batch, Step
from tests.conftest import tiny_model
from tests.test_step import make_batch

ITERATIONS = 4


def joined_batch():
    generator = torch.Generator().manual_seed(0)
    return 1000 + torch.randn(7, 3, 2, 2, generator=generator, dtype=torch.float64), torch.randn(
        7, 3, 2, 2, generator=generator, dtype=torch.float64
    )


def norm_result(x, weight):
    """Output, gradients and recorded statistics of a batch norm with some gain."""
    norm = CrossReplicaBatchNorm(3).double()
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    x = x.clone().requires_grad_()
    with record_statistics(norm) as recorder:
        y = norm(x)
    (y.pow(2) * weight).sum().backward()
    recorder.move(1.0)
    return y.detach(), x.grad, norm.weight.grad, norm.running_mean, norm.running_var


def train(rank, processes, chunks):
    """A few iterations on this process's rows (r, r + P, ...) of fixed global batches → everything that must be equal."""
    model = tiny_model(posterior="gaussian").double().train()
    # SGD, because Adam turns a rounding error of a zero gradient into a whole step
    d = torch.optim.SGD(model.discriminator.parameters(), lr=0.05)
    eg = torch.optim.SGD([*model.encoder.parameters(), *model.generator.parameters()], lr=0.05)
    step, averages = Step(model, d, eg, chunks=chunks), Averages(model.generator, model.encoder, 100, 0.5)
    reports = []
    for i in range(ITERATIONS):
        batches = [make_batch(16, seed=10 * i + k) for k in range(2)]
        mine = [Batch(b.x[rank::processes], b.z[rank::processes], b.noise[rank::processes]) for b in batches]
        reports.append(step.discriminator_update(mine[0]) | step.encoder_generator_update(mine[1]))
        averages.update(32 * (i + 1), 32)
    b = make_batch(24, seed=99)
    averages.refresh([(b.x[rank::processes], b.z[rank::processes], None)])
    states = (model.state_dict(), averages.generator.state_dict(), averages.encoder.state_dict())
    return [copy.deepcopy(dict(s)) for s in states], [{k: float(v) for k, v in r.items()} for r in reports]


def worker(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    x, weight = joined_batch()
    share = slice(0, 5) if rank == 0 else slice(5, 7)  # uneven on purpose
    result = {"norm": norm_result(x[share], weight[share]), "train": train(rank, processes, chunks=2)}
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(worker, (2, port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_batch_norm_of_uneven_shares_is_that_of_the_joined_batch(two):
    y, x_grad, weight_grad, mean, var = norm_result(*joined_batch())
    parts = [r["norm"] for r in two]
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y, **exact)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), x_grad, **exact)
    torch.testing.assert_close(sum(p[2] for p in parts), weight_grad, **exact)
    for p in parts:
        torch.testing.assert_close(p[3], mean, **exact)
        torch.testing.assert_close(p[4], var, **exact)


def test_two_processes_have_identical_weights(two):
    for a, b in zip(two[0]["train"][0], two[1]["train"][0], strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


def test_two_processes_with_chunks_equal_one_process(two):
    """2 processes × 8 images in 2 chunks against 1 × 16 in 2 chunks: weights, averages, statistics."""
    expected, reports = train(0, 1, chunks=2)
    for a, b in zip(two[0]["train"][0], expected, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}")
    for first, second, whole in zip(two[0]["train"][1], two[1]["train"][1], reports, strict=True):
        for key in whole:
            assert (first[key] + second[key]) / 2 == pytest.approx(whole[key], rel=1e-6, abs=1e-6)


def test_training_moved(two):
    fresh = tiny_model().double().state_dict()
    after = two[0]["train"][0][0]
    assert sum(not torch.equal(fresh[k], after[k]) for k in fresh) > 0.8 * len(fresh)
