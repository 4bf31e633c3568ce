"""The compiled step: one graph for each of the two updates in every family, and none anew in later iterations.

torch.compile is stopped before code is generated, since breaks and new compilations happen before that.
"""

from unittest import mock

import pytest
import torch

from bigbigan.training.compile import compile_step
from bigbigan.training.objectives import Objective
from bigbigan.training.step import Step
from tests.helpers.shrunk import BATCH, Small, changed

ITERATIONS = 10
FAMILIES = {
    "BigBiGAN, ADA, classes": ("digits", {"optim.augment": "ada", "model.classes": 3, "data.chunks": 2}),
    "BigBiGAN, RevNet": ("bigbigan/imagenet128_revnet50", {}),
    "BigGAN-deep": ("biggan/imagenet128_deep", {}),
    "SAGAN, DiffAugment, dropout": ("biggan/sagan128", {"optim.augment": "diffaugment", "optim.dropout": 0.3}),
    "Progressive GAN at full size, WGAN-GP": ("progan/a", {}),
    "Progressive BigBiGAN at full size": ("progan/digits", {"grow.first_size": 0}),
    "BiGAN": ("bigan/digits", {}),
    "ALI": ("bigan/ali_digits", {}),
    "latent regressor": ("bigan/digits_jlr", {}),
}


def compiled(name: str, settings: dict, backend: str = "eager") -> tuple[dict, int]:
    """Return the graph breaks, {reason: times}, and the number of graphs of ten compiled iterations."""
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    compiler = torch.compile
    with mock.patch.object(torch, "compile", lambda function, mode: compiler(function, backend=backend)):
        small = Small(changed(name, settings), torch.device("cpu"))
        small.step.compile()
        for number in range(ITERATIONS):
            small.iterate(number)
    return dict(counters["graph_break"]), counters["stats"]["unique_graphs"]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_update_is_one_graph_compiled_once(family):
    assert compiled(*FAMILIES[family]) == ({}, 2)


@pytest.mark.parametrize(
    ("owner", "method", "fault"),
    [
        (Objective, "discriminator_loss", lambda loss: loss * float(loss.detach() > -1)),  # a read: a break
        (Step, "scores", lambda scores: (scores, torch._dynamo.graph_break())[0]),
    ],
)
def test_a_planted_break_is_seen(owner, method, fault):
    right = getattr(owner, method)
    with mock.patch.object(owner, method, lambda *args: fault(right(*args))):
        breaks, graphs = compiled("bigan/digits_jlr", {})
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
        assert compiled("bigan/digits_jlr", {})[1] > 2


def test_a_compiled_revnet_has_the_gradients_and_statistics_of_an_eager_one():
    """Its blocks are computed again in the backward pass, which must not record their statistics twice."""
    torch._dynamo.reset()
    compiler = torch.compile
    config = changed("bigbigan/imagenet128_revnet50", {})
    small, eager = (Small(config, torch.device("cpu")) for _ in range(2))
    batch = small.draw(small.images)
    batch.x = batch.x + 0.1 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(0))
    with mock.patch.object(torch, "compile", lambda function, mode: compiler(function, backend="aot_eager")):
        said = compile_step(small.step, batch, "default")  # raises where gradients differ
    assert "E " in said and len(batch) == BATCH
    for step in (small.step, eager.step):
        step.encoder_generator_update(batch)
    statistics = [{k: v for k, v in s.model.named_buffers() if "running" in k} for s in (small, eager)]
    assert statistics[0] and any((v != 0).any() for k, v in statistics[0].items() if "mean" in k)
    for key, value in statistics[0].items():
        torch.testing.assert_close(value, statistics[1][key], rtol=1e-4, atol=1e-5, msg=key)
