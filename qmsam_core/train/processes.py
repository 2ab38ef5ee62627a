"""The processes of a distributed training: ranks, communication and devices."""

import os

import torch
import torch.distributed as dist

from ..params import Params


def rank() -> int:
    """Return this process's number among all training processes; 0 if it trains alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of training processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """Return this process's number among torchrun's processes on this machine; 0 if it trains alone."""
    return int(os.environ.get("LOCAL_RANK", 0))


def local_world_size() -> int:
    """Return the number of processes that torchrun started on this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def join_processes(params: Params) -> None:
    """Join the process group that torchrun started. Without torchrun, nothing is done.

    CPU tensors are exchanged over gloo. With GPUs, each process takes one, and GPU tensors go over NCCL.

    Raises:
        ValueError: see `device_of`.
    """
    if "RANK" not in os.environ:
        return
    device = device_of(params)
    if device != "cpu":
        torch.cuda.set_device(device)  # the default GPU, also for NCCL's own memory
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")


def device_of(params: Params) -> str:
    """Return the training device of this process: `cpu`, or `cuda:N` if `uses_gpu`.

    Raises:
        ValueError: the parameters require a GPU and there is none, or this machine has more processes than
            GPUs.
    """
    if not uses_gpu(params):
        return "cpu"
    if not torch.cuda.is_available():
        raise ValueError("device: cuda, but PyTorch sees no GPU here; use device: auto or cpu")
    check_gpus(local_world_size())
    return f"cuda:{local_rank()}"


def uses_gpu(params: Params) -> bool:
    """Return whether the parameters require a GPU, or are `auto` and there is one."""
    return params.device == "cuda" or (params.device == "auto" and torch.cuda.is_available())


def check_gpus(processes: int) -> None:
    """Raise ValueError if a machine has fewer GPUs than processes, since NCCL refuses to share a GPU."""
    if processes > torch.cuda.device_count():
        raise ValueError(
            f"processes: found {processes} on a machine of {torch.cuda.device_count()} GPUs; "
            "expected at most one a GPU, or device: cpu"
        )


def mean_over_processes(values: dict[str, list[float]], device: str) -> dict[str, list[float]]:
    """Average each list over all training processes; each must call this, with the same names and lengths."""
    if not dist.is_initialized():
        return values
    together = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(together)
    return dict(zip(values, (together / world_size()).tolist()))
