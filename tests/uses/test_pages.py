"""The Python of the pages on uses runs, each page in an empty folder."""

import pytest

from tests.conftest import ROOT

PAGES = ("anomalies", "retrieval", "few_shot", "linear_map", "compression")


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = (ROOT / "docs" / "uses" / f"{page}.md").read_text().split("```python\n")[1:]
    assert blocks
    for block in blocks:
        exec(block.split("```")[0], {})


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_there_and_small(page):
    text = (ROOT / "docs" / "uses" / f"{page}.md").read_text()
    pictures = [part.split(")")[0] for part in text.split("](../images/uses/")[1:]]
    assert f"{page}.png" in pictures
    for name in pictures:
        file = ROOT / "docs" / "images" / "uses" / name
        assert file.read_bytes().startswith(b"\x89PNG") and file.stat().st_size < 100_000
