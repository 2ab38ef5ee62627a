"""Open pages in an installed headless Chromium through its DevTools protocol. Nothing is downloaded."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import websocket

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FACTS = """(() => {
  const container = e => {
    do e = e.parentElement; while (e && getComputedStyle(e).overflowX === 'visible');
    return e || document.documentElement;
  };
  const cells = e => [...e.querySelectorAll('th, td')];
  const image = e => ({source: e.src.slice(0, 200), whole: e.complete && e.naturalWidth > 0});
  const columns = row => [...row.cells].reduce((sum, cell) => sum + cell.colSpan, 0);
  const table = e => ({
    header: cells(e).slice(0, 6).map(cell => cell.textContent.trim()).filter(Boolean).join(', '),
    columns: Math.max(...[...e.rows].map(columns)),
    clipped: [e, container(e), ...cells(e)].some(box => box.scrollWidth > box.clientWidth),
    hinted: getComputedStyle(container(e)).backgroundImage !== 'none',
  });
  return {
    scroll_width: document.documentElement.scrollWidth,
    width: document.documentElement.clientWidth,
    headings: [...document.querySelectorAll('h1, h2')].map(e => e.textContent),
    tables: [...document.querySelectorAll('table')].map(table),
    images: [...document.images].map(image),
    links: [...document.querySelectorAll('a[href]')].map(e => e.href),
    smallest_type: Math.min(...[...document.querySelectorAll('p, td, th, figcaption, a, li, summary')]
      .map(e => parseFloat(getComputedStyle(e).fontSize))),
  };
})()"""
"""JavaScript that returns facts about a page.

A table is `clipped` if it, one of its cells or its scrolling container is wider than its visible part. It is
`hinted` if the container shades its edge. An image is `whole` if it has loaded.
"""


def find_browser() -> str | None:
    """Return the browser to use: `QMSAM_BROWSER`, else the first of `NAMES` that is installed, else None."""
    return os.environ.get("QMSAM_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab of the browser.

    `problems` lists the current page's failed loads, console errors and exceptions.
    """

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._number, self._session, self._loaded = socket, 0, None, False
        self.problems: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def look(self, path: Path, width: int) -> dict:
        """Open a file in a window `width` CSS pixels wide. Returns the page's `FACTS`."""
        window = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **window)
        self.problems, self._loaded = [], False
        failed = self._call("Page.navigate", url=path.resolve().as_uri()).get("errorText")
        assert not failed, f"{path}: {failed}"
        while not self._loaded:
            self._receive()
        return self.ask(FACTS)

    def prefer(self, scheme: str) -> None:
        """Let pages be `dark` or `light` from now on, as a reader's system would tell them."""
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", features=preferred)

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the current page."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

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
            details = told["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.problems.append(f"console: {[argument.get('value') for argument in told['args']]}")
        return message


@contextmanager
def open_browser(program: str, patience: float = 60) -> Iterator[Page]:
    """Start the browser with an empty profile and without background network traffic. It ends with the block.

    Args:
        program: the browser's program file.
        patience: seconds to wait for its start, for an answer and for its end.
    """
    with TemporaryDirectory(prefix="browser", ignore_cleanup_errors=True) as profile:
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += ["--no-first-run", "--hide-scrollbars", "--disable-background-networking"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port, address = _where(Path(profile, "DevToolsActivePort"), process, patience)
            address = f"ws://127.0.0.1:{port}{address}"
            socket = websocket.create_connection(address, timeout=patience, suppress_origin=True)
            try:
                yield Page(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            process.wait(patience)


def _where(told: Path, process: subprocess.Popen, patience: float) -> tuple[str, str]:
    """Wait for the port and address that the browser writes into its profile when it is ready."""
    end = time.monotonic() + patience
    while time.monotonic() < end and process.poll() is None:
        lines = told.read_text().split() if told.is_file() else []
        if len(lines) == 2:
            return lines[0], lines[1]
        time.sleep(0.05)
    how = f"did not open its DevTools in {patience:.0f} s (exit code {process.poll()})"
    raise RuntimeError(f"{process.args[0]}: {how}")
