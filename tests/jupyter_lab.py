"""Start a JupyterLab server on a folder, for tests that use a notebook as a person does. It loads nothing."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

TESTS = Path(__file__).parent
QUIET = {"fetchNews": "false", "checkForUpdates": False}
"""Settings without which JupyterLab asks the internet for news and newer versions."""


@contextmanager
def jupyter_lab(folder: Path, patience: float = 60) -> Iterator[str]:
    """Start JupyterLab with settings of its own. It and its kernels end with the block.

    Args:
        folder: folder with notebooks. Settings go into `folder/.jupyter`. Kernels import from `tests`, too.
        patience: seconds to wait for the server's start and for its end.

    Yields:
        Address of the server, such as `http://127.0.0.1:8888`. Its page has the application as `jupyterapp`.
    """
    settings = folder / ".jupyter"
    own = settings / "lab/user-settings/@jupyterlab/apputils-extension"
    own.mkdir(parents=True)
    (own / "notification.jupyterlab-settings").write_text(json.dumps(QUIET))
    paths = {f"JUPYTER_{part}_DIR": str(settings / part.lower()) for part in ("DATA", "RUNTIME")}
    paths |= {"JUPYTER_CONFIG_DIR": str(settings), "IPYTHONDIR": str(settings / "ipython")}
    paths["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += ["--IdentityProvider.token=", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    with (folder / ".jupyter" / "log.txt").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | paths, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait(f"{address}/api/status", process, patience, settings / "log.txt")
        yield address
    finally:
        process.terminate()
        process.wait(patience)


def _wait(address: str, process: subprocess.Popen, patience: float, log: Path) -> None:
    end = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < end:
        try:
            with urlopen(address, timeout=5):
                return
        except (URLError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start (exit code {process.poll()}): {log.read_text()[-2000:]}")
