"""bigbigan-extract: what it writes, that a kill costs nothing but time, and what it refuses."""

import json
import os
import random
import signal
import tarfile
import time
from pathlib import Path
from typing import get_args
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, load_dataset

import bigbigan
from bigbigan.data import open_images
from bigbigan.errors import FeatureError
from bigbigan.extract import Output
from bigbigan.features import extraction, shards
from tests.conftest import ROOT, launch, picture, tiny_model
from tests.helpers.children import PATIENCE, context

pytestmark = pytest.mark.run
COMMON = ["--data.batch_size=4", "--shard_images=10", "--data.max_unreadable=0.1", "--outputs", *get_args(Output)]


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("release")
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two classes, 45 pictures and two files that are none, which are the images 7 and 46."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(45):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        picture(i, (12 + i % 3, 10)).save(folder / "ab"[i % 2] / f"{i:03d}.png")
    for name in ("a/013b.png", "b/999.png"):
        (folder / name).write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def whole(release, photos, tmp_path_factory) -> Path:
    """What an uninterrupted run of one process writes."""
    folder = tmp_path_factory.mktemp("whole")
    run(release, photos, folder)
    return folder


def child(argv: list[str], env: dict[str, str], owner: str, at: int, when: str) -> None:
    """Run the command, and kill it before or after its call number `at` of `owner`."""
    os.environ.update(env)
    torch.set_num_threads(1)
    from bigbigan.extract import main
    from bigbigan.model import BigBiGAN

    place = {"encode": BigBiGAN, "write_table": pq.ParquetWriter}.get(owner, os)
    original, calls = getattr(place, owner or "fsync"), 0

    def faulty(*args, **options):
        nonlocal calls
        calls += 1
        if calls == at and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        found = original(*args, **options)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    with mock.patch.object(place, owner or "fsync", faulty):
        main(argv)


def start(release, data, out, *flags, owner="", at=0, when="before", rank=0, processes=1):
    argv = [str(release), f"--data.path={data}", f"--out={out}", *COMMON, *flags]
    env = {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    process = context().Process(target=child, args=(argv, env, owner, at, when))
    process.start()
    return process


def ended(process) -> int:
    process.join(120 * PATIENCE)
    assert process.exitcode is not None
    return process.exitcode


def run(release, data, out, *flags, **fault) -> int:
    status = ended(start(release, data, out, *flags, **fault))
    assert status == (-signal.SIGKILL if fault else 0)
    return status


def same(folder: Path, other: Path) -> None:
    """Check that two folders hold the same files, byte for byte, and nothing else."""
    found, wanted = ({p.name: p.read_bytes() for p in f.iterdir()} for f in (folder, other))
    assert found.keys() == wanted.keys() and found == wanted


def test_the_files_hold_what_encode_returns(whole, release, photos):
    rows = pd.read_parquet(whole)
    with pytest.warns(UserWarning, match="2 of 47 images"):
        found, paths = bigbigan.encode(photos, release, batch_size=4, on_error="skip", paths=True)
    assert [str(photos / path) for path in rows.path] == paths and len(rows) == 45
    assert rows.id.tolist() == [bigbigan.list_images(photos).index(path) for path in paths]
    assert rows.class_name.tolist() == [path[0] for path in rows.path]
    assert rows.label.tolist() == ["ab".index(name) for name in rows.class_name]
    for name in get_args(Output):
        torch.testing.assert_close(torch.from_numpy(np.stack(rows[name])), found[name])
    files, cache = str(whole / "*.parquet"), str(whole.parent / "cache")
    table = load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
    assert table.with_format("torch")["z_mean"][:].shape == (45, 8) and "bn_crelu_feat" in table.features
    assert sorted(p.name for p in whole.glob("*.parquet")) == [f"part-{k:05d}-of-00005.parquet" for k in range(5)]
    listed = pd.read_csv(whole / "_unreadable.csv")
    assert listed.id.tolist() == [7, 46] and listed.path.tolist() == ["a/013b.png", "b/999.png"]
    assert listed.reason.str.contains("cannot identify image file").all()


KILLS = [
    ("fsync", 1, "before"),  # of the manifest
    ("replace", 1, "after"),
    ("encode", 2, "before"),  # in the first file; the first call asks for widths
    ("write_table", 1, "after"),
    ("fsync", 2, "before"),
    ("replace", 2, "before"),
    ("replace", 3, "after"),
    ("encode", 14, "after"),  # in the last file
    ("replace", 7, "before"),  # of the list of unreadable images
]


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: "-".join(map(str, kill)))
def test_a_kill_leaves_neither_a_hole_nor_a_duplicate(kill, whole, release, photos, tmp_path):
    owner, at, when = kill
    run(release, photos, tmp_path / "f", owner=owner, at=at, when=when)
    run(release, photos, tmp_path / "f")
    same(tmp_path / "f", whole)


def test_unreadable_images_of_files_that_are_there_count_among_a_process_s_own(whole, release, photos):
    model, images = bigbigan.load(release, "cpu"), open_images(str(photos), test_share=0)
    for rank, processes, broken in ((0, 1, 2), (0, 2, 2), (1, 2, 0)):
        again = extraction.Extraction(model, images, whole, shards.read_manifest(whole), rank=rank, processes=processes)
        assert not again.missing and again.broken == broken


def test_many_kills_of_one_extraction(whole, release, photos, tmp_path):
    for owner, at, when in (
        ("encode", 2, "before"),
        ("replace", 2, "after"),
        ("fsync", 1, "before"),
        ("encode", 6, "after"),
    ):
        run(release, photos, tmp_path / "f", owner=owner, at=at, when=when)
    path = sorted((tmp_path / "f").glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-20])  # as a disk that lost the end of a file
    run(release, photos, tmp_path / "f")
    same(tmp_path / "f", whole)


def test_two_processes_write_the_same_files_and_one_may_be_killed(whole, release, photos, tmp_path):
    pair = [start(release, photos, tmp_path / "f", rank=rank, processes=2) for rank in range(2)]
    assert [ended(process) for process in pair] == [0, 0]
    same(tmp_path / "f", whole)
    faults = {0: {}, 1: {"owner": "encode", "at": 5}}
    pair = [start(release, photos, tmp_path / "g", rank=r, processes=2, **faults[r]) for r in range(2)]
    assert [ended(process) for process in pair] == [0, -signal.SIGKILL]
    with pytest.raises(FeatureError, match="expected all 5 files of the extraction, found"):
        next(shards.read_rows(tmp_path / "g", "z_mean"))
    run(release, photos, tmp_path / "g")  # one process alone goes on
    same(tmp_path / "g", whole)


def kill_at_random(release, data, whole, root: Path, kills: int, within: float, *flags) -> list[tuple[int, int]]:
    """Kill two processes of one extraction at random moments, again and again, until `kills` have struck.

    within: seconds after the start of a process, in which it is killed; those of a whole extraction reach everything.
    Where an extraction ends before, it is compared with `whole`, and the next one begins. After the last kill it goes
    on undisturbed. Returns of each kill the number of the extraction and how many of its files were there.
    """
    rng, struck, number = random.Random(0), [], 0
    while True:
        folder = root / str(number)
        began = time.monotonic()
        pair = [start(release, data, folder, *flags, rank=rank, processes=2) for rank in range(2)]
        moments = sorted((rng.uniform(0, within), rank) for rank in range(2)) if len(struck) < kills else []
        for moment, rank in moments:
            time.sleep(max(0, began + moment - time.monotonic()))
            if pair[rank].is_alive():
                struck.append((number, len(list(folder.glob("*.parquet")))))
                pair[rank].kill()
        statuses = [ended(process) for process in pair]
        assert set(statuses) <= {0, -signal.SIGKILL}, statuses
        if not any(statuses):
            same(folder, whole)
            rows = pd.read_parquet(folder, columns=["id"])
            assert rows.id.is_monotonic_increasing and rows.id.is_unique
            if len(struck) >= kills:
                return struck
            number += 1


def test_kills_at_random_moments(whole, release, photos, tmp_path):
    struck = kill_at_random(release, photos, whole, tmp_path, 3, 2.0)
    assert len(struck) >= 3


@pytest.mark.soak
def test_twenty_kills_at_random_moments(release, tmp_path):
    """`pytest -n 0 -m soak -s tests/features/test_extract.py` prints where the kills struck."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4000):
        picture(i, (8, 8)).save(photos / f"{i:04}.png")
    for i in (17, 2000, 3999):
        (photos / f"{i:04}.png").write_bytes(b"no picture")
    flags = ("--data.batch_size=4", "--shard_images=20", "--outputs", "z_mean", "avepool_feat")
    began = time.monotonic()
    run(release, photos, tmp_path / "whole", *flags)
    within = 0.5 * (time.monotonic() - began)  # two processes take about half as long
    struck = kill_at_random(release, photos, tmp_path / "whole", tmp_path, 20, within, *flags)
    listed = pd.read_csv(tmp_path / "whole" / "_unreadable.csv")
    rows = pd.read_parquet(tmp_path / "whole", columns=["id"])
    assert sorted([*rows.id, *listed.id]) == list(range(4000)) and listed.id.tolist() == [17, 2000, 3999]
    print(f"{len(struck)} kills of {1 + struck[-1][0]} extractions, at (extraction, files there): {struck}")


def test_the_command_with_processes(whole, release, photos, tmp_path):
    flags = [str(release), "--data.path", str(photos), "--out", str(tmp_path / "f"), "--processes", "2", *COMMON]
    out, err = launch("-m", "bigbigan.extract", *flags, env={"OMP_NUM_THREADS": "1"})
    assert out.count("done: features of 45 images") == 1 and "2 could not be read" in out
    assert "unreadable image" in err and "img/s" in err
    same(tmp_path / "f", whole)


def test_tables_and_tars_give_the_same_features(whole, release, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    files = sorted(photos.rglob("*.png"))
    cells = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    labels = ["ab".index(path.parent.name) for path in files]
    (tmp_path / "table").mkdir()
    Dataset.from_dict({"image": cells, "label": labels}).to_parquet(str(tmp_path / "table" / "x.parquet"))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for path in files:
            tar.add(path, f"{path.parent.name}/{path.name}")
    expected = pd.read_parquet(whole)
    for data, first in ((tmp_path / "table", "000.png"), (tmp_path / "x.tar", "x.tar/a/000.png")):
        out = tmp_path / f"of-{data.name}"
        run(release, data, out)
        rows = pd.read_parquet(out)
        assert rows.path[0] == first and rows.id.tolist() == expected.id.tolist()
        for name in get_args(Output):
            assert np.array_equal(np.stack(rows[name]), np.stack(expected[name]))
    assert pd.read_parquet(tmp_path / "of-table").label.tolist() == expected.label.tolist()


def test_another_model_other_data_and_other_options_are_refused(whole, release, photos, tmp_path, capsys):
    from bigbigan.extract import main

    def refused(words: str, model=release, data=photos, out=whole, flags=(), status: int = 2) -> None:
        with pytest.raises(SystemExit) as stop:
            main([str(model), f"--data.path={data}", f"--out={out}", *COMMON, *flags])
        said = capsys.readouterr().err
        assert stop.value.code == status and words in said and said.count("error: ") == 1, said

    other = tiny_model()
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1)
    other.save_pretrained(tmp_path / "other")
    refused("found another model: ", tmp_path / "other")
    refused("found other images, or files, labels or classes that changed", data="digits")
    refused("found another --dtype: float32 there, float16 now", flags=["--dtype=float16"])
    refused("found another --shard_images: 10 there, 20 now", flags=["--shard_images=20"])
    refused("found other --outputs: ", flags=["--outputs", "z_mean"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "a.parquet").write_bytes(b"")
    refused("found a.parquet without _manifest.json; choose another --out", out=tmp_path / "foreign")
    refused("1 of 47 images", out=tmp_path / "f", flags=["--data.max_unreadable=0"])
    refused("--out: expected a folder", out="")
    refused("did you mean --data.path?", flags=["--data.pth=x"])
    refused("expected a split 'test', found data without splits", data=photos / "a", flags=["--data.split=test"])
    (tmp_path / "file").write_text("")
    refused("expected a folder, which may be a new one, found a file", out=tmp_path / "file")


def test_float16_and_what_it_cannot_hold(release, photos, tmp_path):
    run(release, "digits", tmp_path / "f", "--dtype=float16", "--shard_images=0")
    rows = pd.read_parquet(tmp_path / "f")
    assert np.stack(rows.z_mean).dtype == np.float16 and len(rows) == 1438
    manifest = shards.read_manifest(tmp_path / "f")
    assert manifest.shard_images == 250 and manifest.shards == 6 and manifest.dtype == "float16"
    model = tiny_model().eval()
    images = bigbigan.data.open_images("digits")
    args = images, ("avepool_feat",), "float16", 0, ("x", "digits")
    with mock.patch.object(model, "encode", lambda x, noise: {"avepool_feat": torch.full((len(x), 3), 1e5)}):
        work = extraction.Extraction(model, images, tmp_path, extraction.manifest_of(model, *args))
        with pytest.raises(FeatureError, match="avepool_feat of image 0: .*found values from 100000 .*--dtype float32"):
            work.run()
    assert not list(tmp_path.glob("*.parquet"))


def test_splits_are_taken_whole(release, tmp_path):
    counts = {}
    for split in ("train", "test"):
        run(release, "digits", tmp_path / split, f"--data.split={split}")
        counts[split] = len(pd.read_parquet(tmp_path / split))
    assert counts == {"train": 1438, "test": 359}
    assert json.loads((tmp_path / "test" / "_manifest.json").read_text())["images"] == 359


def test_sigterm_ends_with_status_75_and_the_rest_follows(whole, release, photos, tmp_path):
    process = start(release, photos, tmp_path / "f")
    while not list((tmp_path / "f").glob("*.parquet")) and process.is_alive():
        pass
    process.terminate()
    assert ended(process) in (75, 0)  # 0 if it had ended before
    run(release, photos, tmp_path / "f")
    same(tmp_path / "f", whole)


def test_help_is_short_and_names_settings_that_exist(tmp_path):
    from bigbigan.config.comparison import flatten
    from bigbigan.extract import SETTINGS, Extract

    for command in (("-m", "bigbigan.extract"), (ROOT / "bigbigan" / "extract.py",)):
        out, _ = launch(*command, "--help", cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
        assert out.startswith("Write the features") and len(out.splitlines()) < 30
    known = {f"--{name}" for name in flatten(Extract(""))} | {"--help-all"}
    assert {left.split()[0] for left, _ in SETTINGS} <= known
    code = "import sys, bigbigan.extract; assert 'torch' not in sys.modules"
    launch("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)})
