"""Extractors: the Inception network, its weights missing, torn or foreign; the classifier of one's own domain and its
cache."""

import io
import sys
import urllib.error

import numpy as np
import pytest
import torch
from torch import nn

import bigbigan.metrics.classifier as module
from bigbigan.data import evaluation_batches, open_images, to_signed
from bigbigan.errors import MetricsError, MetricsUnavailable
from bigbigan.metrics import (
    Recipe,
    accuracy,
    cache_folder,
    evaluate_generation,
    extractors,
    in_domain_extractor,
    inception2015,
    train_classifier,
)
from bigbigan.metrics.own_classifier import ClassifierExtractor, _division
from tests.metrics.test_metrics import as_images, one_thread, pictures

__all__ = ["one_thread"]  # a fixture that every test here uses
QUICK = Recipe(width=0.125, min_steps=40, epochs=0, batch_size=64)


@pytest.fixture(scope="module")
def digits():
    return open_images("digits")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty TORCH_HOME, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", offline)
    return tmp_path / "hub" / "checkpoints"


def offline(*_, **__):
    raise urllib.error.URLError("Name or service not known")


def unavailable(*arguments, **options) -> str:
    with pytest.raises(MetricsUnavailable) as caught:
        inception2015(*arguments, **options)
    return str(caught.value)


def test_missing_weights_are_a_sentence(hub):
    for sentence in (unavailable(), unavailable(download=False), unavailable(hub / "elsewhere.pth")):
        for part in (extractors.WEIGHTS, "91 MiB", extractors.URL, str(hub)):
            assert part in sentence
        assert "\n" not in sentence
    assert "Name or service not known" in unavailable()
    assert "elsewhere.pth is not there" in unavailable(hub / "elsewhere.pth")
    assert not list(hub.glob("*"))


def test_torn_and_foreign_weights_are_a_sentence(hub, monkeypatch):
    hub.mkdir(parents=True)
    (hub / extractors.WEIGHTS).write_bytes(b"cut short")
    sentence = unavailable()
    assert f"begins with {extractors.CHECKSUM}" in sentence and "9 bytes" in sentence
    (hub / extractors.WEIGHTS).unlink()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"<html>"))
    assert "the download was cut short or is another file" in unavailable()
    assert not list(hub.iterdir())
    monkeypatch.setattr(extractors, "CHECKSUM", "")  # a file that passes for the right one
    torch.save({"weight": torch.zeros(1)}, hub / extractors.WEIGHTS)
    assert "holds something else" in unavailable()


def test_weights_never_run_code(hub, monkeypatch, tmp_path):
    class Evil:
        def __reduce__(self):
            return open, (str(tmp_path / "evil"), "w")

    monkeypatch.setattr(extractors, "CHECKSUM", "")
    torch.save({"weight": Evil()}, tmp_path / "weights.pth")
    assert "holds something else" in unavailable(tmp_path / "weights.pth")
    assert not (tmp_path / "evil").exists()


def test_inception_equals_torch_fidelity(hub, monkeypatch):
    """With random weights, downloaded from a pretended network."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    blank = object.__new__(theirs.FeatureExtractorInceptionV3)
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda *_: None)
    monkeypatch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
    torch.manual_seed(0)
    blank.__init__("inception-v3-compat", ["2048", "logits_unbiased"])
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(hub.parent.parent))
    file = io.BytesIO()
    torch.save(blank.state_dict(), file)
    assert abs(file.tell() / 2**20 - 91) < 1  # what the sentence says
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(file.getvalue()))
    monkeypatch.setattr(extractors, "CHECKSUM", "")
    extractor = inception2015()
    assert (hub / extractors.WEIGHTS).is_file()
    monkeypatch.setattr("urllib.request.urlopen", offline)
    inception2015()  # from the cache now
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = blank(images)
    features, logits = extractor(images)
    assert features.shape == (2, 2048) and logits.shape == (2, 1008)
    torch.testing.assert_close(features, expected[0])
    torch.testing.assert_close(logits, expected[1])
    assert extractor.name == "inception2015" and extractor.accuracy is None


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("BIGBIGAN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "bigbigan"


def test_in_domain_extractor_learns_is_kept_and_leaves_the_random_state(digits, tmp_path, monkeypatch):
    state = torch.get_rng_state()
    first = in_domain_extractor(digits, 8, "digits", tmp_path, recipe=QUICK)
    assert torch.equal(state, torch.get_rng_state())
    assert first.name == "classifier_digits" and first.trusted and first.held_out == 144
    # Its held-out share is honest: the test split, which it never saw, is named as well.
    assert accuracy(first.classifier, open_images("digits", test=True), 8) == pytest.approx(first.accuracy, abs=0.08)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]

    pixels, _ = next(evaluation_batches(digits, 8, 16))
    features, logits = first(pixels)
    assert features.shape == (16, 64) and logits.shape == (16, 10)
    torch.testing.assert_close(features, first.classifier.trunk(to_signed(pixels)))

    with monkeypatch.context() as m:
        m.setattr("bigbigan.metrics.own_classifier.train_classifier", lambda *_, **__: pytest.fail("trained again"))
        stored = in_domain_extractor(digits, 8, "digits", tmp_path, recipe=QUICK)
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(stored(pixels)[0], features) and (stored.accuracy, stored.digest) == (
        first.accuracy,
        first.digest,
    )

    weights = next(tmp_path.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-50])  # a kill, a full disk
    again = in_domain_extractor(digits, 8, "digits", tmp_path, recipe=QUICK)
    assert again.digest == first.digest  # a function of data and seed


def test_another_seed_is_another_classifier(digits, tmp_path):
    some = digits.subset(np.arange(200))
    recipes = [Recipe(width=0.125, epochs=0, min_steps=2, seed=seed) for seed in (0, 1)]
    made = [in_domain_extractor(some, 8, "My digits!", tmp_path, recipe=recipe) for recipe in recipes]
    assert made[0].digest != made[1].digest and len(list(tmp_path.iterdir())) == 4
    assert made[0].name == "classifier_my_digits"


def test_a_rare_class_stays_among_the_images_that_are_trained_on():
    images = as_images(pictures(30, 0, 8))
    order = np.random.default_rng(0).permutation(30)
    images.labels = np.isin(np.arange(30), order[:2]).astype(int)  # both are among the first three, which are held out
    made = in_domain_extractor(images, 8, "rare", recipe=Recipe(width=0.125, epochs=0, min_steps=2))
    assert made.held_out == 3 and made.majority == pytest.approx(2 / 3), "one of the two is trained on"
    labels = np.arange(30) % 3
    held_out, training = _division(labels, 3, 0)
    assert np.array_equal(held_out, order[:3]) and np.array_equal(training, order[3:]), "all classes are there already"
    two = images.subset(order[[0, 5]])
    with pytest.raises(MetricsError, match="expected two classes among the images that are left in .* found one"):
        in_domain_extractor(two, 8, "two", recipe=Recipe(width=0.125, epochs=0, min_steps=2))


def test_a_classifier_that_learns_nothing_is_said_so(tmp_path, caplog):
    images = as_images(pictures(60, 0, 8))
    images.labels = np.arange(60) % 2  # have nothing to do with the pictures
    extractor = in_domain_extractor(images, 8, "noise", recipe=Recipe(width=0.125, epochs=0, min_steps=3))
    assert not extractor.trusted and "too few to trust" in extractor.note()
    assert "too few to trust" in caplog.text


def test_figures_carry_the_classifier_and_its_accuracy(digits):
    facts = {"accuracy": 0.75, "majority": 0.1, "held_out": 20, "sha256": ""}
    extractor = ClassifierExtractor(Pooled(), "classifier_digits", 8, facts)
    some = digits.subset(np.arange(60))
    fake = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = evaluate_generation(lambda at: fake[torch.from_numpy(at)], some, 8, extractor, 50, "train")
    assert found["accuracy_classifier_digits"] == 0.75
    assert found["fid_classifier_digits_train_n50"] > 0.01 and found["is_classifier_digits_n50"] >= 1


class Pooled(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :12], x.mean((2, 3))


def test_train_classifier_takes_any_trunk(digits):
    class Flat(nn.Module):
        num_features = 192

        def forward(self, x):
            return x.flatten(1)

    classifier = train_classifier(Flat(), digits, 8, steps=150, batch_size=64, rate=0.01, seed=3)
    assert not classifier.training and not any(p.requires_grad for p in classifier.parameters())
    assert accuracy(classifier, open_images("digits", test=True), 8) > 0.9  # digits are nearly linearly separable


def test_a_long_training_is_announced_once(digits, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "LONG", -1)
    recipe = Recipe(width=0.125, min_steps=30, epochs=0)
    for _ in range(2):
        in_domain_extractor(digits, 8, "digits", tmp_path, recipe=recipe)
    said = [r.message for r in caplog.records if r.message.startswith("a classifier of 10 classes is trained for FID")]
    assert len(said) == 1 and f"once for these images ({tmp_path} keeps it): 0 min" in said[0]


def test_bad_input_is_a_sentence(digits):
    unlabelled = as_images(pictures(4, 0, 8))
    one_class = as_images(pictures(4, 0, 8))
    one_class.labels = np.zeros(4, dtype=np.int64)
    extractor = ClassifierExtractor(
        Pooled(), "classifier_x", 8, {"accuracy": 1, "majority": 0, "held_out": 1, "sha256": ""}
    )
    cases = [
        (lambda: in_domain_extractor(unlabelled, 8, "x"), "expected labelled images"),
        (lambda: in_domain_extractor(one_class, 8, "x"), "at least two classes"),
        (lambda: extractor(torch.zeros(1, 3, 16, 16, dtype=torch.uint8)), r"expected uint8 images \(n, 3, 8, 8\)"),
    ]
    for call, sentence in cases:
        with pytest.raises(MetricsError, match=sentence):
            call()


def test_nothing_is_fetched_for_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    monkeypatch.setattr(extractors, "_find", lambda download: pytest.fail("the weights were looked for"))
    with pytest.raises(MetricsUnavailable, match="torch-fidelity, which is not installed"):
        inception2015()
