"""The probe: its table, its cache, its baselines, and the proof that the encoder did not move."""

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from bigbigan.data import fingerprint, open_images
from bigbigan.errors import DataError, MetricsUnavailable, ProbeError
from bigbigan.metrics.cache import digest
from eval_linear import probe as room
from eval_linear.features import extract
from eval_linear.linear.solvers import fit_linear
from eval_linear.probe import Probe, ProbeData, run_probe, write
from eval_linear.result import PairFigure, ProbeResult, Row
from tests.conftest import ROOT, launch, picture, tiny_model


@pytest.fixture
def run(run_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(run_folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.run
def test_the_command_prints_one_table_and_writes_json_and_page(run, tmp_path):
    flags = (
        "--untrained",
        "2",
        "--features",
        "avepool_feat",
        "z_mean",
        "--parts",
        "linear",
        "knn",
        "--labels",
        "1",
        "0.1",
    )
    out, _ = launch(ROOT / "eval_linear" / "probe.py", run, *flags)
    for text in (
        "trained     AvePool",
        "trained     z_mean",
        "untrained   AvePool",
        "pixels 8×8",
        "PCA of pixels (61)",
        "majority class",
        "n_train 1,438, n_test 359",
        "linear, full batch, centre crop, 10 % of the labels (144 images)",
        "k-NN, L1 of L1-normalised, majority, 359 queries",
    ):
        assert text in out, out
    assert "the encoder did not move" in out
    result = json.loads((run / "probe.json").read_text())
    assert (result["n_train"], result["n_test"], result["classes"], result["seeds"]) == (1438, 359, 10, 1)
    linear = {
        (r["encoder"], r["feature"], r["labels"]): r for r in result["rows"] if r["protocol"].startswith("linear")
    }
    few = linear["untrained", "AvePool", 0.1]["figures"]["top1"]
    assert few["n"] == 2 and few["sd"] is not None
    majority = np.bincount(open_images("digits").labels).argmax()
    share = (open_images("digits", test=True).labels == majority).mean()
    assert linear["none", "majority class", 1.0]["figures"]["top1"]["mean"] == pytest.approx(share)
    pixels = linear["none", "pixels 8×8", 1.0]
    assert pixels["figures"]["top1"]["mean"] > 0.93, "digits are nearly linearly separable in their pixels"
    assert pixels["figures"]["top5"]["mean"] > pixels["figures"]["top1"]["mean"] and len(pixels["per_class"]) == 10
    assert (
        linear["trained", "AvePool", 1.0]["figures"]["top1"]["mean"]
        > linear["trained", "AvePool", 0.1]["figures"]["top1"]["mean"]
    )
    matrix = np.array(result["confusion"]["matrix"])
    assert (matrix.sum(1) == np.bincount(open_images("digits", test=True).labels)).all()
    assert matrix.trace() / 359 == pytest.approx(linear["trained", "AvePool", 1.0]["figures"]["top1"]["mean"])
    knn = next(r for r in result["rows"] if r["feature"] == "pixels 8×8" and "cosine" in r["protocol"])
    assert knn["figures"]["top1"]["mean"] > 0.95
    assert "AvePool" in (run / "report.html").read_text()


def test_generation_and_pairs_without_the_weights_of_inception(run, monkeypatch):
    """Offline: one sentence about the missing weights, and the figures of the data's own domain; sheets that can be
    opened."""

    def unavailable(weights, device):
        raise MetricsUnavailable("weights are not here: put them there")

    monkeypatch.setattr("eval_linear.generation.inception2015", unavailable)
    options = room.Generation(images=64, truncation_images=32, thresholds=(0.5,))
    out = run_probe(Probe(ckpt=str(run), parts=("generation", "pairs"), generation=options))
    assert "weights are not here: put them there" in out
    result = json.loads((run / "probe.json").read_text())
    own, pixels = result["generation"]["results"]
    assert own["extractor"] == "classifier_digits" and "held-out images" in own["note"]
    for name in ("fid_classifier_digits_train_n64", "fid_classifier_digits_test_n64", "is_classifier_digits_n64"):
        assert np.isfinite(own["figures"][name]), name
    real = own["figures"]["fid_real_classifier_digits_test_train_n359"]
    assert real < own["figures"]["fid_classifier_digits_train_n64"], (
        "a toy generator is further from the data than real images"
    )
    assert any(name.startswith("swd_") for name in pixels["figures"])
    points = result["generation"]["truncation"]["points"]
    assert [p["threshold"] for p in points] == [0.5, None]
    names = {f["name"]: f for f in result["bidirectional"]}
    error = names["reconstruction from z_mean, pixels"]
    assert error["value"] > 0 and error["baseline_name"] == "random pairs" and error["n"] == 359
    assert {s["path"].split("/")[1] for s in result["sheets"]} >= {
        "neighbours-samples-pixels.png",
        "interpolation-images.png",
    }
    assert all((run / sheet["path"]).is_file() for sheet in result["sheets"])


def test_tars_give_the_figures_of_the_folder_that_they_were_made_of(run, tmp_path):
    folder, shards = tmp_path / "shades", tmp_path / "shards"
    shards.mkdir()
    for split, count in (("train", 12), ("test", 8)):
        with tarfile.open(shards / f"{split}-0000.tar", "w") as tar:
            for label, shade in (("dark", 20), ("light", 220)):
                (folder / split / label).mkdir(parents=True)
                for i in range(count):
                    path = folder / split / label / f"{i:02}.png"
                    picture(i).point(lambda v, shade=shade: (v + 3 * shade) // 4).save(path)
                    tar.add(path, f"{label}{i:02}.png")
                    member = tarfile.TarInfo(f"{label}{i:02}.cls")
                    member.size = len(label)
                    tar.addfile(member, io.BytesIO(label.encode()))
    found = {}
    options = {"labels": (1.0,), "untrained": 0, "features": ("avepool_feat",), "parts": ("linear", "knn", "pairs")}
    for data in (folder, shards):
        out = run_probe(Probe(ckpt=str(run), data=ProbeData(str(data)), **options))
        result = json.loads((run / "probe.json").read_text())
        assert (result["n_train"], result["n_test"], result["class_names"]) == (24, 16, ["dark", "light"])
        found[data] = result["rows"], result["bidirectional"]
    assert found[shards] == found[folder] and len(found[folder][0]) > 4
    kept = Path(out.splitlines()[-1].removeprefix("the figures that were there before are kept in "))
    assert kept.parent == run and str(folder) in json.loads(kept.read_text())["data"]
    (shards / "train-0001.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="train-0001.tar.gz: expected a plain tar"):
        run_probe(Probe(ckpt=str(run), data=ProbeData(str(shards)), **options))


def test_figures_that_are_not_measured_again_are_kept(tmp_path):
    knn, linear = Row("trained", "AvePool", "k-NN"), Row("trained", "AvePool", "linear")
    full = ProbeResult(data="digits", rows=[knn, linear], bidirectional=[PairFigure("error", 1.0)])
    again = dataclasses.replace(full, images_seen=9)
    other = dataclasses.replace(full, data="photos")
    results = (full, again, other, again, dataclasses.replace(full, rows=[knn]), full)
    names = [None, None, "probe-1.json", "probe-2.json", "probe-1.json", None]
    for before, result, name in zip((None, *results), results, names, strict=False):
        kept = write(result, tmp_path)
        assert (kept and kept.name) == name and ProbeResult.read(tmp_path / "probe.json") == result
        assert kept is None or ProbeResult.read(kept) == before
    for content in (b"somebody's notes", b'{"of": "a newer version"}', b"\xff\xfe"):
        (tmp_path / "probe.json").write_bytes(content)
        assert write(full, tmp_path).read_bytes() == content, "what nothing here reads is kept too"
    assert len(list(tmp_path.glob("probe*.json"))) == 6


def test_a_second_data_set_stands_beside_the_first(run, tmp_path):
    for split in ("train", "test"):
        for label, shade in (("dark", 20), ("light", 220)):
            (tmp_path / "shades" / split / label).mkdir(parents=True)
            for i in range(8):
                picture(i).point(lambda v, shade=shade: (v + 3 * shade) // 4).save(
                    tmp_path / "shades" / split / label / f"{i}.png"
                )
    other = str(tmp_path / "shades")
    out = run_probe(
        Probe(ckpt=str(run), parts=("linear",), labels=(1.0,), untrained=0, features=("avepool_feat",), transfer=other)
    )
    assert f"centre crop, data {other}" in out
    rows = json.loads((run / "probe.json").read_text())["rows"]
    moved = next(r for r in rows if r.get("data") == other and r["encoder"] == "trained")
    assert moved["figures"]["top1"]["mean"] > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere/at/all"], "expected a run folder, checkpoint, release or hub id"),
        (["RUN", "--features", "avepol"], "expected some of avepool_feat"),
        (["RUN", "--labels", "10"], "--labels 10.0: expected shares of the training labels in (0, 1]"),
        (["RUN", "--augment", "resnet"], "expected --linear adam_5k or adam_100k"),
        (["RUN", "--parts", "linear", "--generation.images", "3"], "expected at least 20 samples"),
        (["RUN", "--data.path", "/no/such"], "no such folder or file"),
        (
            ["RUN", "--data.path", "FLAT", "--parts", "linear"],
            "--parts linear: expected labels of two classes or more, found that the images have no labels; give them "
            "with --data.label_column NAME",
        ),
        (["RUN", "--transfer", "FLAT"], "found that the images have no labels"),
        (["RUN", "--parts", "classes"], "--parts classes: expected a conditional model, found one without classes"),
    ],
)
def test_mistakes_are_one_message_and_status_2(run, tmp_path, capsys, arguments, message):
    (tmp_path / "flat").mkdir()
    for i in range(20):
        picture(i).save(tmp_path / "flat" / f"{i}.png")
    places = {"RUN": run, "FLAT": tmp_path / "flat"}
    with pytest.raises(SystemExit) as stop:
        room.main([str(places.get(a, a)) for a in arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_the_encoder_is_proven_unmoved(run, monkeypatch):
    honest = room.feature_rows

    def meddle(probe, parts, model, splits, folder):
        model.encoder.feature_norm.running_mean += 1e-3  # a batch-norm statistic, the classic slip
        return honest(probe, parts, model, splits, folder)

    monkeypatch.setattr(room, "feature_rows", meddle)
    with pytest.raises(ProbeError, match="the encoder moved"):
        run_probe(Probe(ckpt=str(run), untrained=0, parts=("knn",)))


def test_the_cache_is_keyed_by_weights_data_and_names(tmp_path, caplog):
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
    extract(encoder, images, 64, tmp_path, names=("z_mean",))
    assert len(list(tmp_path.iterdir())) == 3
    assert digest(encoder.state_dict()) == digest(encoder.state_dict())
    (tmp_path / "file").write_text("no folder")
    unkept, _ = extract(encoder, images, 64, tmp_path / "file")
    assert torch.equal(unkept["z_mean"], whole["z_mean"]) and "could not be kept" in caplog.text


def test_the_fit_recovers_a_linear_rule_and_chooses_without_the_test_split():
    rng = np.random.default_rng(0)
    w = rng.normal(size=(20, 3))
    x = rng.normal(size=(1200, 20)) * np.linspace(1, 50, 20) + 7
    y = ((x - 7) / np.linspace(1, 50, 20) @ w).argmax(1)
    x, y = torch.from_numpy(x).float(), torch.from_numpy(y)
    fit = fit_linear(x[:800], y[:800], x[800:], y[800:], 3, seed=0)
    assert fit.top1 > 0.95 and fit.converged
    scrambled = fit_linear(x[:800], y[:800], x[800:], y[800:][torch.randperm(400)], 3, seed=0)
    assert scrambled.strength == fit.strength
    scaler = StandardScaler().fit(x[:800].numpy())
    theirs = LogisticRegression(C=fit.strength, max_iter=2000).fit(scaler.transform(x[:800].numpy()), y[:800].numpy())
    assert fit.top1 == pytest.approx(theirs.score(scaler.transform(x[800:].numpy()), y[800:].numpy()), abs=0.003)
    noise = fit_linear(
        x[:800], torch.from_numpy(rng.integers(0, 3, 800)), x[800:], torch.from_numpy(rng.integers(0, 3, 400)), 3, 0
    )
    assert noise.top1 < 0.45 and noise.confusion.sum() == 400


def test_what_is_named_twice_is_fitted_once(run):
    """Not "± 0.00" of two equal fits."""
    twice = {"features": ("avepool_feat",) * 2, "labels": (1.0, 1.0), "linear": ("full_batch",) * 2}
    run_probe(Probe(ckpt=str(run), parts=("linear",), untrained=0, **twice))
    rows = ProbeResult.read(run / "probe.json").rows
    assert [row.figures["top1"].n for row in rows] == [1] * 4 and rows[0].figures["top1"].sd is None


def test_infinite_figures_are_said_once_and_null_in_the_file(run, monkeypatch):
    monkeypatch.setattr("eval_linear.pairs.memorisation", lambda *_: float("inf"))
    out = run_probe(Probe(ckpt=str(run), parts=("pairs",)))
    assert out.count("so null in probe.json: distance of samples to the nearest") == 1
    json.loads((run / "probe.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_classes_without_training_rows_are_never_named():
    x = torch.tensor([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.2]]).repeat(10, 1)
    y = torch.tensor([1, 1, 4, 4]).repeat(10)
    fit = fit_linear(x, y, x, torch.cat([y[:-1], torch.tensor([3])]), 6, seed=0)
    assert fit_linear(x[1:3], y[1:3], x, y, 6, seed=0).top1 == 1, "one label of each of two classes"
    assert fit.top1 == pytest.approx(39 / 40) and fit.confusion[:, [0, 2, 3, 5]].sum() == 0 and fit.top5 >= fit.top1


def test_one_class_is_refused(run, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "one" / split / "a").mkdir(parents=True)
        (tmp_path / "one" / split / "b").mkdir(parents=True)
        for i in range(4):
            picture(i).save(tmp_path / "one" / split / "a" / f"{i}.png")
    with pytest.raises(ProbeError, match="--parts knn: expected labels of two classes or more"):
        run_probe(Probe(ckpt=str(run), data=ProbeData(path=str(tmp_path / "one")), parts=("knn",)))
