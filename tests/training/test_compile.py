"""The compiled step: one graph for each of the two updates in every family, and none anew in later iterations.

torch.compile is stopped before code is generated, since breaks and new compilations happen before that.
"""

from unittest import mock

import pytest
import torch

from bigbigan.networks.layers import record_statistics
from bigbigan.training.compile import difference
from bigbigan.training.objectives import Objective
from bigbigan.training.step import Step
from tests.helpers.shrunk import BATCH, Small, changed

ITERATIONS = 10
FAMILIES = {
    "SAGAN, ADA": ("biggan/sagan128", {"optim.augment": "ada"}),
    "BigGAN-deep": ("biggan/imagenet128_deep", {}),
    "RevNet, DiffAugment, dropout": (
        "bigbigan/imagenet128_revnet50", {"optim.augment": "diffaugment", "optim.dropout": 0.3},
    ),
    "Progressive GAN at full size, WGAN-GP": ("progan/a", {"model.image_size": 8}),
    "Progressive BigBiGAN at full size": ("progan/digits", {"grow.first_size": 0, "model.image_size": 8}),
    "BiGAN": ("bigan/digits", {}),
    "ALI": ("bigan/ali_digits", {}),
    "latent regressor": ("bigan/digits_jlr", {}),
}  # fmt: skip


def compiled(name: str, settings: dict, iterations: int = ITERATIONS) -> tuple[dict, int]:
    """Return the graph breaks, {reason: times}, and the number of graphs of compiled iterations."""
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    compiler = torch.compile
    with mock.patch.object(torch, "compile", lambda function, mode: compiler(function, backend="eager")):
        small = Small(changed(name, settings), torch.device("cpu"))
        small.step.compile()
        for number in range(iterations):
            small.iterate(number)
    return dict(counters["graph_break"]), counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_is_one_graph_compiled_once(family):
    assert compiled(*FAMILIES[family]) == ({}, 2)


def test_a_planted_break_is_seen():
    """By a read of a value."""
    right = Objective.discriminator_loss
    planted = lambda *args: right(*args) * float(right(*args).detach() > -1)  # noqa: E731
    with mock.patch.object(Objective, "discriminator_loss", planted):
        breaks, graphs = compiled("bigan/digits_jlr", {}, 1)
    assert breaks and graphs > 2


def test_a_planted_recompilation_is_seen():
    """By a number that is another one in each update, as a learning rate within the graph would be."""
    right, numbers = Objective.discriminator_loss, iter(range(1000))
    rates = [0]

    def planted(self, *scores):
        return right(self, *scores) * (1 + len(rates))

    def longer(self, *args):
        rates.append(next(numbers))
        return advance(self, *args)

    advance = Step.judge
    with mock.patch.object(Objective, "discriminator_loss", planted), mock.patch.object(Step, "judge", longer):
        assert compiled("bigan/digits_jlr", {}, 2)[1] > 2


def test_a_compiled_revnet_has_the_gradients_and_statistics_of_an_eager_one():
    """Its blocks are computed again in the backward pass, which must not record their statistics twice."""
    torch._dynamo.reset()
    small, found = Small(changed("bigbigan/imagenet128_revnet50", {}), torch.device("cpu")), []
    small.step.compile()  # which sets torch up; nothing is compiled before a call
    encoder, x = small.model.encoder, torch.randn(BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for forward in (encoder.avepool, torch.compile(encoder.avepool, backend="aot_eager", fullgraph=True)):
        with record_statistics(encoder) as statistics:
            forward(x).square().sum().backward()
        moments = [torch.stack([mean, deviation / count]) for count, mean, deviation in statistics.moments.values()]
        counts = [count for count, *_ in statistics.moments.values()]
        found.append((counts, moments, [p.grad.clone() for p in encoder.trunk.parameters()]))
        encoder.zero_grad(set_to_none=True)
    (counts, moments, gradients), (their_counts, their_moments, their_gradients) = found
    assert counts == their_counts, "each forward is recorded once"
    for ours, theirs in zip(moments, their_moments, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert difference(their_gradients, gradients) < 1e-4
