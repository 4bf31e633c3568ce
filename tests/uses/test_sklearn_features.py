"""E inside scikit-learn: its own checks, a pipeline with a grid search, every form of images; and `datasets`' map."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import bigbigan
from bigbigan.errors import BigBiGANError
from bigbigan.release.format import write_release
from tests.conftest import ROOT, picture, tiny_model
from tests.uses.test_backbones import ABOUT, moved


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("sklearn") / "release"
    write_release(folder, moved(tiny_model()), ABOUT)
    return str(folder)


class Tables(bigbigan.BigBiGANFeatures):
    """The transformer with rows of pixels, where any table may come: scikit-learn's checks have 1 to 10 columns of any
    values, so a row of n columns is an image of n × n pixels. Everything else is the transformer's own."""

    def _shape(self, columns):
        return 1, columns

    def _rows(self, X, first):
        rows = super()._rows(X, first)[:, 0, :, 0]
        return np.tanh(rows.astype(float))[:, :, None, None].repeat(rows.shape[1], axis=2)


# One check does not apply as it is written:
EXPECTED = {
    "check_methods_subset_invariance": "asks for 1e-7; convolutions in float32 round differently in batches of other "
    "sizes (test_batches_of_any_size_agree has the bound that holds)"
}


def test_scikit_learns_checks(release):
    estimator = Tables(release, image_shape=(1, 1), value_range=(-1, 1), device="cpu")
    results = estimator_checks.check_estimator(estimator, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    failed = {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}
    assert not failed
    skipped = {r["check_name"] for r in results if r["status"] == "skipped"}
    assert skipped <= {"check_array_api_input"}  # for arrays of other libraries; scikit-learn leaves it off by default
    assert sum(r["status"] == "passed" for r in results) >= 40


def test_without_rows_it_declares_that_it_takes_no_tables(release):
    """Of an estimator of images scikit-learn checks that it can be cloned, and skips what needs tables."""
    estimator = bigbigan.BigBiGANFeatures(release, device="cpu")
    with pytest.warns(SkipTestWarning, match="requires input"):
        assert [r["status"] for r in estimator_checks.check_estimator(estimator)] == ["passed"]
    for name in ("no_attributes_set_in_init", "get_params_invariance", "set_params", "estimator_repr", "mixin_order"):
        getattr(estimator_checks, f"check_{name}")("BigBiGANFeatures", estimator)


def test_batches_of_any_size_agree(release):
    X = load_digits().data[:40]
    whole = bigbigan.BigBiGANFeatures(release, image_shape=(8, 8), value_range=(0, 16), device="cpu").fit(X)
    expected = whole.transform(X)
    for size in (1, 7):
        found = clone(whole).set_params(batch_size=size).transform(X)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(whole.transform(X[5:9]), expected[5:9], rtol=1e-4, atol=1e-5)


def test_features_are_those_of_encode_in_every_form(release, tmp_path):
    pictures = [picture(i, (8, 8)) for i in range(5)]
    paths = [str(tmp_path / f"{i}.png") for i in range(5)]
    for path, image in zip(paths, pictures, strict=True):
        image.save(path)
    arrays = np.stack([np.asarray(p) for p in pictures])
    for output in ("avepool_feat", "bn_crelu_feat", "z_mean", "z_sample"):
        features = bigbigan.BigBiGANFeatures(release, output, device="cpu").fit(pictures)
        expected = bigbigan.encode(pictures, release, output, device="cpu").numpy()
        forms = (pictures, arrays, paths, np.array(paths), np.array(paths)[:, None], str(tmp_path))
        for X in (*forms, pandas.Series(paths), pandas.DataFrame({"path": paths})):
            found = features.transform(X)
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        names = features.get_feature_names_out()
        assert len(names) == expected.shape[1] and names[0] == "bigbiganfeatures0"
        frame = clone(features).set_output(transform="pandas").fit_transform(pictures)
        assert list(frame.columns) == list(names)
    rows = arrays.reshape(5, -1)
    colour = bigbigan.BigBiGANFeatures(release, image_shape=(8, 8, 3), device="cpu").fit(rows)
    np.testing.assert_allclose(
        colour.transform(rows), bigbigan.encode(pictures, release, "avepool_feat", device="cpu"), rtol=1e-4, atol=1e-5
    )


def test_rows_of_three_pixels_are_no_colour_image(release):
    X = np.arange(12.0).reshape(4, 3)
    found = bigbigan.BigBiGANFeatures(release, image_shape=(1, 3), value_range=(0, 12), device="cpu").fit_transform(X)
    assert found.shape == (4, 64)


@pytest.mark.parametrize("given", ["path", "model"])
def test_a_pipeline_in_a_grid_search(release, given):
    X, y = load_digits(return_X_y=True)
    X, y = X[:200], y[:200]
    model = release if given == "path" else bigbigan.load(release, "cpu")
    features = bigbigan.BigBiGANFeatures(model, image_shape=(8, 8), value_range=(0, 16), device="cpu")
    pipeline = make_pipeline(features, LogisticRegression(max_iter=50))
    grid = {"bigbiganfeatures__output": ["avepool_feat", "z_mean"], "logisticregression__C": [0.1, 1.0]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged
        search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert len(scores) == 4 and np.isfinite(scores).all() and scores.max() > 0.4
    assert search.predict(X[:3]).shape == (3,)


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({"output": "features"}, np.zeros((2, 8, 8), np.uint8), "output: expected one of z_mean, .*found 'features'"),
        ({"image_shape": (8, 8)}, np.zeros((2, 63)), r"as many pixels as X has columns, 63; found \(8, 8\)"),
        ({"image_shape": (64,)}, np.zeros((2, 64)), r"expected \(H, W\) or \(H, W, C\)"),
        ({}, np.zeros((20, 64), np.uint8), "expected one image for each of its 20 entries, found rows; pass"),
        ({"model": "no/such"}, np.zeros((2, 8, 8), np.uint8), "no such folder"),
    ],
)
def test_what_cannot_be_is_a_sentence(options, X, message, release):
    with pytest.raises(BigBiGANError, match=message):
        bigbigan.BigBiGANFeatures(**{"model": release, "device": "cpu"} | options).fit_transform(X)


def test_what_another_gan_lacks_is_said(release):
    with pytest.raises(BigBiGANError, match="found a GAN, which has no encoder"):
        bigbigan.BigBiGANFeatures(tiny_model(encoder="none")).fit([])


def blocks_of(heading: str) -> list[str]:
    """The Python of a section of docs/own_code.md."""
    section = (ROOT / "docs" / "own_code.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [block.split("```")[0] for block in section.split("```python\n")[1:]]


def test_the_docs_pipeline(release, monkeypatch):
    (code,) = blocks_of("scikit-learn")
    small = load_digits(return_X_y=True)
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda return_X_y: (small[0][:150], small[1][:150]))
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged
        exec(code.replace("runs/digits", release), names)
    assert names["search"].best_score_ > 0.3


def test_the_docs_map_of_datasets(release, tmp_path, monkeypatch):
    paths = [str(tmp_path / f"{i}.png") for i in range(7)]
    for i, path in enumerate(paths):
        picture(i, (8, 8)).save(path)
    table = Dataset.from_dict({"image": paths}, features=Features({"image": ImageFeature()}))
    monkeypatch.setattr("datasets.load_dataset", lambda *_, **__: table)
    (code,) = blocks_of("datasets")
    names = {}
    exec(code.replace("runs/digits", release), names)
    expected = bigbigan.encode(paths, release, "avepool_feat")
    found = names["table"].with_format("torch")["avepool_feat"][:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert names["table"].features["avepool_feat"].feature.dtype == "float32"
