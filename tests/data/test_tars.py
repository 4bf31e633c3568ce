"""Read tar files as WebDataset packs them."""

import errno
import gzip
import io
import json
import lzma
import os
import pickle
import subprocess
import tarfile
import time

import numpy as np
import pytest
import torch

import bigbigan
from bigbigan.config import Data
from bigbigan.data import Crop, Stream, ahead, evaluation_batches, fingerprint, inputs, open_images, open_splits, tars
from bigbigan.errors import DataError
from tests.conftest import picture, train
from tests.data.test_splits import encoded


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path_factory.mktemp("cache")))


def pack(path, members: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(start: int, stop: int) -> dict[str, bytes]:
    """Return samples whose class is their number modulo 3."""
    members = {}
    for i in range(start, stop):
        members |= {f"{i:04}.png": encoded(i)["bytes"], f"{i:04}.cls": str(i % 3).encode()}
    return members


def test_members_of_a_key_are_a_sample_and_are_read_in_any_order(tmp_path):
    for k in range(3):
        pack(tmp_path / "shards" / f"{k:05}.tar", samples(10 * k, 10 * k + 10))
    images = open_images(str(tmp_path / "shards"), test_share=0)
    assert len(images) == 30 and images.class_names == ["0", "1", "2"]
    assert images.labels.tolist() == [i % 3 for i in range(30)]
    for i in (29, 0, 13, 7):
        assert np.array_equal(np.asarray(images[i].convert("RGB")), np.asarray(picture(i, (8, 8))))
    assert images.name(13).endswith("00001.tar, 0013.png")
    again = pickle.loads(pickle.dumps(images.base()[0]))
    assert again.source(29) == encoded(29)["bytes"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_serves_the_images_of_tars(tmp_path, workers):
    pack(tmp_path / "a.tar", samples(0, 12))
    images = open_images(str(tmp_path / "a.tar"), test_share=0)
    batch = next(Stream(images, 8, 0, Crop("none", False), workers=workers, cache="none").batches(0, 12, 12))
    found = {x.numpy().tobytes(): int(label) for x, label in zip(batch.x, batch.labels, strict=True)}
    expected = {np.asarray(picture(i, (8, 8))).transpose(2, 0, 1).tobytes(): i % 3 for i in range(12)}
    assert found == expected


def test_splits_are_named_by_files_and_patterns_choose_files(tmp_path):
    for k in range(2):
        pack(tmp_path / f"train-{k:04}.tar", samples(10 * k, 10 * k + 10))
    pack(tmp_path / "val-0000.tar", samples(50, 53))
    train_images, test_images = open_splits(Data(path=str(tmp_path)))
    assert (len(train_images), len(test_images)) == (20, 3) and test_images.labels.tolist() == [2, 0, 1]
    assert train_images.source == "train-0000.tar … train-0001.tar (2 files)"
    for pattern, count in (("train-{0000..0001}.tar", 20), ("train-*.tar", 20), ("train-{0001..0001}.tar", 10)):
        assert len(open_images(str(tmp_path / pattern), test_share=0)) == count
    assert len(open_images(str(tmp_path), "./train-0001.tar", test_share=0)) == 10


@pytest.mark.parametrize(
    ("extra", "column", "names"),
    [
        (lambda i: {"cls": ["ant", "bee"][i % 2].encode()}, "", ["ant", "bee"]),
        (lambda i: {"json": json.dumps({"label": i % 2 + 5, "id": i}).encode()}, "", ["5", "6"]),
        (lambda i: {"json": json.dumps({"kind": "xy"[i % 2]}).encode()}, "kind", ["x", "y"]),
        (lambda i: {"json": b"{broken"}, "", None),
        (lambda i: {"cls": str(i).encode()}, "", None),
        (lambda i: {"txt": b"a caption"}, "", None),
    ],
    ids=["cls", "json", "a named field", "broken json", "ids", "text"],
)
def test_labels(tmp_path, extra, column, names):
    members = {}
    for i in range(12):
        members |= {f"x/{i}.png": encoded(i)["bytes"]} | {f"x/{i}.{suffix}": text for suffix, text in extra(i).items()}
    images = open_images(str(pack(tmp_path / "a.tar", members)), label_column=column, test_share=0)
    assert images.class_names == names
    if names:
        assert images.labels.tolist() == [i % 2 for i in range(12)]


def test_shards_whose_labels_are_numbers_and_words(tmp_path):
    for k, kind in enumerate((7, "7a")):
        content = json.dumps({"label": kind}).encode()
        members = {}
        for i in range(4):
            members |= {f"{i}.png": encoded(i)["bytes"], f"{i}.json": content}
        pack(tmp_path / f"{k}.tar", members)
    assert open_images(str(tmp_path), test_share=0).class_names == ["7", "7a"]


def test_masks_samples_without_an_image_and_other_members(tmp_path):
    members = samples(0, 6) | {f"{i:04}.seg.png": encoded(90 + i)["bytes"] for i in range(6)}
    members |= {"0009.cls": b"1", "._0000.png": b"?", "README": b"words"}
    images = open_images(str(pack(tmp_path / "a.tar", members)), test_share=0)
    assert len(images) == 6 and images.notes == ("1 sample without a .png",)
    masks = open_images(str(tmp_path / "a.tar"), image_column="seg.png", test_share=0)
    assert np.array_equal(np.asarray(masks[2].convert("RGB")), np.asarray(picture(92, (8, 8))))


def test_equal_names_in_two_folders_and_suffixes_in_capitals_are_samples(tmp_path):
    members = {}
    for k, folder in enumerate("ab"):
        for i in range(6):
            members |= {f"{folder}/{i}.PNG": encoded(6 * k + i)["bytes"], f"{folder}/{i}.CLS": folder.encode()}
    images = open_images(str(pack(tmp_path / "a.tar", members)), test_share=0)
    assert images.class_names == ["a", "b"] and images.labels.tolist() == [0] * 6 + [1] * 6
    for i in range(12):
        assert np.array_equal(np.asarray(images[i].convert("RGB")), np.asarray(picture(i, (8, 8))))


def test_of_two_members_of_one_name_the_first_counts(tmp_path):
    path = pack(tmp_path / "a.tar", samples(0, 4))
    with tarfile.open(path, "a") as tar:
        for name, content in (("0002.png", encoded(9)["bytes"]), ("0002.cls", b"7")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    images = open_images(str(path), test_share=0)
    assert images.labels.tolist() == [0, 1, 2, 0]
    assert np.array_equal(np.asarray(images[2].convert("RGB")), np.asarray(picture(2, (8, 8))))


def test_a_sample_without_an_image_moves_no_other_to_another_tar(tmp_path):
    first = samples(0, 6)
    del first["0001.png"]
    pack(tmp_path / "0.tar", first), pack(tmp_path / "1.tar", samples(6, 12))
    images, kept = open_images(str(tmp_path), test_share=0), [0, *range(2, 12)]
    assert images.labels.tolist() == [i % 3 for i in kept]
    for at, i in enumerate(kept):
        assert np.array_equal(np.asarray(images[at].convert("RGB")), np.asarray(picture(i, (8, 8))))


def test_a_field_of_json_gives_splits(tmp_path):
    members = {}
    for i in range(10):
        fields = {"label": "ab"[i % 2], "split": "train" if i % 5 else "test"}
        members |= {f"{i}.png": encoded(i)["bytes"], f"{i}.json": json.dumps(fields).encode()}
    train_images, test_images = open_splits(Data(path=str(pack(tmp_path / "a.tar", members))))
    assert train_images.labels.tolist() == [1, 0, 1, 0, 0, 1, 0, 1] and test_images.labels.tolist() == [0, 1]
    assert np.array_equal(np.asarray(test_images[1].convert("RGB")), np.asarray(picture(5, (8, 8))))


def test_a_split_by_its_folder_has_no_tar_of_a_folder_whose_name_begins_alike(tmp_path):
    pack(tmp_path / "a" / "0.tar", samples(0, 6)), pack(tmp_path / "ab" / "0.tar", samples(6, 14))
    assert [len(open_images(str(tmp_path), split, test_share=0)) for split in ("./a", "./ab")] == [6, 8]


def test_tars_in_folders_of_archivers_and_behind_links_are_no_part_of_a_data_set(tmp_path):
    pack(tmp_path / "s" / "0.tar", samples(0, 6)), pack(tmp_path / "s" / "__MACOSX" / "1.tar", samples(6, 9))
    assert len(open_images(str(tmp_path / "s"), test_share=0)) == 6
    (tmp_path / "s" / "2.tar").symlink_to(pack(tmp_path / "elsewhere" / "2.tar", samples(9, 12)))
    with pytest.raises(DataError, match="follow it with --data.follow_links True"):
        open_images(str(tmp_path / "s"), test_share=0)
    assert len(open_images(str(tmp_path / "s"), test_share=0, follow_links=True)) == 9


def test_a_tar_without_a_mark_at_its_end_may_lack_images_and_says_so(tmp_path, caplog):
    path = pack(tmp_path / "a.tar", samples(0, 6))
    with tarfile.open(path) as tar:
        third = tar.getmembers()[4].offset  # from where on a copy is missing
    path.write_bytes(path.read_bytes()[:third])
    assert len(open_images(str(path), test_share=0)) == 2
    assert "a.tar: has no mark at its end; if it was cut short, images are missing" in caplog.text


def test_unreadable_members_are_counted(tmp_path, caplog):
    path = pack(tmp_path / "a.tar", samples(0, 20) | {"0003.png": b"no picture"})
    images = open_images(str(path), test_share=0)
    stream = Stream(images, 8, 0, Crop("none", False), cache="none", max_unreadable=0.1)
    assert len(next(stream.batches(0, 20, 20)).x) == 20
    assert len(stream.unreadable) == 1 and "a.tar, 0003.png" in caplog.text
    stream = Stream(images, 8, 0, Crop("none", False), cache="none", max_unreadable=0)
    with pytest.raises(DataError, match="1 of 20 images of .*a.tar are unreadable"):
        next(stream.batches(0, 20, 20))


def test_the_index_is_kept_and_made_anew_when_the_tar_changes(tmp_path, monkeypatch):
    path = pack(tmp_path / "a.tar", samples(0, 10))
    before = fingerprint(open_images(str(path), test_share=0))
    with monkeypatch.context() as patch:
        patch.setattr(tars, "_make_index", None)
        assert fingerprint(open_images(str(path), test_share=0)) == before
    for kept in tars.cache_folder().iterdir():
        kept.write_bytes(kept.read_bytes()[:40])
    assert len(open_images(str(path), test_share=0)) == 10
    pack(path, samples(0, 11))
    images = open_images(str(path), test_share=0)
    assert len(images) == 11 and fingerprint(images) != before


def test_sides_stay_when_a_shard_is_added(tmp_path):
    def sides():
        return [{image.name(i) for i in range(len(image))} for image in open_splits(Data(path=str(tmp_path / "s")))]

    pack(tmp_path / "s" / "0.tar", samples(0, 60))
    before = sides()
    pack(tmp_path / "s" / "1.tar", samples(0, 60))
    after = sides()
    assert not before[0] & after[1] and not before[1] & after[0] and all(before)


@pytest.mark.parametrize("damage", ["cut", "cut in an image", "a header", "empty", "no tar"])
def test_a_damaged_tar_is_one_sentence(tmp_path, damage):
    path = pack(tmp_path / "a.tar", samples(0, 60))
    content = path.read_bytes()
    damaged = {
        "cut": content[:20_700],
        "cut in an image": content[:21_300],
        "a header": content.replace(b"0030.png", b"0x30.png"),  # its checksum is that of before
        "empty": b"",
        "no tar": b"words" * 400,
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(DataError, match="a.tar: expected a (readable|whole) tar file.*cut short"):
        open_images(str(path))


@pytest.mark.parametrize(("suffix", "opener"), [("tar.gz", gzip), ("tgz", gzip), ("tar.xz", lzma), ("tar", gzip)])
def test_a_compressed_tar_is_refused_with_the_command_that_unpacks_it(tmp_path, suffix, opener):
    folder = tmp_path / "some shards"
    plain = pack(folder / "plain.tar", samples(0, 12)).read_bytes()
    (folder / "plain.tar").unlink()
    path = folder / f"a.{suffix}"
    path.write_bytes(opener.compress(plain))
    for wanted in (path, folder, folder / f"*.{suffix}"):
        for read in (open_images, inputs.named_by):
            with pytest.raises(
                ValueError, match=f"a.{suffix}: expected a plain tar, .*; decompress it once: "
            ) as refusal:
                read(str(wanted))
    command = str(refusal.value).split("once: ")[1]
    subprocess.run(command, shell=True, check=True)
    if suffix == "tar":  # which would stand beside the plain one
        path.unlink()
    assert len(open_images(str(folder), test_share=0)) == 12
    (folder / "b.tar.gz").write_bytes(gzip.compress(plain))
    with pytest.raises(DataError, match="b.tar.gz: expected a plain tar"):  # some plain, some not
        open_images(str(folder))


def test_a_tar_that_shrinks_later_gives_unreadable_images(tmp_path):
    path = pack(tmp_path / "a.tar", samples(0, 10))
    images = open_images(str(path), test_share=0)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="the tar was cut short"):
        images.base()[0].source(9)


def test_a_folder_of_images_with_a_tar_beside_them_is_one_of_images(tmp_path):
    pack(tmp_path / "a.tar", samples(0, 10))
    picture(0).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.png")
    assert len(open_images(str(tmp_path), test_share=0)) == 2


@pytest.mark.run
def test_a_run_trains_on_tars_and_resumes(tmp_path):
    pack(tmp_path / "s" / "train-0.tar", samples(0, 60))
    pack(tmp_path / "s" / "test-0.tar", samples(60, 90))
    flags = (f"--data.path={tmp_path / 's'}", "--run.name=r", "--run.probe=False")
    train(tmp_path, *flags, "--run.images=48")
    out, _ = train(tmp_path, *flags, "--run.images=96")
    assert "at 48 images" in out


def test_threads_read_the_same_tars(tmp_path, monkeypatch):
    """More tars than are kept open, and some slow reads: a tar is closed only when nobody reads from it."""
    monkeypatch.setattr(tars, "OPEN_FILES", 2)
    monkeypatch.setattr(ahead, "cores", lambda: 8)
    pread, opened = os.pread, []

    def slow_pread(descriptor, size, offset):
        opened.append(descriptor)
        time.sleep(0.02 if offset % 3 == 0 else 0)
        return pread(descriptor, size, offset)

    for k in range(20):
        members = {f"{k:02}{i}.png": encoded(4 * k + i)["bytes"] for i in range(4)}
        pack(tmp_path / "shards" / f"{k:05}.tar", members)
    images = open_images(str(tmp_path / "shards"), test_share=0)
    images = images.subset(np.random.default_rng(0).permutation(len(images)))
    expected = torch.cat([x for x, _ in evaluation_batches(images, 8, 80)])
    monkeypatch.setattr(os, "pread", slow_pread)
    found = torch.cat([x for x, _ in evaluation_batches(images, 8, 80)])
    assert torch.equal(found, expected)
    read = torch.cat([batch.x for batch in inputs.read_batches(images, 8, 80)])
    assert torch.equal((read / 2 + 0.5).mul(255).round().byte(), expected)
    assert len(opened) == 160 and len(images.base()[0].opened) <= 2
    for descriptor in set(opened) - {tar.descriptor for tar in images.base()[0].opened.values()}:
        with pytest.raises(OSError):
            os.fstat(descriptor)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_machine_s_failure_is_no_fault_of_an_image(tmp_path, monkeypatch, on_error):
    images = open_images(str(pack(tmp_path / "a.tar", samples(0, 4))), test_share=0)

    def fail(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match="Too many open files"):
        bigbigan.encode(images, "digits", "z_mean", on_error=on_error)
    with pytest.raises(OSError, match="Too many open files"):
        list(evaluation_batches(images, 8, 4))


@pytest.mark.parametrize("text", ["{} {}", "{},{}", "[{}, {}]", "{}\n{}"])
def test_several_classes_in_one_label_are_no_label(tmp_path, text, caplog):
    members = {}
    for k in range(12):
        members |= {f"{k}.jpg": encoded(k)["bytes"], f"{k}.cls": text.format(k % 2, (k + 1) % 3).encode()}
    pack(tmp_path / "a.tar", members)
    assert open_images(str(tmp_path / "a.tar"), test_share=0).labels is None
    assert "expected one class for each image in 'cls', found several: " in caplog.text
    with pytest.raises(DataError, match="expected one class for each image in 'cls'"):
        open_images(str(tmp_path / "a.tar"), label_column="cls")


def test_measurements_in_cls_are_no_classes(tmp_path, caplog):
    members = {}
    for k in range(12):
        members |= {f"{k}.jpg": encoded(k)["bytes"], f"{k}.cls": f"{k % 3 / 2:g}".encode()}
    pack(tmp_path / "a.tar", members)
    assert open_images(str(tmp_path / "a.tar"), test_share=0).labels is None
    assert "expected classes in column 'cls', found numbers such as 0.5" in caplog.text


@pytest.mark.parametrize("some", [False, True])
def test_a_list_of_labels_in_json_is_named_before_another_field_is_taken(tmp_path, some, caplog):
    members = {}
    for k in range(12):
        label = 1 if some and k % 2 else [k % 2, 1]
        fields = {"label": label, "category": "ab"[k % 2], "boxes": [1, 2]}
        members |= {f"{k}.jpg": encoded(k)["bytes"], f"{k}.json": json.dumps(fields).encode()}
    pack(tmp_path / "a.tar", members)
    assert open_images(str(tmp_path / "a.tar"), test_share=0).class_names == ["a", "b"]
    assert "expected one class for each image in 'label', found several: [0, 1]" in caplog.text
    assert "labels are read from column 'category', not from 'label'" in caplog.text


def test_a_column_of_labels_that_is_not_there_is_named_without_an_empty_list(tmp_path):
    pack(tmp_path / "a.tar", {f"{k}.jpg": encoded(k)["bytes"] for k in range(2)})
    with pytest.raises(DataError, match="a column of labels 'x', found no column that could hold any; see"):
        open_images(str(tmp_path / "a.tar"), label_column="x")


def test_a_tar_of_tars_says_what_to_do(tmp_path):
    for name, suffix in (("ILSVRC2012_img_train", "tar"), ("ILSVRC2012_img_val", "JPEG")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            info = tarfile.TarInfo(f"n01440764.{suffix}")
            tar.addfile(info, io.BytesIO())
    with pytest.raises(DataError, match="found none in ILSVRC2012_img_train.tar; if it holds other tars"):
        open_images(str(tmp_path))
