"""Number formats and memory layouts that make a step faster without changing what is learned."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..models import count_parameters

SMALLEST = 2_000_000  # parameters; below, casting costs more than the faster products bring


def has_bf16(device: str) -> bool:
    """Whether the device multiplies bf16 in hardware: GPUs since Ampere, CPUs with AVX512-BF16 or AMX."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def trains_in_bf16(model: nn.Module, device: str) -> bool:
    """Whether a model is large enough for bf16 to help, on a device that has it."""
    return count_parameters(model) >= SMALLEST and has_bf16(device)


def autocast_for(model: nn.Module, device: str) -> AbstractContextManager:
    """bf16 autocast for a model it helps on a device that has it; otherwise nothing."""
    if not trains_in_bf16(model, device):
        return nullcontext()
    return torch.autocast(device.split(":")[0], torch.bfloat16)


def channels_last(x: nn.Module | Tensor) -> nn.Module | Tensor:
    """The same, its 4-D tensors stored channels last, as the convolutions of oneDNN and cuDNN want them."""
    return x.to(memory_format=torch.channels_last)
