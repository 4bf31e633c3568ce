"""The benchmark of anomalies: the held-out class is in no training file, and its table is made by whole commands."""

import importlib.util
import json
import sys

import numpy as np
import pytest

from bigbigan.config import Data
from bigbigan.data import open_splits
from tests.conftest import ROOT, TINY_RUN

spec = importlib.util.spec_from_file_location("anomalies_benchmark", ROOT / "benchmarks" / "anomalies.py")
benchmark = importlib.util.module_from_spec(spec)
sys.modules["anomalies_benchmark"] = benchmark
spec.loader.exec_module(benchmark)


def test_the_written_data_lack_the_class(tmp_path):
    train, test = open_splits(Data())
    for name, images in (("train", train), ("test", test)):
        benchmark.write_without(images, 8, tmp_path / f"{name}.parquet")
    ours, held_out = open_splits(Data(path=str(tmp_path)))
    assert ours.class_names == held_out.class_names == ["0", "1", "2", "3", "4", "5", "6", "7", "9"]
    assert (len(ours), len(held_out)) == (int((train.labels != 8).sum()), int((test.labels != 8).sum()))
    kept = np.flatnonzero(train.labels != 8)
    for i in (0, 700, len(ours) - 1):
        assert ours.class_names[ours.labels[i]] == train.class_names[train.labels[kept[i]]]
        assert np.array_equal(np.asarray(ours.rgb(i)), np.asarray(train.rgb(int(kept[i]))))


@pytest.mark.run
def test_the_table_of_one_class(tmp_path, capsys):
    flags = [flag for flag in TINY_RUN if not flag.startswith(("--run.images", "--optim.lower"))]
    arguments = ["--classes", "8", "--images", "240", "--out", str(tmp_path), "--device", "cpu", "--", *flags]
    benchmark.main(arguments)
    first, *table = capsys.readouterr().out.splitlines()
    row = json.loads(first)
    assert row["held_out"] == "8" and row["anomalous"] == 47 and row["images"] == 359 and row["seconds"] >= 0
    assert 0 <= row["A(x), feature matching"] <= 1 and sum(line.startswith("| ") for line in table) == 10
    benchmark.main(arguments)  # is not trained again
    assert "seconds" not in json.loads(capsys.readouterr().out.splitlines()[0])


def test_a_class_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--classes", "ten"])
    assert "expected some of 0, 1, 2" in capsys.readouterr().err
