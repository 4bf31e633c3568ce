"""The probe: its table, its cache, its baselines, and the proof that the encoder did not move."""

import json
import shutil

import numpy as np
import pytest
import torch

from bigbigan.data import fingerprint, open_images
from eval_linear import probe as room
from eval_linear.features import digest, extract
from eval_linear.probe import Probe, ProbeData, ProbeError, run_probe
from eval_linear.solvers import STRENGTHS, fit_linear
from tests.conftest import ROOT, launch, tiny_model


@pytest.fixture
def run(run_folder, tmp_path):
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


def test_the_command_prints_one_table_and_writes_json(run):
    out, _ = launch(ROOT / "eval_linear" / "probe.py", run, "--untrained", "2", "--features", "avepool_feat", "z_mean")
    for text in (
        "trained     AvePool",
        "trained     z_mean",
        "untrained   AvePool",
        "pixels 8×8",
        "majority class",
        "n_train 1,438, n_test 359",
    ):
        assert text in out, out
    assert "the encoder did not move" in out
    result = json.loads((run / "probe.json").read_text())
    assert (result["n_train"], result["n_test"], result["classes"], result["seeds"]) == (1438, 359, 10, 1)
    rows = {(r["encoder"], r["feature"]): r for r in result["rows"]}
    assert rows["untrained", "AvePool"]["n"] == 2 and rows["untrained", "AvePool"]["sd"] is not None
    majority = np.bincount(open_images("digits").labels).argmax()
    assert rows["none", "majority class"]["top1"] == pytest.approx((open_images("digits", test=True).labels == majority).mean())
    assert rows["none", "pixels 8×8"]["top1"] > 0.93, "digits are nearly linearly separable in their pixels"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "expected a run folder, checkpoint, release or hub id"),
        (["RUN", "--features", "avepol"], "expected some of avepool_feat"),
        (["RUN", "--data.path", "/no/such"], "no such folder or file"),
        (["RUN", "--data.path", "FLAT"], "expected labels in the training split, found none"),
    ],
)
def test_mistakes_are_one_message_and_status_2(run, tmp_path, capsys, arguments, message):
    from tests.conftest import picture

    (tmp_path / "flat").mkdir()
    for i in range(20):
        picture(i).save(tmp_path / "flat" / f"{i}.png")
    places = {"RUN": run, "FLAT": tmp_path / "flat"}
    with pytest.raises(SystemExit) as stop:
        room.main([str(places.get(a, a)) for a in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_encoder_is_proven_unmoved(run, monkeypatch):
    honest = room.plain_rows

    def meddle(probe, model, train, test):
        model.encoder.feature_norm.running_mean += 1e-3  # a batch-norm statistic, the classic slip
        return honest(probe, model, train, test)

    monkeypatch.setattr(room, "plain_rows", meddle)
    with pytest.raises(ProbeError, match="the encoder moved"):
        run_probe(Probe(ckpt=str(run), untrained=0))


def test_the_cache_is_keyed_by_weights_and_data(tmp_path):
    images = open_images("digits", test=True)
    encoder = tiny_model().encoder.eval()
    first, _ = extract(encoder, images, 64, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    again, _ = extract(encoder, images, 100, tmp_path)
    assert all(torch.equal(first[k], again[k]) for k in first) and len(list(tmp_path.iterdir())) == 1
    with torch.no_grad():
        encoder.feature_norm.running_var += 1
    moved, _ = extract(encoder, images, 64, tmp_path)
    assert not torch.equal(moved["bn_crelu_feat"], first["bn_crelu_feat"]) and len(list(tmp_path.iterdir())) == 2
    assert fingerprint(images) != fingerprint(images.subset(np.arange(100)))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:100])  # cut short by a kill
    whole, _ = extract(encoder, images, 64, tmp_path)
    assert torch.equal(whole["bn_crelu_feat"], moved["bn_crelu_feat"])
    assert digest(encoder) == digest(encoder)


def test_the_solver_recovers_a_linear_rule_and_chooses_without_the_test_split():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(20, 3))
    x = rng.normal(size=(1200, 20)) * np.linspace(1, 50, 20) + 7
    y = ((x - 7) / np.linspace(1, 50, 20) @ w).argmax(1)
    fit = fit_linear(x[:800], y[:800], x[800:], y[800:], seed=0)
    assert fit.top1 > 0.95 and fit.strength in STRENGTHS and fit.converged
    scrambled = fit_linear(x[:800], y[:800], x[800:], rng.permutation(y[800:]), seed=0)
    assert scrambled.strength == fit.strength
    noise = fit_linear(x[:800], rng.integers(0, 3, 800), x[800:], rng.integers(0, 3, 400), seed=0)
    assert noise.top1 < 0.45


def test_one_class_is_refused(run, tmp_path):
    from tests.conftest import picture

    for split in ("train", "test"):
        (tmp_path / "one" / split / "a").mkdir(parents=True)
        (tmp_path / "one" / split / "b").mkdir(parents=True)
        for i in range(4):
            picture(i).save(tmp_path / "one" / split / "a" / f"{i}.png")
    with pytest.raises(ProbeError, match="expected (labels|at least two classes)"):
        run_probe(Probe(ckpt=str(run), data=ProbeData(path=str(tmp_path / "one"))))
