"""RevNet: its graph written out, gradients against the twin that keeps its activations, statistics, memory,
processes."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchmarks.revnet_memory import encoder_saved, peak, saved_bytes, stages_saved, trunk
from bigbigan.networks.encoder import Encoder
from bigbigan.networks.layers import record_statistics
from bigbigan.networks.revnet import ReversibleStage, RevNet, pool_and_double
from bigbigan.training.ema import standing_statistics
from tests.conftest import train
from tests.helpers.children import free_port
from tests.runs.test_distributed import spawn
from tests.runs.test_distributed import train as updates

SMALL = {"width": 0.0625, "blocks": (2, 1, 3, 2)}


def twins(dtype=torch.float64, **changes):
    """A reversible network, and one of equal weights that keeps its activations."""
    torch.manual_seed(0)
    network = RevNet(**{**SMALL, **changes}).to(dtype)
    with torch.no_grad():
        for p in network.parameters():
            if p.ndim == 1:
                p += 0.3 * torch.randn_like(p)
    kept = copy.deepcopy(network)
    for stage in kept.stages:
        stage.reversible = False
    return network, kept


def gradients(network, x):
    x = x.clone().requires_grad_()
    y = network(x)
    (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    return {"y": y.detach(), "x": x.grad} | {n: p.grad for n, p in network.named_parameters()}


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_the_twins(training):
    network, kept = twins()
    x = torch.randn(3, 3, 40, 48, dtype=torch.float64)
    found, expected = gradients(network.train(training), x), gradients(kept.train(training), x)
    assert torch.equal(found["y"], expected["y"])
    for name, value in expected.items():
        assert value is not None and value.abs().max() > 0, name
        scale = value.abs().max()
        torch.testing.assert_close(
            found[name] / scale, value / scale, rtol=0, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("changes", [{}, {"blocks": (1, 1, 1, 1)}, {"blocks": (3, 4, 6, 3), "width": 0.125}])
def test_gradients_equal_the_twins_at_initialisation(training, dtype, changes):
    """There the first norm of a stage has no bias, and its channels of zeros lie on the kink of the ReLU.

    In evaluation the norms have the statistics of the images, as in any use.
    """
    torch.manual_seed(0)
    network, x = RevNet(**{**SMALL, **changes}).to(dtype), torch.randn(3, 3, 40, 48, dtype=dtype)
    with torch.no_grad(), standing_statistics(network):
        network(x)
    kept = copy.deepcopy(network)
    for stage in kept.stages:
        stage.reversible = False
    found, expected = gradients(network.train(training), x), gradients(kept.train(training), x)
    for name, value in expected.items():
        apart = (found[name] - value).norm() / value.norm().clamp_min(1e-12)
        assert apart < (1e-9 if dtype == torch.float64 else 2e-2), f"{name} is off by {apart:.1%}"


def test_the_graph_written_out():
    """Against torch's own operations, block by block, as the cited code has them."""
    network, _ = twins()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    weights = dict(network.named_parameters())

    def norm(h, name):
        return F.batch_norm(h, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True, eps=1e-5)

    h = F.max_pool2d(F.conv2d(x, weights["stem.conv.weight"], stride=2, padding=3), 3, 2, 1)
    for i, blocks in enumerate(SMALL["blocks"]):
        if i:
            n, c, height, width = h.shape
            zeros = h.new_zeros(n, c // 2, height // 2, width // 2)
            h = torch.cat([zeros, F.avg_pool2d(h, 2), zeros], dim=1)
        for j in range(blocks):
            x1, x2 = h[:, : h.shape[1] // 2], h[:, h.shape[1] // 2 :]
            f = x2
            for k, padding in ((1, 0), (2, 1), (3, 0)):
                name = f"stages.{i}.blocks.{j}"
                f = F.conv2d(F.relu(norm(f, f"{name}.norm{k}")), weights[f"{name}.conv{k}.weight"], padding=padding)
            h = torch.cat([x2, x1 + f], dim=1)
    torch.testing.assert_close(network(x), norm(h, "norm").mean((2, 3)))


@pytest.mark.parametrize(
    ("width", "features", "parameters"), [(1, 2048, 5_408_640), (2, 4096, 21_505_792), (4, 8192, 85_765_632)]
)
def test_sizes_of_the_paper(width, features, parameters):
    """Half of each stage's 256 w · 2^i channels goes through a bottleneck of an eighth; BigBiGAN's ×4 has 86 M
    parameters."""
    with torch.device("meta"):
        network = Encoder(120, "revnet50", 256, width).trunk
        assert network(torch.empty(2, 3, 256, 256)).shape == (2, features)
    c = 256 * width
    expected = 7 * 7 * 3 * c + 2 * 8 * c
    for i, blocks in enumerate((3, 4, 6, 3)):
        half, inner = c * 2**i // 2, c * 2**i // 8
        expected += blocks * (2 * half * inner + 9 * inner**2 + 2 * (half + 2 * inner))
    count = sum(p.numel() for p in network.parameters())
    assert count == expected == parameters


def test_convolutions_begin_with_the_variance_that_keeps_that_of_gradients():
    """He et al. 2015, section 2.2: 2 over the outputs of a weight's input, k² · channels."""
    torch.manual_seed(0)
    network = RevNet(0.25, (1,))
    block = network.stages[0].blocks[0]
    for conv, outputs in ((network.stem.conv, 49 * 64), (block.conv1, 8), (block.conv3, 32)):
        assert conv.weight.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.15)


def test_zeros_go_to_both_sides_and_odd_edges_are_means_of_what_is_there():
    x = torch.arange(18.0).view(1, 2, 3, 3)
    y = pool_and_double(x)
    assert y.shape == (1, 4, 2, 2) and not y[:, [0, 3]].any()
    torch.testing.assert_close(y[0, 1], torch.tensor([[2.0, 3.5], [6.5, 8.0]]))


def test_statistics_are_recorded_once_and_no_buffer_moves():
    found = []
    for network in twins():
        before = copy.deepcopy(dict(network.named_buffers()))
        with record_statistics(network) as recorder:
            for seed in (0, 1):  # chunks
                x = torch.randn(4, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
                gradients(network, x)
        assert all(torch.equal(before[n], b) for n, b in network.named_buffers())
        counts = {count for count, *_ in recorder.moments.values()}
        assert counts == {2 * 4 * 64, 2 * 4 * 16, 2 * 4 * 4, 2 * 4}
        recorder.move(1.0)
        found.append(dict(network.named_buffers()))
    assert all(torch.equal(a, found[1][n]) for n, a in found[0].items())


def test_bf16_autocast_gives_the_twins_gradients():
    """Also where the backward pass runs within autocast, whose cache holds weights that were cast without a graph. The
    undone sums differ in float32's last digits, which bf16 may round either way: far less than bf16 itself differs from
    float64."""
    network, kept = twins(torch.float32)
    x = torch.randn(8, 3, 64, 64)

    def found(one, x, autocast=True, inside=False):
        one = copy.deepcopy(one)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = one(x).to(x.dtype).square().mean()
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        return {n: p.grad for n, p in one.named_parameters()}

    expected, exact = found(kept, x), found(kept.double(), x.double(), False)
    outside, inside = found(network, x), found(network, x, inside=True)
    for name, value in expected.items():
        noise = (value - exact[name]).norm()
        for ours in (outside, inside):
            assert (ours[name] - value).norm() <= 0.1 * noise, name


def test_frozen_weights_and_a_call_without_graph():
    network, kept = twins()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for one in (network, kept):
        one.stages[1].requires_grad_(False)
        one(x).square().sum().backward()
    for (name, a), b in zip(network.named_parameters(), kept.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) == name.startswith("stages.1.")
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)
    with torch.no_grad():
        assert torch.equal(network(x), kept(x))


def test_what_would_be_repeated_wrongly_is_refused():
    stage = ReversibleStage(8, 2).train()
    x = torch.randn(2, 8, 4, 4, requires_grad=True)
    y = stage(x)
    stage.eval()
    with pytest.raises(RuntimeError, match="expected the mode of its forward in its backward"):
        y.sum().backward()
    y = stage.train()(x)
    with torch.no_grad():
        next(stage.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    (gradient,) = torch.autograd.grad(stage(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
    for width in (0.02, 10 / 256, 1 / 64):
        with pytest.raises(ValueError, match=f"encoder width {width}: expected a multiple of 1/32 for a RevNet"):
            RevNet(width)
    with pytest.raises(ValueError, match="at least one block in each stage"):
        Encoder(8, "revnet50", 32, 0.25, blocks=(1, 0, 1, 1))


def test_memory_is_constant_in_depth_and_a_fraction_of_the_twins():
    """BigBiGAN's ×4 at 256 px, on the meta device: the four stages keep at most a quarter, the whole encoder at most
    half."""
    assert stages_saved(trunk(4, (3, 4, 6, 3), True)) <= stages_saved(trunk(4, (3, 4, 6, 3), False)) / 4
    assert encoder_saved(4, True) <= encoder_saved(4, False) / 2
    shallow, deep = ((3, 4, 6, 3), (6, 8, 12, 6))
    assert stages_saved(trunk(1, shallow, True)) == stages_saved(trunk(1, deep, True))
    assert peak(trunk(0.25, shallow, True)) == peak(trunk(0.25, deep, True))
    assert peak(trunk(0.25, shallow, False)) < peak(trunk(0.25, deep, False)) / 1.3


def test_the_counter_counts():
    linear = torch.nn.Linear(3, 3)
    x = torch.randn(5, 3, requires_grad=True)
    assert saved_bytes(lambda: torch.exp(linear(x)), linear) == 2 * 5 * 3 * 4, (
        "the input and exp's result, not the weight"
    )


CHANGES = {"encoder": "revnet50", "encoder_width": 0.0625, "encoder_blocks": (2, 1, 1, 1), "encoder_image_size": 16}


def worker(rank, processes, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    torch.save(updates(rank, processes, torch.float64, 2, size=16, **CHANGES), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_with_chunks_equal_one(tmp_path):
    """The recomputation calls the batch norms' collectives again, on both in the same order."""
    spawn(worker, 2, free_port(), str(tmp_path))
    expected = updates(0, 1, torch.float64, 2, size=16, **CHANGES)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert any("encoder.trunk.stages.0.blocks.1.norm2.running_var" in name for name in expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-8, atol=1e-8, msg=lambda m, name=name: f"{name}: {m}")
        if not name[0].isdigit():
            assert torch.equal(found[0][name], found[1][name]), name


@pytest.mark.run
def test_a_run_with_it_trains_resumes_and_is_released(tmp_path):
    flags = ["--model.encoder=revnet50", "--model.encoder_width=0.0625", "--run.probe=False", "--run.name=rev"]
    flags += ["--run.precision=bf16", "--data.chunks=2"]
    train(tmp_path, *flags, "--run.images=96")
    import bigbigan

    model = bigbigan.load(str(tmp_path / "rev"))
    assert isinstance(model.encoder.trunk, RevNet) and model.encoder.features == 128
    out, _ = train(tmp_path, *flags, "--run.images=144")
    assert "resumed from" in out
