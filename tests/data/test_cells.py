"""Read the cells of tables from Arrow's memory, decode WebP, count labels, and keep the hashes of a table's images."""

import io
import pickle
import time

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image

from bigbigan.data import Crop, Images, Stream, fingerprint, open_images, splits
from bigbigan.data.columns import Tally, classes_of, is_plain, tally
from bigbigan.data.images import Arrays
from bigbigan.data.pictures import decode_rgb, open_picture, to_rgb
from bigbigan.data.splits import hold_out_for_choices
from bigbigan.data.tables import Cells, from_table
from bigbigan.errors import DataError
from tests.conftest import picture
from tests.data.test_splits import encoded, table_of


def webp(seed: int, size=(40, 31), **options) -> bytes:
    file = io.BytesIO()
    picture(seed, size).save(file, "WEBP", **options)
    return file.getvalue()


def pixels(content) -> np.ndarray:
    return np.asarray(to_rgb(open_picture(io.BytesIO(content))))


def test_a_lossy_webp_has_pillow_s_pixels():
    for seed in range(20):
        content = webp(seed, (9 + 5 * seed, 40), quality=5 * seed)
        found = decode_rgb(content)
        assert isinstance(found, np.ndarray) and np.array_equal(found, pixels(content))


def test_other_webps_are_left_to_pillow(tmp_path):
    still, clear = picture(0), picture(1, mode="RGB").convert("RGBA")
    clear.putalpha(100)
    for image, options in ((still, {"lossless": True}), (clear, {}), (still, {"save_all": True})):
        options |= {"append_images": [picture(2)]} if "save_all" in options else {}
        image.save(tmp_path / "a.webp", **options)
        content = (tmp_path / "a.webp").read_bytes()
        for source in (content, tmp_path / "a.webp"):
            found = decode_rgb(source)
            assert isinstance(found, Image.Image) and np.array_equal(np.asarray(found), pixels(content))


def test_what_pillow_refuses_is_refused_and_the_rest_decoded_as_it_does():
    """Bytes are changed, cut and appended at random; an image may then be readable or not."""
    draw, contents = np.random.default_rng(0), [webp(seed, quality=30 * seed + 5) for seed in range(3)]
    outcomes = {"read": 0, "refused": 0}
    for trial in range(400):
        content = bytearray(contents[trial % 3])
        if trial % 4 == 0:
            content[draw.integers(4, 40)] = draw.integers(256)
        elif trial % 4 == 1:
            content[draw.integers(20, len(content))] = draw.integers(256)
        else:
            content = content[: draw.integers(10, len(content))] + bytes(int(draw.integers(3)))
            content[4:8] = (len(content) - 8).to_bytes(4, "little")
        content = bytes(content)
        try:
            expected = pixels(content)
        except Exception:  # decoders raise many types
            outcomes["refused"] += 1
            with pytest.raises(Exception):  # noqa: B017
                decode_rgb(content)
            continue
        outcomes["read"] += 1
        assert np.array_equal(np.asarray(decode_rgb(content)), expected)
    assert min(outcomes.values()) > 50


def table_with_gaps() -> Dataset:
    cells = [encoded(0), None, {"bytes": None, "path": "a.png"}, encoded(3), {"bytes": None, "path": None}, encoded(5)]
    storage = pa.chunked_array([pa.array(cells[:2], _kind()), pa.array(cells[2:], _kind())])
    return Dataset(pa.table({"image": storage}))


def _kind() -> pa.DataType:
    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize("order", ["as it is", "selected", "shuffled", "after pickling"])
def test_cells_are_those_of_the_table(order):
    table = table_with_gaps()
    if order == "selected":
        table = table.select([4, 2, 0, 1, 5, 5])
    if order == "shuffled":
        table = table.shuffle(seed=1)
    cells = Cells(table, "image")
    if order == "after pickling":
        assert cells[0][0]
        cells = pickle.loads(pickle.dumps(cells))
    expected = [(row["image"] or {}).get("bytes") for row in table], [(r["image"] or {}).get("path") for r in table]
    for read in ([cells[i] for i in range(len(cells))], list(cells.read(np.arange(len(cells))))):
        assert ([content for content, _ in read], [path for _, path in read]) == expected
    assert list(cells.read([3, 1, 0, 5])) == [cells[i] for i in (3, 1, 0, 5)] and list(cells.read([])) == []


VALUES = [
    [0, 1, 2, 0, 1, 2], [-1, 1] * 3, [-1, 0, 1, 1], ["b", "a", "b"], [0.5, 1.0] * 3, [1.0, 2.0] * 3, [True, False] * 3,
    [None, 1, 2], [1.0, float("nan")], list(range(50)), [f"id{i}" for i in range(50)], [2**40, -(2**50), 2**40],
]  # fmt: skip


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("values", VALUES, ids=lambda values: str(values)[:20])
def test_a_column_of_arrow_gives_what_its_list_gives(values, asked):
    column = pa.chunked_array([pa.array(values)[:2], pa.array(values)[2:]])
    assert is_plain(column.type)

    def outcome(rows):
        try:
            labels, names = classes_of(rows, None, "label", "rows", asked)
        except DataError as error:
            return str(error)
        return None if labels is None else (labels.tolist(), names)

    assert outcome(tally(column)) == outcome(values)


def test_values_of_different_types_are_told_apart():
    found = tally([1, 1.0, True, "1", 1, None])
    assert isinstance(found, Tally) and len(found.values) == 5 and found.codes.tolist() == [0, 1, 2, 3, 0, 4]


def test_a_million_rows_are_opened_without_a_loop_over_labels(tmp_path):
    n, draw = 1_000_000, np.random.default_rng(0)
    cell = pa.array([encoded(0)], _kind())
    image = cell.take(pa.array(np.zeros(n, np.int64)))
    labels = draw.integers(0, 1000, n)
    table = Dataset(pa.table({"image": image, "label": labels, "word": pa.array(labels.astype(str))}))
    started = time.process_time()
    images = from_table(table, "rows")
    assert np.array_equal(images.labels, labels) and len(images.class_names) == 1000
    assert time.process_time() - started < 2


def test_hashes_of_a_large_table_are_kept_and_made_anew_when_it_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIGAN_CACHE", str(tmp_path / "cache"))
    path, seeds = tmp_path / "a.parquet", list(range(120))
    table_of(path, seeds, [s % 3 for s in seeds])

    def split():
        train, test = splits.hold_out(open_images(str(path), test_share=0), 0.2)
        return [images.base()[1].tolist() for images in (train, test, *hold_out_for_choices(train, 0.1))]

    expected = split()
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(splits, "KEPT_FROM", 1)
    assert split() == expected and len(list((tmp_path / "cache").iterdir())) == 2
    with monkeypatch.context() as patch:
        patch.setattr(splits, "_digests", None)  # no image is read
        assert split() == expected
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(kept.read_bytes()[:50])
    assert split() == expected
    table_of(path, seeds[::-1], [s % 3 for s in seeds[::-1]])
    assert split() != expected and len(list((tmp_path / "cache").iterdir())) == 4


def test_a_stream_of_webps_equals_one_of_their_pixels(tmp_path):
    contents = [webp(seed, (40, 40)) for seed in range(12)]
    cells = [{"bytes": content, "path": None} for content in contents]
    Dataset.from_dict({"image": cells}, features=Features({"image": ImageFeature()})).to_parquet(tmp_path / "a.parquet")
    packed = open_images(str(tmp_path / "a.parquet"), test_share=0)
    plain = Images(Arrays(np.stack([pixels(content) for content in contents])), None, None, "", "")
    batches = [
        next(Stream(images, 16, 5, Crop("resnet", True), cache="none").batches(0, 12, 12)) for images in (packed, plain)
    ]
    assert np.array_equal(batches[0].x.numpy(), batches[1].x.numpy())
    assert len(fingerprint(packed)) == 64
