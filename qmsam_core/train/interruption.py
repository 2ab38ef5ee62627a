"""Interruptions of long training, taken between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .processes import world_size


@contextmanager
def between_steps(asked_to_stop: threading.Event) -> Iterator[None]:
    """Let an interruption (Ctrl-C, SIGTERM) set `asked_to_stop` instead of breaking into a step; a second one is taken at once. Several processes cannot stop at
    the same step by signals, which reach them apart: there, and outside the main thread, interruptions stay what they are."""
    if world_size() > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(number: int, frame: object) -> None:
        restore()
        asked_to_stop.set()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()
