"""The recipes for Ray Data in docs/features.md, run on two local workers."""

import re

import numpy as np
import pandas as pd
import pytest

import bigbigan
from tests.conftest import ROOT, launch, picture, tiny_model

pytest.importorskip("ray.data", reason="pip install bigbigan[ray]")
pytestmark = pytest.mark.run
SETUP = "import ray\nray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)\n"


def recipes() -> list[str]:
    """The Python blocks of the section, in order."""
    section = (ROOT / "docs" / "features.md").read_text().split("\n## Ray Data\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_the_recipe_gives_the_features_of_one_process(tmp_path):
    """Features are equal to the last bits: Ray chooses the images of a batch."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for i in range(150):
        picture(i, (12 + i % 5, 10)).save(tmp_path / "photos" / ("sub" if i % 3 else "") / f"{i:03}.png")
    (tmp_path / "photos" / "077b.png").write_bytes(b"no picture")
    tiny_model().save_pretrained(tmp_path / "runs" / "photos")
    recipe = recipes()[0]
    code = SETUP + recipe + "\nprint('nodes', len(ray.nodes()), 'rows', features.count())\n"
    out, _ = launch("-c", code, cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    with pytest.warns(UserWarning, match="1 of 151 images"):
        expected, paths = bigbigan.encode(
            tmp_path / "photos", tmp_path / "runs" / "photos", "avepool_feat", on_error="skip", paths=True
        )
    rows = pd.read_parquet(tmp_path / "features-by-ray").sort_values("path")
    assert sorted(rows.path) == sorted(paths) and len(rows) == 150
    by_path = dict(zip(paths, expected.numpy(), strict=True))
    np.testing.assert_allclose(np.stack(rows.avepool_feat), np.stack([by_path[path] for path in rows.path]), atol=1e-6)
