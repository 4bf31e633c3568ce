"""EGBAD's scores: the formulas written out, for every kind of model, and what has no score is a sentence."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import bigbigan
from bigbigan.api import as_tensor
from bigbigan.errors import InputError
from bigbigan.uses import anomalies
from bigbigan.uses.anomalies import anomaly_scores, aurocs, baselines
from tests.conftest import picture, tiny_model
from tests.networks.test_score_layers import KINDS

KINDS = {name: changes for name, changes in KINDS.items() if "GAN" not in name and name != "conditional"}


def images(n, size=8, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_is_the_papers(kind):
    model = tiny_model(**KINDS[kind]).eval()
    x = images(4, model.encoder.image_size)
    with torch.no_grad():
        z = model.encoder(x).mean
        again, small = model.generator(z), F.avg_pool2d(x, x.shape[-1] // 8)
        error = (small - again).abs().sum((1, 2, 3))
        total = model.discriminator(small, z).total()
        features = [model.discriminate(part, z, features=True)["feat_xz"] for part in (small, again)]
    found = anomaly_scores(model, x, "cross_entropy", 0.3)
    torch.testing.assert_close(found.reconstruction, error)
    torch.testing.assert_close(found.discriminator, -torch.log(torch.sigmoid(total)))
    torch.testing.assert_close(found.total, 0.7 * error - 0.3 * torch.log(torch.sigmoid(total)))
    found = anomaly_scores(model, x)
    torch.testing.assert_close(found.discriminator, (features[0] - features[1]).abs().sum(1))
    torch.testing.assert_close(found.total, 0.9 * error + 0.1 * found.discriminator)
    assert torch.equal(anomaly_scores(model, x, "reconstruction").total, found.reconstruction)
    if not kind.startswith("progressive"):  # whose D compares the images of a batch
        torch.testing.assert_close(anomaly_scores(model, x, batch_size=3), found)


def test_terms_that_were_not_trained_are_left_out():
    model = tiny_model().eval()
    x = images(3)
    with torch.no_grad():
        scores = model.discriminator(x, model.encoder(x).mean)
    model.card = {"loss": {"form": "hinge", "unary_x": False, "unary_z": False}}
    found = anomaly_scores(model, x, "cross_entropy").discriminator
    torch.testing.assert_close(found, F.softplus(-scores.xz))


def test_without_a_discriminator_the_reconstruction_is_left():
    model = tiny_model().eval()
    x = images(3)
    expected = anomaly_scores(model, x, "reconstruction")
    model.discriminator = None
    with pytest.warns(UserWarning, match="holds no discriminator: the score is the reconstruction error alone"):
        found = anomaly_scores(model, x)
    assert torch.equal(found.total, expected.total) and found.discriminator is None
    with pytest.raises(InputError, match="expected a model with a discriminator"):
        anomaly_scores(model, x, "cross_entropy")
    assert not [name for name in aurocs(model, x, x, images(2, seed=1)) if "A(x)" in name or "D term" in name]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"encoder": "none"}, {}, "found a GAN, which has no encoder"),
        ({"classes": 3}, {}, "expected one without classes, .* found 3"),
        ({}, {"form": "fm"}, "form: expected one of feature_matching, .*, or None; found 'fm'"),
        ({}, {"weight": 1.5}, "weight: expected a number from 0 to 1, found 1.5"),
    ],
)  # fmt: skip
def test_what_has_no_score_is_a_sentence(changes, options, message):
    with pytest.raises(InputError, match=message):
        anomaly_scores(tiny_model(**changes), images(2), **options)


def test_baselines_and_areas_by_hand():
    model = tiny_model().eval()
    train, normal, odd = images(12), images(5, seed=1), images(4, seed=2) * 0.3
    found = aurocs(model, train, normal, odd)
    assert len(found) == 9 and all(0 <= value <= 1 for value in found.values())
    scores = baselines(model, train, torch.cat([normal, odd]))
    distances = [float(min((x - t).square().sum() for t in train)) ** 0.5 for x in (*normal, *odd)]
    torch.testing.assert_close(
        scores["nearest normal image, pixels"], torch.tensor(distances), rtol=1e-4, atol=1e-4, check_dtype=False
    )
    mean = train.mean(0)
    torch.testing.assert_close(
        scores["distance to the mean image"], torch.stack([(x - mean).abs().sum() for x in (*normal, *odd)])
    )
    of_training = baselines(model, images(7), images(7))  # of which 7 components leave nothing
    assert float(next(v for k, v in of_training.items() if "components" in k).max()) < 1e-9
    for name, values in scores.items():
        wins = [float(o > n) + 0.5 * float(o == n) for o in values[5:] for n in values[:5]]
        assert found[name] == pytest.approx(sum(wins) / len(wins))


def test_the_command(run_folder, tmp_path, capsys):
    out = tmp_path / "sub" / "a.png"
    anomalies.main([str(run_folder), "--held_out", "8", "--out", str(out)])
    text = capsys.readouterr().out
    assert out.is_file() and "A(x), feature matching" in text and "47 anomalous among 359 images, w = 0.1" in text
    assert "the model was trained on digits, images of 8 among them" in text
    for i in range(3):
        (tmp_path / "odd").mkdir(exist_ok=True)
        picture(i).save(tmp_path / "odd" / f"{i}.png")
    anomalies.main(["digits", "--anomalies", str(tmp_path / "odd"), "--test_images", "20", "--out", str(out)])
    text = capsys.readouterr().out
    assert "3 anomalous among 23 images" in text and "holds no discriminator" in text and "A(x)" not in text
    assert "among them" not in text


def test_anomalies_have_the_range_of_the_normal_images(tmp_path, capsys):
    """Pictures of 12 bits in files of 16: read with their range, odd ones are no brighter than the others."""
    for folder in ("normal", "odd"):
        (tmp_path / folder).mkdir()
        for i in range(30):
            deep = np.asarray(picture(i, (8, 8), "L")).astype(np.uint16) * 16
            Image.fromarray(deep).save(tmp_path / folder / f"{i}.png")
    asked = ["--data.path", str(tmp_path / "normal"), "--data.value_range", "0", "4095"]
    read = []
    with mock.patch.object(anomalies, "as_tensor", lambda *a, **k: read.append(as_tensor(*a, **k)) or read[-1]):
        anomalies.main(["digits", *asked, "--anomalies", str(tmp_path / "odd"), "--out", str(tmp_path / "a.png")])
    assert "anomalous among" in capsys.readouterr().out
    assert read[0].max() > 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --held_out CLASS and --anomalies PATH, found neither"),
        (["--held_out", "8", "--anomalies", "x"], "found both"),
        (["--held_out", "ten"], "--held_out ten: expected one of 0, 1, 2"),
        (["--anomalies", "no/such"], "found no such file"),
    ],
)
def test_what_the_command_refuses(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        anomalies.main(["digits", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"train": "", "test": ""}, "expected data with classes, found the training split without; give the anomalous"),
        ({"train": "ab", "test": "a"}, "of others to train and test on, found 0, 9 and 9"),  # b: in no test image
    ],
)
def test_a_class_needs_labels_and_images_on_both_sides(classes, message, tmp_path, capsys):
    for split, names in classes.items():
        for name in names or [""]:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(9):
                picture(i, (8, 8)).save(tmp_path / split / name / f"{i}.png")
    with pytest.raises(SystemExit):
        anomalies.main(["digits", "--data.path", str(tmp_path), "--held_out", "b", "--out", str(tmp_path / "a.png")])
    assert message in capsys.readouterr().err


def test_images_of_a_user_are_scored():
    model = bigbigan.load("digits", "cpu")
    x = bigbigan.as_tensor([picture(i) for i in range(3)], model)
    assert anomaly_scores(model, x, "reconstruction").total.shape == (3,)
    with pytest.raises(InputError, match="expected a model with a discriminator, found one without a discriminator"):
        anomaly_scores(model, x, "feature_matching")
