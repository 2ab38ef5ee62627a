"""Reserve the cases of an output folder, so that several processes share them and none is done twice.

A reservation is a file in `.reserved`, created atomically, that names its process. A case that is done leaves
its record there until someone takes it into the folder's tables. So a killed process loses only the case it
was at. The reservations of a dead process are taken over: on the same machine at once, from another machine
when they have not been renewed for a quarter of an hour.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from ..provenance.files import atomic_file

FOLDER = ".reserved"
RENEW_SECONDS = 60.0
STALE_SECONDS = 900.0
"""A reservation of another machine that was not renewed for so long counts as given up."""
UNWRITTEN_SECONDS = 30.0
"""A file that is still empty after this was left by a process that died while it wrote it."""


class Reservations:
    """The reservations that this process sees and holds in one output folder. Use it as a context manager.

    Leaving the context gives back what is still held.
    """

    def __init__(self, output: Path) -> None:
        self._folder = output / FOLDER
        self._me = {"host": machine(), "pid": os.getpid(), "started": started_at(os.getpid())}
        self._held: set[str] = set()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._renewer = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> Reservations:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._renewer.start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._renewer.join()
        for name in sorted(self._held):
            self.release(name)
        with contextlib.suppress(OSError):  # others may still have reservations in it
            self._folder.rmdir()

    def take(self, name: str, done: Callable[[dict], bool] = lambda record: False) -> bool:
        """Reserve a case. Returns False if a living process holds it, or it left a record that counts.

        Args:
            name: name of the case.
            done: whether the record that a finished case left still counts; see `finish`.
        """
        path = self._path(name)
        while True:
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                return self._take_over(name, path, done)
            except FileNotFoundError:  # another process was the last there and removed the folder
                self._folder.mkdir(parents=True, exist_ok=True)
                continue
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump({"name": name, **self._me}, file)
            except OSError:  # a full disk
                path.unlink(missing_ok=True)
                raise
            self._hold(name)
            return True

    def knows(self, name: str) -> bool:
        """Whether a reservation or a record of a case lies here, of whatever process."""
        return self._path(name).exists()

    def holder(self, name: str) -> str | None:
        """Return who holds a case, to be shown to people; None if nobody does."""
        content = _content(self._path(name))
        return f"process {content['pid']} on {content['host'].split('/')[0]}" if "pid" in content else None

    def finish(self, name: str, record: dict) -> None:
        """Replace a reservation by the record of the finished case. On a full disk the reservation stays."""
        try:
            with atomic_file(self._path(name)) as file:
                file.write(json.dumps({"name": name, "record": record}).encode())
        finally:
            with self._lock:
                self._held.discard(name)

    def release(self, name: str) -> None:
        """Give back a reservation."""
        with self._lock:
            self._held.discard(name)
        self._path(name).unlink(missing_ok=True)

    def abandon(self, name: str) -> None:
        """Leave a reservation for whoever comes next, at once. It needs no room on the disk."""
        with self._lock:
            self._held.discard(name)
        with contextlib.suppress(OSError):
            os.utime(self._path(name), (0, 0))

    def drop(self, name: str, record: dict) -> None:
        """Remove a record that lies here, unless the case was reserved again since."""
        if _content(self._path(name)).get("record") == record:
            self._path(name).unlink(missing_ok=True)

    def finished(self) -> Iterator[tuple[str, dict]]:
        """Yield name and record of every finished case, of all processes, that lies here."""
        for path in sorted(self._folder.glob("*.json")):
            content = _content(path)
            if "record" in content:
                yield content["name"], content["record"]

    def in_use(self) -> str | None:
        """Return a living process that holds a case here, to be shown to people; None without one."""
        for path in sorted(self._folder.glob("*.json")):
            content = _content(path)
            if "pid" in content and not self._is_me(content) and not self._given_up(path, content):
                return self.holder(content["name"])
        return None

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """Hold a reservation, waiting for it if need be."""
        while not self.take(name):
            time.sleep(0.02)
        try:
            yield
        finally:
            self.release(name)

    def _take_over(self, name: str, path: Path, done: Callable[[dict], bool]) -> bool:
        found = _content(path)
        if not self._free(path, found, done):
            return False
        guard = path.with_suffix(".guard")
        if _age(guard) > UNWRITTEN_SECONDS:
            guard.unlink(missing_ok=True)
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
        except (FileExistsError, FileNotFoundError):
            return False  # another process takes it over at this moment, or has finished everything
        try:
            now = _content(path)
            if now != found or not path.exists():
                return False
            with atomic_file(path) as file:
                file.write(json.dumps({"name": name, **self._me}).encode())
        finally:
            guard.unlink(missing_ok=True)
        self._hold(name)
        return True

    def _free(self, path: Path, content: dict, done: Callable[[dict], bool]) -> bool:
        if "record" in content:
            return not done(content["record"])
        return self._given_up(path, content)

    def _given_up(self, path: Path, content: dict) -> bool:
        if not content:
            return _age(path) > UNWRITTEN_SECONDS
        if content.get("host") == self._me["host"] and not self._is_me(content):
            return started_at(content["pid"]) != content["started"]
        return _age(path) > STALE_SECONDS

    def _is_me(self, content: dict) -> bool:
        return all(content.get(key) == value for key, value in self._me.items())

    def _hold(self, name: str) -> None:
        with self._lock:
            self._held.add(name)

    def _renew(self) -> None:
        while not self._over.wait(RENEW_SECONDS):
            with self._lock:
                held = list(self._held)
            for name in held:
                with contextlib.suppress(OSError):
                    os.utime(self._path(name))

    def _path(self, name: str) -> Path:
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


@cache
def machine() -> str:
    """Return what tells this machine, its boot and its process numbers from others."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        facts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(facts)


def started_at(pid: int) -> str | None:
    """Return the start of a process in ticks since boot, or None if there is none that runs.

    With it a later process of the same number is another one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def _content(path: Path) -> dict:
    """Content of a reservation; {} if it is gone or not yet written."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _age(path: Path) -> float:
    """Seconds since a file was renewed, by the clock of its file system; 0 if it is gone."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            return os.fstat(file.fileno()).st_mtime - path.stat().st_mtime
    except OSError:
        return 0.0
