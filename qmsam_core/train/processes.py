"""The processes that train together: which one this is, how they talk to one another, and on what each of them computes."""

import os

import torch
import torch.distributed as dist

from ..params import Params


def rank() -> int:
    """This process among those that train together; 0 when it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """This process among those that torchrun started on this machine; 0 when it trains alone."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """How many processes torchrun started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def join_processes(params: Params) -> None:
    """Meet those that torchrun started with this one; without torchrun nothing is done.

    What lies on the CPU goes over gloo. On GPUs, of which each process takes its own, tensors go over NCCL.

    Raises:
        ValueError: see `device_of`.
    """
    if "RANK" not in os.environ:
        return
    device = device_of(params)
    if device != "cpu":
        torch.cuda.set_device(device)  # what names no GPU means this one, NCCL's own memory too
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")


def device_of(params: Params) -> str:
    """`cpu`, or this process's GPU where the parameters ask for one, or leave it open and there is one.

    Raises:
        ValueError: a GPU is asked for where there is none, or more processes train on this machine than it has GPUs.
    """
    if not uses_gpu(params):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("device: cuda, but PyTorch sees no GPU here; use device: auto or cpu")
    check_gpus(local_world_size())
    return f"cuda:{local_rank()}"


def uses_gpu(params: Params) -> bool:
    """Whether the parameters ask for a GPU, or leave it open and there is one."""
    return params.device == "cuda" or (params.device == "auto" and torch.cuda.is_available())


def check_gpus(processes: int) -> None:
    """Raise ValueError where so many processes of one machine would have to share a GPU, which NCCL refuses."""
    if processes > torch.cuda.device_count():
        raise ValueError(
            f"processes: found {processes} on a machine of {torch.cuda.device_count()} GPUs; expected at most one a GPU, or device: cpu"
        )
