"""report.html in a real Chromium: it opens without an error, fits every width, and its film and curves do what they
should."""

import json
import re
import shutil
from pathlib import Path

import pytest

from bigbigan.report import write_page
from bigbigan.report.page import read_stats
from tests.helpers.browser import PROGRAM, Browser
from tests.helpers.fake_run import HOSTILE, PARTIAL, TOTAL, changed_run, fake_run, hostile_run, partial_run

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no browser: install chromium or google-chrome to test the page in one"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return fake_run(tmp_path_factory.mktemp("page") / "digits")


@pytest.fixture(scope="module")
def page(run) -> Path:
    return write_page(run)


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_opens_at_every_width(browser, page, dark):
    """Without an error, a request or sideways scrolling; letters grow with the window."""
    sizes = []
    for width in (390, 1280, 1920):
        browser.open(page, width, dark=dark)
        assert browser.errors == []
        assert browser.run("document.documentElement.scrollWidth") <= browser.run("innerWidth") == width
        assert browser.run("document.querySelectorAll('.chart .curve').length") == 3 * 2 + 2 + 4 + 1
        assert browser.run("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
        assert browser.run(
            "[...document.querySelectorAll('img, svg')].every((e) => e.alt || e.getAttribute('aria-label'))"
        )
        sizes.append(browser.run("parseFloat(getComputedStyle(document.documentElement).fontSize)"))
        paper = browser.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0]")
        assert (paper < 60) == dark
    assert sizes[0] >= 16 and sizes == sorted(set(sizes)) and sizes[2] >= 20


COLOUR = """(async () => { const image = document.getElementById("KIND"); await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); })()"""


def shown(browser) -> tuple[list[int], list[int], str]:
    """The colours of the two pictures on the page and the images seen beside the slider."""
    colours = [browser.run(COLOUR.replace("KIND", kind)) for kind in ("samples", "reconstructions")]
    return *colours, browser.run("document.getElementById('time-shown').textContent")


def test_slider_changes_the_picture(browser, page):
    """By the keys of a keyboard; the pixels on the page are those of the grid of that time."""
    browser.open(page, 390)
    colour = lambda k: [20 * k, 100, 200]  # noqa: E731
    assert shown(browser) == (colour(11), colour(11), f"{TOTAL:,} images")
    browser.run("document.getElementById('time').focus()")
    browser.press("Home", 36)
    assert shown(browser) == (colour(0), colour(0), f"{TOTAL // 12:,} images")
    for _ in range(3):
        browser.press("ArrowRight", 39)
    assert shown(browser) == (colour(3), colour(3), f"{4 * TOTAL // 12:,} images")
    assert browser.run("document.activeElement.getAttribute('aria-valuetext')") == f"{4 * TOTAL // 12:,} images seen"
    assert browser.run("getComputedStyle(document.getElementById('samples')).imageRendering") == "pixelated"
    assert browser.errors == []


def test_play(browser, page):
    """A click plays from the first to the last frame and stops there; a second click pauses."""
    browser.open(page, 1280)
    browser.run("""window.seen = []; window.shown = document.getElementById("time-shown");
        new MutationObserver(() => seen.push(shown.textContent)).observe(shown, { childList: true })""")
    box = browser.run(
        "(() => { const b = document.getElementById('play').getBoundingClientRect(); return [b.x + 5, b.y + 5]; })()"
    )
    state = "document.getElementById('play').textContent"
    browser.point(*box, click=True)
    assert browser.run(state) == "Pause"
    browser.point(*box, click=True)
    assert browser.run(state) == "Play"
    browser.run("seen.length = 0; document.getElementById('time').value = document.getElementById('time').max")
    browser.point(*box, click=True)
    browser.run(
        "new Promise((done) => { const wait = setInterval("
        f"() => {state} === 'Play' && (clearInterval(wait), done()), 20); }})"
    )
    assert browser.run("seen") == [f"{TOTAL * k // 12:,} images" for k in range(1, 13)]
    assert browser.errors == []


def test_curves_are_read_by_mouse_and_keys(browser, run, page):
    records = [r for r in read_stats(run) if "score_z_real" in r]
    browser.open(page, 1280, height=4000)
    chart = "document.querySelectorAll('#scores .chart')[1]"
    box = browser.run(
        f"(() => {{ const b = {chart}.querySelector('svg').getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })()"
    )
    said = lambda: browser.run(f"{chart}.querySelector('.readout').innerText").replace("−", "-").split()  # noqa: E731

    def expected(r):
        real, fake = (f"{r[f'score_z_{side}']:+.2f}" for side in ("real", "fake"))
        return ["real", real, "fake", fake, "at", f"{r['images_seen']:,}"]

    assert said() == expected(records[-1])
    browser.point(box[0] + box[2] / 2, box[1] + box[3] / 2)
    middle = next(r for r in records if f"{r['images_seen']:,}" == said()[-1])
    assert said() == expected(middle) and 0.35 < middle["images_seen"] / TOTAL < 0.6
    assert browser.run("document.querySelector('#losses .readout').innerText").endswith(
        said()[-1]
    )  # one cursor for all curves
    browser.run(f"{chart}.querySelector('svg').focus()")
    browser.press("ArrowLeft", 37)
    assert said() == expected(records[records.index(middle) - 1])
    assert browser.errors == []


def test_confusion_is_read_by_touch(browser, run, page):
    matrix = json.loads((run / "probe.json").read_text())["confusion"]["matrix"]
    browser.open(page, 1280, height=8000)
    cell = "document.querySelector('.heat tbody').rows[3].cells[6].getBoundingClientRect()"
    x, y = browser.run(f"(() => {{ const b = {cell}; return [b.x + 3, b.y + 3]; }})()")
    browser.point(x, y)
    expected = f"class 3 given as class 5: {matrix[3][5]} of {sum(matrix[3])}"
    assert browser.run("document.getElementById('heat-readout').textContent") == expected


CONTRAST = """[...document.querySelectorAll(".heat tbody td.right, .heat tbody td.wrong")].map((cell) => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
  const light = (colour) => { context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const style = getComputedStyle(cell), [a, b] = [light(style.color), light(style.backgroundColor)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); })"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_confusion_is_read_on_every_shade(browser, run, tmp_path, dark):
    """4.5 : 1, which the web's guidelines ask of text, for shares from none to all; the columns are equally wide."""
    matrix = [[max(1, 100 - 12 * k) if i == k else 12 * k for i in range(9)] for k in range(9)]
    folder = changed_run(run, tmp_path / "run", confusion={"row": "r", "matrix": matrix})
    browser.open(write_page(folder), 1280, dark=dark)
    found = browser.run(CONTRAST)
    assert len(found) > 70 and min(found) >= 4.5
    widths = browser.run("[...document.querySelectorAll('.heat tbody tr:first-child td')].map((e) => e.offsetWidth)")
    assert max(widths) - min(widths) <= 1


def test_an_unfinished_page_reloads_and_keeps_its_place(browser, run, tmp_path):
    """The frame and the place that were being looked at; a finished page stays as it is."""
    folder = shutil.copytree(run, tmp_path / "run")
    lines = (folder / "stats.jsonl").read_text().splitlines()
    (folder / "stats.jsonl").write_text("\n".join(lines[:30]) + "\n")
    page = write_page(folder, "training")
    page.write_text(page.read_text().replace('"reload":{"seconds":', '"reload":{"seconds":2.5,"was":'))
    browser.open(page, 1280)
    browser.run("document.getElementById('time').focus()")
    browser.press("Home", 36)
    browser.run("scrollTo({ top: 500, behavior: 'instant' }); window.before = true")
    browser.loaded = False
    while not browser.loaded:
        browser._note(browser._receive())
    browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert browser.run("window.before") is None and browser.run("scrollY") == 500
    assert browser.run("document.getElementById('time').value") == "0" and browser.errors == []
    browser.open(write_page(run), 1280)
    browser.run("window.before = true; new Promise((done) => setTimeout(done, 700))")
    assert browser.run("window.before") is True


def test_a_page_without_news_says_so(browser, run, tmp_path):
    """A killed run cannot: its page sees by its age that no other one came."""
    folder = shutil.copytree(run, tmp_path / "run")
    lines = (folder / "stats.jsonl").read_text().splitlines()
    (folder / "stats.jsonl").write_text("\n".join(lines[:30]) + "\n")
    page, state = write_page(folder, "training"), "document.getElementById('state').textContent"
    browser.open(page, 390)
    assert "In training" in browser.run(state) and "No news" not in browser.run(state)
    page.write_text(re.sub(r'"written":(\d+)', lambda found: f'"written":{int(found[1]) - 10**6}', page.read_text()))
    browser.open(page, 390)
    assert "No news since" in browser.run(state)


def test_page_of_a_real_run(browser, run_folder, tmp_path):
    """What training writes is what the page reads."""
    ignored = shutil.ignore_patterns("checkpoints", "features", "model.safetensors")
    folder = shutil.copytree(run_folder, tmp_path / "done", ignore=ignored)
    browser.open(write_page(folder), 390)
    assert browser.errors == []
    assert browser.run("document.querySelectorAll('#scores .curve').length") == 6
    assert browser.run("+document.getElementById('time').max") == len(list((folder / "samples").glob("*.png"))) - 1
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


def test_texts_are_no_markup(browser, run, tmp_path):
    browser.open(write_page(hostile_run(run, tmp_path / "run")), 1280)
    assert browser.errors == [] and browser.run("window.hacked") is None
    assert browser.run("document.querySelector('h1').textContent") == HOSTILE
    assert browser.run("document.querySelector('.heat tbody th').textContent") == f"class 0{HOSTILE}"
    assert browser.run(
        f"[...document.querySelectorAll('.chart h4')].some((e) => e.textContent === {json.dumps(HOSTILE)})"
    )


@pytest.mark.parametrize("kept", PARTIAL.values(), ids=PARTIAL)
def test_partial_run_folder(browser, run, tmp_path, kept):
    """No error, and what is absent takes no room."""
    browser.open(write_page(partial_run(run, tmp_path, kept)), 390)
    grids = len({"samples", "reconstructions"} & set(kept))
    assert browser.errors == []
    assert browser.run("[...document.querySelectorAll('.film figure')].filter((e) => e.offsetParent).length") == grids
    assert browser.run("document.getElementById('play').offsetParent !== null") == bool(grids)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
