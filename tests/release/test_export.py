"""A model to give away: small, without D, as good as the original; and the one that ships, used when none is named."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import bigbigan
from bigbigan import api
from bigbigan.errors import CheckpointError, ExportError, InputError
from bigbigan.model import BigBiGAN
from bigbigan.release import load as release
from bigbigan.release import shipped
from bigbigan.release.card import worth
from bigbigan.release.export import Export, export, lighter, main
from bigbigan.release.format import write_release
from eval_linear.result import ProbeResult
from tests.conftest import picture, tiny_model, train
from tests.helpers.settings import read_preset

ABOUT = {"name": "tiny", "images_seen": 1234, "seed": 0, "data": {"path": "somewhere/digits", "split": "train"}}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    write_release(folder, tiny_model().eval(), ABOUT)
    return folder


@pytest.fixture(scope="module")
def exported(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "shipped" / "tiny"
    said = export(Export(str(original), str(folder), data="the digits"))
    assert "MB in bf16" in said
    return folder


@pytest.fixture
def shipping(monkeypatch):
    """A function that makes the releases in a folder the ones that come with the package."""

    def ship(folder):
        for module in (release, shipped):
            monkeypatch.setattr(module, "SHIPPED", folder)

    api._default_model.cache_clear()
    yield ship
    api._default_model.cache_clear()


def test_a_tilde_of_a_flag_is_the_home_folder(original, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "done").symlink_to(original)
    export(Export("~/done", "~/small"))
    assert (tmp_path / "small" / "model.safetensors").is_file() and not Path("~").exists()


def test_bf16_changes_little_and_halves_the_file(original, exported):
    pictures = [picture(i) for i in range(6)]
    before, after = (bigbigan.encode(pictures, model=folder) for folder in (original, exported))
    for name, value in before.items():
        away = (value - after[name]).square().mean().sqrt() / value.square().mean().sqrt()
        assert 0 < away < 0.02, (name, away)
    files = [folder / "model.safetensors" for folder in (original, exported)]
    assert files[1].stat().st_size < 0.6 * files[0].stat().st_size
    card = (exported / "README.md").read_text()
    assert "the digits" in card and "somewhere" not in card and "discriminator" not in card.split("|")[-1]


def test_what_was_rounded_before_is_not_called_changed(exported, tmp_path):
    said = export(Export(str(exported), str(tmp_path / "again")))
    card = (tmp_path / "again" / "README.md").read_text()
    assert "change" not in said and "on these weights" in card and "before the rounding" not in card
    assert "before the rounding" in (exported / "README.md").read_text()


def test_float32_with_d_is_the_model_itself(original, tmp_path):
    export(Export(str(original), str(tmp_path / "whole"), precision="float32", discriminator=True))
    before, after = (bigbigan.load(folder).state_dict() for folder in (original, tmp_path / "whole"))
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


def test_a_file_too_large_is_not_written(original, tmp_path):
    with pytest.raises(
        ExportError, match=r"expected at most 0.01 MB, found 0\.\d+ MB in bf16 \(generator [\d,]+, encoder"
    ):
        export(Export(str(original), str(tmp_path / "small"), limit_mb=0.01))
    assert not (tmp_path / "small").exists()


def test_figures_of_an_earlier_checkpoint_are_left_out(original, tmp_path):
    run = shutil.copytree(original, tmp_path / "run")
    seen = bigbigan.load(run, "cpu").card["images_seen"]
    row = {"encoder": "trained", "feature": "AvePool", "protocol": "linear", "figures": {"top1": 0.987}}
    for of, kept in ((seen, True), (seen + 1, False)):
        (run / "probe.json").write_text(json.dumps({"images_seen": of, "n_test": 3, "rows": [row]}))
        said = export(Export(str(run), str(tmp_path / "small")))
        card = json.loads((tmp_path / "small" / "config.json").read_text())["card"]
        assert ("98.7" in (tmp_path / "small" / "README.md").read_text()) == bool(card["worth"]) == kept
        assert ("no figures: probe.json is of" in said) != kept


@pytest.mark.parametrize("content", ["[]", "{}", '{"n_test": 3, "classes": "two", "rows": [{"protocol": 1}]}', "{"])
def test_figures_of_another_form_are_one_sentence(original, tmp_path, capsys, content):
    shutil.copytree(original, tmp_path / "run")
    (tmp_path / "run" / "probe.json").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "run"), str(tmp_path / "small")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "expected what bigbigan-probe writes, found" in said
    assert not (tmp_path / "small").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(original, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main([str(original), str(tmp_path / "file" / "small")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and str(tmp_path / "file") in said


@pytest.mark.run
def test_without_d_what_needs_it_says_so(exported, tmp_path):
    pictures = [picture(i) for i in range(2)]
    with pytest.raises(InputError, match="expected a model with a discriminator, found one without a discriminator"):
        bigbigan.discriminate(pictures, torch.zeros(2, 8), exported)
    _, err = train(tmp_path, f"--model.init_from={exported}", code=2)
    assert "expected a model with a discriminator" in err


def test_a_release_that_lost_its_d_is_still_refused(original, exported, tmp_path):
    """E and G alone are loaded only where the config says that no more is meant."""
    config = json.loads((exported / "config.json").read_text())
    assert config.pop("discriminator") is False
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((exported / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="discriminator.* is missing"):
        bigbigan.load(tmp_path)


def as_natural(folder, to):
    """A copy of a release whose card says that it saw natural images."""
    shutil.copytree(folder, to)
    config = json.loads((to / "config.json").read_text())
    config["card"]["natural"] = True
    (to / "config.json").write_text(json.dumps(config))


def test_no_model_named(exported, shipping, tmp_path, capsys):
    pictures = [picture(i) for i in range(3)]
    calls = (lambda: bigbigan.encode(pictures), lambda: bigbigan.generate(2), bigbigan.load)
    shipping(tmp_path / "none")
    assert bigbigan.models() == []
    for call in calls:
        with pytest.raises(CheckpointError, match="no model of natural images comes with this version.*hub id$"):
            call()
    shutil.copytree(exported, tmp_path / "models" / "tiny")
    shipping(tmp_path / "models")
    for call in calls:
        with pytest.raises(CheckpointError, match=r"or a toy model that comes with it: model='tiny' \(the digits\)"):
            call()
    as_natural(exported, tmp_path / "models" / "photos")
    features = bigbigan.encode(pictures, outputs="avepool_feat")
    assert torch.equal(features, bigbigan.encode(pictures, model=exported, outputs="avepool_feat"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "using the one that comes with the package: photos: natural images" in said
    assert bigbigan.reconstruct(pictures).shape == (3, 3, 8, 8) and bigbigan.load().discriminator is None
    assert capsys.readouterr().err == ""  # it is said once
    assert [model.name for model in bigbigan.models()] == ["photos", "tiny"]


def test_a_model_that_comes_with_the_package_has_a_name(exported, shipping, tmp_path, monkeypatch, caplog):
    shutil.copytree(exported, tmp_path / "models" / "tiny")
    shipping(tmp_path / "models")
    (found,) = bigbigan.models()
    assert (found.name, found.data, found.image_size, found.images_seen) == ("tiny", "the digits", 8, 1234)
    assert not found.natural and str(found).startswith("tiny: a toy model, the digits, 8 px, 0.")
    z = torch.randn(2, 8)
    assert torch.equal(bigbigan.load("tiny").generate(z), bigbigan.load(exported).generate(z))
    assert bigbigan.load("tiny", parts=("encoder",)).generator is None
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()  # of images, say
    assert torch.equal(bigbigan.load("tiny").generate(z), bigbigan.load(exported).generate(z))
    assert "tiny: the model of this name that comes with the package is meant" in caplog.text
    (tmp_path / "tiny" / "config.yaml").write_text("model: {}")  # a run's folder comes first
    with pytest.raises(CheckpointError, match="found a run without a checkpoint in"):
        bigbigan.load("tiny")


def test_an_export_says_what_the_model_is_worth(original, tmp_path):
    """The headline of the card is that of the run's probe."""
    run = tmp_path / "run"
    shutil.copytree(original, run)
    row = {"protocol": "linear, full batch", "labels": 1.0, "feature": "AvePool"}
    rows = [
        row | {"encoder": "trained", "figures": {"top1": {"mean": 0.944, "sd": None, "n": 1}}},
        row | {"encoder": "trained", "feature": "BN+CReLU", "figures": {"top1": {"mean": 0.95, "sd": None, "n": 1}}},
        row | {"encoder": "untrained", "figures": {"top1": {"mean": 0.8, "sd": 0.05, "n": 3}}},
        row | {"encoder": "none", "feature": "pixels 8×8", "figures": {"top1": {"mean": 0.961, "sd": None, "n": 1}}},
    ]
    results = [{"extractor": "classifier_a", "note": "", "figures": {"fid_classifier_a_train_n9": 1.618}}]
    pairs = [{"name": "reconstruction from z_mean, pixels", "value": 0.14, "baseline": 0.56,
              "baseline_name": "random pairs", "n": 359}]  # fmt: skip
    probe = {"n_test": 359, "classes": 10, "rows": rows, "bidirectional": pairs,
             "generation": {"results": results, "skipped": [], "truncation": None}}  # fmt: skip
    (run / "probe.json").write_text(json.dumps(probe))
    export(Export(str(run), str(tmp_path / "out"), natural=True))
    card = json.loads((tmp_path / "out" / "config.json").read_text())["card"]
    assert card["natural"] is True
    assert card["worth"] == {
        "linear probe, AvePool, top-1 %": "94.4 (untrained 80.0 ± 5.0, pixels 8×8 96.1)",
        "linear probe, BN+CReLU, top-1 %": "95.0 (pixels 8×8 96.1)",
        "fid_classifier_a_train_n9": "1.618",
        "reconstruction error, of random pairs": "0.250",
    }


def test_the_card_of_a_gan_promises_no_encoder(tmp_path):
    write_release(tmp_path / "gan", tiny_model(encoder="none", classes=3).eval(), ABOUT)
    page = (tmp_path / "gan" / "README.md").read_text()
    assert "A GAN: a generator and a discriminator" in page and "images with their classes; it has no encoder" in page
    assert "encode(" not in page and "| encoder |" not in page and "image-feature" not in page
    images = bigbigan.load(tmp_path / "gan").generate(torch.randn(2, 8), torch.tensor([0, 2]))
    assert images.shape == (2, 3, 8, 8)


def test_the_card_shows_each_figure_beside_its_baseline():
    row = {"protocol": "linear, full batch", "labels": 0.1, "feature": "AvePool"}
    figures = [("trained", 0.7, None, 1), ("untrained", 0.4, 0.01, 3)]
    rows = [
        row | {"encoder": e, "figures": {"top1": {"mean": m, "sd": s, "n": n}, "top5": None}} for e, m, s, n in figures
    ]
    probe = {"n_test": 1000, "classes": 10, "rows": rows, "bidirectional": None, "generation": None}
    table = worth(ProbeResult.from_json(probe))
    assert "| linear, full batch, 10 % of the labels, top1 % | trained | AvePool | 70.0 | 1 |" in table
    assert "| untrained | AvePool | 40.0 ± 1.0 | 3 |" in table
    assert worth(None) == ""


def test_the_small_preset_fits_what_ships():
    config = read_preset("cifar10_small")
    model = BigBiGAN.from_config(config.model, discriminator=False)
    tensors = lighter(model, "bf16", False).state_dict()
    assert sum(t.numel() * t.element_size() for t in tensors.values()) < 7.9e6


@pytest.mark.parametrize("name", shipped.names())
def test_what_comes_with_the_package_is_small_and_works(name):
    (found,) = (model for model in bigbigan.models() if model.name == name)
    page = (found.folder / "README.md").read_text()
    assert found.megabytes < 8 and f'model="{name}"' in page
    for feature in ("AvePool", "BN+CReLU"):  # the headline is what the card's table says
        best = found.worth[f"linear probe, {feature}, top-1 %"].split()[0]
        assert f"top1 % | trained | {feature} | {best} |" in page
    features = bigbigan.encode([picture(0), picture(1)], model=name, outputs="avepool_feat")
    assert features.isfinite().all() and features.std(0).max() > 0


@pytest.mark.parametrize("name", ["README.md", "config.json", "samples.png"])
def test_a_folder_of_something_else_is_left_as_it_is(original, tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    with pytest.raises(ExportError, match=f"expected a new folder, or a release to replace, .* another {name}; choose"):
        export(Export(str(original), str(tmp_path)))
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == '{"mine": 1}'
    with pytest.raises(ExportError, match="found a file; choose another path"):
        export(Export(str(original), str(tmp_path / name)))
    with pytest.raises(
        InputError, match=f"expected a place to write it, found .*{name}, which is no folder; choose an"
    ):
        export(Export("not even loaded", str(tmp_path / name / "release")))


@pytest.mark.parametrize("name", ["README.md", "config.json", "samples.png"])
def test_save_pretrained_leaves_a_folder_of_something_else_as_it_is(tmp_path, name):
    (tmp_path / name).write_text('{"mine": 1}')
    model = tiny_model()
    with pytest.raises(ExportError, match=f"expected a new folder, or a release to replace, .* another {name}; choose"):
        model.save_pretrained(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == '{"mine": 1}'
    with pytest.raises(InputError, match=f"{name}, which is no folder"):
        model.save_pretrained(str(tmp_path / name / "release"))


def test_save_pretrained_replaces_its_own_and_knows_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    for _ in range(2):
        tiny_model().save_pretrained("~/model")
    assert BigBiGAN.from_pretrained(tmp_path / "model").generator is not None
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"


def test_the_folder_one_is_in_a_release_and_one_cut_short_may_be_written_to(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    export(Export(str(original), "."))
    export(Export(str(original), "."))
    (tmp_path / "config.json").unlink()
    export(Export(str(original), str(tmp_path)))
    assert bigbigan.load(".").generator is not None and (tmp_path / "notes.txt").read_text() == "mine"


def test_a_changed_model_does_not_take_the_figures_along(tmp_path):
    model = bigbigan.load("digits")
    model.save_pretrained(tmp_path / "same")
    assert "What it is worth" in (tmp_path / "same" / "README.md").read_text()
    for name, change in {
        "trained": lambda p: torch.optim.SGD([p], lr=1.0).step(),
        "written": lambda p: torch.nn.init.normal_(p),
        "assigned": lambda p: p.detach().zero_(),
    }.items():
        model = bigbigan.load("digits")
        weight = next(model.encoder.parameters())
        weight.grad = torch.ones_like(weight)
        change(weight)
        model.save_pretrained(tmp_path / name)
        card = (tmp_path / name / "README.md").read_text()
        assert "not measured since its weights were changed" in card and "What it is worth" not in card
    model = bigbigan.load("digits").to(torch.bfloat16).float()
    bigbigan.encode(torch.zeros(2, 3, 8, 8) - 1, model)
    model.save_pretrained(tmp_path / "moved")
    assert "not measured" not in (tmp_path / "moved" / "README.md").read_text()


@pytest.mark.parametrize("names", [("README.md", "model.safetensors"), ("model.safetensors",)])
def test_weights_of_something_else_are_not_taken_for_a_release_cut_short(tmp_path, names):
    for name in names:
        (tmp_path / name).write_bytes(b"mine")
    if len(names) == 1:  # as accelerate writes a model
        save_file({"a": torch.zeros(1)}, tmp_path / names[0], metadata={"format": "pt"})
    before = {name: (tmp_path / name).read_bytes() for name in names}
    with pytest.raises(ExportError, match="found a folder with another model.safetensors"):
        tiny_model().save_pretrained(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in names} == before


def test_others_can_read_what_is_given_away(tmp_path):
    tiny_model().save_pretrained(tmp_path / "model")
    plain = tmp_path / "plain"
    plain.touch()
    assert {path.stat().st_mode for path in (tmp_path / "model").iterdir()} == {plain.stat().st_mode}


def test_what_a_kill_left_is_cleared_and_an_older_release_is_replaced_at_once(tmp_path, monkeypatch):
    model, folder = tiny_model().eval(), tmp_path / "x"
    for left in (".writing-x", ".replaced-x"):
        (tmp_path / left).mkdir()
        (tmp_path / left / ".tmpAbC").touch()  # safetensors writes there first
    write_release(folder, model, ABOUT | {"images_seen": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "rename", killed)
        write_release(folder, model, ABOUT | {"images_seen": 2})
    assert bigbigan.load(folder).card["images_seen"] == 1
    (folder / "notes.txt").write_text("mine")
    write_release(folder, model, ABOUT | {"images_seen": 3})
    assert bigbigan.load(folder).card["images_seen"] == 3 and (folder / "notes.txt").read_text() == "mine"


def test_an_export_replaces_neither_its_own_source_nor_a_run_nor_its_release(run_folder, tmp_path, capsys):
    shutil.copytree(run_folder, tmp_path / "run")
    shutil.copytree(run_folder / "release", tmp_path / "x")
    for source, folder, message in (
        ("x", "x", "expected another folder than the model's own"),
        ("run", "run", "expected another folder than the model's own"),
        ("x", "run", "found a run; choose another path"),
        ("run", "run/release", "found the one that a run wrote"),
        ("x", "", "expected the folder to write, found none"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(tmp_path / source), str(tmp_path / folder) if folder else ""])
        assert stop.value.code and message in capsys.readouterr().err
    before = {path.name: path.read_bytes() for path in (run_folder / "release").iterdir()}
    for copy in ("x", "run/release"):
        assert {path.name: path.read_bytes() for path in (tmp_path / copy).iterdir()} == before
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.run
def test_no_run_begins_where_a_release_would_be_loaded_in_its_place(run_folder, tmp_path):
    shutil.copytree(run_folder / "release", tmp_path / "run")
    _, err = train(tmp_path, "--run.name=run", code=2)
    assert "found one with a config.json, as releases have" in err


def test_a_release_that_the_run_has_left_behind_is_doubted(run_folder, tmp_path, caplog):
    shutil.copytree(run_folder, tmp_path / "run")
    bigbigan.load(tmp_path / "run", "cpu")
    assert "has gone on" not in caplog.text
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    newest.rename(newest.with_name(f"{int(newest.name) + 24:012d}"))
    bigbigan.load(tmp_path / "run", "cpu")
    assert "its release is loaded, of 240 images; the run has gone on to 264" in caplog.text


def test_a_compiled_network_is_saved_as_the_network_inside(tmp_path):
    model = tiny_model().eval()
    x = torch.rand(2, 3, 8, 8) * 2 - 1
    expected = model.encode(x)["z_mean"]
    model.encoder = torch.compile(model.encoder, backend="eager")
    model.save_pretrained(tmp_path)
    assert torch.equal(bigbigan.load(tmp_path, "cpu").encode(x)["z_mean"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "config", None), "found a model of your own networks; save its weights by torch.save"),
        (
            lambda m: setattr(m.encoder, "linear", torch.nn.Linear(32, 5)),
            "encoder.linear.bias has shape .*could not be",
        ),
        (
            lambda m: m.encoder.register_buffer("mean", torch.zeros(1)),
            "encoder.mean is unknown; a changed network could",
        ),
        (lambda m: torch.nn.utils.parametrizations.weight_norm(m.encoder.linear), "linear.weight is missing"),
    ],
)
def test_what_could_not_be_read_again_is_not_written(change, message, tmp_path):
    model = tiny_model()
    change(model)
    with pytest.raises(ExportError, match=message):
        model.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())
