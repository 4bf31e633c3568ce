"""Conditional models: E sees no class, G between classes, the sheets by class and class leakage."""

import json
import re
import shutil
from unittest import mock

import pytest
import torch
from torch import nn

import bigbigan
from bigbigan.data import open_images
from bigbigan.metrics import own_classifier
from bigbigan.model import BigBiGAN
from bigbigan.networks.layers import of_classes
from eval_linear import conditional, probe
from eval_linear.representations import Splits
from eval_linear.sheets import STEPS, Sheets
from tests.conftest import tiny_model, train
from tests.helpers.children import cheapen

SMALL = {"encoder_blocks": (1, 1, 1, 1), "encoder_width": 0.03125}
RUN = [
    "--run.name=classes", "--model.classes=10", "--run.images=96", "--run.sample_every=96",
    "--model.encoder_width=0.03125",
    "--model.encoder_blocks", "1", "1", "1", "1",
]  # fmt: skip


@pytest.fixture
def splits():
    train_images, test_images = (open_images("digits", name, "", "", name == "test", 0.1) for name in ("train", "test"))
    return Splits(train_images, test_images, "digits", " (embedded)")


def test_encode_of_a_conditional_model_is_that_of_an_unconditional_one():
    """The same weights of E give the same outputs, and nothing of E's has a class's shape."""
    plain, classes = tiny_model(**SMALL).eval(), tiny_model(classes=7, **SMALL).eval()
    assert {k: v.shape for k, v in plain.encoder.state_dict().items()} == {
        k: v.shape for k, v in classes.encoder.state_dict().items()
    }
    classes.encoder.load_state_dict(plain.encoder.state_dict())
    x, noise = torch.rand(5, 3, 8, 8) * 2 - 1, torch.randn(5, 8)
    found, expected = classes.encode(x, noise), plain.encode(x, noise)
    assert found.keys() == expected.keys() == {"z_mean", "z_stdev", "z_sample", "avepool_feat", "bn_crelu_feat"}
    assert all(torch.equal(found[k], expected[k]) for k in expected)
    with pytest.raises(ValueError, match="7 classes"):
        classes.generate(torch.randn(2, 8))


@pytest.mark.parametrize(
    "settings", [{}, {"shared_embedding": False}, {"skip_z": False}, {"architecture": "biggan_deep"}]
)
def test_weights_of_classes_are_classes_at_their_corners_and_mix_what_is_learnt_between(settings):
    model = tiny_model(classes=3, **SMALL, **settings).double().eval()
    torch.manual_seed(1)
    for table in (m for m in model.generator.modules() if isinstance(m, nn.Embedding)):
        nn.init.normal_(table.weight)
    z, y = torch.randn(4, 8, dtype=torch.float64), torch.tensor([0, 2, 1, 2])
    corners = nn.functional.one_hot(y, 3).double()
    torch.testing.assert_close(model.generate(z, corners), model.generate(z, y), rtol=1e-12, atol=1e-12)
    between = 0.25 * corners + 0.75 * corners.roll(1, 0)
    found = model.generate(z, between)
    for i in range(4):  # a model whose tables hold one row, the mixture, for every class
        alike = tiny_model(classes=3, **SMALL, **settings).double().eval()
        alike.load_state_dict(model.state_dict())
        for table in (m for m in alike.generator.modules() if isinstance(m, nn.Embedding)):
            table.weight.data[:] = 0.25 * table.weight[y[i]] + 0.75 * table.weight[y[i - 1]]
        torch.testing.assert_close(found[i : i + 1], alike.generate(z[i : i + 1], y[:1]), rtol=1e-9, atol=1e-9)


def test_generate_takes_classes_and_weights_and_refuses_other_shapes():
    model = tiny_model(classes=3, **SMALL).eval()
    nn.init.normal_(model.generator.embedding.weight)
    y = torch.tensor([0, 2, 1, 2])
    found = bigbigan.generate(4, model, classes=y, batch_size=3)
    torch.testing.assert_close(
        bigbigan.generate(4, model, classes=nn.functional.one_hot(y, 3).numpy(), batch_size=3), found
    )
    assert not torch.equal(bigbigan.generate(4, model, classes=y.flip(0), batch_size=3), found)
    for wrong in (y[:3], torch.ones(4, 2), torch.tensor(1)):
        with pytest.raises(ValueError, match=r"classes: expected the shape \(4,\), or weights \(4, 3\), found"):
            bigbigan.generate(4, model, classes=wrong)


def test_rows_of_a_table():
    table = nn.Embedding(3, 5)
    assert torch.equal(of_classes(table, torch.tensor([2, 0])), table.weight[[2, 0]])
    torch.testing.assert_close(
        of_classes(table, torch.tensor([[0.5, 0.5, 0.0]])), table.weight[:2].mean(0, keepdim=True)
    )


class Painter(nn.Module):
    """A generator of brightness: class k of 4 at level k, but the latents decide for some which level they take
    instead."""

    classes, latent_dim, image_size, wrong = 4, 8, 8, 0.0

    def __init__(self):
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, z, classes):
        if classes.is_floating_point():
            classes = classes @ torch.arange(4.0)
        swapped = torch.special.ndtr(z[:, 0]) < self.wrong
        level = torch.where(swapped, (classes + 1) % 4, classes)
        return (level / 2 - 0.75)[:, None, None, None].expand(-1, 3, 8, 8)


class Reader:
    """An extractor that reads the level; the surer the larger the first latent."""

    name, accuracy = "reader", 0.875

    def __call__(self, images):
        level = ((images[:, 0, 0, 0].float() / 127.5 - 1 + 0.75) * 2).round().long()
        return images.flatten(1).float(), 5.0 * nn.functional.one_hot(level, 4)

    def note(self):
        return "reader reads"


@pytest.mark.parametrize("wrong", [0.0, 0.25])
def test_leakage_counts_and_shows_what_is_seen_as_another_class(tmp_path, wrong):
    generator = Painter()
    generator.wrong = wrong
    model, sheets = BigBiGAN(generator, None, None), Sheets(tmp_path)
    (figure,) = conditional.leakage(sheets, model, Reader(), ["a", "b", "c", "d"], 256, 0)
    z = conditional.latents(model, "leakage", conditional.SAMPLES, 0)
    expected = float((torch.special.ndtr(z[:, 0]) < wrong).double().mean())
    assert figure.value == expected == pytest.approx(wrong, abs=0.04)
    assert figure.baseline == 0.125 and figure.n == 2048 and "reader" in figure.name
    if wrong:
        (entry,) = sheets.entries
        assert (tmp_path / entry.path).is_file() and f"{figure.value:.1%}" in entry.caption
        shown = re.findall(r"([abcd])→([abcd])(?! \d)", entry.caption)
        assert len(shown) >= 64 and set(shown) == {("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")}
    else:
        assert sheets.entries == []


def test_lines_between_classes_begin_and_end_at_them(tmp_path, monkeypatch):
    kept = {}
    monkeypatch.setattr(
        Sheets,
        "add",
        lambda self, name, title, caption, images, columns: kept.update({name: (caption, images, columns)}),
    )
    model = BigBiGAN(Painter(), None, None)
    names = ["a", "b", "c", "d"]
    conditional.by_class(Sheets(tmp_path), model, names, 0)
    conditional.between_classes(Sheets(tmp_path), model, names, 0)
    assert kept.keys() == {"samples-by-class", "interpolation-classes", "interpolation-both"}
    caption, images, columns = kept["samples-by-class"]
    levels = images[:, 0, 0, 0].view(4, columns)
    assert torch.equal(levels, (torch.arange(4) / 2 - 0.75)[:, None].expand_as(levels)) and "a, b, c, d" in caption
    for name in ("interpolation-classes", "interpolation-both"):
        caption, images, columns = kept[name]
        assert columns == STEPS and len(images) == 8 * STEPS
        levels = images[:, 0, 0, 0].view(8, STEPS)
        ends = re.findall(r"([abcd]) to ([abcd])", caption)
        for row, (first, last) in zip(levels, ends, strict=True):
            a, b = (names.index(c) / 2 - 0.75 for c in (first, last))
            torch.testing.assert_close(row, torch.linspace(a, b, STEPS), msg=caption)


@pytest.mark.run
@pytest.mark.parametrize("kind", ["bigbigan", "gan"])
def test_a_conditional_run_gets_the_sheets_without_asking(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    with mock.patch.object(own_classifier, "Recipe", own_classifier.Recipe):
        cheapen()
        out, _ = train(tmp_path, *RUN, *["--model.encoder=none"] * (kind == "gan"))
    result = json.loads((tmp_path / "classes" / "probe.json").read_text())
    sheets = {entry["path"] for entry in result["sheets"]}
    names = ("samples-by-class", "interpolation-classes", "interpolation-both", "class-leakage")
    names += ("interpolation-latents",) * (kind == "bigbigan")
    assert {f"evaluation/{name}.png" for name in names} <= sheets
    assert all((tmp_path / "classes" / path).is_file() for path in sheets)
    figure = next(f for f in result["bidirectional"] if "class leakage" in f["name"])
    assert figure["value"] > 0.5 and "class leakage" in out, "G has learnt nothing"
    assert "Class leakage" in (tmp_path / "classes" / "report.html").read_text()


def test_leakage_is_left_out_where_it_cannot_be_counted(tmp_path, splits, caplog):
    model = tiny_model(classes=7, **SMALL).eval()
    sheets = Sheets(tmp_path)
    assert conditional.conditional(model, splits, 64, sheets) == []
    assert len(sheets.entries) == 3 and "expected data of the model's 7 classes, found 10" in caplog.text
    assert conditional.conditional(model, splits, 64, None) == []


def test_the_probe_of_an_unconditional_model_has_none_of_it(run_folder, tmp_path, monkeypatch):
    asked = []
    shutil.copytree(run_folder, tmp_path / "done")
    monkeypatch.setattr(probe, "conditional", lambda *_: asked.append(1))
    probe.run_probe(probe.Probe(ckpt=str(tmp_path / "done"), parts=("pairs",)))
    assert not asked
