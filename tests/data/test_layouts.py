"""Read folders in the layouts of public data sets: which folder is a split, which is a class, what is left out.

Each layout is made on the spot, with the names of the data set it is taken from and a few tiny images.
"""

import json
import logging

import pytest

from bigbigan.data import open_images
from bigbigan.data.describe import data_rows
from bigbigan.data.split_names import read_name
from bigbigan.errors import DataError
from tests.conftest import picture


def make(root, *entries: str):
    """Write files. An entry is "path/*N.png" for N images, or the path of a file with a word in it."""
    number = 0
    for entry in entries:
        folder, _, name = entry.rpartition("/")
        (root / folder).mkdir(parents=True, exist_ok=True)
        if name.startswith("*"):
            count, _, suffix = name[1:].partition(".")
            for _ in range(int(count)):
                number += 1
                format = "JPEG" if suffix in ("jpe", "jfif", "jpg") else {"": "PNG", "pgm": "PPM"}.get(suffix, suffix)
                name = f"{number:04}" + (f".{suffix}" if suffix else "")
                picture(number, (4, 4)).save(root / folder / name, format)
        elif name:
            (root / folder / name).write_text("text")
    return root


def both(root, **options):
    """Return what training and evaluation get: (classes → images, or the number without labels) each."""
    train = options.pop("train", "train")
    test = options.pop("test", "all" if train == "all" else "test")
    parts = (
        open_images(str(root), train, other_split=test, **options),
        open_images(str(root), test, test=True, other_split=train, **options),
    )
    return [dict(p.per_class()) if p.labels is not None else len(p) for p in parts]


# name → (files, what training gets, what evaluation gets)
LAYOUTS = {
    "ImageNet": (
        ["ILSVRC/Data/CLS-LOC/train/n01440764/*3.JPEG", "ILSVRC/Data/CLS-LOC/train/n01443537/*3.JPEG",
         "ILSVRC/Data/CLS-LOC/val/n01440764/*1.JPEG", "ILSVRC/Data/CLS-LOC/val/n01443537/*2.JPEG",
         "ILSVRC/Data/CLS-LOC/test/*3.JPEG", "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_1.xml",
         "ILSVRC/ImageSets/CLS-LOC/train_cls.txt", "LOC_synset_mapping.txt"],
        {"n01440764": 3, "n01443537": 3}, {"n01440764": 1, "n01443537": 2},
    ),
    "ImageNet, val unsorted": (
        ["train/n01440764/*3.JPEG", "train/n01443537/*3.JPEG", "val/*2.JPEG"],
        {"n01440764": 3, "n01443537": 3}, 2,
    ),
    "Tiny ImageNet": (
        ["tiny-imagenet-200/train/n01443537/images/*2.JPEG", "tiny-imagenet-200/train/n01443537/n01443537_boxes.txt",
         "tiny-imagenet-200/train/n01629819/images/*2.JPEG", "tiny-imagenet-200/val/images/*3.JPEG",
         "tiny-imagenet-200/test/images/*4.JPEG"],
        {"n01443537": 2, "n01629819": 2}, 4,
    ),
    "Kaggle, a folder in a folder": (
        ["archive/train/train/cats/*3.jpg", "archive/train/train/dogs/*2.jpg", "archive/test/test/cats/*1.jpg",
         "archive/test/test/dogs/*1.jpg", "archive/sample_submission.csv"],
        {"cats": 3, "dogs": 2}, {"cats": 1, "dogs": 1},
    ),
    "Intel scenes": (
        ["seg_train/seg_train/buildings/*3.jpg", "seg_train/seg_train/forest/*3.jpg",
         "seg_test/seg_test/buildings/*1.jpg", "seg_test/seg_test/forest/*2.jpg", "seg_pred/seg_pred/*2.jpg"],
        {"buildings": 3, "forest": 3}, {"buildings": 1, "forest": 2},
    ),
    "brain tumours": (
        ["Training/glioma/*2.jpg", "Training/notumor/*2.jpg", "Testing/glioma/*1.jpg", "Testing/notumor/*1.jpg"],
        {"glioma": 2, "notumor": 2}, {"glioma": 1, "notumor": 1},
    ),
    "chest X-rays": (
        ["chest_xray/train/NORMAL/*2.jpg", "chest_xray/train/PNEUMONIA/*3.jpg", "chest_xray/test/NORMAL/*1.jpg",
         "chest_xray/test/PNEUMONIA/*1.jpg", "chest_xray/val/NORMAL/*1.jpg", "chest_xray/val/PNEUMONIA/*1.jpg",
         "chest_xray/.DS_Store", "__MACOSX/chest_xray/train/NORMAL/*2.jpg"],
        {"NORMAL": 2, "PNEUMONIA": 3}, {"NORMAL": 1, "PNEUMONIA": 1},
    ),
    "val beside an unlabelled test": (
        ["train/a/*2.png", "train/b/*2.png", "val/a/*1.png", "val/b/*1.png", "test/*5.png"],
        {"a": 2, "b": 2}, {"a": 1, "b": 1},
    ),
    "val beside a test with one folder for the unknown": (
        ["train/a/*2.png", "train/b/*2.png", "valid/a/*1.png", "valid/b/*1.png", "test/unknown/*5.png"],
        {"a": 2, "b": 2}, {"a": 1, "b": 1},
    ),
    "COCO": (["coco/train2017/*4.jpg", "coco/val2017/*2.jpg", "coco/annotations/instances_val2017.json"], 4, 2),
    "ISIC": (
        ["ISIC_2019_Training_Input/ISIC_2019_Training_Input/*4.jpg", "ISIC_2019_Test_Input/*2.jpg",
         "ISIC_2019_Training_GroundTruth.csv"], 4, 2,
    ),
    "LSUN": (
        ["lsun/bedroom_train/*3.jpg", "lsun/church_outdoor_train/*2.jpg", "lsun/bedroom_val/*1.jpg",
         "lsun/church_outdoor_val/*1.jpg"],
        {"bedroom": 3, "church outdoor": 2}, {"bedroom": 1, "church outdoor": 1},
    ),
    "CycleGAN": (
        ["horse2zebra/trainA/*3.jpg", "horse2zebra/trainB/*2.jpg", "horse2zebra/testA/*1.jpg",
         "horse2zebra/testB/*1.jpg"],
        {"a": 3, "b": 2}, {"a": 1, "b": 1},
    ),
    "splits below the classes": (
        ["pets/cat/train/*3.png", "pets/cat/test/*1.png", "pets/dog/train/*2.png", "pets/dog/test/*2.png"],
        {"cat": 3, "dog": 2}, {"cat": 1, "dog": 2},
    ),
    "splits below the classes, with wrappers": (
        ["cat/images/training/*3.png", "cat/images/validation/*1.png", "dog/images/training/*2.png",
         "dog/images/validation/*2.png"],
        {"cat": 3, "dog": 2}, {"cat": 1, "dog": 2},
    ),
    "masks beside the images of each split": (
        ["train/images/*3.png", "train/masks/*3.png", "test/images/*2.png", "test/masks/*2.png"], 3, 2,
    ),
    "splits of images and of masks": (
        ["train_images/*3.png", "train_masks/*3.png", "test_images/*2.png", "test_masks/*2.png"], 3, 2,
    ),
    "Cityscapes": (
        ["leftImg8bit/train/aachen/*2.png", "leftImg8bit/train/bochum/*2.png", "leftImg8bit/val/aachen/*1.png",
         "leftImg8bit/val/bochum/*1.png", "gtFine/train/aachen/*2.png", "gtFine/val/aachen/*1.png"],
        {"aachen": 2, "bochum": 2}, {"aachen": 1, "bochum": 1},
    ),
    "Market-1501": (
        ["Market/bounding_box_train/*3.jpg", "Market/bounding_box_test/*2.jpg", "Market/query/*1.jpg"], 3, 2,
    ),
    "dogs and cats": (["dogs-vs-cats/train/*4.jpg", "dogs-vs-cats/test1/*3.jpg", "sampleSubmission.csv"], 4, 3),
    "a split of each class beside the other's": (
        ["cats_train/*2.png", "cats_test/*1.png", "dogs_train/*3.png", "dogs_test/*1.png"],
        {"cats": 2, "dogs": 3}, {"cats": 1, "dogs": 1},
    ),
    "a logo beside a wrapper": (
        ["*1.png", "archive/train/a/*2.png", "archive/train/b/*2.png", "archive/test/a/*1.png",
         "archive/test/b/*1.png"], {"a": 2, "b": 2}, {"a": 1, "b": 1},
    ),
    "nnU-Net": (["Task01/imagesTr/*3.png", "Task01/imagesTs/*2.png", "Task01/labelsTr/*3.png"], 3, 2),
    "SVHN": (
        ["train/1/*2.png", "train/2/*2.png", "test/1/*1.png", "test/2/*1.png", "extra/1/*3.png", "extra/2/*3.png"],
        {"1": 2, "2": 2}, {"1": 1, "2": 1},
    ),
    "a class that is called train": (
        ["data/train/bus/*2.png", "data/train/train/*2.png", "data/test/bus/*1.png", "data/test/train/*1.png"],
        {"bus": 2, "train": 2}, {"bus": 1, "train": 1},
    ),
    "one class in val": (
        ["train/a/*2.png", "train/b/*2.png", "val/b/*2.png"], {"a": 2, "b": 2}, {"b": 2},
    ),
    "classes of which one is called hr": (
        [f"{split}_{name}/*2.png" for split in ("train", "test") for name in ("de", "en", "hr")],
        {"de": 2, "en": 2, "hr": 2}, {"de": 2, "en": 2, "hr": 2},
    ),
    "coins": (
        [f"{coin}/{split}/*2.png" for coin in ("1p", "2p", "50p") for split in ("train", "test")],
        {"1p": 2, "2p": 2, "50p": 2}, {"1p": 2, "2p": 2, "50p": 2},
    ),
    "iNaturalist 2021, mini": (
        ["train_mini/00_bee/*3.jpg", "train_mini/01_ant/*2.jpg", "val/00_bee/*1.jpg", "val/01_ant/*1.jpg",
         "public_test/*3.jpg"], {"00_bee": 3, "01_ant": 2}, {"00_bee": 1, "01_ant": 1},
    ),
    "iNaturalist 2021": (
        ["train/00_bee/*4.jpg", "train/01_ant/*4.jpg", "train_mini/00_bee/*3.jpg", "val/00_bee/*1.jpg",
         "val/01_ant/*1.jpg"], {"00_bee": 4, "01_ant": 4}, {"00_bee": 1, "01_ant": 1},
    ),
    "Kaggle, of a stage": (
        ["train/ALB/*3.jpg", "train/BET/*3.jpg", "test_stg1/*2.jpg"], {"ALB": 3, "BET": 3}, 2,
    ),
    "training parts": (["train_part1/a/*2.png", "train_part1/b/*2.png", "train_part2/a/*1.png", "test/a/*1.png",
                        "test/b/*1.png"], {"a": 3, "b": 2}, {"a": 1, "b": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_of(tmp_path, name):
    files, train, test = LAYOUTS[name]
    assert both(make(tmp_path, *files)) == [train, test]


# name → (files, classes → images, or the number without labels); a share is held out where it is not 0
WHOLE = {
    "EuroSAT": (["EuroSAT/2750/AnnualCrop/*2.jpg", "EuroSAT/2750/Forest/*3.jpg"], {"AnnualCrop": 2, "Forest": 3}),
    "CelebA": (["img_align_celeba/img_align_celeba/*5.jpg", "list_attr_celeba.csv"], 5),
    "NIH chest X-rays": (["images_001/images/*2.png", "images_002/images/*3.png", "Data_Entry_2017.csv"], 5),
    "HAM10000": (["HAM10000_images_part_1/*2.jpg", "HAM10000_images_part_2/*3.jpg", "HAM10000_metadata.csv"], 5),
    "GTSRB": (["Train/00000/*2.ppm", "Train/00001/*3.ppm", "Meta.csv"], {"00000": 2, "00001": 3}),
    "faces by person": (["s1/*2.pgm", "s2/*2.pgm", "s10/*1.pgm"], {"s1": 2, "s10": 1, "s2": 2}),
    "DTD": (
        ["dtd/images/banded/*2.jpg", "dtd/images/dotted/*2.jpg", "dtd/labels/train1.txt"], {"banded": 2, "dotted": 2},
    ),
    "Flowers102": (["102flowers/jpg/*4.jpg", "imagelabels.mat", "setid.mat"], 4),
    "Places, by initial": (
        ["data_large/a/abbey/*1.jpg", "data_large/a/airport/*2.jpg", "data_large/b/bakery/*1.jpg",
         "data_large/t/train_station/*1.jpg"],
        {"abbey": 1, "airport": 2, "bakery": 1, "train_station": 1},
    ),
    "initials of classes with groups": (
        [f"{name}/*1.jpg" for name in ("a/apple/red", "a/apple/green", "b/banana/raw", "b/banana/ripe")],
        {"apple": 2, "banana": 2},
    ),
    "SUN397": (
        ["SUN397/a/abbey/*1.jpg", "SUN397/b/bazaar/indoor/*2.jpg", "SUN397/b/bazaar/outdoor/*1.jpg"],
        {"abbey": 1, "bazaar/indoor": 2, "bazaar/outdoor": 1},
    ),
    "scenes with split words in their names": (
        ["train_station/*2.jpg", "test_tube/*1.jpg", "bus_stop/*1.jpg"],
        {"bus_stop": 1, "test_tube": 1, "train_station": 2},
    ),
    "languages": (["de/*1.png", "fr/*1.png", "tr/*2.png", "te/*1.png"], {"de": 1, "fr": 1, "te": 1, "tr": 2}),
    "segmentation": (["Kvasir-SEG/images/*3.jpg", "Kvasir-SEG/masks/*3.jpg"], 3),
    "COVID radiography": (
        ["COVID/images/*2.png", "COVID/masks/*2.png", "Normal/images/*3.png", "Normal/masks/*3.png"],
        {"COVID": 2, "Normal": 3},
    ),
    "CUB": (
        ["CUB_200_2011/images/001.Albatross/*2.jpg", "CUB_200_2011/images/002.Auklet/*1.jpg",
         "CUB_200_2011/train_test_split.txt"], {"001.Albatross": 2, "002.Auklet": 1},
    ),
    "VOC": (["VOC2012/JPEGImages/*4.jpg", "VOC2012/SegmentationClass/*2.png", "VOC2012/Annotations/x.xml"], 4),
    "faces with and without a mask": (["with_mask/*2.png", "without_mask/*3.png"], {"with_mask": 2, "without_mask": 3}),
    "a hierarchy": (
        ["cat/persian/*1.png", "cat/siamese/*1.png", "dog/husky/*1.png", "dog/pug/*1.png"], {"cat": 2, "dog": 2},
    ),
    "val alone": (["data/val/a/*2.png", "data/val/b/*1.png"], {"a": 2, "b": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_folders_without_splits(tmp_path, name):
    files, expected = WHOLE[name]
    images = open_images(str(make(tmp_path, *files)), test_share=0)
    assert (dict(images.per_class()) if images.labels is not None else len(images)) == expected


# name → (files, words of the refusal, options that choose → what training and evaluation get)
AMBIGUOUS = {
    "vehicles": (
        ["bus/*2.png", "car/*2.png", "train/*2.png"], ["train beside bus, car", "--data.path", "--data.split all"],
        ({"train": "all", "test_share": 0}, [{"bus": 2, "car": 2, "train": 2}, {"bus": 0, "car": 0, "train": 0}]),
    ),
    "a test folder beside classes": (
        ["cat/*2.png", "dog/*2.png", "test/*1.png"], ["test beside cat, dog", "--data.split rest", "--data.split all"],
        ({"train": "rest"}, [{"cat": 2, "dog": 2}, 1]),
    ),
    "a test folder beside images": (
        ["*4.png", "test/*1.png"], ["test beside 4 images", "--data.split rest"], ({"train": "rest"}, [4, 1]),
    ),
    "PlantVillage": (
        ["plantvillage/color/Apple/*2.jpg", "plantvillage/color/Corn/*2.jpg", "plantvillage/grayscale/Apple/*2.jpg",
         "plantvillage/grayscale/Corn/*2.jpg", "plantvillage/segmented/Apple/*2.jpg",
         "plantvillage/segmented/Corn/*2.jpg"],
        ["Apple, Corn below each of color, grayscale, segmented", "--data.subset color"],
        ({"subset": "grayscale", "test_share": 0}, [{"Apple": 2, "Corn": 2}, {"Apple": 0, "Corn": 0}]),
    ),
    "a copy of the classes beside them": (
        ["Apple/*2.jpg", "Corn/*2.jpg", "PlantVillage/Apple/*2.jpg", "PlantVillage/Corn/*2.jpg"],
        ["a copy of the classes in PlantVillage/", "--data.subset PlantVillage"],
        ({"subset": "PlantVillage", "test_share": 0}, [{"Apple": 2, "Corn": 2}, {"Apple": 0, "Corn": 0}]),
    ),
    "patients with benign and malignant": (
        ["8863/0/*1.png", "8863/1/*1.png", "8864/0/*1.png", "8864/1/*1.png", "9001/0/*1.png"],
        ["0, 1 below each of 8863, 8864", "--data.split all"], None,
    ),
    "two editions": (
        ["train2014/*2.jpg", "val2014/*1.jpg", "train2017/*2.jpg", "val2017/*1.jpg"],
        ["one folder for the split 'train', found train2014, train2017", "--data.split ./train2014"],
        ({"train": "./train2014", "test": "./val2017"}, [2, 1]),
    ),
    "two editions below a wrapper": (
        ["planet/train-jpg/*2.jpg", "planet/test-jpg/*1.jpg", "planet/test-jpg-extra/*1.jpg",
         "planet/train-png-v2/*2.png"],
        ["test-jpg, train-jpg beside", "--data.split ./planet/train-jpg --data.test_split ./planet/test-jpg"],
        ({"train": "./planet/train-jpg", "test": "./planet/test-jpg"}, [2, 1]),
    ),
    "training classes beside a test": (
        ["train_cats/*3.jpg", "train_dogs/*2.jpg", "test/*2.jpg"], ["test beside train_cats", "--data.split rest"],
        ({"train": "rest"}, [{"train_cats": 3, "train_dogs": 2}, 2]),
    ),
    "a class with a split word beside a split": (
        ["train/*3.jpg", "test_tube/*2.jpg"], ["train beside test_tube", "--data.split all"],
        ({"train": "all", "test_share": 0}, [{"test_tube": 2, "train": 3}, {"test_tube": 0, "train": 0}]),
    ),
    "two test splits": (
        ["all/train/*3.jpg", "all/test_stg1/*2.jpg", "all/test_stg2/*1.jpg"],
        ["one folder for the split 'test'", "--data.split ./all/train --data.test_split ./all/test_stg1"],
        ({"train": "./all/train", "test": "./all/test_stg1"}, [3, 2]),
    ),
    "the same images in two sizes": (
        [f"DIV2K_{name}/*2.png" for name in ("train_HR", "valid_HR", "train_LR_x2", "valid_LR_x2")],
        ["one folder for the split 'train'", "--data.split ./DIV2K_train_HR --data.test_split ./DIV2K_valid_HR"],
        ({"train": "./DIV2K_train_HR", "test": "./DIV2K_valid_HR"}, [2, 2]),
    ),
    "the same images in two formats": (  # roads of Massachusetts
        [f"{kind}/{of}/*2.png" for kind in ("png", "tiff") for of in ("train", "train_labels", "val", "val_labels")],
        ["several", "--data.subset png"], ({"subset": "png"}, [2, 2]),
    ),
    "a large set and a small one": (  # BDD100K
        [f"bdd100k/images/{size}/{split}.jpg" for size in ("100k", "10k") for split in ("train/*3", "val/*2")],
        ["several", "--data.subset 100k", "they are classes", "--data.split all"], ({"subset": "10k"}, [3, 2]),
    ),
    "several data sets": (
        ["cifar/train/a/*2.png", "cifar/train/b/*2.png", "cifar/test/a/*1.png", "cifar/test/b/*1.png",
         "svhn/train/1/*1.png", "svhn/train/2/*1.png", "svhn/test/1/*1.png", "svhn/test/2/*1.png"],
        ["several, each with splits and classes of its own", "--data.subset cifar"],
        ({"subset": "svhn"}, [{"1": 1, "2": 1}, {"1": 1, "2": 1}]),
    ),
    "a data set with splits beside its test images": (  # New Plant Diseases of Kaggle
        ["Plant/Plant/train/a/*2.jpg", "Plant/Plant/train/b/*2.jpg", "Plant/Plant/valid/a/*1.jpg", "test/test/*2.jpg"],
        ["train and test in", "Plant/Plant, beside other images", "--data.path"], None,
    ),
    "splits beside a folder of figures": (
        ["data/train/*2.png", "data/test/*1.png", "docs/*1.png"], ["train and test", "docs"], None,
    ),
    "a split among the classes of another": (
        ["train/a/*2.png", "train/b/*2.png", "train/val/*2.png", "test/a/*1.png", "test/b/*1.png"],
        ["val among the classes of", "move it beside the other splits"], None,
    ),
    "no training split": (["val/a/*1.png", "test/a/*1.png"], ["expected a split 'train', found val, test"], None),
}  # fmt: skip


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_has_two_readings_is_refused_with_the_flags_that_choose(tmp_path, name):
    files, said, choice = AMBIGUOUS[name]
    make(tmp_path, *files)
    with pytest.raises(DataError) as refusal:
        open_images(str(tmp_path))
    assert all(words in str(refusal.value) for words in said), str(refusal.value)
    if choice:
        assert both(tmp_path, **choice[0]) == choice[1]


def test_names_of_files_in_one_folder_can_be_splits(tmp_path):
    make(tmp_path)
    for i in range(3):
        picture(i).save(tmp_path / f"train_{i}.png")
    picture(4).save(tmp_path / "test_1.png")
    assert both(tmp_path) == [3, 1]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("TRAIN", "train"), ("train2017", "train"), ("trainA", "train"),
        ("images-tr", "train"), ("train_val", "train"), ("trainval2007", "train"), ("valid", "val"), ("dev", "val"),
        ("X_test", "test"), ("eval", "test"), ("test.v2", "test"), ("constraint", None), ("retrain", None),
        ("contest", None), ("interval", None), ("trains", None), ("latest", None), ("train_test", None),
        ("medieval", None), ("valley", None), ("tests", None),
    ],
)  # fmt: skip
def test_split_words_stand_between_characters_that_are_no_letters(name, split):
    assert read_name(name).split == split


def test_the_start_says_what_became_what(tmp_path):
    make(tmp_path, "train/a/*3.png", "train/b/*2.jpg", "val/a/*1.png", "val/b/*1.png", "test/*4.png", "extra/*5.png",
         "notes.txt", ".hidden/*2.png")  # fmt: skip
    train, test = open_images(str(tmp_path)), open_images(str(tmp_path), "test", test=True)
    text = "\n".join(f"{name} {value}" for name, value in data_rows(train, test))
    assert "train train/: 5 images, 2 classes: a 3, b 2" in text and "test val/: 2 images, 2 classes: a 1, b 1" in text
    assert "5 images, 2 classes (3 .png, 2 .jpg)" in text
    for said in ("test/ (4 images of another split)", "extra/ (5 images, beside the splits)", "1 .txt", "2 in hidden"):
        assert said in text, text


def test_masks_that_are_left_out_are_counted(tmp_path):
    make(tmp_path, "train/images/*3.png", "train/masks/*3.png", "test/images/*2.png", "test/masks/*2.png")
    train, test = open_images(str(tmp_path)), open_images(str(tmp_path), "test", test=True)
    text = str(data_rows(train, test))
    assert "train/masks/ (3 masks or the like" in text and "test/masks/ (2 masks or the like" in text


def same_names(root, *folders: str, count: int = 3):
    """Write images of the same file names into each folder, each picture its own."""
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            picture(100 * k + i, (4, 4)).save(root / folder / f"{i}.png")
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("mask", "nomask"), ("Mask", "no mask"), ("depth", "non-depth"), ("Center", "Edge-Ring"),
        ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Scratch"), ("Center", "Donut", "Edge", "Scratch"),
        ("hat", "mask", "glasses"),
    ],
)  # fmt: skip
def test_classes_with_names_like_masks_and_the_same_file_names_stay(tmp_path, names, caplog):
    wanted = dict.fromkeys(names, 3)
    assert dict(open_images(str(same_names(tmp_path, *names)), test_share=0).per_class()) == wanted
    assert "masks" not in caplog.text
    inside = [f"{split}/{name}" for split in ("train", "test") for name in names]
    assert both(same_names(tmp_path / "splits", *inside)) == [wanted, wanted]


@pytest.mark.parametrize("below", ["", "train/"])
@pytest.mark.parametrize(
    "names, masks",
    [
        (("A", "B", "label"), "label/"), (("before", "after", "mask"), "mask/"), (("scan", "mask"), "mask/"),
        (("scan", "edge_maps"), "edge_maps/"), (("hh", "polarised", "gt"), "gt/"), (("ct", "lung_mask"), "lung_mask/"),
    ],
)  # fmt: skip
def test_masks_of_folders_without_a_word_for_images_are_left_out_with_a_warning(tmp_path, names, masks, below, caplog):
    same_names(tmp_path, *(below + name for name in names))
    same_names(tmp_path, *(["test/a"] if below else []))
    assert len(open_images(str(tmp_path), test_share=0)) == 3 * (len(names) - 1)
    assert caplog.text.count("if these folders are classes: --data.split all") == 1 and masks in caplog.text
    every = open_images(str(tmp_path / below), "all", test_share=0)  # each folder is a class
    assert dict(every.per_class()) == dict.fromkeys(names, 3)


def test_images_beside_masks_of_the_same_names_are_no_classes(tmp_path, caplog):
    same_names(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in ("images", "masks")))
    assert both(tmp_path) == [3, 3] and sum(both(tmp_path, train="all")) == 6
    assert "if these folders" not in caplog.text


def test_a_class_of_the_other_split_is_no_folder_of_masks(tmp_path):
    same_names(tmp_path, "train/bottle", count=4)
    same_names(tmp_path, "train/label", "test/bottle", "test/label")
    assert both(tmp_path) == [{"bottle": 4, "label": 3}, {"bottle": 3, "label": 3}]


def test_many_classes_are_summed_up_and_counts_are_of_the_images_used(tmp_path):
    make(tmp_path, *(f"{i:02}/*4.png" for i in range(13)), *(f"{i:02}/*1.jpg" for i in range(13)))
    train, test = (open_images(str(tmp_path), test=t, test_share=0.2) for t in (False, True))
    assert "13 classes of" in dict(data_rows(train, test))["train"]
    for images in (train, test):
        suffixes = [images.name(i).rpartition(".")[2] for i in range(len(images))]
        assert f"{suffixes.count('png')} .png" in images.summary()
        assert sum(n for _, n in images.per_class()) == len(images)


def test_system_folders_and_caches_are_not_entered_and_counted(tmp_path):
    make(tmp_path, "cat/*2.jpg", "dog/*2.jpg", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/*3.jpg",
         "__MACOSX/cat/*2.jpg", "$RECYCLE.BIN/*1.jpg", "#recycle/dog/*1.jpg", ".ipynb_checkpoints/*1.jpg",
         "cat/Thumbs.db", "dog/desktop.ini", ".DS_Store", "lost+found/", "System Volume Information/x.jpg",
         ".thumbnails/*2.png", "cat/._0001.jpg")  # fmt: skip
    images = open_images(str(tmp_path), test_share=0)
    assert dict(images.per_class()) == {"cat": 2, "dog": 2}
    assert any("13 in hidden files and system folders" in note for note in images.notes), images.notes


def test_suffixes_of_images(tmp_path):
    make(tmp_path, "a/*1.jfif", "b/*1.jpe", "c/*1.", "d/*1.JPEG", "e/*1.webp")
    (tmp_path / "c" / "readme").write_text("no image")
    picture(9).save(tmp_path / "e" / "shot at 10.30.22", "PNG")  # a name with points is no suffix
    images = open_images(str(tmp_path), test_share=0)
    assert dict(images.per_class()) == {"a": 1, "b": 1, "c": 1, "d": 1, "e": 2}
    assert all(images[i].convert("RGB").size for i in range(len(images)))
    assert "without a suffix" in images.summary()


def test_a_class_never_vanishes_silently(tmp_path, caplog):
    make(tmp_path, "cat/*2.jpg", "dog/*2.jpg", "scan/1.dcm", "scan/2.dcm", "owl/")
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert images.class_names == ["cat", "dog"]
    assert "left out: 2 .dcm, which this library does not read" in caplog.text
    assert "left out: 2 folders without a readable image, such as" in caplog.text


def test_heic_is_read_or_counted_with_what_to_do(tmp_path, caplog):
    from bigbigan.data.pictures import HEIF

    make(tmp_path, "a/*2.jpg", "b/*2.jpg")
    if HEIF:
        picture(1, (16, 16)).save(tmp_path / "a" / "x.HEIC", format="HEIF")
        assert open_images(str(tmp_path), test_share=0)[2].convert("RGB").size == (16, 16)
        return
    (tmp_path / "a" / "1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    with caplog.at_level(logging.WARNING):
        assert len(open_images(str(tmp_path), test_share=0)) == 4
    assert "left out: 1 .heic" in caplog.text and "bigbigan[heif]" in caplog.text


@pytest.mark.parametrize(
    ("name", "said"),
    [("pathmnist.npz", "save its images as files"), ("photos.zip", "unpack it"), ("one.png", "name the folder")],
)
def test_a_file_that_is_no_table_says_what_to_do(tmp_path, name, said):
    make(tmp_path, name)
    with pytest.raises(DataError, match=f"found another file.*{said}"):
        open_images(str(tmp_path / name))


def test_a_folder_of_archives_says_so(tmp_path):
    make(tmp_path, "pathmnist.npz", "readme.md")
    with pytest.raises(DataError, match="found none in it or its subfolders, but .*1 .npz"):
        open_images(str(tmp_path))


def test_a_class_found_below_train_links_is_found_once(tmp_path):
    make(tmp_path, "store/one/a/*2.png", "store/one/b/*2.png", "store/two/a/*1.png", "store/two/b/*1.png")
    (tmp_path / "train").symlink_to(tmp_path / "store" / "one", target_is_directory=True)
    (tmp_path / "val").symlink_to(tmp_path / "store" / "two", target_is_directory=True)
    assert both(tmp_path) == [{"a": 2, "b": 2}, {"a": 1, "b": 1}]


def metadata(root, kind, rows):
    if kind == "csv":
        names = list(rows[0])
        lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
        (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        (root / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), root / "metadata.parquet")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_beside_images(tmp_path, kind, caplog):
    make(tmp_path, "imgs/*4.png", "imgs/deep/*2.png")
    found = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*.png"))
    rows = [{"file_name": str(p), "caption": f"no. {i}", "Label": ["cat", "dog"][i % 2]} for i, p in enumerate(found)]
    metadata(tmp_path, kind, rows[:-1])
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert len(images) == 5 and "1 image that no metadata file names" in caplog.text
    wanted = {str(tmp_path / row["file_name"]): row["Label"] for row in rows}
    assert images.class_names == ["cat", "dog"]
    assert all(images.class_names[images.labels[i]] == wanted[images.name(i)] for i in range(5))


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_agree_with_datasets(tmp_path, kind):
    from datasets import load_dataset

    for split, count in (("train", 6), ("test", 3)):
        make(tmp_path, f"{split}/*{count}.png")
        names = sorted(p.name for p in (tmp_path / split).glob("*.png"))
        metadata(tmp_path / split, kind, [{"file_name": n, "label": (i * 3) % 4} for i, n in enumerate(names)])
    for split in ("train", "test"):
        theirs = load_dataset("imagefolder", data_dir=str(tmp_path), split=split, cache_dir=str(tmp_path / ".cache"))
        ours = open_images(str(tmp_path), split, test=split == "test")
        named = [int(ours.class_names[k]) for k in ours.labels]
        pairs = zip(theirs["image"], theirs["label"], strict=True)
        expected = {image.convert("RGB").tobytes(): label for image, label in pairs}
        found = {ours[i].convert("RGB").tobytes(): label for i, label in enumerate(named)}
        assert found == expected


def test_annotations_of_tiny_imagenet_label_its_validation_images(tmp_path):
    files, *_ = LAYOUTS["Tiny ImageNet"]
    val = make(tmp_path, *files) / "tiny-imagenet-200" / "val"
    names = sorted(path.name for path in (val / "images").iterdir())
    classes = ["n01629819", "n01443537", "n01629819"]
    lines = [f"{name}\t{label}\t0\t32\t44\t62\n" for name, label in zip(names, classes, strict=True)]
    (val / "val_annotations.txt").write_text("".join(lines))
    assert both(tmp_path) == [{"n01443537": 2, "n01629819": 2}, {"n01443537": 1, "n01629819": 2}]
    (val / "val_annotations.txt").write_text("".join(lines) + "0001.JPEG n01443537\n")
    with pytest.raises(
        DataError, match="val_annotations.txt: expected a readable .txt file, .* a line that is not a name"
    ):
        both(tmp_path)


def test_metadata_without_names_of_files_are_not_read(tmp_path, caplog):
    make(tmp_path, "a/*2.png", "b/*2.png")
    metadata(tmp_path, "csv", [{"image_id": 1, "label": "x"}])
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert images.class_names == ["a", "b"] and "has no column file_name" in caplog.text


@pytest.mark.parametrize("first", [{"label": None}, {}])
def test_a_first_row_of_metadata_without_a_label_hides_no_column(tmp_path, first, caplog):
    make(tmp_path, "train/*1.png", "test/*4.png", "train/*3.png")
    names = [f"train/{i:04}.png" for i in (1, 6, 7, 8)] + [f"test/{i:04}.png" for i in (2, 3, 4, 5)]
    rows = [{"file_name": name, "label": "xy"[i % 2]} for i, name in enumerate(names)]
    rows[0] = {"file_name": names[0]} | first
    text = lambda rows: "\n".join(map(json.dumps, rows))  # noqa: E731
    (tmp_path / "metadata.jsonl").write_text(text(rows))
    assert open_images(str(tmp_path)).labels is None
    assert "expected a label in every row of column 'label', found 1 without" in caplog.text
    unlabelled_first = [*({"file_name": name} for name in names[4:]), {"file_name": names[0], "label": "x"}, *rows[1:4]]
    (tmp_path / "metadata.jsonl").write_text(text(unlabelled_first))
    assert dict(open_images(str(tmp_path)).per_class()) == {"x": 2, "y": 2}


def test_a_row_of_metadata_without_a_file_name_is_counted(tmp_path, caplog):
    make(tmp_path, "*2.png")
    rows = [{"file_name": "0001.png"}, {"label": "x"}, {"file_name": "0002.png"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert len(open_images(str(tmp_path), test_share=0)) == 2
    assert "1 names in metadata files are no images here" in caplog.text


def test_metadata_over_splits_prefer_the_split_that_they_label(tmp_path):
    make(tmp_path, "train/*4.png", "val/*3.png", "test/*2.png")
    for split in ("train", "val"):
        names = sorted(p.name for p in (tmp_path / split).glob("*.png"))
        metadata(tmp_path / split, "jsonl", [{"file_name": n, "category": i % 2} for i, n in enumerate(names)])
    assert both(tmp_path) == [{"0": 2, "1": 2}, {"0": 2, "1": 1}]


def test_metadata_with_names_that_are_not_there_and_with_masks(tmp_path, caplog):
    make(tmp_path, "images/*4.png", "masks/*4.png")
    rows = [
        {"mask_file_name": f"masks/{i + 4:04}.png", "image_file_name": f"images/{i:04}.png", "label": f"{i % 2:03}"}
        for i in (1, 2, 3, 4, 9)
    ]
    metadata(tmp_path, "csv", rows)
    with caplog.at_level(logging.WARNING):
        images = open_images(str(tmp_path), test_share=0)
    assert dict(images.per_class()) == {"000": 2, "001": 2}
    assert "1 names in metadata files are no images here, such as" in caplog.text
    assert "images are named by column 'image_file_name', not by mask_file_name" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"file_name": "0001.png"\n', "metadata.jsonl: expected a readable .jsonl file, found JSONDecodeError"),
        ("[1, 2]\n", "a line that is no JSON object"),
        ('{"file_name": "nothing.png"}\n', "found none that is there, such as"),
    ],
)
def test_torn_metadata_are_one_sentence(tmp_path, text, message):
    make(tmp_path, "*2.png")
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message):
        open_images(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({"labels": [[f"00000/img0000000{i}.png", i % 3] for i in range(9)]}, ["0", "1", "2"]),
        ({"labels": None}, None),
        ({"name": "photos"}, None),
        ([1, 2], None),
    ],
)
def test_the_labels_of_stylegan(content, classes, tmp_path):
    (tmp_path / "00000").mkdir()
    for i in range(9):
        picture(i).save(tmp_path / "00000" / f"img0000000{i}.png")
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    images = open_images(str(tmp_path))
    assert images.class_names == classes
    if classes:
        assert [int(name[-5]) % 3 for name in map(images.name, range(len(images)))] == images.labels.tolist()


@pytest.mark.parametrize(
    "content",
    ['{"labels": [["0000', '{"a": 1}\n{"a": 2}', '{"labels": [["left", "right"]]}', '{"labels": [["a", 1, 2]]}'],
)
def test_another_file_of_stylegans_name_stops_nothing(content, tmp_path, caplog):
    make(tmp_path, "cat/*2.png", "dog/*2.png")
    (tmp_path / "dataset.json").write_text(content)
    assert open_images(str(tmp_path)).class_names == ["cat", "dog"]
    assert ("no labels are read from it: JSONDecodeError" in caplog.text) is not content.endswith("]]}")
