"""Layouts of published data sets that were read wrong: what is no image, no label and no training image is none."""

import io
import shutil
import struct
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

import bigbigan
from bigbigan.config import Data
from bigbigan.data import open_images, open_splits
from bigbigan.data.arrays import as_images
from bigbigan.data.pictures import PictureError, decode_rgb, open_picture, to_rgb
from bigbigan.errors import DataError, InputError
from bigbigan.training.start import values_rows
from tests.conftest import picture, tiny_model, train
from tests.helpers.folders import make, write


def both(folder, **settings):
    return open_splits(Data(path=str(folder), **settings))


def test_forms_for_submissions_give_no_labels(tmp_path, caplog):
    make(tmp_path, *(f"{split}/{split}{i}.png" for split in ("train", "test") for i in range(6)))
    write(tmp_path / "train.csv", "id,label", *(f"train{i},{i % 2}" for i in range(6)))
    for name in ("sample_submission.csv", "sampleSubmission.csv"):
        write(tmp_path / name, "id,label", *(f"test{i},0" for i in range(6)))
    train, test = both(tmp_path, label_column="label")
    assert train.per_class() == [("0", 3), ("1", 3)] and test.labels is None and len(test) == 6
    assert (
        "submission.csv" not in caplog.text and "test/ has no labels, so features are not measured on it" in caplog.text
    )


@pytest.mark.parametrize("place", ["beside", "above", "in each class"])
def test_tables_tell_images_of_one_name_apart_by_their_own_place_or_split(tmp_path, place):
    if place == "in each class":
        make(tmp_path, *(f"{c:05}/{i}.png" for c in range(2) for i in range(4)))
        for c in range(2):
            write(tmp_path / f"{c:05}/GT-{c}.csv", "file;kind", *(f"{i}.png;{c}" for i in range(4)))
        images = open_images(str(tmp_path), label_column="kind", test_share=0)
        assert images.labels.tolist() == [0] * 4 + [1] * 4
        return
    make(tmp_path, *(f"{split}/{i}.png" for split in ("train", "test") for i in range(4)))
    for k, split in enumerate(("train", "test")):
        where = tmp_path / split / "labels.csv" if place == "beside" else tmp_path / f"{split}Labels.csv"
        write(where, "id,kind", *(f"{i},{(i + k) % 2}" for i in range(4)))
    train, test = both(tmp_path, label_column="kind")
    assert train.labels.tolist() == [0, 1, 0, 1] and test.labels.tolist() == [1, 0, 1, 0]


def test_a_list_of_test_images_without_labels_leaves_them_unlabelled(tmp_path):
    make(tmp_path, *(f"images/{i:02}.png" for i in range(12)))
    write(tmp_path / "train.csv", "id,label", *(f"{i:02},{i % 2}" for i in range(8)))
    write(tmp_path / "test.csv", "id", *(f"{i:02}" for i in range(8, 12)))
    train, test = both(tmp_path, label_column="label")
    assert (len(train), len(test)) == (8, 4) and train.labels is not None and test.labels is None


@pytest.mark.parametrize(
    "values, sizes, said",
    [
        (["train"] * 4 + ["val"] * 2 + ["seq"] * 2, (4, 2), "that column 'split' calls seq are left out"),
        (["Training"] * 4 + ["PublicTest"] * 2 + ["PrivateTest"] * 2, (4, 4), "splits are read from info.csv"),
        (["train"] * 4 + ["id_test"] * 2 + ["id_val"] * 2, (4, 2), "splits are read from info.csv"),
        (["0"] * 4 + ["1"] * 2 + ["2"] * 2, (4, 2), "splits are read from info.csv"),
        (["0"] * 4 + ["1"] * 4, (7, 1), "no splits are read from column 'split', whose values 0, 1 are not train"),
        (["train"] * 8, (7, 1), "no splits are read from column 'split', whose values train are not"),
        (["a"] * 4 + ["b"] * 4, (7, 1), ""),
    ],
)
def test_columns_of_splits_with_other_words(tmp_path, values, sizes, said, caplog):
    make(tmp_path, *(f"images/{i}.png" for i in range(8)))
    write(tmp_path / "info.csv", "image,split", *(f"{i}.png,{value}" for i, value in enumerate(values)))
    assert tuple(map(len, both(tmp_path))) == sizes and said in caplog.text


MASKS = {
    "BUSI": (
        ["benign/benign (1).png", "benign/benign (1)_mask.png", "benign/benign (1)_mask_1.png", "normal/n (1).png"],
        2,
    ),
    "DeepGlobe": (["1_sat.jpg", "1_mask.png", "2_sat.jpg", "2_mask.png"], 2),
    "ISIC": (["ISIC_1.jpg", "ISIC_1_segmentation.png", "ISIC_2.jpg", "ISIC_2_Segmentation.png"], 2),
    "a mask of no image": (["a_mask.png", "b.png"], 2),
    "faces with masks": (["with_mask_1.jpg", "with_mask_2.jpg", "without_mask_1.jpg"], 3),
    "LEVIR": ([f"{f}/{i}.png" for f in ("A", "B", "label") for i in range(3)], 6),
    "DRIVE": ([f"{f}/{i}.png" for f in ("images", "mask", "1st_manual") for i in range(3)], 3),
    "a class called label": ([f"{f}/{f}{i}.png" for f in ("box", "label") for i in range(3)], 6),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_beside_their_images_are_left_out_and_counted(tmp_path, name, caplog):
    files, count = MASKS[name]
    make(tmp_path, *files)
    images = open_images(str(tmp_path), test_share=0)
    left = len(files) - count
    assert len(images) == count and ("masks" in " ".join(images.notes)) == bool(left)
    if name in ("LEVIR", "DRIVE"):
        assert images.labels is None


@pytest.mark.parametrize(
    "files, said",
    [
        (
            [f"train/patient{i:05}/view{k}.jpg" for i in range(9) for k in range(1 + (i < 3))],
            "9 folders hold 12 images, as those of patients",
        ),
        ([f"{2019 + i // 3}/IMG_{i}.jpg" for i in range(9)], "the 3 folders, such as 2019, are named by dates"),
        ([f"{y}/{m:02}/{i}.jpg" for y in (2019, 2020) for m in (1, 2) for i in range(3)], "are named by dates"),
        ([f"2021-0{1 + i // 3} Rome/{i}.jpg" for i in range(9)], "are named by dates"),
        ([f"VOC{y}/JPEGImages/{i}.jpg" for y in (2007, 2012) for i in range(4)], "are named by years"),
        (
            [f"patient{i:05}/study{k}/view{v}.jpg" for i in range(9) for k in (1, 2) for v in (1, 2)],  # CheXpert
            "the 9 folders, such as patient00000, are named by the numbers of patients",
        ),
        (
            [f"S2A_{i}_48/S2A_{i}_48_B{b}.tif" for i in range(3) for b in ("01", "02", "8A")],  # BigEarthNet
            "the images are single bands of satellite images",
        ),
        (
            [f"fold{k}/{k}{i}.png" for k in range(3) for i in range(3)],
            "the 3 folders, such as fold0, are named as folds",
        ),
        (
            [f"case_{i:05}/slice{k}.png" for i in range(3) for k in range(3)],  # KiTS
            "the 3 folders, such as case_00000, are named by the numbers of patients",
        ),
        (
            [f"patient_{i:03}_node_{i}/patch_{k}.png" for i in (4, 9, 10) for k in range(3)],  # Camelyon17 of WILDS
            "the 3 folders, such as patient_004_node_4, are named by the numbers of patients",
        ),
    ],
)
def test_patients_and_dates_are_no_classes(tmp_path, files, said, caplog):
    make(tmp_path, *files)
    assert open_images(str(tmp_path)).labels is None and said in caplog.text
    assert "--data.split all" in caplog.text
    assert open_images(str(tmp_path), "all").labels is not None


def test_labels_of_a_table_need_no_folders_that_are_classes(tmp_path):
    make(tmp_path, *(f"volunteer{i:05}/side{k}/view.jpg" for i in range(4) for k in (1, 2)))
    with pytest.raises(DataError, match="side1, side2 below each of"):
        open_images(str(tmp_path))
    rows = (f"{tmp_path.name}/volunteer{i:05}/side{k}/view.jpg,{'FM'[i % 2]}" for i in range(4) for k in (1, 2))
    write(tmp_path / "train.csv", "Path,Sex", *rows)
    assert open_images(str(tmp_path), label_column="Sex", test_share=0).per_class() == [("F", 4), ("M", 4)]


def test_val_and_test_beside_data_of_the_same_edition_are_a_question(tmp_path):
    make(tmp_path, *(f"data_large/{c}/{i}.jpg" for c in "ab" for i in range(2)), "val_large/1.jpg", "test_large/2.jpg")
    with pytest.raises(DataError, match="test_large, val_large beside data_large.*--data.split rest"):
        open_images(str(tmp_path))
    train, test = both(tmp_path, split="rest")
    assert train.per_class() == [("a", 2), ("b", 2)] and len(test) == 1


def test_archives_and_a_lone_test_split_are_said(tmp_path, caplog):
    make(tmp_path, *(f"test/{i}.png" for i in range(4)))
    (tmp_path / "train.zip").write_bytes(b"PK")
    open_images(str(tmp_path))
    assert "the only split is test/, so these images are trained on" in caplog.text
    assert "left out: 1 .zip; unpack them if they hold images" in caplog.text


def tar(path, names, mode="w", folders=()):
    with tarfile.open(path, mode) as file:
        for name in folders:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE
            file.addfile(member)
        for i, name in enumerate(names):
            with io.BytesIO() as content:
                picture(i, (8, 8)).save(content, "PNG")
                member = tarfile.TarInfo(name)
                member.size = content.tell()
                content.seek(0)
                file.addfile(member, content)


def test_a_tar_of_folders_is_refused_and_not_read_as_one_split(tmp_path):
    names = [f"data/{split}/{c}/{i}.png" for split in ("train", "test") for c in ("cat", "dog") for i in range(2)]
    tar(tmp_path / "d.tar", names)
    with pytest.raises(DataError, match="without labels in folders: data/test/cat, .*: tar -xf .*--data.split all"):
        open_images(str(tmp_path / "d.tar"))
    assert len(open_images(str(tmp_path / "d.tar"), "all", test_share=0)) == 8
    tar(tmp_path / "one.tar", [f"images/{i}.png" for i in range(4)])
    assert len(open_images(str(tmp_path / "one.tar"), test_share=0)) == 4
    for mode, suffix in (("w:gz", "tgz"), ("w:xz", "tar.xz")):
        tar(tmp_path / f"p.{suffix}", names, mode, ["data", "data/train"])
        with pytest.raises(DataError, match=f"found one that is packed; unpack it: tar -xf .*p.{suffix}$"):
            open_images(str(tmp_path / f"p.{suffix}"))


def test_tables_of_links_beside_tars_are_left_out(tmp_path, caplog):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for shard in range(2):
        tar(tmp_path / f"{shard:05}.tar", [f"{shard}{i}.png" for i in range(3)])
        pq.write_table(pa.table({"url": ["http://x"], "key": ["1"]}), tmp_path / f"{shard:05}.parquet")
    assert len(open_images(str(tmp_path), test_share=0)) == 6
    assert "left out: 2 tables without a column of images" in caplog.text


def test_a_fourth_band_that_is_not_transparency_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    bands = rng.integers(0, 256, (16, 16, 4), dtype=np.uint8)
    Image.fromarray(bands).save(tmp_path / "infrared.tif")
    with pytest.raises(PictureError, match="a fourth band that says what is transparent.*infrared"):
        to_rgb(open_picture(tmp_path / "infrared.tif"))
    bands[..., 3] = 255 * (np.arange(16) > 4)
    bands[4, :, 3] = 99  # a soft edge
    Image.fromarray(bands).save(tmp_path / "cut.tif")
    assert to_rgb(open_picture(tmp_path / "cut.tif")).getpixel((0, 0)) == (255, 255, 255)
    bands[..., 3] = rng.integers(0, 256, (16, 16))
    Image.fromarray(bands).save(tmp_path / "glass.png")  # where transparency is what a fourth channel means
    to_rgb(open_picture(tmp_path / "glass.png"))


def colours_of_16_bits(path, planar):
    """Write a TIFF with three bands of 16 bits, which Pillow cannot write, and return its values."""
    values = np.random.default_rng(0).integers(0, 3000, (3, 8, 8) if planar else (8, 8, 3)).astype("<u2")
    strips = 3 if planar else 1
    bits, offsets, sizes, pixels = 200, 220, 240, 260  # where each lies in the file
    tags = [  # (tag, type: 3 of 16 bits, 4 of 32, count, value or place)
        (256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, bits), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, strips, offsets if planar else pixels), (277, 3, 1, 3), (278, 3, 1, 8),
        (279, 4, strips, sizes if planar else values.nbytes), (284, 3, 1, 1 + planar),
    ]  # fmt: skip
    content = bytearray(pixels) + values.tobytes()
    content[:10] = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for i, tag in enumerate(tags):
        content[10 + 12 * i : 22 + 12 * i] = struct.pack("<HHII", *tag)
    content[bits : bits + 6] = struct.pack("<3H", 16, 16, 16)
    part = values.nbytes // 3
    content[offsets : offsets + 12] = struct.pack("<3I", *(pixels + i * part for i in range(3)))
    content[sizes : sizes + 12] = struct.pack("<3I", part, part, part)
    path.write_bytes(content)
    return values


def test_colours_of_16_bits(tmp_path):
    values = colours_of_16_bits(tmp_path / "pixels.tif", planar=False)
    found = np.asarray(to_rgb(open_picture(tmp_path / "pixels.tif")))
    assert (found == values >> 8).all()  # what Pillow reads
    with pytest.raises(PictureError, match="0 4095, found colours of 16 bits; scale them to 8 bits first"):
        to_rgb(open_picture(tmp_path / "pixels.tif"), (0, 4095))
    colours_of_16_bits(tmp_path / "bands.tif", planar=True)
    with pytest.raises(PictureError, match="found 3 bands of 16 bits, one after the other"):
        open_picture(tmp_path / "bands.tif")


@pytest.mark.parametrize(
    "values, said",
    [
        (np.arange(16, dtype=np.uint16).reshape(4, 4) * 200, "--data.value_range 0 4095"),
        (
            np.arange(16, dtype=np.uint16).reshape(4, 4) * 10 + 32_000,
            "--data.value_range 32000 32150, or further apart",
        ),
        (np.eye(4, dtype=np.uint8), ""),
    ],
)
def test_the_advice_about_a_range_is_of_the_values_that_there_are(tmp_path, values, said):
    for i in range(3):
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    rows = values_rows(open_images(str(tmp_path), test_share=0))
    assert rows[0][0] == "values" and rows[0][1].endswith(said or "nearly one grey")


def test_files_of_several_pages_are_said(tmp_path):
    for i in range(3):
        picture(i, (8, 8)).save(tmp_path / f"{i}.tif", save_all=True, append_images=[picture(9, (8, 8))])
    assert values_rows(open_images(str(tmp_path), test_share=0))[0] == (
        "pages", "3 of the files looked at have several pages or frames; the first is read",
    )  # fmt: skip


def test_encode_reads_tables_and_says_what_other_files_are(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = []
    for i in range(3):
        with io.BytesIO() as file:
            picture(i, (8, 8)).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"image": cells}), tmp_path / "x.parquet")
    model = tiny_model()
    for path in (tmp_path / "x.parquet", tmp_path):
        assert bigbigan.encode(str(path), model, "z_mean").shape[0] == 3
    for name, said in (
        ("x.npy", "pass the array in it"),
        ("x.zip", "unpack it"),
        ("x.dcm", "PNG files of 16 bits"),
    ):
        (tmp_path / name).write_bytes(b"\0")
        with pytest.raises(InputError, match=f"expected an image or a folder of images, found a file \\(.*{said}"):
            bigbigan.encode(str(tmp_path / name), model)


@pytest.mark.parametrize("shape, right", [((5, 784), False), ((9, 3072), False), ((500, 784), True), ((8, 64), True)])
def test_rows_of_pixels_are_no_picture(shape, right):
    rows = np.zeros(shape, np.uint8)
    if right:
        assert as_images(rows).shape == (1, 1, *shape)
    else:
        with pytest.raises(InputError, match="looks like an image's pixels in each row; reshape it first"):
            as_images(rows)


@pytest.mark.parametrize("files", [2, 9])
def test_a_small_split_of_known_classes_keeps_its_labels(tmp_path, files):
    make(tmp_path, *(f"train/c{c}/{c}{i}.png" for c in range(9) for i in range(3)))
    make(tmp_path, *(f"test/c{c}/t{c}.png" for c in range(files)))
    train, test = both(tmp_path)
    assert len(train.class_names) == 9 and test.labels.tolist() == list(range(files))


def test_one_shot_of_each_of_many_classes_is_a_task(tmp_path):
    make(tmp_path, *(f"train/c{c}/{c}.png" for c in range(9)), *(f"test/c{c}/{i}.png" for c in range(9) for i in "ab"))
    train, test = both(tmp_path)
    assert train.labels.tolist() == list(range(9)) and len(test.labels) == 18


def test_a_folder_named_by_its_path_is_read_as_any_other(tmp_path):
    """Parts of a series stay without labels, and versions of the classes are not refused."""
    make(tmp_path, *(f"train/{k:02}000/{k:02}{i:03}.png" for k in range(3) for i in range(4)))
    assert open_images(str(tmp_path), "./train", test_share=0).labels is None
    make(tmp_path, *(f"valid/{p}/{s}/{i}.png" for p in "ab" for s in ("s1", "s2") for i in range(2)))
    assert len(open_images(str(tmp_path), "./valid", test_share=0)) == 8


def test_a_data_set_whose_own_name_has_a_split_word_is_no_test_split(tmp_path, caplog):
    root = tmp_path / "my_test_photos"
    make(root, *(f"images_{k}/{k}{i}.png" for k in range(2) for i in range(4)))
    open_images(str(root))
    assert "the only split" not in caplog.text


def test_tubes_beside_test_tubes_are_classes(tmp_path):
    make(tmp_path, *(f"{c}/{c}{i}.png" for c in ("tube", "test_tube", "flask") for i in range(3)))
    assert len(open_images(str(tmp_path), test_share=0).class_names) == 3


def test_all_takes_certain_splits_together(tmp_path):
    make(
        tmp_path,
        *(f"{s}/{c}/{s}{c}{i}.png" for s in ("train", "val", "test") for c in ("cat", "dog") for i in range(2)),
    )
    images = open_images(str(tmp_path), "all", test_share=0)
    assert images.per_class() == [("cat", 6), ("dog", 6)] and images.source == "train/, val/, test/"
    make(tmp_path, "extra/x.png")
    assert "extra/ (1 image, beside the splits)" in open_images(str(tmp_path), "all", test_share=0).notes


def test_a_column_that_is_not_there_is_answered_with_those_that_are(tmp_path):
    make(tmp_path, "a.png", "b.png")
    write(tmp_path / "labels.csv", "image,diagnosis,age", "a,x,1", "b,y,2")
    with pytest.raises(DataError, match="found labels.csv with image, diagnosis, age; did you mean diagnosis\\?"):
        open_images(str(tmp_path), label_column="daignosis")


@pytest.mark.parametrize("most, fits", [(200, 255), (4000, 4095), (60000, 65535)])
def test_the_range_that_an_error_suggests_fits(most, fits):
    for kind in (np.uint16, np.int64):
        with pytest.raises(InputError, match=f"such as \\(0, {fits}\\)"):
            bigbigan.encode(np.full((2, 8, 8), most, kind), tiny_model())


WITH_UNLABELLED = {
    "stl10": (
        ["train_labeled/cat/*2.png", "train_labeled/dog/*2.png", "train_unlabeled/*6.png", "test/cat/*1.png",
         "test/dog/*1.png"],
        "expected one folder for the split 'train', found train_labeled, train_unlabeled; choose with --data.split",
    ),
    "beside": (
        ["labeled/cat/*2.png", "labeled/dog/*2.png", "unlabeled/*6.png"],
        "unlabeled beside labeled. Either unlabeled holds images without labels, apart from the others: --data.subset "
        "unlabeled or labeled, or move it out of",
    ),
    "among classes": (
        ["cat/*2.png", "dog/*2.png", "unlabelled_images/*6.png"],
        "unlabelled_images beside cat, dog. Either .*: --data.subset unlabelled_images, or move it out of",
    ),
    "in a split": (
        ["train/neg/*2.png", "train/pos/*2.png", "train/unsup/*6.png", "test/neg/*1.png", "test/pos/*1.png"],
        "unsup beside neg, pos. Either .* apart from the others: move it out of .*train; or unsup is a class",
    ),
}  # fmt: skip


def layout_of(folder, entries) -> None:
    """Write "path/*N.png" as N images."""
    names = []
    for entry in entries:
        path, _, count = entry.removesuffix(".png").rpartition("/*")
        names += [f"{path}/{path.replace('/', '-')}-{k}.png" for k in range(int(count))]
    make(folder, *names)


@pytest.mark.parametrize("name", WITH_UNLABELLED)
def test_a_folder_of_images_without_labels_is_no_class(name, tmp_path):
    entries, message = WITH_UNLABELLED[name]
    layout_of(tmp_path, entries)
    with pytest.raises(DataError, match=message):
        open_images(str(tmp_path))


def test_what_the_refusal_of_images_without_labels_names_is_taken(tmp_path):
    layout_of(tmp_path / "a", WITH_UNLABELLED["stl10"][0])
    for split, labelled in (("./train_labeled", True), ("./train_unlabeled", False)):
        train = open_images(str(tmp_path / "a"), split, other_split="./test")
        test = open_images(str(tmp_path / "a"), "./test", test=True, other_split=split)
        assert (train.labels is not None) is labelled and len(train) == (4 if labelled else 6)
        assert test.class_names == ["cat", "dog"]
    assert len(everything(tmp_path / "a")) == 12
    layout_of(tmp_path / "b", WITH_UNLABELLED["beside"][0])
    for subset, count in (("labeled", 4), ("unlabeled", 6)):
        parts = [open_images(str(tmp_path / "b"), subset=subset, test=test) for test in (False, True)]
        assert sum(map(len, parts)) == count and (parts[0].labels is not None) is (subset == "labeled")


def test_all_of_two_editions_of_a_split(tmp_path):
    layout_of(tmp_path, ["train2014/*3.png", "train2017/*4.png", "val2014/*2.png"])
    images = everything(tmp_path)
    assert len(images) == 9 and not any(part.labels is not None for part in [open_images(str(tmp_path), "all")])


def everything(folder) -> list[str]:
    """Return the names of all images that --data.split all takes, on both sides."""
    parts = [open_images(str(folder), "all", test=test, other_split="all") for test in (False, True)]
    return [part.name(i) for part in parts for i in range(len(part))]


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_encode_says_that_of_several_pages_the_first_is_read(tmp_path, suffix):
    more = {"save_all": True, "append_images": [picture(8, (8, 8)), picture(9, (8, 8))]}
    for i in range(3):
        picture(i, (8, 8)).save(tmp_path / f"{i}.{suffix}", **more if i else {})
    with pytest.warns(UserWarning, match=rf"2 files have several pages .* the first is read: .*1\.{suffix}") as said:
        z = bigbigan.encode(str(tmp_path), model=tiny_model(), outputs="z_mean")
    assert len(z) == 3 and len(said) == 1


def test_a_map_with_smaller_copies_of_itself_has_one_page(tmp_path):
    """As the overviews of a cloud-optimised GeoTIFF."""
    overview = picture(0, (4, 4))
    overview.encoderinfo = {"tiffinfo": {254: 1}}
    picture(0, (8, 8)).save(tmp_path / "map.tif", save_all=True, append_images=[overview])
    with Image.open(tmp_path / "map.tif") as image:
        assert image.n_frames == 2
    with warnings.catch_warnings(action="error"):
        bigbigan.encode(str(tmp_path / "map.tif"), model=tiny_model())
    assert open_images(str(tmp_path), test_share=0).with_pages() == 0


@pytest.mark.run
def test_pictures_none_of_which_can_be_read_end_even_a_dry_run_with_the_reason(tmp_path):
    """As float pictures of unknown range; before the networks are built."""
    (tmp_path / "maps").mkdir()
    for i in range(30):
        Image.fromarray(np.random.default_rng(i).random((8, 8), np.float32)).save(tmp_path / "maps" / f"{i}.tif")
    for flags in ((), ("--dry-run",)):
        out, err = train(tmp_path, f"--data.path={tmp_path / 'maps'}", *flags, code=2)
        assert "none among the " in err and "give --data.value_range" in err and "networks" not in out
    assert err.count("\n") == 1


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_a_damaged_later_page_never_decides_whether_the_first_is_read(kind):
    """Every cut of a file is read, or refused with the same error, as if nobody asked for its pages."""
    with io.BytesIO() as file:
        picture(0, (20, 20)).save(file, kind, save_all=True, append_images=[picture(i, (20, 20)) for i in (1, 2)])
        whole = file.getvalue()

    def outcome(read):
        try:
            return np.asarray(read()).tobytes()
        except Exception as error:
            return type(error)

    def first_page(data: bytes):
        with open_picture(io.BytesIO(data)) as image:
            return to_rgb(image)

    with warnings.catch_warnings(action="ignore"):
        found = [(outcome(lambda d=whole[:n]: decode_rgb(d)), outcome(lambda d=whole[:n]: first_page(d)))
                 for n in range(20, len(whole), 3)]  # fmt: skip
    assert all(a == b for a, b in found) and len({a for a, _ in found}) > 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_a_turned_tiff_is_read_upright_from_its_path_as_from_its_bytes(tmp_path, orientation, mode, compression):
    """Pillow maps uncompressed files, which it opens by name, with width and height exchanged."""
    stored = np.random.default_rng(orientation).integers(0, 256, (12, 16, 3), np.uint8)
    pixels = {"L": stored[:, :, 0], "RGB": stored, "I;16": stored[:, :, 0] * np.uint16(257)}[mode]
    Image.fromarray(pixels).save(tmp_path / "a.tif", tiffinfo={274: orientation}, compression=compression)
    grey = stored if mode == "RGB" else np.repeat(stored[:, :, :1], 3, 2)
    turns = {  # what EXIF says of row 0 and column 0
        1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.swapaxes(0, 1),
        6: np.rot90(grey, 3), 7: grey[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(grey),
    }  # fmt: skip
    for source in (str(tmp_path / "a.tif"), (tmp_path / "a.tif").read_bytes()):
        assert np.array_equal(np.asarray(decode_rgb(source)), turns[orientation])
    with Image.open(tmp_path / "a.tif") as image:
        assert np.array_equal(np.asarray(to_rgb(image)), turns[orientation])
        assert image.filename == str(tmp_path / "a.tif")


def test_body_parts_above_patients_are_classes(tmp_path):
    names = [f"XR_{part}/patient{i:05}/study1_positive/image1.png" for part in ("ELBOW", "WRIST") for i in range(4)]
    make(tmp_path, *(f"train/{name}" for name in names), *(f"valid/{name}" for name in names[1::2]))  # MURA
    train, test = both(tmp_path)
    assert train.per_class() == [("XR_ELBOW", 4), ("XR_WRIST", 4)] and len(test) == 4 and test.labels is not None


def test_folds_are_parts_of_one_data_set(tmp_path):
    make(tmp_path, *(f"{c}/fold{k}/{c}{k}{i}.png" for c in ("flat",) for k in range(3) for i in range(3)))
    assert open_images(str(tmp_path / "flat"), test_share=0).labels is None
    assert open_images(str(tmp_path / "flat"), "all", test_share=0).per_class()[0] == ("fold0", 3)
    make(tmp_path, *(f"deep/fold_{k}/{c}/{k}{i}.png" for k in range(3) for c in ("cat", "dog") for i in range(3)))
    assert open_images(str(tmp_path / "deep"), test_share=0).per_class() == [("cat", 9), ("dog", 9)]
    parts = (("train", (0, 1)), ("test", (2,)))
    make(
        tmp_path,
        *(f"cut/fold{k}/{s}/{c}{(i + k) % 3}.png" for k in range(3) for s, p in parts for c in "ab" for i in p),
    )
    train, test = both(tmp_path / "cut", subset="fold1")  # a fold's test images are another's training images
    assert (len(train), len(test)) == (4, 2) and "fold1" in test.source


def test_a_copy_of_a_folder_whose_name_differs_in_case_alone_counts_once(tmp_path):
    make(tmp_path, *(f"HAM10000_images_part_{k}/ISIC_{k}{i}.jpg" for k in (1, 2) for i in range(4)))
    for k in (1, 2):  # the archive of HAM10000 on Kaggle has both
        shutil.copytree(tmp_path / f"HAM10000_images_part_{k}", tmp_path / f"ham10000_images_part_{k}")
    write(
        tmp_path / "HAM10000_metadata.csv",
        "image_id,dx",
        *(f"ISIC_{k}{i},{'ab'[i % 2]}" for k in (1, 2) for i in range(4)),
    )
    train, test = both(tmp_path, label_column="dx")
    assert len(train) + len(test) == 8 and all("HAM10000" in path for path in train.paths() + test.paths())
    assert "ham10000_images_part_1/ (4 images, a copy of HAM10000_images_part_1/)" in train.notes
    make(tmp_path / "letters", *(f"{letter}/{i}.png" for letter in "Aa" for i in range(4)))
    assert open_images(str(tmp_path / "letters"), test_share=0).per_class() == [("A", 4), ("a", 4)]


@pytest.mark.parametrize("word", ["", "_target"])  # COCO-Stuff, xView2
def test_what_lies_beside_images_under_their_names_is_drawn_after_them(tmp_path, caplog, word):
    for folder, suffix in (("images", ".jpg"), ("stuffthingmaps_trainval2017", f"{word}.png")):
        make(tmp_path, *(f"{folder}/{s}2017/{i}{suffix}" for s, n in (("train", 4), ("val", 2)) for i in range(n)))
    train, test = both(tmp_path)
    assert (len(train), len(test), train.labels) == (4, 2, None)
    assert (
        "(6 images of the same names as those of images/; if these folders are classes: --data.split all)"
        in caplog.text
    )
    assert open_images(str(tmp_path), "all", test_share=0).labels is not None


def test_several_labels_in_one_are_said_once(tmp_path, caplog):
    make(tmp_path, *(f"{i:02}.png" for i in range(12)))
    labels = ("Edema", "Mass", "Edema|Mass", "No Finding")  # NIH chest X-rays
    write(
        tmp_path / "data.csv", "image,finding,name", *(f'{i:02}.png,{labels[i % 4]},"tench, Tinca"' for i in range(12))
    )
    both(tmp_path, label_column="finding")
    assert caplog.text.count("'finding' has labels that are made of others, such as 'Edema|Mass'") == 1
    both(tmp_path, label_column="name")
    assert caplog.text.count("made of others") == 1


@pytest.mark.parametrize(
    "names",
    [
        ["Golf2007", "Golf2012"],
        ["Series 3", "Series 5", "Series 7"],
        ["case-40", "case-44"],
        ["scan1", "scan2"],
        ["Galaxy Fold 3", "Galaxy Fold 4"],
        ["image", "no_image"],
    ],
)
def test_a_few_folders_of_models_and_sizes_are_classes(tmp_path, names):
    make(tmp_path, *(f"{name}/{i}.png" for name in names for i in range(4)))
    assert open_images(str(tmp_path), test_share=0).per_class() == [(name, 4) for name in names]


@pytest.mark.parametrize("names, inside", [(["Golf2007", "Golf2012"], "photos/"), (["fold1", "fold2"], "")])
def test_folders_of_both_splits_are_classes_whatever_they_are_called(tmp_path, names, inside):
    make(tmp_path, *(f"{s}/{name}/{inside}{s}{i}.png" for s in ("train", "test") for name in names for i in range(2)))
    for images in both(tmp_path):
        assert images.per_class() == [(name, 2) for name in names]


def test_images_that_are_named_after_their_class_and_a_number_are_no_bands(tmp_path):
    make(tmp_path, *(f"{name}/{name}-B{i}.png" for name in ("floor", "wall") for i in range(1, 5)))
    assert open_images(str(tmp_path), test_share=0).per_class() == [("floor", 4), ("wall", 4)]


def test_few_scans_of_a_test_split_are_no_classes_beside_many_of_training(tmp_path):
    make(tmp_path, *(f"{'train' if k < 10 else 'test'}/scan{k}/{i}.png" for k in range(1, 13) for i in range(3)))
    assert [images.labels for images in both(tmp_path)] == [None, None]
