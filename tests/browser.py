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

WHY_NOT = "no Chromium or Chrome found; install one or name it in QMSAM_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

FACTS = """(() => {
  const pixel = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
  const rgba = colour => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = colour;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data].map(value => value / 255);
  };
  const over = (below, [r, g, b, a]) => [r, g, b].map((value, k) => a * value + (1 - a) * below[k]);
  const withAncestors = e => e ? [...withAncestors(e.parentElement), e] : [];
  const probe = document.documentElement.appendChild(document.createElement('i'));
  probe.style.color = 'Canvas';
  const canvas = rgba(getComputedStyle(probe).color);
  probe.remove();
  const behind = e => withAncestors(e)
    .map(a => rgba(getComputedStyle(a).backgroundColor)).reduce(over, canvas.slice(0, 3));
  const luminance = colour => colour
    .map(value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
    .reduce((sum, value, k) => sum + [0.2126, 0.7152, 0.0722][k] * value, 0);
  const contrast = e => {
    const below = behind(e), [r, g, b, a] = rgba(getComputedStyle(e).color);
    const opacity = withAncestors(e).reduce((product, x) => product * getComputedStyle(x).opacity, a);
    const [low, high] = [below, over(below, [r, g, b, opacity])].map(luminance).sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const written = [...document.body.querySelectorAll('*')].filter(e => e.getClientRects().length
    && [...e.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim()));
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
    faint: written.map(e => ({text: e.textContent.trim().slice(0, 40), contrast: contrast(e)}))
      .filter(text => text.contrast < 4.5),
    smallest_type: Math.min(...[...document.querySelectorAll('p, td, th, figcaption, a, li, summary')]
      .map(e => parseFloat(getComputedStyle(e).fontSize))),
  };
})()"""
"""JavaScript that returns facts about a page.

A table is `clipped` if it, one of its cells or its scrolling container is wider than its visible part. It is
`hinted` if the container shades its edge. An image is `whole` if it has loaded. A text is `faint` if its
contrast with what lies behind it is below 4.5:1, the least of WCAG 2.1, level AA. Pictures are not looked at.
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

    def look(self, path: Path, width: int, scheme: str = "light") -> dict:
        """Open a file in a window `width` CSS pixels wide. Returns the page's `FACTS`.

        `scheme` is light or dark, what the reader has chosen for all pages.
        """
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[feature])
        self.open(path.resolve().as_uri(), width)
        return self.ask(FACTS)

    def open(self, address: str, width: int, height: int = 900) -> None:
        """Open an address in a window of this size in CSS pixels, and wait until it has loaded."""
        window = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **window)
        self.problems, self._loaded = [], False
        failed = self._call("Page.navigate", url=address).get("errorText")
        assert not failed, f"{address}: {failed}"
        while not self._loaded:
            self._receive()

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the current page. A promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, f"{expression}: {answer['result'].get('description')}"
        return answer["result"].get("value")

    def wait_for(self, expression: str, patience: float = 60) -> None:
        """Wait until a JavaScript expression is true. Fails after `patience` seconds."""
        end = time.monotonic() + patience
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < end, f"not true after {patience} s: {expression}; {self.problems}"
            time.sleep(0.1)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move it to the others and let go. One point is a click.

        Points are x, y in CSS pixels of the window.
        """
        self._mouse("mouseMoved", points[0], "none")
        self._mouse("mousePressed", points[0])
        for point in points[1:]:
            self._mouse("mouseMoved", point)
            time.sleep(0.1)  # pages may look at moves only every so often, as ipympl does
        self._mouse("mouseReleased", points[-1])

    def click(self, element: str) -> None:
        """Click on the middle of what a JavaScript expression finds."""
        self.ask(f"void ({element}).scrollIntoView({{block: 'nearest'}})")
        x, y, width, height = self.ask(f"Object.values(({element}).getBoundingClientRect().toJSON())")[:4]
        self.drag((x + width / 2, y + height / 2))

    def _mouse(self, kind: str, point: tuple[float, float], button: str = "left") -> None:
        held = 0 if button == "none" or kind == "mouseReleased" else 1
        where = {"x": point[0], "y": point[1], "button": button, "buttons": held, "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type=kind, **where)

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
        elif method == "Network.loadingFailed" and not told.get("canceled"):
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
