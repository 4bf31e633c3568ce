"""Nearest neighbours, clusters, the paper's Adam probe and named layers, against independent implementations."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from bigbigan.data import Crop, Images, Stream, evaluation_batches, fingerprint, open_images, to_signed
from bigbigan.data.inputs import image_batches
from bigbigan.data.pictures import decode_rgb
from bigbigan.errors import FeatureError
from bigbigan.metrics import neighbours
from eval_linear import measures, pairs, representations
from eval_linear.clusters import cluster, clustering_accuracy
from eval_linear.features import augmented, check_names, extract, features_of
from eval_linear.knn import majority, nearest_rows, paper_knn, smallest, weighted_knn
from eval_linear.linear.adam import EMA, AdamProbe, shuffled, train_adam_probe
from eval_linear.linear.solvers import fit_linear, folds, held_out, judge
from eval_linear.pairs import bidirectional
from eval_linear.probe import ProbeData, open_splits
from eval_linear.representations import (
    DecodedOnce,
    Splits,
    few_labels,
    of_encoder,
    of_pixels,
    of_supervised,
    principal_components,
)
from eval_linear.sheets import Sheets
from tests.conftest import picture, tiny_model


def blobs(n: int, classes: int = 4, width: int = 6, seed: int = 0, spread: float = 1.5):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(classes, width)) * 2
    y = rng.integers(0, classes, n)
    x = centres[y] + rng.normal(size=(n, width)) * spread
    return torch.from_numpy(x).float(), torch.from_numpy(y)


@pytest.mark.parametrize("p", [1, 2])
def test_knn_equals_scikit_learn_where_no_vote_is_tied(p):
    (x, y), (x_test, _) = blobs(400), blobs(200, seed=1)
    ours = paper_knn(x, y, x_test, 4, p, (1, 5, 25))
    unit = lambda v: (v / v.abs().pow(p).sum(1, keepdim=True).pow(1 / p)).numpy()  # noqa: E731
    for k in (1, 5, 25):
        theirs = KNeighborsClassifier(k, metric="manhattan" if p == 1 else "euclidean").fit(unit(x), y.numpy())
        votes = theirs.predict_proba(unit(x_test))
        clear = np.sort(votes, 1)[:, -1] > np.sort(votes, 1)[:, -2]
        assert clear.mean() > 0.7
        assert (ours[k].numpy()[clear] == theirs.predict(unit(x_test))[clear]).mean() > 0.995, (
            "rounding may swap one neighbour"
        )


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("n", [40, 1000, 1003])  # sorted whole, in groups, in groups with columns left over
def test_nearest_rows_are_those_of_distances_in_float64(p, n, monkeypatch):
    monkeypatch.setattr(neighbours, "CACHED", 2048)  # many blocks of rows, the last one short
    draw = torch.Generator().manual_seed(0)
    x, queries = (torch.randn(m, 24, generator=draw) for m in (n, 21))
    x[5] = 0
    found = nearest_rows(x, queries, 9, p)
    distances = torch.cdist(queries.double(), x.double(), p=p)
    assert (found == distances.topk(9, largest=False).indices).float().mean() > 0.99, "rounding may swap neighbours"
    torch.testing.assert_close(distances.gather(1, found), distances.sort(1).values[:, :9], rtol=1e-5, atol=1e-5)


def test_a_rows_own_copies_are_its_nearest_by_l1():
    x = torch.nn.functional.normalize(torch.rand(500, 700, generator=torch.Generator().manual_seed(0)), p=1, dim=1)
    assert (nearest_rows(x, x[100:140], 1, 1)[:, 0] == torch.arange(100, 140)).all()


def test_the_smallest_numbers_are_those_of_a_sort():
    table = torch.randn(7, 1000 * neighbours.GROUP + 5, generator=torch.Generator().manual_seed(0))
    table[3, -2:] = -100.0  # among the columns that no group holds
    table[4, 17::1000] = -50.0 - torch.arange(17 - 1).float()  # all of one group
    values, places = smallest(table, 20)
    assert (values == table.sort(1).values[:, :20]).all() and (table.gather(1, places) == values).all()


def test_an_image_is_decoded_once_and_stays_the_same(monkeypatch):
    images = open_images("digits", test=True)
    once, decoded = DecodedOnce.of(images), []
    monkeypatch.setattr(type(images.items), "__getitem__", _counted(type(images.items).__getitem__, decoded))
    some = once.subset(np.array([7, 3, 7]))
    pixels = [np.asarray(some.rgb(i)) for i in (0, 1, 2)] + [np.asarray(once.rgb(7))]
    assert len(decoded) == 2 and fingerprint(once) == fingerprint(images)
    for found, i in zip(pixels, (7, 3, 7, 7), strict=True):
        assert (found == np.asarray(images.rgb(i))).all()


def test_every_pass_of_the_probe_reads_what_was_decoded(tmp_path, monkeypatch):
    """Passes over images read them by `Images.decoded`, from files and tables by their encoded bytes."""
    for i in range(5):
        picture(i).save(tmp_path / f"{i}.webp")
        picture(i).save(tmp_path / f"{i}.png")
    images, decoded = open_images(str(tmp_path), test_share=0), []
    monkeypatch.setattr("bigbigan.data.images.decode_rgb", _counted(decode_rgb, decoded))
    once = DecodedOnce.of(images)
    passes = [torch.cat([x for x, _ in evaluation_batches(once, size, 4)]) for size in (8, 8, 16)]
    assert len(decoded) == len(images) == 10
    assert torch.equal(passes[0], passes[1])
    assert torch.equal(passes[0], torch.cat([x for x, _ in evaluation_batches(images, 8, 4)]))


def test_what_overrides_the_decoding_is_read_by_every_reader():
    class Inverted(Images):
        def decoded(self, i, value_range=None):
            return 255 - np.asarray(super().decoded(i, value_range))

    plain = open_images("digits", test=True).subset(np.arange(3))
    images = Inverted(**{f.name: getattr(plain, f.name) for f in fields(Images)})
    whole = 255 - np.stack([np.asarray(plain.rgb(i)) for i in range(3)])
    x = torch.from_numpy(whole).permute(0, 3, 1, 2)
    assert np.array_equal(np.stack([np.asarray(images.rgb(i)) for i in range(3)]), whole)
    assert torch.equal(next(evaluation_batches(images, 8, 3))[0], x)
    assert torch.equal(next(image_batches(images, 8, 3)), to_signed(x))
    assert torch.equal(Stream(images, 8, 0, Crop("none", False)).cached, x)


def test_kept_pixels_are_those_of_the_range_that_is_asked_for(tmp_path):
    Image.fromarray(np.full((8, 8), 1000, np.uint16)).save(tmp_path / "deep.png")
    once = DecodedOnce.of(open_images(str(tmp_path), test_share=0))
    for limits, grey in (((0, 4000), 64), ((0, 2000), 128), ((0, 4000), 64), (None, 4)):
        assert (np.asarray(once.decoded(0, limits)) == grey).all()


def test_images_beyond_the_memory_are_decoded_anew(monkeypatch):
    once = DecodedOnce.of(open_images("digits", test=True))
    monkeypatch.setattr(representations, "KEPT_BYTES", 3 * 8 * 8 * 2)
    first = [np.asarray(once.rgb(i)) for i in range(4)]
    assert len(once.kept) == 2 and all((np.asarray(once.rgb(i)) == first[i]).all() for i in range(4))


def test_the_pairs_take_features_of_the_training_images_that_are_known():
    train, test = (open_images("digits", test=t).subset(np.arange(0, 300, 3)) for t in (False, True))
    model = tiny_model().eval().requires_grad_(False)
    features, at = extract(model.encoder, train, 64, names=("avepool_feat",))
    figures = [
        {f.name: f.value for f in bidirectional(model, Splits(train, test, "digits", trained=known), 64, None)}
        for known in (
            {},
            {"avepool_feat": (features["avepool_feat"], at)},
            {"avepool_feat": (features["avepool_feat"] + 1, at)},
            {"avepool_feat": (torch.ones(9, 9), at[:9])},
        )
    ]
    computed, known, moved, incomplete = figures
    assert known == pytest.approx(computed, rel=1e-4) and incomplete == computed
    assert {name for name in known if moved[name] != known[name]} == {
        name for name in known if "images, AvePool" in name
    }


def test_images_that_the_model_never_saw_are_not_called_its_training_images(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "LIMIT", 8)
    model = tiny_model().eval().requires_grad_(False)
    model.card["data"] = {"path": "digits"}
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(30):
        picture(k).save(photos / f"{k}.png")
    for path, seen in (("", True), ("digits", True), (str(photos), False)):
        splits = open_splits(ProbeData(path), model)
        assert splits.seen is seen
        few = replace(splits, train=splits.train.subset(np.arange(8)), test=splits.test.subset(np.arange(2)))
        sheets = Sheets(tmp_path / "run")
        said = [f.name for f in bidirectional(model, few, 8, sheets)] + [s.title + s.caption for s in sheets.entries]
        for words, wanted in (("training images", seen), ("images of the training split", not seen)):
            assert any(words in text for text in said) is wanted, (path, words)


def _counted(read, calls: list):
    def counting(self, i):
        calls.append(i)
        return read(self, i)

    return counting


def test_a_tied_vote_goes_to_the_nearest_among_the_tied():
    nearest_first = torch.tensor([[2, 1, 1, 2], [0, 1, 1, 2], [3, 0, 1, 2]])
    assert majority(nearest_first).tolist() == [2, 1, 3]
    labels = torch.randint(0, 6, (300, 25), generator=torch.Generator().manual_seed(0))
    votes = torch.nn.functional.one_hot(labels, 6).sum(1)
    expected = [next(int(y) for y in row if vote[y] == vote.max()) for row, vote in zip(labels, votes, strict=True)]
    assert majority(labels).tolist() == expected
    assert majority(nearest_first * 10**12).tolist() == [2 * 10**12, 10**12, 3 * 10**12], (
        "memory is not that of classes"
    )


def test_weighted_knn_by_hand():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    scores = weighted_knn(x, torch.tensor([0, 1, 1]), torch.tensor([[2.0, 0.0]]), 2, k=3, temperature=0.5)
    weights = np.exp(np.array([1.0, 0.0, 0.6]) / 0.5)
    expected = np.array([weights[0], weights[1] + weights[2]]) / np.exp(1 / 0.5)
    assert scores[0].numpy() == pytest.approx(expected, rel=1e-5)


def test_clusters_of_separate_blobs_are_the_classes():
    x, y = blobs(600, spread=0.1)
    found = cluster(x.numpy(), y.numpy(), 4, seed=0)
    assert found["accuracy"] == pytest.approx(1) and found["nmi"] == pytest.approx(1)
    rng = np.random.default_rng(0)
    y, guess = rng.integers(0, 3, 90), rng.integers(0, 3, 90)
    from itertools import permutations

    best = max(accuracy_score(y, np.array(order)[guess]) for order in permutations(range(3)))
    assert clustering_accuracy(y, guess) == pytest.approx(best)


def test_the_adam_probe_trains_each_rate_as_if_alone():
    """All rates in one pass: each classifier equals one trained by itself, average included."""
    x, y = blobs(256)
    together = train_adam_probe(shuffled(x, y, 0, 64), AdamProbe(6, 4, (1e-3, 1e-2)), 40)
    for i, rate in enumerate((1e-3, 1e-2)):
        layer = torch.nn.Linear(6, 4)
        torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
        adam = torch.optim.Adam(layer.parameters(), lr=rate)
        average, bias = torch.zeros(6, 4), torch.zeros(4)
        batches = shuffled(x, y, 0, 64)
        for _ in range(40):
            a, b = next(batches)
            adam.zero_grad()
            torch.nn.functional.cross_entropy(layer(a), b).backward()
            adam.step()
            average = EMA * average + (1 - EMA) * layer.weight.detach().T
            bias = EMA * bias + (1 - EMA) * layer.bias.detach()
        assert torch.allclose(together.weights[i][:-1], layer.weight.T, atol=1e-6)
        assert torch.allclose(together.averages[i][:-1], average, atol=1e-8)
        torch.testing.assert_close(together.logits(x, i), x @ average + bias, rtol=1e-3, atol=1e-7)
    x_test, y_test = blobs(400, seed=1)
    assert judge(together.logits(x_test, together.best(x, y)), y_test).top1 > 0.6


def test_judging_by_hand():
    logits = torch.tensor([[9, 1, 2, 3, 4, 5.0], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    fit = judge(logits, torch.tensor([0, 0, 1]))
    assert fit.top1 == pytest.approx(1 / 3) and fit.top5 == pytest.approx(2 / 3)
    assert fit.confusion[0].tolist() == [1, 0, 0, 0, 0, 1] and fit.confusion[1, 0] == 1
    assert fit.per_class[:3] == [0.5, 0.0, None]


def test_few_labels_keep_every_class_and_the_shares():
    y = torch.tensor([0] * 500 + [1] * 100 + [2] * 3)
    kept = few_labels(y, 0.1, seed=0)
    assert torch.bincount(y[kept]).tolist() == [50, 10, 1]
    assert not torch.equal(kept, few_labels(y, 0.1, seed=1)) and len(few_labels(y, 1.0, 0)) == 603
    fit, choose = held_out(y, 0)
    assert len(choose) == round(0.2 * 603) and set(fit) | set(choose) == set(range(603)) and not set(fit) & set(choose)


def test_folds_spread_each_class_and_do_not_judge_a_class_that_they_do_not_fit():
    y = torch.tensor([0] * 10 + [1] * 5 + [2])
    parts = list(folds(y, 0))
    assert len(parts) == 5 and all(torch.bincount(y[fit])[:2].tolist() == [8, 4] for fit, _ in parts)
    assert sorted(i for _, rows in parts for i in rows) == list(range(15)), "the only row of class 2 is never judged"


@pytest.mark.parametrize("each", [1, 2, 14])
def test_few_rows_do_not_choose_the_strongest_penalty_by_a_tie(each):
    """Held-out rows fewer than the classes are all misclassified, whatever the strength."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, 30, generator=generator)
    y = torch.arange(10).repeat(each + 40)
    x = means[y] + 0.5 * torch.randn(len(y), 30, generator=generator)
    some, rest = slice(0, 10 * each), slice(10 * each, None)
    found = [fit_linear(x[some], y[some], x[rest], y[rest], 10, seed) for seed in range(3)]
    usual = LogisticRegression(C=1).fit(StandardScaler().fit(x[some]).transform(x[some]), y[some])
    reached = usual.score(StandardScaler().fit(x[some]).transform(x[rest]), y[rest])
    assert all(fit.strength >= 0.2 and fit.top1 > reached - 0.02 for fit in found)


def test_named_layers_are_averaged_over_places():
    encoder, images = tiny_model().encoder.eval(), open_images("digits", test=True)
    names = ("avepool_feat", "trunk.stages.1", "z_mean")
    found, at = extract(encoder, images, 100, names=names)
    assert len(at) == 359
    x = torch.rand(3, 3, 8, 8) * 2 - 1
    expected = {}
    handle = encoder.trunk.stages[1].register_forward_hook(lambda m, i, o: expected.update(out=o.mean((2, 3))))
    encoder(x)
    handle.remove()
    assert torch.allclose(features_of(encoder, x, names)["trunk.stages.1"], expected["out"])
    assert found["trunk.stages.1"].shape == (359, expected["out"].shape[1])
    check_names(encoder, names)
    with pytest.raises(FeatureError, match="expected some of avepool_feat.*or a layer of E such as trunk.stem"):
        check_names(encoder, ("avepol",))


def test_a_broken_encoder_is_one_sentence():
    encoder = tiny_model().encoder.eval()
    with torch.no_grad():
        next(encoder.trunk.parameters()).fill_(float("nan"))
    with pytest.raises(FeatureError, match="expected finite features, found NaN or infinity in 359 of 359 images"):
        extract(encoder, open_images("digits", test=True), 100)


@pytest.fixture(scope="module")
def digits():
    train, test = open_images("digits"), open_images("digits", test=True)
    return Splits(train.subset(np.arange(300)), test.subset(np.arange(100)), "digits", " (scikit-learn's digits)")


def test_random_crops_differ_from_time_to_time_and_keep_their_labels(digits):
    encoder = tiny_model().encoder.eval()
    stream = augmented(encoder, digits.train, ("avepool_feat",), "resnet", 0, 300, step=128)
    (first, y), (second, _) = next(stream), next(stream)
    assert first["avepool_feat"].shape[0] == 300 and sorted(y.tolist()) == sorted(digits.train.labels.tolist())
    assert not torch.allclose(first["avepool_feat"].sort(0).values, second["avepool_feat"].sort(0).values)


def test_the_rows_of_the_papers_probe_say_which_crops_they_were_trained_on(digits, monkeypatch):
    from eval_linear.linear import adam, solvers

    monkeypatch.setitem(adam.PROTOCOLS, "adam_5k", (30, (1e-2,)))
    monkeypatch.setitem(solvers.PROTOCOLS, "adam_5k", (30, (1e-2,)))
    rows = measures.Rows()
    encoder = tiny_model().encoder.eval()
    for r in of_encoder("trained", encoder, digits, ("avepool_feat",), 128):
        measures.linear(rows, r, digits, "adam_5k", 1.0, 0, augment="tf_resnet", batch_size=128)
        measures.linear(rows, r, digits, "adam_5k", 1.0, 0, augment="resnet", batch_size=128)
    for r in of_encoder("trained", encoder, digits, ("avepool_feat",), 128, flip=False):
        measures.linear(rows, r, digits, "adam_5k", 1.0, 0, augment="tf_resnet", batch_size=128)
    for r in of_pixels(digits, 8, 128):
        measures.linear(rows, r, digits, "adam_5k", 1.0, 0, augment="tf_resnet", batch_size=128)
    found = {(row.feature, row.protocol) for row in rows}
    start = "linear, Adam 30 steps, rate 0.01, "
    assert ("AvePool", start + "the paper's random crops") in found and ("pixels 8×8", start + "centre crop") in found
    assert ("AvePool", start + "the paper's random crops without flips") in found
    assert ("AvePool", start + "torchvision's random crops") in found


@pytest.mark.parametrize("crops", [False, True])
@pytest.mark.parametrize(("protocol", "rates", "fitted"), [("adam_5k", 1, 300), ("adam_100k", 2, 240)])
def test_a_single_rate_is_fitted_on_all_rows_and_of_several_a_fifth_chooses(
    monkeypatch, crops, protocol, rates, fitted
):
    from eval_linear.linear import solvers

    monkeypatch.setitem(solvers.PROTOCOLS, protocol, (4, (1e-2, 1e-3)[:rates]))
    x, y = torch.randn(300, 5), torch.arange(300) % 10
    seen = set()

    def rows(fit):
        while True:  # every step's batch is all rows that are fitted on
            seen.add(tuple(sorted(fit.tolist())))
            yield x[fit], y[fit]

    monkeypatch.setattr(solvers, "shuffled", lambda x, y, seed, batch: rows(np.arange(len(x))))
    fit = solvers.fit_adam(protocol, x, y, x, y, 10, seed=0, batches=rows if crops else None)
    (found,) = seen
    assert len(found) == fitted and fit.strength in (1e-2, 1e-3)


def test_a_single_rate_with_one_row_a_class(monkeypatch):
    """So few labels that nothing could be set aside."""
    from eval_linear.linear import solvers

    monkeypatch.setitem(solvers.PROTOCOLS, "adam_5k", (200, (1e-2,)))
    x = torch.eye(10)
    fit = solvers.fit_adam("adam_5k", x, torch.arange(10), x, torch.arange(10), 10, seed=0)
    assert fit.top1 == 1, "each class was seen"


@pytest.mark.parametrize("card", [{}, {"data": {}}, {"data": {"flip": True}}, {"data": {"flip": False}}])
def test_the_probes_images_are_flipped_where_the_models_were(digits, monkeypatch, card):
    from bigbigan.metrics import classifier
    from eval_linear import features, probe
    from eval_linear.linear import solvers

    crops = []
    for module in (features, classifier):
        before = module.Stream
        monkeypatch.setattr(module, "Stream", lambda *a, before=before, **k: crops.append((a, k)) or before(*a, **k))
    monkeypatch.setitem(solvers.PROTOCOLS, "adam_5k", (2, (1e-2,)))
    model = tiny_model().eval()
    model.card = card
    options = probe.Probe("x", parts=("linear",), linear=("adam_5k",), augment="light", untrained=1, supervised=1)
    options.features, options.labels = ("avepool_feat",), (1.0,)
    probe.feature_rows(options, options.parts, model, digits, None)
    found = [argument for a, _ in crops for argument in a if hasattr(argument, "flip")]
    assert len(found) >= 4, "the model's, the untrained and the supervised encoder's rows, and the supervised training"
    assert {crop.flip for crop in found} == {card.get("data", {}).get("flip", True)}


def test_the_same_architecture_trained_with_labels_stands_beside(digits):
    rows, model = measures.Rows(), tiny_model()
    before = torch.get_rng_state()
    (r,) = of_supervised(model, digits, ("avepool_feat",), 128, epochs=2, rows=rows)
    assert torch.equal(before, torch.get_rng_state())
    (row,) = rows
    assert (row.encoder, row.feature) == ("supervised", "its own output") and 0 <= row.figures["top1"].mean <= 1
    assert r.encoder == "supervised" and not torch.equal(
        r.network.trunk.stem.conv.weight, model.encoder.trunk.stem.conv.weight
    )


def test_principal_components_of_rounding_errors_are_left_out():
    """Of 12 columns that repeat three pixels and a constant one, three components hold something."""
    torch.manual_seed(0)
    x = torch.rand(50, 4).repeat(1, 3)
    x[:, 3::4] = 0.25  # a pixel that never changes
    first, second = principal_components(x[:40], x[40:])
    assert first.shape == (40, 3) and second.shape == (10, 3)
    centred = x[:40].double() - x[:40].double().mean(0)
    assert torch.allclose(first.double().square().sum(), centred.square().sum(), rtol=1e-5), "nothing else is lost"
    assert principal_components(torch.ones(5, 3), torch.ones(2, 3))[0].shape == (5, 1)
