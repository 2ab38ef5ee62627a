"""Number formats and memory layouts that make a step faster without changing what is learned."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ..models import count_parameters

SMALLEST = 2_000_000  # parameters; in smaller models, casting costs more time than bf16 products save

BF16_INSTRUCTIONS = (
    "avx512_bf16",
    "amx_bf16",
    "bf16",
)  # names of `torch.cpu.get_capabilities`; bf16 is Arm's


def has_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 in hardware: GPUs since Ampere, CPUs with AVX512-BF16 or AMX.

    oneDNN calls bf16 supported on every CPU with AVX-512. Without the instructions it emulates bf16, and
    training is slower than in float32.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in BF16_INSTRUCTIONS)


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
