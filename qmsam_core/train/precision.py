"""Number formats and memory layouts that make a step faster without changing what is learned."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..models import count_parameters

SMALLEST = 2_000_000  # parameters; in smaller models, casting costs more time than bf16 products save


def has_bf16(device: str) -> bool:
    """Return whether the device has bf16 hardware: GPUs since Ampere, CPUs with AVX512-BF16 or AMX."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def trains_in_bf16(model: nn.Module, device: str) -> bool:
    """Return whether the device has bf16 and the model is large enough to profit from it."""
    return count_parameters(model) >= SMALLEST and has_bf16(device)


def autocast_for(model: nn.Module, device: str) -> AbstractContextManager:
    """Return bf16 autocast if `trains_in_bf16`, else a context that does nothing."""
    if not trains_in_bf16(model, device):
        return nullcontext()
    return torch.autocast(device.split(":")[0], torch.bfloat16)


def channels_last(x: nn.Module | Tensor) -> nn.Module | Tensor:
    """Store 4-D tensors channels last, the layout that oneDNN's and cuDNN's convolutions prefer."""
    return x.to(memory_format=torch.channels_last)
