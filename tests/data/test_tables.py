"""Read table files: which file is which split, which column holds the images and which the labels."""

import logging
from pathlib import Path

import numpy as np
import pytest
from datasets import Array2D, Array3D, ClassLabel, Dataset, DatasetDict, Features, IterableDataset, List, Value
from datasets import Image as ImageFeature
from PIL import Image

import bigbigan
from bigbigan.config import Data
from bigbigan.data import open_images, open_splits
from bigbigan.errors import DataError, InputError
from tests.conftest import picture, tiny_model
from tests.data.test_splits import folder_of
from tests.hostile.test_bad_images import encoded

NAMES = ClassLabel(names=["x", "y"])


def cells(count, start=0):
    return [{"bytes": encoded("PNG", picture(start + i, (8, 8))), "path": None} for i in range(count)]


def table(count=6, images=("image",), **columns) -> Dataset:
    """Return a table; a further column is its values, or (values, feature)."""
    columns = {name: value if isinstance(value, tuple) else (value, None) for name, value in columns.items()}
    data = {name: cells(count, 10 * i) for i, name in enumerate(images)}
    made = Dataset.from_dict(data, features=Features({name: ImageFeature() for name in images}))
    for name, (values, feature) in columns.items():
        made = made.add_column(name, values, feature=feature) if feature else made.add_column(name, values)
    return made


def write(root, *names, count=6, **columns) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        table(count + i, **columns).to_parquet(root / name)
    return root


def sizes(root, **options):
    train = options.pop("train", "train")
    test = options.pop("test", "test")
    return [
        len(open_images(str(root), train, other_split=test, **options)),
        len(open_images(str(root), test, test=True, other_split=train, **options)),
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["cifar10_train.parquet", "cifar10_test.parquet"], [6, 7]),
        (["train.parquet", "val.parquet"], [6, 7]),
        (["Training.parquet", "Validation.parquet"], [6, 7]),
        (["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"], [13, 8]),
        (["data/train-00000-of-00001-b4f2a1.parquet", "data/test-00000-of-00001-ff12.parquet"], [6, 7]),
        (["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"], [13, 8]),
        (["plain_text/train/0000.parquet", "plain_text/test/0000.parquet"], [6, 7]),
        (["mnist-train-0.parquet", "mnist-train-1.parquet", "mnist-test-0.parquet"], [13, 8]),
        (["train.parquet", "test.parquet", "unsupervised.parquet"], [6, 7]),
        (["train/0.parquet", "test/0.parquet", "unsupervised/0.parquet"], [6, 7]),
        (["dev.parquet", "trainset_1.parquet", "trainset_2.parquet"], [15, 6]),
        (["year=2020/train.parquet", "year=2021/train.parquet", "year=2021/test.parquet"], [13, 8]),
        (["train1.parquet", "train2.parquet", "test1.parquet"], [13, 8]),
        (["__MACOSX/train.parquet", "train.parquet", "test.parquet"], [7, 8]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) else "",
)
def test_files_are_splits_by_their_names(tmp_path, files, expected):
    assert sizes(write(tmp_path, *files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["0000.parquet", "0001.parquet"], 13),
        (["part-00000.parquet", "part-00001.parquet"], 13),
        (["data/batch_1/a.parquet"], 6),
        (["shoes.parquet"], 6),
        (["train/part1.parquet", "train/part2.parquet"], 13),
        (["shard_1999.parquet", "shard_2001.parquet", "shard_0003.parquet"], 21),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_files_that_are_parts_of_one_split(tmp_path, files, expected):
    assert len(open_images(str(write(tmp_path, *files)), test_share=0)) == expected


@pytest.mark.parametrize(
    ("files", "found", "subset", "expected"),
    [
        (["data/a/train-00000-of-00001.parquet", "data/a/test-00000-of-00001.parquet",
          "data/b/train-00000-of-00001.parquet", "data/b/test-00000-of-00001.parquet"], "found 2: a, b", "b", [8, 9]),
        (["160px/train.parquet", "160px/val.parquet", "320px/train.parquet", "320px/val.parquet"],
         "found 2: 160px, 320px", "320px", [8, 9]),
        (["full/train/0.parquet", "full/test/0.parquet", "tiny/train/0.parquet", "tiny/test/0.parquet"],
         "found 2: full, tiny", "tiny", [8, 9]),
        (["a_train.parquet", "a_test.parquet", "b_train.parquet", "b_test.parquet"], "found 2: a, b", "a", [6, 7]),
        (["train_v1.parquet", "train_v2.parquet", "test_v1.parquet", "test_v2.parquet"], "found 2", "v 2", [7, 9]),
        (["train_2019.parquet", "train_2020.parquet", "test_2019.parquet", "test_2020.parquet"],
         "found 2: 2019, 2020", "2020", [7, 9]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_configurations_are_refused_unless_one_is_named(tmp_path, files, found, subset, expected):
    write(tmp_path, *files)
    with pytest.raises(DataError, match=f"expected one configuration, {found}.*--data.subset"):
        open_images(str(tmp_path))
    assert sizes(tmp_path, subset=subset) == expected


def test_files_of_other_names_are_never_joined(tmp_path):
    write(tmp_path, "cats.parquet", "dogs.parquet")
    with pytest.raises(DataError, match="expected a split 'train', found cats, dogs"):
        open_images(str(tmp_path))
    assert sizes(tmp_path, train="cats", test="dogs") == [6, 7]
    assert sizes(tmp_path, train="./cats.parquet", test="./dogs.parquet") == [6, 7]


def test_a_name_with_two_splits_and_two_kinds_of_files_are_refused(tmp_path):
    write(tmp_path / "one", "x_train_test.parquet", "train.parquet")
    with pytest.raises(DataError, match="expected a name with one split, found x_train_test.parquet; choose with"):
        open_images(str(tmp_path / "one"))
    write(tmp_path / "two", "train.parquet")
    table().save_to_disk(str(tmp_path / "saved"))
    next((tmp_path / "saved").glob("*.arrow")).rename(tmp_path / "two" / "train.arrow")
    with pytest.raises(DataError, match="found both for one split"):
        open_images(str(tmp_path / "two"))


@pytest.mark.parametrize("secret", [(2, 3), (None, 3)])
def test_a_labelled_split_is_preferred_for_evaluation(tmp_path, secret):
    labels, kind = ([-1] * 6, NAMES) if secret[0] else ([-1] * 6, Value("int64"))
    DatasetDict(
        train=table(label=([0, 1] * 3, NAMES if secret[0] else Value("int64"))),
        test=table(label=(labels, kind)),
        validation=table(4, label=([0, 1] * 2, NAMES if secret[0] else Value("int64"))),
    ).save_to_disk(str(tmp_path / "d"))
    images = open_images(str(tmp_path / "d"), "test", test=True)
    assert len(images) == 4 and images.labels.tolist() == [0, 1, 0, 1] and images.source == "validation"
    assert any("test (another split)" in note for note in images.notes)


def test_a_split_without_a_name_for_evaluation_is_held_out_of_train(tmp_path):
    DatasetDict(train=table(20), unsupervised=table(9)).save_to_disk(str(tmp_path / "d"))
    train, test = sizes(tmp_path / "d")
    assert train + test == 20 and 0 < test < train


@pytest.mark.parametrize(
    ("images", "chosen", "others"),
    [
        (("mask", "image"), "image", "'mask'"),
        (("image_left", "Image"), "Image", "'image_left'"),
        (("seg", "photo_of_it"), "photo_of_it", "'seg'"),
        (("png", "jpg"), "jpg", "'png'"),
        (("depth", "img", "overlay"), "img", "'depth', 'overlay'"),
    ],
)
def test_of_several_image_columns_the_usual_one_is_read_and_the_others_named(tmp_path, images, chosen, others, caplog):
    write(tmp_path, "train.parquet", images=images)
    with caplog.at_level(logging.WARNING):
        found = open_images(str(tmp_path), test_share=0)
    assert f"images are read from column '{chosen}', not from {others}" in caplog.text
    expected = picture(10 * images.index(chosen), (8, 8))
    assert np.array_equal(np.asarray(found[0].convert("RGB")), np.asarray(expected))


@pytest.mark.parametrize("images", [("before", "after"), ("mask",), ("gt_mask", "depth")])
def test_a_mask_is_never_read_silently_and_strangers_are_refused(tmp_path, images):
    write(tmp_path, "train.parquet", images=images)
    with pytest.raises(DataError, match=f"found '{images[0]}'.*name it with --data.image_column"):
        open_images(str(tmp_path))
    assert len(open_images(str(tmp_path), image_column=images[0], test_share=0)) == 6


def test_plain_bytes_are_images_if_they_begin_as_such(tmp_path):
    made = Dataset.from_dict({"id": [b"a", b"b"], "content": [c["bytes"] for c in cells(2)]})
    made.to_parquet(tmp_path / "x.parquet")
    assert len(open_images(str(tmp_path / "x.parquet"), test_share=0)) == 2


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"Label": [3, 3, 7, 7, 9, 9]}, ["3", "7", "9"]),
        ({"coarse_label": ([0, 1] * 3, NAMES), "label": [5, 6] * 3}, ["5", "6"]),
        ({"coarse_label": ([0, 0, 0, 1, 1, 1], NAMES), "fine_label": ([0, 1] * 3, NAMES)}, ["x", "y"]),
        ({"category": ["u", "v"] * 3, "colour": ([0, 1] * 3, NAMES)}, ["u", "v"]),
        ({"cls": [0, 1] * 3, "__key__": [f"{i:06}" for i in range(6)]}, ["0", "1"]),
        ({"TARGET": ["b", "a"] * 3}, ["a", "b"]),
        ({"weather": ([0, 1] * 3, NAMES)}, ["x", "y"]),
        ({"label": [-1, 1] * 3}, ["-1", "1"]),
        ({"label": [True, False] * 3}, ["False", "True"]),
        ({"label_id": [f"id{i}" for i in range(6)], "class_name": ["a", "b"] * 3}, ["a", "b"]),
    ],
    ids=lambda value: "-".join(value),
)
def test_labels_are_read_from_the_usual_column(tmp_path, columns, names):
    images = open_images(str(write(tmp_path, "train.parquet", **columns)), test_share=0)
    assert images.class_names == names


def test_several_label_columns_are_named(tmp_path, caplog):
    write(tmp_path, "train.parquet", fine_label=([0, 1] * 3, NAMES), coarse_label=([0, 0, 0, 1, 1, 1], NAMES))
    with caplog.at_level(logging.WARNING):
        assert open_images(str(tmp_path), test_share=0).labels.tolist() == [0, 1] * 3
    assert "labels are read from column 'fine_label', not from 'coarse_label'" in caplog.text


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [-1] * 6}, ""),
        ({"label": [0, 1, -1, 2, 0, 1]}, "1 of 6 rows have −1"),
        ({"label": [0.5, 1.25] * 3}, "found numbers such as 0.5"),
        ({"label": [0.0, 1.0] * 3}, "found numbers such as 0"),
        ({"label": [101, 7, 33, 25, 48, 90]}, "6 different values in 6 rows, which look like ids"),
        ({"class": [f"img_{i}" for i in range(6)]}, "which look like ids"),
        ({"season": ([0, 1] * 3, NAMES), "weather": ([0, 1] * 3, NAMES)}, "choose with --data.label_column"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_class_gives_no_labels(tmp_path, caplog, columns, said):
    write(tmp_path, "train.parquet", **columns)
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert images.labels is None and images.class_names is None and said in caplog.text


def test_labels_that_were_asked_for_may_be_whole_floats_and_ids(tmp_path):
    write(tmp_path, "train.parquet", score=[2.0, 1.0] * 3, id=[f"id{i // 2}" for i in range(6)], part=[0.5] * 6)
    assert open_images(str(tmp_path), label_column="score", test_share=0).class_names == ["1", "2"]
    assert len(open_images(str(tmp_path), label_column="id", test_share=0).class_names) == 3
    with pytest.raises(DataError, match="found numbers such as 0.5"):
        open_images(str(tmp_path), label_column="part")


def test_a_test_split_with_one_image_a_class_has_labels(tmp_path):
    table(12, label=[0, 1, 2] * 4).to_parquet(tmp_path / "train.parquet")
    table(3, label=[2, 0, 1]).to_parquet(tmp_path / "test.parquet")
    assert open_images(str(tmp_path), "test", test=True).labels.tolist() == [2, 0, 1]


def transformed(made: Dataset) -> Dataset:
    return made.with_transform(lambda rows: {"pixel_values": [np.zeros((3, 4, 4))] * len(rows["image"])})


FORMATS = {
    "torch": lambda made: made.with_format("torch"),
    "numpy": lambda made: made.with_format("numpy"),
    "pandas": lambda made: made.with_format("pandas"),
    "labels alone": lambda made: made.with_format("torch", columns=["label"]),
    "images alone": lambda made: made.with_format("numpy", columns=["image"]),
    "transform": transformed,
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_or_transform_keeps_images_and_labels(tmp_path, name):
    made = FORMATS[name](table(label=([0, 1] * 3, NAMES)))
    plain = bigbigan.encode(table(), model := tiny_model().eval(), "z_mean")
    assert np.allclose(bigbigan.encode(made, model, "z_mean"), plain)
    if name != "transform":  # which is not saved
        made.save_to_disk(str(tmp_path / "saved"))
        images = open_images(str(tmp_path / "saved"), test_share=0)
        assert images.labels.tolist() == [0, 1] * 3 and images.class_names == ["x", "y"]
        assert images[0].convert("RGB").size == (8, 8)


def test_from_table_keeps_the_labels_of_a_transformed_table():
    from bigbigan.data.tables import from_table

    assert from_table(transformed(table(label=([0, 1] * 3, NAMES))), "rows").labels.tolist() == [0, 1] * 3


def test_streams_are_refused_with_what_to_do():
    rows = IterableDataset.from_generator(lambda: ({"image": picture(i)} for i in range(3)))
    for stream in (rows, table().to_iterable_dataset()):
        with pytest.raises(InputError, match="known number of rows, found IterableDataset.*without streaming=True"):
            bigbigan.encode(stream, tiny_model().eval())
    with pytest.raises(InputError, match="found DatasetDict; give one of its splits, 'train'"):
        bigbigan.encode(DatasetDict(train=table()), tiny_model().eval())


@pytest.mark.parametrize("kind", [np.asarray, lambda x: __import__("torch").from_numpy(np.asarray(x))])
def test_three_grey_images_are_not_one_colour_image_without_a_word(kind):
    model = tiny_model().eval()
    stack = np.stack([np.asarray(picture(i, (8, 8), "L")) for i in range(3)])
    with pytest.warns(UserWarning, match=r"\(3, 8, 8\) is read as one colour image.*\(3, 1, 8, 8\) for 3 grey"):
        assert len(bigbigan.encode(kind(stack), model, "z_mean")) == 1
    assert len(bigbigan.encode(kind(stack[:, None]), model, "z_mean")) == 3
    assert len(bigbigan.encode(kind(np.concatenate([stack, stack])), model, "z_mean")) == 6
    grey = [Image.fromarray(image) for image in stack]
    assert np.allclose(
        bigbigan.encode(kind(stack[:, None]), model, "z_mean"), bigbigan.encode(grey, model, "z_mean"), atol=1e-5
    )


def test_tables_beside_image_files(tmp_path, caplog):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(3):
            picture(i).save(tmp_path / label / f"{i}.png")
    Dataset.from_dict({"id": [1, 2], "score": [0.5, 1.5]}).to_parquet(tmp_path / "scores.parquet")
    with caplog.at_level(logging.WARNING):
        assert open_images(str(tmp_path), test_share=0).class_names == ["a", "b"]
    assert "1 tables without a column of images" in caplog.text
    images = open_images(str(write(tmp_path, "cats.parquet", "scores.parquet")), "cats", other_split="scores")
    assert len(images) == 6 and "6 image files beside the tables" in images.notes


class Hub:
    """Play the Hugging Face hub: configurations → splits → tables."""

    def __init__(self, **configs):
        self.configs = configs

    def get_dataset_split_names(self, path, config=None):
        if config is None and len(self.configs) > 1:
            raise ValueError(f"Config name is missing.\nPlease pick one among {list(self.configs)}")
        return list(self.configs[config or next(iter(self.configs))])

    def load_dataset(self, path, config=None, split=None):
        return self.configs[config or next(iter(self.configs))][split]


def test_hub_data_sets_choose_as_files_do(monkeypatch):
    import datasets
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: None)
    secret = {"train": table(label=([0, 1] * 3, NAMES)), "test": table(label=([-1] * 6, NAMES))}
    hub = Hub(small=secret | {"validation": table(4, label=([0, 1] * 2, NAMES))})
    for name in ("get_dataset_split_names", "load_dataset"):
        monkeypatch.setattr(datasets, name, lambda *a, name=name, **k: getattr(hub, name)(*a, **k))
    train, test = open_images("someone/pets"), open_images("someone/pets", "test", test=True)
    assert (len(train), len(test), test.labels.tolist(), test.source) == (6, 4, [0, 1, 0, 1], "validation")
    hub.configs["large"] = {"train": table(20)}
    with pytest.raises(DataError, match="someone/pets.*Config name is missing.*--data.subset"):
        open_images("someone/pets")
    assert len(open_images("someone/pets", subset="large", split_rule="permutation")) == 18


def test_a_webdataset_table_has_images_and_classes(tmp_path):
    made = table(images=("jpg", "seg.png"), cls=[3, 4] * 3, __key__=[f"{i:06}" for i in range(6)])
    made.add_column("__url__", ["shard-000.tar"] * 6).to_parquet(tmp_path / "train-0.parquet")
    images = open_images(str(tmp_path), test_share=0)
    assert images.class_names == ["3", "4"] and images.formats == "column 'jpg'"


ARRAYS = np.random.default_rng(0).integers(0, 200, (6, 5, 7, 3), dtype=np.uint8)


def array_table(path, values, feature):
    Dataset.from_dict({"image": values, "y": [0, 1] * 3}, Features({"image": feature, "y": Value("int64")})).to_parquet(
        path
    )
    return open_images(str(path), image_column="image", test_share=0)


@pytest.mark.parametrize(
    ("values", "feature"),
    [
        (ARRAYS, Array3D((5, 7, 3), "uint8")),
        (ARRAYS.transpose(0, 3, 1, 2), Array3D((3, 5, 7), "uint8")),
        (ARRAYS[..., 0], Array2D((5, 7), "uint8")),
        (ARRAYS[..., :1], Array3D((5, 7, 1), "uint8")),
        (ARRAYS[..., 0].tolist(), List(List(Value("uint8")))),
        (ARRAYS[..., 0].astype(np.uint16) * 257, Array2D((5, 7), "uint16")),
    ],
    ids=["hwc", "chw", "grey", "one channel", "lists", "16 bits"],
)
def test_arrays_keep_the_type_that_the_column_declares(tmp_path, values, feature):
    images = array_table(tmp_path / "one.parquet", values, feature)
    expected = ARRAYS if "3, 5" in str(feature) or "7, 3" in str(feature) else ARRAYS[..., :1].repeat(3, -1)
    assert all(np.array_equal(images.decoded(i), expected[i]) for i in range(6))


@pytest.mark.parametrize(
    ("values", "feature", "found"),
    [
        (ARRAYS[..., 0].tolist(), List(List(Value("int64"))), "numbers of type int64, which do not say what is black"),
        (ARRAYS[..., 0] / np.float32(255), Array2D((5, 7), "float32"), "numbers of type float32, which do not say"),
        (ARRAYS[..., 0].reshape(6, 35).tolist(), List(Value("uint8")), "found rows of 35 numbers of uint8; give them"),
        (ARRAYS.repeat(2, -1), Array3D((5, 7, 6), "uint8"), r"found arrays of shape \(5, 7, 6\) of uint8; give them"),
        ([[[1, 2], [3]]] * 6, List(List(Value("uint8"))), "found lists of several lengths within one picture"),
    ],
    ids=["int64", "floats", "rows", "six channels", "ragged"],
)
def test_arrays_of_unknown_meaning_are_refused(tmp_path, values, feature, found):
    with pytest.raises(DataError, match=found):
        array_table(tmp_path / "one.parquet", values, feature)


def test_an_empty_cell_of_arrays_is_an_image_that_cannot_be_read(tmp_path):
    images = array_table(
        tmp_path / "one.parquet", [ARRAYS[0, ..., 0], None, *ARRAYS[2:, ..., 0]], Array2D((5, 7), "uint8")
    )
    assert np.array_equal(np.asarray(images.decoded(2))[..., 0], ARRAYS[2, ..., 0])
    with pytest.raises(ValueError, match="expected an image, found an empty cell"):
        images.decoded(1)


@pytest.mark.parametrize("names", [("train", "train"), ("train", "training"), ("val", "validation")])
@pytest.mark.parametrize("kind", ["folders", "tables", "column"])
def test_the_same_split_to_train_on_and_to_evaluate_on_is_refused(tmp_path, names, kind):
    splits = ("train", "val", "test")
    for split in splits if kind == "folders" else ():
        folder_of(tmp_path / split, {"a": 3, "b": 3})
    for split in splits if kind == "tables" else ():
        table(6).to_parquet(tmp_path / f"{split}.parquet")
    if kind == "column":
        table(6, split=[*splits, *splits]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="different images to train on.*--data.test_split"):
        open_splits(Data(path=str(tmp_path), split=names[0], test_split=names[1]))
    train, test = open_splits(Data(path=str(tmp_path), split="train", test_split="val"))
    assert len(train) == len(test) > 0


@pytest.mark.parametrize(
    "values, said",
    [
        ([True, False] * 3, "whose values True, False are not train, val and test"),
        ([b"train", b"test"] * 3, "which holds neither words nor whole numbers; write train, val and test"),
        ([0, 1, 2, 3, 4, 0], "whose values 0, 1, 2, 3, 4 are not train, val and test"),
        (["a", "b"] * 3, "whose values a, b are not train, val and test"),
        (["train", "x"] * 3, "whose values train, x are not train, val and test"),
        (["val", "test"] * 3, "whose values val, test are not train, val and test"),
        ([0, 1] * 3, "whose values 0, 1 are not train, val and test"),
    ],
)
def test_a_column_of_splits_that_says_something_else_is_named(tmp_path, values, said, caplog):
    table(6, split=values).to_parquet(tmp_path / "a.parquet")
    assert len(open_images(str(tmp_path), test_share=0)) == 6
    assert f"no splits are read from column 'split', {said}" in caplog.text


def test_a_column_of_split_words_that_was_asked_for_as_labels_is_one_of_labels(tmp_path):
    table(6, split=["train", "test"] * 3).to_parquet(tmp_path / "a.parquet")
    images = open_images(str(tmp_path), label_column="split", test_share=0)
    assert images.class_names == ["test", "train"] and images.labels.tolist() == [1, 0] * 3


def test_a_column_of_yes_and_no_gives_splits(tmp_path):
    table(6, is_valid=[True, False, False] * 2).to_parquet(tmp_path / "a.parquet")
    assert [len(images) for images in open_splits(Data(path=str(tmp_path)))] == [4, 2]


@pytest.mark.parametrize("asked", ["", "images"])
@pytest.mark.parametrize("declared", [True, False])
def test_lists_of_images_say_how_to_keep_one(tmp_path, asked, declared):
    rows = {"images": [cells(2, 2 * i) for i in range(4)], "label": [0, 1, 0, 1]}
    kind = ImageFeature() if declared else {"bytes": Value("binary"), "path": Value("string")}
    made = Dataset.from_dict(rows, features=Features({"images": List(kind), "label": Value("int64")}))
    made.save_to_disk(tmp_path / "lists")
    with pytest.raises(DataError, match="one image in each row, found lists of images in column 'images'") as error:
        open_images(str(tmp_path / "lists"), image_column=asked)
    if declared:
        eval(str(error.value).partition("each list: ")[2], {"table": made}).save_to_disk(tmp_path / "one")
        assert len(open_images(str(tmp_path / "one"), test_share=0)) == 4
