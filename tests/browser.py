"""A headless Chromium that tests can look at pages with, through its DevTools protocol; none is downloaded."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FACTS = """(() => ({
  scroll_width: document.documentElement.scrollWidth,
  width: document.documentElement.clientWidth,
  headings: [...document.querySelectorAll('h1, h2')].map(e => e.textContent),
  images: document.images.length,
  broken: [...document.images].filter(e => !e.complete || !e.naturalWidth).map(e => e.currentSrc.slice(0, 200)),
  links: [...document.querySelectorAll('a[href]')].map(e => e.href),
  smallest_type: Math.min(...[...document.querySelectorAll('p, td, th, figcaption, a, li')].map(e => parseFloat(getComputedStyle(e).fontSize))),
}))()"""


def find_browser() -> str | None:
    """The browser to use: `QMSAM_BROWSER`, or the first of `NAMES` that is installed."""
    return os.environ.get("QMSAM_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab: `look` at pages in it. `problems` are failed loads, errors on the console and exceptions of the page last looked at."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._number, self._session, self._loaded = socket, 0, None, False
        self.problems: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def look(self, path: Path, width: int) -> dict:
        """Open a file in a window `width` CSS pixels wide; returns `FACTS` of it."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.problems, self._loaded = [], False
        failed = self._call("Page.navigate", url=path.resolve().as_uri()).get("errorText")
        assert not failed, f"{path}: {failed}"
        while not self._loaded:
            self._receive()
        return self._call("Runtime.evaluate", expression=FACTS, returnByValue=True)["result"]["value"]

    def _call(self, method: str, **parameters) -> dict:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        self._socket.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self) -> dict:
        message = json.loads(self._socket.recv())
        method, told = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.loadingFailed":
            self.problems.append(f"not loaded: {told.get('type')} {told.get('errorText')}")
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.problems.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            self.problems.append(told["exceptionDetails"].get("exception", {}).get("description", told["exceptionDetails"]["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.problems.append(f"console: {[argument.get('value') for argument in told['args']]}")
        return message


@contextmanager
def open_browser(program: str, patience: float = 60) -> Iterator[Page]:
    """Start the browser with an empty profile and without a network to speak of; it ends with the block."""
    with TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True) as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        command += ["--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port, address = _where(Path(profile, "DevToolsActivePort"), process, patience)
            socket = websocket.create_connection(f"ws://127.0.0.1:{port}{address}", timeout=patience, suppress_origin=True)
            try:
                yield Page(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            process.wait(patience)


def _where(told: Path, process: subprocess.Popen, patience: float) -> tuple[str, str]:
    """The port and address the browser writes into its profile when it is ready."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        lines = told.read_text().split() if told.is_file() else []
        if len(lines) == 2:
            return lines[0], lines[1]
        time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]}: did not open its DevTools in {patience:.0f} s (exit code {process.poll()})")
