"""Retrieval: rankings against loops written out, and the same encoder without training."""

import numpy as np
import pytest
import torch

from bigbigan.errors import InputError
from bigbigan.uses import retrieval
from bigbigan.uses.retrieval import measure, retrieve, untrained_features
from tests.conftest import tiny_model
from tests.networks.test_score_layers import KINDS
from tests.uses.test_anomalies import images


@pytest.mark.parametrize("p", [1, 2])
def test_figures_by_hand(p, monkeypatch):
    monkeypatch.setattr(retrieval, "TABLE", 30)  # three queries at a time
    numbers = np.random.default_rng(0)
    queries, gallery = numbers.random((7, 4)), numbers.random((10, 4))
    y, y_gallery = np.array([0, 1, 1, 2, 0, 1, 5]), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 0])
    found = measure(*(torch.from_numpy(v) for v in (queries, y, gallery, y_gallery)), k=3, p=p)
    unit = lambda rows: rows / np.linalg.norm(rows, ord=p, axis=1, keepdims=True)  # noqa: E731
    precision, average = [], []
    for query, label in zip(unit(queries)[:6], y[:6], strict=True):  # class 5 is not in the gallery
        order = np.argsort([np.linalg.norm(query - other, ord=p) for other in unit(gallery)])
        right = y_gallery[order] == label
        precision.append(right[:3].mean())
        average.append(np.mean([right[: i + 1].mean() for i in range(10) if right[i]]))
    assert found.precision == pytest.approx(np.mean(precision))
    assert found.mean_ap == pytest.approx(np.mean(average))
    assert found.by_class[1] == pytest.approx([np.mean(np.array(v)[y[:6] == 1]) for v in (precision, average)])
    assert np.isnan(found.by_class[4]).all() if len(found.by_class) > 4 else True


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_retrieves_and_has_an_untrained_twin(kind):
    model = tiny_model(**KINDS[kind]).eval()
    if model.encoder is None:
        with pytest.raises(InputError, match="found a GAN, which has no encoder"):
            retrieve(model, images(2), images(4), 1)
        return
    x = images(6, model.encoder.image_size)
    found = retrieve(model, x[:3], x, 2)
    assert found.indices[:, 0].tolist() == [0, 1, 2] and float(found.distances[:, 0].max()) < 1e-6
    before, random = (
        {k: v.clone() for k, v in model.encoder.state_dict().items() if v is not None},
        torch.get_rng_state(),
    )
    one, again = (untrained_features(model, x, (x[:3],), seed=1)[0] for _ in range(2))
    assert torch.equal(one, again) and one.shape == (3, model.encoder.features)
    assert not torch.equal(one, untrained_features(model, x, (x[:3],), seed=2)[0])
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(model.encoder.state_dict()[k], v) for k, v in before.items())


def test_a_twin_has_the_size_that_its_model_has_grown_to():
    model = tiny_model(**KINDS["progressive"]).eval()
    for network in (model.generator, model.encoder.trunk, model.discriminator.f):
        network.level = 0.0
    x = images(4, 4)
    assert untrained_features(model, x, (x,))[0].shape[0] == 4


def test_own_networks_have_no_twin():
    model = tiny_model().eval()
    model.config = None
    with pytest.raises(InputError, match="which can be built anew; found your own"):
        untrained_features(model, images(2), (images(2),))


def test_what_cannot_be_measured_is_a_sentence():
    rows, labels = torch.ones(3, 2), torch.zeros(3, dtype=torch.long)
    with pytest.raises(InputError, match="k: expected a whole number from 1 to 3, found 4"):
        measure(rows, labels, rows, labels, k=4)
    with pytest.raises(InputError, match="expected queries of classes that the gallery has, found none"):
        measure(rows, labels + 1, rows, labels, k=1)


def test_the_command(tmp_path, capsys):
    retrieval.main(
        ["digits", "--queries", "30", "--gallery", "100", "--untrained", "2", "--out", str(tmp_path / "r.png")]
    )
    lines = capsys.readouterr().out.splitlines()
    assert (tmp_path / "r.png").is_file() and "30 queries, 100 images" in lines[-1]
    assert [line.split(",")[0] for line in lines[1:6]] == [
        "AvePool",
        "AvePool",
        "untrained AvePool",
        "pixels",
        "pixels",
    ]
    ours, untrained = float(lines[1].split()[2]), float(lines[3].split()[3])
    assert ours > untrained > 10


def test_a_folder_without_labels_has_no_figures(tmp_path, capsys):
    from tests.conftest import picture

    (tmp_path / "flat").mkdir()
    for i in range(30):
        picture(i).save(tmp_path / "flat" / f"{i}.png")
    retrieval.main(["digits", "--data.path", str(tmp_path / "flat"), "--k", "3", "--out", str(tmp_path / "r.png")])
    assert "no labels: no figures" in capsys.readouterr().out


def test_more_neighbours_than_images_are_refused_before_anything_is_drawn(tmp_path, capsys):
    with pytest.raises(SystemExit):
        retrieval.main(["digits", "--gallery", "5", "--out", str(tmp_path / "r.png")])
    assert "--k 10: expected at most the images of the gallery, 5" in capsys.readouterr().err
    assert not (tmp_path / "r.png").exists()
