"""Options of the data loader: samples are read by the training process, or by workers if it uses a GPU."""

import os
import signal

import cv2

from .processes import local_world_size


def loader_options(device: str) -> dict:
    """Return `DataLoader` options for a device.

    With a GPU, there is one worker process per core, on this process's share of all cores but two. On the
    CPU, training uses all cores, so the training process reads samples between two steps.
    """
    if device == "cpu":
        return {}
    workers = max(1, ((os.cpu_count() or 2) - 2) // local_world_size())
    return {"num_workers": workers, "prefetch_factor": 4, "pin_memory": True, "worker_init_fn": quiet_worker}


def quiet_worker(number: int) -> None:
    """Set up a worker of the data loader: one thread, and Ctrl-C is left to the training process.

    There is one worker per core, and OpenCV's threads do not survive a fork.
    """
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
