"""A real browser without a further dependency: headless Chromium, spoken to in its DevTools protocol over a pair of
pipes."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Run as root, in a container, without a screen.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
)


class Browser:
    """One page of one Chromium. `errors` collects what a console would show in red, and every request that leaves the
    file."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        hears, self.to = os.pipe()
        self.come, says = os.pipe()

        def place_pipes():  # Chromium listens on descriptor 3 and speaks on 4; first out of each other's way
            high = (os.dup(hears), os.dup(says))
            os.dup2(high[0], 3), os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [PROGRAM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}", "about:blank"],
            preexec_fn=place_pipes, pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(hears), os.close(says)
        self.ids, self.buffer, self.session, self.errors, self.loaded = itertools.count(1), b"", None, [], False
        self.allowed = ("file:", "data:", "about:", "blob:")
        try:
            target = self.send("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.send(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def send(self, method: str, **parameters) -> dict:
        """A command → its result; what happens meanwhile is noted."""
        number = next(self.ids)
        message = {"id": number, "method": method, "params": parameters} | (
            {"sessionId": self.session} if self.session else {}
        )
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _receive(self, seconds: float = 60) -> dict:
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.come], [], [], seconds)
            part = os.read(self.come, 1 << 20) if ready else b""
            if not part:
                raise RuntimeError(f"{PROGRAM} {'closed its pipe' if ready else f'was silent for {seconds} s'}")
            self.buffer += part
        first, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(first)

    def _note(self, event: dict) -> None:
        method, content = event.get("method"), event.get("params", {})
        self.loaded |= method == "Page.loadEventFired"
        if method == "Runtime.exceptionThrown":
            self.errors.append(content["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if method == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning", "assert"):
            self.errors.append(str([argument.get("value") for argument in content["args"]]))
        if method == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.errors.append(content["entry"]["text"])
        if method == "Network.requestWillBeSent" and not content["request"]["url"].startswith(self.allowed):
            self.errors.append(f"request to {content['request']['url']}")

    def open(self, path: Path | str, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file, or an address of this machine, in a window of that size; below 500 px wide it is a phone with a
        touch screen."""
        phone = width < 500
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.errors, self.loaded = [], False
        served = str(path).startswith("http://127.0.0.1:")
        if served:
            self.allowed += (str(path), str(path).replace("http:", "ws:"))
        self.send("Page.navigate", url=str(path) if served else Path(path).resolve().as_uri())
        while not self.loaded:
            self._note(self._receive())
        self.run(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )  # the charts are drawn by then

    def wait(self, script: str, seconds: float = 60) -> None:
        """Wait until an expression on the page is true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true within {seconds} s: {script}; errors of the page: {self.errors}")
            time.sleep(0.1)

    def choose_file(self, selector: str, path: Path) -> None:
        """Give a file to an input of the page, as a reader who chooses it."""
        answer = self.send("Runtime.evaluate", expression=f"document.querySelector({json.dumps(selector)})")
        self.send("DOM.setFileInputFiles", files=[str(path)], objectId=answer["result"]["objectId"])

    def run(self, script: str):
        """The value of an expression on the page; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", script))
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key as a keyboard sends it, to whatever has the focus."""
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def point(self, x: float, y: float, click: bool = False) -> None:
        """The mouse at (x, y) of the window."""
        for kind in ("mouseMoved", *("mousePressed", "mouseReleased") * click):
            self.send(
                "Input.dispatchMouseEvent",
                type=kind,
                x=x,
                y=y,
                button="left" if click else "none",
                clickCount=int(click),
            )

    def screenshot(self, path: Path) -> None:
        """The whole page, top to bottom, as a PNG."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        picture = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        Path(path).write_bytes(base64.b64decode(picture["data"]))

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a browser that has gone closes its pipe first
            self.session = None
            os.write(self.to, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.to), os.close(self.come)
        self.profile.cleanup()
