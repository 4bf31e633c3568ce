"""bigbigan-demo in a real Chromium: an upload, a slider and a seed change the pictures; nothing leaves the machine."""

import socket

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import bigbigan
from tests.helpers.browser import PROGRAM, Browser
from tests.helpers.children import PATIENCE

pytest.importorskip("gradio", reason='no gradio: pip install -e ".[demo]" to test its page')
from bigbigan.uses.demo_page import Player, build_page, serve

pytestmark = [
    pytest.mark.run,
    pytest.mark.skipif(PROGRAM is None, reason="no browser: install chromium to test the page of bigbigan-demo"),
]
SECONDS = 60 * PATIENCE
SHOWN = "(document.querySelector('#{} img') || {{}}).src || ''"


@pytest.fixture(scope="module")
def asked():
    """The hosts that this process asks for while the page is served, beside this machine."""
    hosts, look_up = [], socket.getaddrinfo

    def recorded(host, *rest, **options):
        if host not in ("127.0.0.1", "localhost", "0.0.0.0", "::1", None):
            hosts.append(host)
        return look_up(host, *rest, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", recorded)
        yield hosts


@pytest.fixture(scope="module")
def address(asked):
    page = build_page(Player(bigbigan.load("digits", "cpu")), "digits")
    yield serve(page, "127.0.0.1", 0)
    page.close()


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def changed(browser, name: str, before: str) -> str:
    """Scroll to a picture of the page, wait until it is another one, and return its address.

    A browser may leave a picture out of its sight unloaded.
    """
    browser.wait(f"!!document.querySelector('#{name}')", SECONDS)
    browser.run(f"document.querySelector('#{name}').scrollIntoView()")
    browser.wait(f"({SHOWN.format(name)}) !== {before!r} && document.querySelector('#{name} img').complete", SECONDS)
    return browser.run(SHOWN.format(name))


@pytest.mark.parametrize("width", [390, 1280])
def test_upload_slider_and_samples_change_the_pictures(browser, address, asked, tmp_path, width):
    browser.open(address, width)
    moved, drawn = changed(browser, "moved", ""), changed(browser, "drawn", "")
    digit = np.kron(load_digits().images[3] * 255 / 16, np.ones((20, 20))).astype(np.uint8)
    Image.fromarray(digit).save(tmp_path / "three.png")
    browser.wait("!!document.querySelector('#given input[type=file]')", SECONDS)
    browser.choose_file("#given input[type=file]", tmp_path / "three.png")
    changed(browser, "kept", ""), changed(browser, "near", "")
    moved = changed(browser, "moved", moved)
    said = browser.run("document.querySelector('#said').innerText")
    assert "Anomaly score" in said and "of the images that are searched for neighbours" in said
    browser.run("document.querySelector('#direction1 input[type=range]').focus()")
    for _ in range(12):
        browser.press("ArrowRight", 39)
    changed(browser, "moved", moved)
    browser.run("document.querySelector('#draw').click()")
    changed(browser, "drawn", drawn)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("[...document.images].every((image) => !image.complete || image.naturalWidth > 0)")
    assert [error for error in browser.errors if "request to" in error] == []
    assert asked == [], "the page asked the network for these hosts"
    browser.screenshot(tmp_path / f"demo-{width}.png")


def test_no_share_link_and_this_machine_alone(address):
    assert address.startswith("http://127.0.0.1:")
