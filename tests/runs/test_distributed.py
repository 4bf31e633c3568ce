"""Several gloo processes equal one that holds the joined batch: data, losses, gradients, statistics, averages, weights,
figures."""

import os
import shutil
from datetime import timedelta
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist

from bigbigan import api
from bigbigan.data import Crop, Stream, open_images
from bigbigan.distributed import all_reduce, barrier, copy_from_main, local_only
from bigbigan.errors import LostProcess
from bigbigan.metrics import own_classifier
from bigbigan.networks.layers import CrossReplicaBatchNorm, record_statistics
from bigbigan.training.batch import Drawer
from bigbigan.training.ema import Averages
from eval_linear import probe
from eval_linear.linear.solvers import fit_linear
from eval_linear.quick import quick_figures
from tests.conftest import make_step, tiny_model
from tests.helpers.children import PATIENCE, cheapen, context, free_port

ITERATIONS = 20
BATCH, CHUNKS = 16, 2  # of all processes together


def joined_batch():
    generator = torch.Generator().manual_seed(0)
    return 1000 + torch.randn(7, 3, 2, 2, generator=generator, dtype=torch.float64), torch.randn(
        7, 3, 2, 2, generator=generator, dtype=torch.float64
    )


def norm_result(x, weight):
    """Output, gradients and recorded statistics of a batch norm with some gain; statistics that it moves itself."""
    norm = CrossReplicaBatchNorm(3).double()
    norm.weight.data = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    x = x.clone().requires_grad_()
    with record_statistics(norm) as recorder:
        y = norm(x)
    (y.pow(2) * weight).sum().backward()
    recorder.move(1.0)
    moving = CrossReplicaBatchNorm(3).double()
    moving.momentum = 0.1  # as torch's, in a training loop of a user
    moving(x)
    statistics = norm.running_mean, norm.running_var, moving.running_mean, moving.running_var
    return y.detach(), x.grad, norm.weight.grad, *statistics


def train(rank, processes, dtype, iterations=ITERATIONS, size=8, **changes):
    """Some iterations on this process's share of the stream → all that must be equal, by name: of the first and the
    last iteration losses, scores and gradients; then weights, u, v, running statistics, averages and their sampling
    statistics."""
    model = tiny_model(posterior="gaussian", **changes).to(dtype).train()
    # SGD, because Adam turns a rounding error of a zero gradient into a whole step
    d = torch.optim.SGD(model.discriminator.parameters(), lr=0.01)
    eg = torch.optim.SGD([*model.encoder.parameters(), *model.generator.parameters()], lr=0.01)
    step = make_step(model, {"data.chunks": CHUNKS}, optimizers=(d, eg))
    averages, draw = Averages(model.generator, model.encoder, 0.9, 0.5), Drawer(0, "normal", 8)
    images = open_images("digits", "train", "", "", False, 0.1)
    stream = Stream(images, size, 0, Crop("light", True), rank=rank, processes=processes)

    def batches(start, stop, size):
        for real in stream.batches(start, stop, size):
            b = draw(real)
            b.x, b.z, b.noise = b.x.to(dtype), b.z.to(dtype), b.noise.to(dtype)
            yield b

    found, reals = {}, batches(0, 10**9, BATCH)
    for i in range(iterations):
        wanted = i in (0, iterations - 1)
        for update, network in ((step.discriminator_update, d), (step.encoder_generator_update, eg)):
            gradients = {}
            if wanted:
                keep_gradients(network, gradients)
            values = update(next(reals))
            found |= {f"{i} {k}": mean_over(v, processes) for k, v in values.items()} if wanted else {}
            found |= {f"{i} gradient {type(network).__name__} {len(values)} {k}": v for k, v in gradients.items()}
        averages.update(i + 1)
    averages.update_sampling_statistics(
        (b.x, b.z, None) for b in batches(0, 10, 10)
    )  # 3, 3, 2, 2 images on four processes
    for name, network in (("raw", model), ("averaged G", averages.generator), ("averaged E", averages.encoder)):
        found |= {f"{name} {k}": v.clone() for k, v in network.state_dict().items()}
    return found


def keep_gradients(optimizer, into: dict) -> None:
    def keep(o, *_):
        parameters = [p for group in o.param_groups for p in group["params"]]
        into.update({str(i): p.grad.clone() for i, p in enumerate(parameters)})
        handle.remove()

    handle = optimizer.register_step_pre_hook(keep)


def mean_over(value, processes):
    return all_reduce(value.detach().clone()) / processes


def figures():
    """A quick evaluation by the main process alone, as training makes it."""
    images = open_images("digits", "train", "", "", False, 0.1).subset(np.arange(60))
    images.labels = None
    return quick_figures(tiny_model().eval(), images, images, "digits", 40, 0)


def evaluation(folder):
    """Every kind of quick figure, made by all processes of a group together, or by one; the extractor is kept in
    `folder`."""
    cheapen()
    with mock.patch.dict(os.environ, {"BIGBIGAN_CACHE": str(folder)}):
        images = open_images("digits", "train", "", "", False, 0.1).subset(np.arange(120))
        figures = quick_figures(tiny_model().eval(), images, images, "digits", 60, 0)
    generator, y = (
        torch.Generator().manual_seed(0),
        torch.arange(840) % 10,
    )  # classes that overlap: another penalty errs otherwise
    x = torch.randn(840, 16, generator=generator) + 0.5 * torch.randn(10, 16, generator=generator)[y]
    fit = fit_linear(x[:40], y[:40], x[40:], y[40:], 10, 0)
    return figures | {f"confusion {i}": count for i, count in enumerate(fit.confusion.flatten().tolist())}


def used(rank):
    """What a person calls on a model, each process with images of its own: latents, features, images, scores."""
    model = tiny_model(posterior="gaussian").train()  # as a training script may hand it over
    pixels = np.random.default_rng(rank).integers(0, 256, (5 - rank, 3, 9, 11), dtype=np.uint8)
    found = api.encode(pixels, model=model, batch_size=2)
    found["generated"] = api.generate(3 + rank, model=model, truncation=1.0, batch_size=2, seed=rank)
    found["reconstructed"] = api.reconstruct(pixels, model=model, batch_size=2)
    compares = tiny_model(
        family="progressive", encoder="progressive", feature_base=32, feature_limit=16
    )  # its D compares the images of a batch
    scores = api.discriminate(pixels, found["z_mean"], model=compares, batch_size=2)
    found |= {f"compared_{name}": score for name, score in scores.items()}
    return found | api.discriminate(pixels, found["z_mean"], model=model, batch_size=2)


def collectives() -> int:
    """How many collectives this process has entered in its group, by the group's own count."""
    return dist.group.WORLD._get_sequence_number_for_group()


def worker(rank, processes, port, folder):
    torch.set_num_threads(1)
    os.environ["RANK"] = str(rank)
    patience = timedelta(minutes=2 * PATIENCE)  # with one that waits for a collective which the others do not enter
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes, timeout=patience
    )
    x, weight = joined_batch()
    share = [slice(0, 5), slice(5, 7)] if processes == 2 else [slice(0, 4), slice(4, 4), slice(4, 5), slice(5, 7)]
    result = {"norm": norm_result(x[share[rank]], weight[share[rank]])}  # uneven on purpose, and none at all
    result["float64"] = train(rank, processes, torch.float64)
    result["float32"] = train(rank, processes, torch.float32, 3)
    own = torch.arange(6.0).view(2, 3).t() + rank
    copy_from_main([own])
    result["from main"] = own
    if rank == 0:
        with local_only():
            result["figures"] = figures()
    barrier()
    before = collectives()
    result["used"] = used(rank)
    if rank == 1:
        result["used alone"] = used(rank)  # while the others wait
    result["entered"] = collectives() - before
    barrier()
    result["counts"] = collectives() > before
    result["evaluation"] = evaluation(folder)
    torch.save(result, f"{folder}/{rank}.pt")
    if rank == processes - 1:
        os._exit(0)  # dies without a word
    with pytest.raises(LostProcess, match="found one gone"):
        for _ in range(100):
            barrier()


def spawn(function, processes, *arguments):
    children = [context().Process(target=function, args=(rank, processes, *arguments)) for rank in range(processes)]
    for child in children:
        child.start()
    for child in children:
        child.join(240 * PATIENCE)
    assert [child.exitcode for child in children] == [0] * processes


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.soak)])
def several(request, tmp_path_factory, expected_evaluation):
    folder = tmp_path_factory.mktemp("several")
    for file in expected_evaluation[0].glob("classifier-*"):  # which several processes would train to another rounding
        shutil.copy(file, folder)
    spawn(worker, request.param, free_port(), str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(request.param)]


@pytest.fixture(scope="module")
def expected_evaluation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with mock.patch.object(own_classifier, "Recipe", own_classifier.Recipe):
        return folder, evaluation(folder)


@pytest.fixture(scope="module")
def one():
    torch.set_num_threads(1)
    return {"float64": train(0, 1, torch.float64), "float32": train(0, 1, torch.float32, 3)}


def test_batch_norm_of_uneven_shares_is_that_of_the_joined_batch(several):
    y, x_grad, weight_grad, *statistics = norm_result(*joined_batch())
    parts = [r["norm"] for r in several]
    exact = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), y, **exact)
    torch.testing.assert_close(torch.cat([p[1] for p in parts]), x_grad, **exact)
    torch.testing.assert_close(sum(p[2] for p in parts), weight_grad, **exact)
    for p in parts:
        for found, expected in zip(p[3:], statistics, strict=True):
            torch.testing.assert_close(found, expected, **exact)


def test_several_processes_have_identical_weights(several):
    for other in several[1:]:
        for dtype in ("float64", "float32"):
            assert all(torch.equal(other[dtype][k], v) for k, v in several[0][dtype].items())


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_several_processes_with_chunks_equal_one_process(several, one, dtype, tolerance):
    """P processes × 16/P images in 2 chunks against 1 × 16 in 2 chunks; 20 iterations in float64, 3 in float32."""
    found, expected = several[0][dtype], one[dtype]
    assert found.keys() == expected.keys() and sum("gradient" in k for k in found) > 100
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )
    print(
        f"\n{len(several)} processes, {dtype}: largest difference",
        max((found[k] - v).abs().max().item() for k, v in expected.items()),
    )


def test_training_moved(one):
    fresh = tiny_model().double().state_dict()
    assert sum(not torch.equal(fresh[k], one["float64"][f"raw {k}"]) for k in fresh) > 0.8 * len(fresh)


def test_the_main_process_gives_its_weights_and_evaluates_alone(several):
    assert all(torch.equal(r["from main"], torch.arange(6.0).view(2, 3).t()) for r in several)
    expected = figures()
    assert expected and several[0]["figures"] == pytest.approx(expected, rel=1e-6)


def test_encode_and_its_like_are_each_processs_own_affair(several):
    """Bit for bit what one process gives, on all processes at once and on one while the others wait; no collective is
    entered."""
    torch.set_num_threads(1)
    for rank, found in enumerate(several):
        assert found["entered"] == 0 and found["counts"], (
            "expected no collective in encode, and to have counted the barrier"
        )
        expected = used(rank)
        assert found["used"].keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found["used"][name], value), name
            assert rank != 1 or torch.equal(found["used alone"][name], value), name


def test_figures_of_several_processes_are_those_of_one(several, expected_evaluation):
    expected = expected_evaluation[1]
    assert {name.split("_")[0] for name in expected} > {"top1", "fid", "is", "reconstruction"}
    for found in several:
        assert found["evaluation"] == several[0]["evaluation"] == pytest.approx(expected, rel=1e-4)


def test_of_several_probes_only_the_first_works(capsys):
    with mock.patch.dict(os.environ, {"RANK": "1"}):
        probe.main(["no such checkpoint"])
    assert not "".join(capsys.readouterr())
    with pytest.raises(SystemExit), mock.patch.dict(os.environ, {"RANK": "0"}):
        probe.main(["no such checkpoint"])
