"""Files that list images give splits, by themselves or by name, and no image is in two splits."""

import logging

import pytest

from bigbigan.config import Data
from bigbigan.data import open_images, open_splits
from bigbigan.data.split_lists import only
from bigbigan.data.walk import Folder
from bigbigan.errors import DataError
from tests.helpers.folders import make, write

TWO = ("cat", "dog")


def both(folder, **settings):
    """Return the last parts of the images' names in both splits, and check that they have none in common."""
    train, test = open_splits(Data(path=str(folder), **settings))
    assert not set(train.paths()) & set(test.paths())
    return [{path.rpartition("/")[2].partition(".")[0] for path in images.paths()} for images in (train, test)]


def numbers(first, last):
    return {f"{i:03}" for i in range(first, last)}


def food101(folder):
    make(folder, *(f"food-101/images/{c}/{c}{i:03}.jpg" for c in TWO for i in range(6)))
    for name, part in (("train", range(4)), ("test", range(4, 6))):
        write(folder / f"food-101/meta/{name}.txt", *(f"{c}/{c}{i:03}" for c in TWO for i in part))
    write(folder / "food-101/meta/classes.txt", *TWO)
    return [{f"{c}{i:03}" for c in TWO for i in part} for part in (range(4), range(4, 6))]


def chest_xrays(folder):
    make(folder, *(f"images_00{k}/images/{i:03}.png" for k in (1, 2) for i in range(4 * k - 4, 4 * k)))
    write(folder / "train_val_list.txt", *(f"{i:03}.png" for i in range(5)))
    write(folder / "test_list.txt", *(f"{i:03}.png" for i in range(5, 8)))
    return [numbers(0, 5), numbers(5, 8)]


def celeba(folder, suffix="txt", between=" ", head=()):
    make(folder, *(f"img_align_celeba/{i:03}.jpg" for i in range(9)))
    lines = [f"{i:03}.jpg{between}{0 if i < 5 else 1 if i < 7 else 2}" for i in range(9)]
    write(folder / f"list_eval_partition.{suffix}", *head, *lines)
    return [numbers(0, 5), numbers(7, 9)]


def kaggle_celeba(folder):
    return celeba(folder, "csv", ",", ["image_id,partition"])


def cub(folder):
    names = [f"{k:03}.{c}/{c}{i:03}.jpg" for k, c in enumerate(TWO, 1) for i in range(4)]
    make(folder, *(f"CUB_200_2011/images/{name}" for name in names))
    write(folder / "CUB_200_2011/images.txt", *(f"{i} {name}" for i, name in enumerate(names, 1)))
    write(folder / "CUB_200_2011/train_test_split.txt", *(f"{i} {i % 2}" for i in range(1, 9)))
    return [{f"{c}{i:03}" for c in TWO for i in odd} for odd in ((0, 2), (1, 3))]


def voc(folder):
    root = folder / "VOCdevkit/VOC2012"
    make(root, *(f"JPEGImages/{i:03}.jpg" for i in range(8)), *(f"SegmentationClass/{i:03}.png" for i in range(3)))
    for name, part in (("train", range(5)), ("val", range(5, 8)), ("trainval", range(8))):
        write(root / f"ImageSets/Main/{name}.txt", *(f"{i:03}" for i in part))
        write(root / f"ImageSets/Main/cat_{name}.txt", *(f"{i:03} {-1 if i % 3 else 1:2}" for i in part))
    write(root / "ImageSets/Segmentation/train.txt", "000", "001")
    write(root / "ImageSets/Segmentation/val.txt", "002")
    return [numbers(0, 5), numbers(5, 8)]


def tables_of_splits(folder):
    make(folder, *(f"{c}/{c}{i:03}.jpg" for c in TWO for i in range(6)))
    for name, part in (("train", range(3)), ("validation", range(3, 5)), ("test", range(5, 6))):
        rows = [f"{i},{c}/{c}{i:03}.jpg,{k}" for k, c in enumerate(TWO) for i in part]
        write(folder / f"{name}.csv", ",Filename,Label", *rows)
    return [{f"{c}{i:03}" for c in TWO for i in part} for part in (range(3), range(5, 6))]


def column(folder, name="info.csv", head="id;Dataset Split", between=";"):
    make(folder, *(f"imgs/{i:03}.png" for i in range(8)))
    words = ["Training"] * 5 + ["Testing"] * 2 + [""]
    write(folder / name, head, *(f"{i:03}{between}{word}" for i, word in enumerate(words)))
    return [numbers(0, 5), numbers(5, 7)]


def metadata(folder):
    make(folder, *(f"{i:03}.png" for i in range(8)))
    rows = [f'{{"file_name": "{i:03}.png", "split": "{"train" if i < 6 else "test"}"}}' for i in range(8)]
    write(folder / "metadata.jsonl", *rows)
    return [numbers(0, 6), numbers(6, 8)]


def spaces(folder):
    make(folder, *(f"my photos/a b {i:03}.png" for i in range(8)))
    write(folder / "train.txt", *(f"./my photos/a b {i:03}.tif" for i in range(6)))  # converted since
    write(folder / "test.txt", *(f"a b {i:03}.png" for i in range(6, 8)))
    return [{f"a b {i:03}" for i in range(6)}, {f"a b {i:03}" for i in range(6, 8)}]


def deepfashion(folder):
    make(folder, *(f"img/{c}/img_{c}{i:03}.jpg" for c in TWO for i in range(6)))
    rows = [
        f"img/{c}/img_{c}{i:03}.jpg    {'train' if i < 3 else 'val' if i < 4 else 'test'}"
        for c in TWO
        for i in range(6)
    ]
    write(folder / "Eval/list_eval_partition.txt", "12", "image_name  evaluation_status", *rows)
    return [{f"img_{c}{i:03}" for c in TWO for i in part} for part in (range(3), range(4, 6))]


def deepfashion_in_shop(folder):
    make(folder, *(f"img/WOMEN/id_{k:08}/{k}_{i}_front.jpg" for k in range(4) for i in range(3)))
    status = lambda k, i: "train" if k < 2 else "query" if i == 0 else "gallery"  # noqa: E731
    rows = [f"img/WOMEN/id_{k:08}/{k}_{i}_front.jpg id_{k:08} {status(k, i)}" for k in range(4) for i in range(3)]
    write(folder / "list_eval_partition.txt", "12", "image_name item_id evaluation_status", *rows)
    return [{f"{k}_{i}_front" for k in some for i in range(3)} for some in ((0, 1), (2, 3))]


def column_of_another_name(folder):
    make(folder, *(f"{i:03}.png" for i in range(8)))
    rows = [f"{i:03}.png,{'ab'[i % 2]},{'train' if i < 5 else 'test'}" for i in range(8)]
    write(folder / "files.csv", "file,kind,tvt", *rows)
    return [numbers(0, 5), numbers(5, 8)]


LAYOUTS = [
    deepfashion,
    deepfashion_in_shop,
    column_of_another_name,
    food101,
    chest_xrays,
    celeba,
    kaggle_celeba,
    cub,
    voc,
    tables_of_splits,
    column,
    metadata,
    spaces,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lists_of_published_data_sets_are_their_splits(tmp_path, layout, caplog):
    wanted = layout(tmp_path)
    assert both(tmp_path) == wanted
    assert caplog.text.count("splits are read from") == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_reads_no_lists(tmp_path, layout):
    wanted = set.union(*layout(tmp_path))
    train, test = both(tmp_path, split="all")
    assert train | test >= wanted


def test_one_split_alone_is_the_same(tmp_path):
    food101(tmp_path)
    train, test = open_splits(Data(path=str(tmp_path)))
    for images, name, evaluate in ((train, "train", False), (test, "test", True)):
        assert open_images(str(tmp_path), name, test=evaluate).paths() == images.paths()
    assert train.per_class() == [("cat", 4), ("dog", 4)] and train.source == "food-101/meta/train.txt"


def test_images_that_a_table_of_splits_does_not_name_are_left_out(tmp_path, caplog):
    wanted = column(tmp_path)
    assert both(tmp_path) == wanted
    assert "left out: 1 image in no split's list" in caplog.text


def test_lists_of_some_of_the_images_are_reported_with_the_flags_that_take_them(tmp_path, caplog):
    wanted = chest_xrays(tmp_path)
    make(tmp_path, *(f"images_003/images/{i:03}.png" for i in range(8, 16)))
    train, test = both(tmp_path)
    assert train | test == numbers(0, 16)
    flags = "--data.split ./train_val_list.txt --data.test_split ./test_list.txt"
    assert f"since they name 50% of the images; to take them: {flags}" in caplog.text
    assert both(tmp_path, split="./train_val_list.txt", test_split="./test_list.txt") == wanted


def test_folders_that_are_splits_come_before_lists(tmp_path, caplog):
    make(tmp_path, *(f"{split}/{i:03}.png" for split, r in (("train", range(5)), ("val", range(5, 8))) for i in r))
    write(tmp_path / "train.txt", *(f"{i:03}" for i in range(2, 8)))
    write(tmp_path / "test.txt", "000", "001")
    assert both(tmp_path) == [numbers(0, 5), numbers(5, 8)] and "splits are read from" not in caplog.text


def dtd(folder):
    make(folder, *(f"images/{c}/{c}{i:03}.jpg" for c in TWO for i in range(6)))
    for k in (1, 2):
        for name, first in (("train", 0), ("val", 2), ("test", 4)):
            lines = [f"{c}/{c}{(i + k) % 6:03}.jpg" for c in TWO for i in (first, first + 1)]
            write(folder / f"labels/{name}{k}.txt", *lines)


def test_several_sets_of_lists_are_reported_and_chosen_by_their_paths(tmp_path, caplog):
    dtd(tmp_path)
    train, test = both(tmp_path)
    assert len(train) + len(test) == 12
    flags = "--data.split ./labels/train1.txt --data.test_split ./labels/test1.txt"
    assert f"since other files say otherwise; to take them: {flags}" in caplog.text
    chosen = both(tmp_path, split="./labels/train1.txt", test_split="./labels/test1.txt")
    assert chosen == [{f"{c}{i:03}" for c in TWO for i in part} for part in ((1, 2), (5, 0))]


@pytest.mark.parametrize(
    "settings, train, test",
    [
        ({"split": "./a.txt", "test_split": "./b.txt"}, 6, 4),
        ({"split": "./a.txt"}, 5, 1),  # a share of what is named, and nothing else
        ({"test_split": "./b.txt"}, 6, 4),  # what is not for tests
        ({"split": "./c.txt", "test_split": "./b.txt"}, 2, 4),  # c names one of b's
        ({"split": "./x"}, 4, 1),
        ({"split": "./x", "test_split": "./b.txt"}, 5, 4),
        ({"test_split": "./x"}, 5, 5),
    ],
)
def test_splits_by_their_paths_have_no_image_in_common(tmp_path, settings, train, test):
    make(tmp_path, *(f"{'x' if i < 5 else 'y'}/{i:03}.png" for i in range(10)))
    write(tmp_path / "a.txt", *(f"{i:03}" for i in range(6)))
    write(tmp_path / "b.txt", *(f"{i:03}" for i in range(6, 10)))
    write(tmp_path / "c.txt", "003", "004", "007")
    assert [len(names) for names in both(tmp_path, **settings)] == [train, test]
    own, other = settings.get("split", "train"), settings.get("test_split", "test")
    assert len(open_images(str(tmp_path), own, other_split=other)) == train
    assert len(open_images(str(tmp_path), other, test=True, other_split=own)) == test


def test_a_split_beside_the_named_folder_is_the_one_to_evaluate_on(tmp_path):
    make(tmp_path, *(f"{name}/{name}{i}.png" for name in ("train_x", "val") for i in range(3)))
    assert both(tmp_path, split="./train_x") == [{f"train_x{i}" for i in range(3)}, {f"val{i}" for i in range(3)}]


def test_test_images_that_are_all_training_images_are_refused(tmp_path):
    make(tmp_path, *(f"{i:03}.png" for i in range(4)))
    write(tmp_path / "all.txt", *(f"{i:03}" for i in range(4)))
    with pytest.raises(DataError, match="training images beside the test images of --data.test_split, found none"):
        both(tmp_path, test_split="./all.txt")


@pytest.mark.parametrize(
    "lines, message",
    [(["nothing", "here"], "expected lines that name images in"), ([], "expected lines that name images in")],
)
def test_a_file_that_lists_no_image_is_one_sentence(tmp_path, lines, message):
    make(tmp_path, "000.png", "001.png")
    write(tmp_path / "list.txt", *lines)
    with pytest.raises(DataError, match=message):
        open_images(str(tmp_path), "./list.txt")
    with pytest.raises(DataError, match="expected ./lists.txt to be a folder with images in it, or a file that lists"):
        open_images(str(tmp_path), "./lists.txt")


def test_lines_without_an_image_are_said_and_binary_files_are_no_lists(tmp_path, caplog):
    make(tmp_path, *(f"{i:03}.png" for i in range(4)))
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe\0\0" * 9)
    (tmp_path / "train.csv").write_bytes(b"\x89PNG\xff\xff\0")
    train, test = both(tmp_path)
    assert len(train | test) == 4
    write(tmp_path / "list.txt", "000", "001", "009")
    assert len(open_images(str(tmp_path), "./list.txt", test_share=0)) == 2
    assert "1 lines name no image that is here, such as 009" in caplog.text


def test_a_split_that_is_not_there_is_said(tmp_path, caplog):
    make(tmp_path, *(f"{i:03}.png" for i in range(4)))
    with caplog.at_level(logging.WARNING):
        both(tmp_path, test_split="validation")
    assert "found no split 'validation' of --data.test_split" in caplog.text


def test_boxes_beside_each_image_are_no_lists(tmp_path, caplog):
    make(tmp_path, *(f"{i:03}.png" for i in range(9)))
    for i in range(9):
        write(tmp_path / f"labels/train_{i:03}.txt", "0 0.5 0.5 0.1 0.1")
    assert len(set.union(*both(tmp_path))) == 9 and "splits" not in caplog.text


@pytest.mark.parametrize("kind", ["words", "numbers", "pairs"])
@pytest.mark.parametrize("columns", ["split,diagnosis", "diagnosis"])
def test_a_table_of_patients_is_not_joined_and_said(tmp_path, kind, columns, caplog):
    each = 2 if kind == "pairs" else 5
    patient = ("P{:03}" if kind == "words" else "{:03}").format
    name = (lambda p, i: f"slice_{i}") if kind == "words" else (lambda p, i: f"{each * p + i + 1:03}")
    make(tmp_path, *(f"{patient(p + 1)}/{name(p, i)}.png" for p in range(10) for i in range(each)))
    rows = (f"{patient(p + 1)},{'test,' if p > 7 else 'train,'}{'xy'[p % 2]}" for p in range(10))
    rows = rows if "split" in columns else (row.replace("train,", "").replace("test,", "") for row in rows)
    write(tmp_path / "patients.csv", "patient," + columns, *rows)
    train, test = open_splits(Data(path=str(tmp_path)))
    assert len(train) + len(test) == 10 * each
    kept = "splits are read from column 'split'" if "split" in columns else "labels are read from column 'diagnosis'"
    assert f"no {kept}, since no column names the images" in caplog.text
    assert "'patient' names folders" in caplog.text and "a row for each image" in caplog.text
    with pytest.raises(DataError, match="names of the images.*'patient' names folders"):
        open_images(str(tmp_path), label_column="diagnosis")


def test_a_table_of_bare_numbers_that_name_all_images_is_joined(tmp_path):
    make(tmp_path, *(f"{i:03}/{i:03}.png" for i in range(10)))
    write(tmp_path / "a.csv", "id,split", *(f"{i:03},{'train' if i < 7 else 'test'}" for i in range(10)))
    assert [len(names) for names in both(tmp_path)] == [7, 3]


def test_a_table_of_splits_is_chosen_among_several_by_its_path(tmp_path, caplog):
    make(tmp_path, *(f"{thing}/{c}/{c}{thing}{i:03}.png" for thing in ("cap", "pcb") for c in TWO for i in range(6)))
    for name, first in (("one", 4), ("few", 2)):  # as VisA has 1cls.csv and 2cls_fewshot.csv
        rows = [
            f"{t},{'train' if i < first else 'test'},{t}/{c}/{c}{t}{i:03}.png"
            for t in ("cap", "pcb")
            for c in TWO
            for i in range(6)
        ]
        write(tmp_path / f"split_csv/{name}.csv", "object,split,image", *rows)
    with pytest.raises(DataError, match="--data.subset cap"):
        both(tmp_path)
    both(tmp_path, subset="cap")
    flags = "--data.split ./split_csv/few.csv --data.test_split ./split_csv/few.csv"
    assert (
        f"no splits are read from split_csv/few.csv, since other files say otherwise; to take them: {flags}"
        in caplog.text
    )
    for name, first in (("one", 4), ("few", 2)):
        chosen = dict.fromkeys(("split", "test_split"), f"./split_csv/{name}.csv")
        for thing in ("cap", "pcb"):
            wanted = [{f"{c}{thing}{i:03}" for c in TWO for i in part} for part in (range(first), range(first, 6))]
            assert both(tmp_path, subset=thing, **chosen) == wanted


def test_a_table_chosen_by_its_path_gives_training_its_train_and_evaluation_its_test(tmp_path):
    celeba(tmp_path)  # whose name has a split word
    rows = (f"{i:03}.jpg,{('train', 'val', 'test')[i % 3]}" for i in range(9))
    write(tmp_path / "thirds.csv", "file,split", *rows)
    thirds = [{f"{i:03}" for i in range(first, 9, 3)} for first in (0, 2)]
    for name, wanted in (("list_eval_partition.txt", [numbers(0, 5), numbers(7, 9)]), ("thirds.csv", thirds)):
        assert both(tmp_path, split=f"./{name}", test_split=f"./{name}") == wanted


def test_a_list_that_is_there_twice_counts_once(tmp_path):
    make(tmp_path, *(f"{i:03}.png" for i in range(8)))
    for name, part in (("train.txt", range(6)), ("train.csv", range(6)), ("test.txt", range(6, 8))):
        write(tmp_path / name, *(f"{i:03}.png" for i in part))
    assert both(tmp_path) == [numbers(0, 6), numbers(6, 8)]


def test_listed_images_are_kept_with_the_folders_above_them():
    deep = Folder("b", "d/a/b", ["d/a/b/0.png", "d/a/b/1.png"], [])
    tree = Folder("d", "d", ["d/2.png"], [Folder("a", "d/a", [], [deep]), Folder("c", "d/c", ["d/c/3.png"], [])])
    kept = only(tree, {"d/a/b/1.png"})
    assert kept == Folder("d", "d", [], [Folder("a", "d/a", [], [Folder("b", "d/a/b", ["d/a/b/1.png"], [])])])


@pytest.mark.parametrize(
    "column, yes, wanted",
    [
        ("is_valid", range(6, 8), [numbers(0, 6), numbers(6, 8)]),  # fastai
        ("is_test", range(6, 8), [numbers(0, 6), numbers(6, 8)]),
        ("is_training_image", range(6), [numbers(0, 6), numbers(6, 8)]),
        ("is_valid", range(1, 8), None),  # all but one image can be used
    ],
)
@pytest.mark.parametrize("words", [("False", "True"), ("0", "1")])
def test_columns_of_yes_and_no_give_splits(tmp_path, column, yes, wanted, words, caplog):
    make(tmp_path, *(f"images/{i:03}.png" for i in range(8)))
    write(tmp_path / "labels.csv", f"fname,{column}", *(f"{i:03}.png,{words[i in yes]}" for i in range(8)))
    found = both(tmp_path)
    assert found == wanted or (wanted is None and "splits are read" not in caplog.text)


def test_splits_of_metadata_may_be_numbers(tmp_path):
    make(tmp_path, *(f"{i:03}.png" for i in range(9)))  # 0 is a number, and no missing value
    write(tmp_path / "metadata.csv", "file_name,split", *(f"{i:03}.png,{i // 3}" for i in range(9)))
    assert both(tmp_path) == [numbers(0, 3), numbers(6, 9)]


def test_names_of_columns_are_no_lines_without_an_image_and_a_file_is_said_once_to_be_none(tmp_path, caplog):
    make(tmp_path, *(f"images/{i:03}.png" for i in range(8)))
    for name, part in (("train", range(6)), ("test", range(6, 8))):
        write(
            tmp_path / f"labels/{name}_subset0.csv",
            "Filename,Label,split",
            *(f"{i:03}.png,{i % 2},{name}" for i in part),
        )
    write(tmp_path / "metadata.csv", "image,site", *(f"{i:03}.png,{i}" for i in range(8)))
    names = {"split": "./labels/train_subset0.csv", "test_split": "./labels/test_subset0.csv"}
    assert both(tmp_path, **names) == [numbers(0, 6), numbers(6, 8)]
    assert (
        not any(said in caplog.text for said in ("no image that is here", "no splits are read"))
        and caplog.text.count("it has no column file_name") == 1
    )


@pytest.mark.parametrize(
    "column, asked, words",
    [
        ("vehicle", "vehicle", ("train", "test")),  # the user said that these are labels
        ("label", "", ("train", "test")),
        ("is_valid", "is_valid", ("False", "True", "False")),
        ("is_train_station", "", ("False", "True", "False")),
        ("is_test_positive", "", ("False", "True", "False")),
        ("reviewer", "", ("val", "dev")),  # first names
        ("vehicle", "", ("train",)),
    ],
)
def test_columns_of_labels_and_of_other_things_give_no_splits(tmp_path, column, asked, words, caplog):
    make(tmp_path, *(f"{i:03}.png" for i in range(12)))
    write(tmp_path / "a.csv", f"file,{column}", *(f"{i:03}.png,{words[i % len(words)]}" for i in range(12)))
    train, test = open_splits(Data(path=str(tmp_path), label_column=asked))
    assert "held out of" in test.source and "splits are read" not in caplog.text
    assert (train.class_names == sorted(set(words))) if asked else train.labels is None


def test_a_column_called_split_goes_before_one_of_yes_and_no(tmp_path):
    make(tmp_path, *(f"{i:03}.png" for i in range(8)))
    rows = (f"{i:03}.png,{i % 3 == 0},{'train' if i < 5 else 'test'}" for i in range(8))
    write(tmp_path / "a.csv", "file,is_valid,split", *rows)
    assert both(tmp_path) == [numbers(0, 5), numbers(5, 8)]
