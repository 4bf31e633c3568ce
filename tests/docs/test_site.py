"""The documentation site is built without a warning, has every page in its menu, and its links lead somewhere.

Markdown is read on a code host too: a relative link of any page leads to a file of the repository.
"""

import importlib.util
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from tests.conftest import ROOT, launch
from tests.helpers.documents import pages

spec = importlib.util.spec_from_file_location("build", ROOT / "docs" / "build.py")
site = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site)

EVERYWHERE = [*pages(), *(ROOT / "examples").glob("*.md")]


@pytest.mark.parametrize("page", EVERYWHERE, ids=[str(page.relative_to(ROOT)) for page in EVERYWHERE])
def test_relative_links_lead_to_files(page):
    """Those of the repository; the builder refuses the others with the page's name."""
    site.rewrite(page.read_text(encoding="utf-8"), page.relative_to(ROOT), set())


def test_a_link_to_nothing_or_to_a_folder_is_refused():
    for target, found in (("nowhere.md", "nothing there"), ("../configs", "a folder"), ("images/no.png", "nothing")):
        with pytest.raises(
            SystemExit, match=f"docs/api.md: expected a link to a file of the repository, found {found}"
        ):
            site.rewrite(f"see [this]({target})", Path("docs/api.md"), set())


def test_links_that_leave_docs_are_links_of_the_site():
    linked: set[Path] = set()
    text = (
        "[a](../../README.md#train) ![b](../images/readme.png) [c](../../configs/digits.yaml) [d](https://x.org/a.md)"
    )
    expected = (
        "[a](../index.md#train) ![b](../images/readme.png) [c](../files/configs/digits.yaml.txt) "
        "[d](https://x.org/a.md)"
    )
    assert site.rewrite(text, Path("docs/paths/method.md"), linked) == expected
    assert linked == {Path("configs/digits.yaml")}
    assert site.rewrite("[a](docs/api.md)", Path("README.md"), linked) == "[a](api.md)"


def test_every_page_is_in_the_menu_once():
    def named(entry) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        return [name for part in (entry.values() if isinstance(entry, dict) else entry) for name in named(part)]

    menu = named(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(menu) == sorted([*there, *site.PAGES.values(), "examples/README.md"])


class Links(HTMLParser):
    """Collect what a page of HTML links to or loads, and its anchors."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loaded, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        if found.get("src") or (tag == "link" and found.get("rel") in ("stylesheet", "icon", "preconnect")):
            self.loaded.append(found.get("src") or found["href"])


@pytest.mark.run
def test_the_site_is_built_without_a_warning(tmp_path):
    """In under a minute; its links and pictures are there, nothing is loaded from elsewhere, and the reference is
    full."""
    pytest.importorskip("zensical", reason='no zensical: pip install ".[docs]" to build the site')
    pytest.importorskip("mkdocstrings", reason='no mkdocstrings: pip install ".[docs]" to build the site')
    launch(ROOT / "docs" / "build.py", "--out", tmp_path / "site", cwd=tmp_path)
    found = {path: Links(path.read_text(encoding="utf-8")) for path in (tmp_path / "site").rglob("*.html")}
    assert len(found) > 35
    for page, links in found.items():
        elsewhere = [url for url in links.loaded if urlsplit(url).scheme in ("http", "https")]
        assert not elsewhere, f"{page.name} loads {elsewhere}"
        for url in (*links.links, *links.loaded):
            parts = urlsplit(url)
            if parts.scheme or page.name == "404.html" or not parts.path:
                continue
            there = Path(os.path.normpath(page.parent / unquote(parts.path)))
            there = there / "index.html" if there.is_dir() else there
            assert there.is_file(), f"{page.name} links to {url}"
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert all(name in reference for name in ("bigbigan.api.encode", "bigbigan.losses.discriminator_loss", "Posterior"))
    assert not re.search(r"^:::", reference, re.MULTILINE)
