"""How samples come to a training process: read by itself, or beside a GPU by others."""

import os
import signal

import cv2

from .processes import local_world_size


def loader_options(device: str) -> dict:
    """How samples are made: beside a GPU by this process's share of all cores but two, each a process; on the CPU, which training fills, between two steps."""
    if device == "cpu":
        return {}
    workers = max(1, ((os.cpu_count() or 2) - 2) // local_world_size())
    return {"num_workers": workers, "prefetch_factor": 4, "pin_memory": True, "worker_init_fn": quiet_worker}


def quiet_worker(number: int) -> None:
    """A loader's worker works on one thread, as there is one a core and OpenCV's threads do not survive a fork, and leaves Ctrl-C to the training process."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
