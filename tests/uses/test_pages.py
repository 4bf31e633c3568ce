"""The Python of the pages on uses runs, each page in an empty folder."""

import pytest

from tests.conftest import ROOT

PAGES = sorted(page.stem for page in (ROOT / "docs" / "uses").glob("*.md") if page.stem != "README")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "cifar10"])  # figures alone, of all uses
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = (ROOT / "docs" / "uses" / f"{page}.md").read_text().split("```python\n")[1:]
    assert blocks
    for block in blocks:
        exec(block.split("```")[0], {})


def test_the_table_links_every_page():
    table = (ROOT / "docs" / "uses" / "README.md").read_text()
    assert all(f"]({page}.md)" in table for page in PAGES) and len(PAGES) >= 9


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_there_and_small(page):
    text = (ROOT / "docs" / "uses" / f"{page}.md").read_text()
    pictures = [part.split(")")[0] for part in text.split("](../images/uses/")[1:]]
    assert any(name.startswith(page) for name in pictures)
    for name in pictures:
        file = ROOT / "docs" / "images" / "uses" / name
        assert file.read_bytes().startswith((b"\x89PNG", b"RIFF")) and file.stat().st_size < 100_000
