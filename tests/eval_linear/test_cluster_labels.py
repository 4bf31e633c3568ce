"""BigGAN + Clustering: a release → clusters of its features as labels → a conditional GAN on them."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

import bigbigan
from bigbigan.data import open_images
from eval_linear.cluster_labels import main
from eval_linear.probe import main as probe
from tests.conftest import TINY_MODEL, launch, train


@pytest.mark.run
def test_from_a_release_to_a_conditional_gan(run_folder, tmp_path, capsys):
    out = tmp_path / "clusters"
    main([str(run_folder), "--classes", "7", "--out", str(out), "--seed", "3"])
    said = capsys.readouterr().out
    assert (
        "train: 1,438 images in 7 clusters of " in said
        and "test: 359 images" in said
        and "against the labels NMI" in said
    )

    digits = open_images("digits")
    pictures = [np.asarray(digits[i]) for i in range(1438)]
    features = bigbigan.encode(
        [np.stack([p] * 3, -1) for p in pictures], model=run_folder, outputs="avepool_feat"
    ).numpy()
    expected = KMeans(7, n_init=3, random_state=3).fit_predict(StandardScaler().fit_transform(features))
    labelled = open_images(str(out))
    assert adjusted_rand_score(expected, labelled.labels) > 0.99  # rounding of the features may move one at a border
    assert (
        labelled.class_names
        == [f"cluster {k}" for k in range(7)]
        == open_images(str(out), "test", test=True).class_names
    )
    assert all((np.asarray(labelled[i].convert("L")) == pictures[i]).all() for i in range(1438))

    small = [f"--model.{name}={value}" for name, value in TINY_MODEL.items() if not name.startswith("encoder")]
    train(
        tmp_path, "--config=table1_digits/no_e", *small, "--model.encoder=none", "--model.classes=7",
        f"--data.path={out}",
        "--run.name=gan", "--run.images=64", "--run.probe=False",
    )  # fmt: skip
    card = json.loads((tmp_path / "gan" / "release" / "config.json").read_text())
    assert "7" in json.dumps(card["model"]["classes"] if "model" in card else card["classes"])
    images = bigbigan.generate(3, model=tmp_path / "gan")
    assert tuple(images.shape) == (3, 3, 8, 8)

    probe([str(tmp_path / "gan"), "--parts", "generation", "--data.path", "digits", "--generation.images", "40",
           "--generation.in_domain", "False", "--generation.inception", "False"])  # fmt: skip
    said = capsys.readouterr().out
    assert "digits (scikit-learn's digits)" in said and "the generator did not move" in said
    assert "swd" in json.dumps(json.loads((tmp_path / "gan" / "probe.json").read_text())["generation"])
    with pytest.raises(SystemExit):
        probe([str(tmp_path / "gan"), "--parts", "knn"])
    assert "--parts knn: expected a model with an encoder, found a GAN" in capsys.readouterr().err


def test_bytes_of_files_are_kept(run_folder, image_folder, tmp_path):
    main([str(run_folder), "--classes", "2", "--out", str(tmp_path / "out"), "--data.path", str(image_folder)])
    given = sorted(path.read_bytes() for path in image_folder.rglob("*.*"))
    parts = [open_images(str(tmp_path / "out"), split, test=split == "test") for split in ("train", "test")]
    kept = [images.items.source(i) for images in parts for i in range(len(images))]
    assert sorted(kept) == given


def test_pictures_of_16_bits_keep_their_values_and_their_range_is_said(run_folder, tmp_path, capsys):
    (tmp_path / "scans").mkdir()
    scans = np.random.default_rng(0).integers(0, 4096, (20, 8, 8), dtype=np.uint16)
    for i, scan in enumerate(scans):
        Image.fromarray(scan).save(tmp_path / "scans" / f"{i:02}.png")
    out = tmp_path / "clusters"
    arguments = ["--data.path", str(tmp_path / "scans"), "--data.value_range", "0", "4095"]
    main([str(run_folder), "--classes", "2", "--out", str(out), *arguments])
    assert f"--data.path {out} --model.classes 2 --data.value_range 0 4095\n" in capsys.readouterr().out
    parts = [open_images(str(out), split, test=split == "test") for split in ("train", "test")]
    written = [np.asarray(images[i]) for images in parts for i in range(len(images))]
    assert sorted(scan.tobytes() for scan in written) == sorted(scan.tobytes() for scan in scans)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--classes", "1"], "--classes 1: expected at least 2"),
        (["--classes", "2000"], "--classes 2000: expected from 2 to the number of training images, 1,438"),
        (["--classes", "3", "--feature", "nothing"], "expected some of avepool_feat"),
        (["--classes", "3", "--out", "FULL"], "expected a new or an empty folder"),
        (["--classes", "3", "--data.path", "/nowhere"], "found no such folder or file"),
    ],
)
def test_what_cannot_be_is_one_sentence(run_folder, tmp_path, capsys, arguments, message):
    (tmp_path / "a file").touch()
    arguments = [str(tmp_path) if a == "FULL" else a for a in arguments]
    with pytest.raises(SystemExit) as stop:
        main([str(run_folder), *([] if "--out" in arguments else ["--out", str(tmp_path / "new")]), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_one_sentence(run_folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main([str(run_folder), "--classes", "3", "--out", str(tmp_path / "file" / "new")])
    assert stop.value.code == 2 and "file, which is no folder; choose another one" in capsys.readouterr().err


@pytest.mark.run
@pytest.mark.soak
def test_the_command_by_its_path(run_folder, tmp_path):
    out, _ = launch("eval_linear/cluster_labels.py", run_folder, "--classes", "3", "--out", tmp_path / "c")
    assert "written to" in out
