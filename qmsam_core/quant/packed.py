"""The packed form of a quantised model's state: weights as integer codes with their scales.

A quantised layer's `weight` is int8 there, and beside it lies `weight_scale` (float32, 0-D or one value an
output channel, of the weight's rank). A weight is code times scale. Some recipes take the scale from the
largest weight. For them `weight_largest` is stored too, as 127 times the scale is not always that number.
All other tensors keep their keys and values: biases, input factors, scales and zero points of activations,
and what stays in float. They are float16 where this changes no value, else float32.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..models import CheckpointError
from .scales import arithmetic_of

PACKED, VERSION = "packed", 1
"""Key and value in a packed file's description: the version of this form."""
SCALE, LARGEST = "_scale", "_largest"
"""What the keys of a packed weight's further tensors have after the key of the weight."""


def pack(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of a quantised model in packed form. The model stays as it is.

    Raises:
        CheckpointError: a layer's codes have more than 8 bits.
    """
    state = dict(model.state_dict())
    for name, layer in model.named_modules():
        if getattr(layer, "weight_quant", None) is None or arithmetic_of(layer.weight_quant) is None:
            continue
        with torch.no_grad():
            quantised = layer.quant_weight()
        if quantised.bit_width > 8:
            raise CheckpointError(
                f"{name}: weights of {int(quantised.bit_width)} bits; expected at most 8, as int8 holds"
            )
        key, weight, scale = f"{name}.weight", layer.weight.detach(), quantised.scale.detach().float()
        state[key], state[key + SCALE] = quantised.int().to(torch.int8), scale
        if f"{name}.weight_quant.tensor_quant.scaling_impl.value" not in state:
            shared = [axis for axis in range(weight.ndim) if scale.ndim == 0 or scale.shape[axis] == 1]
            state[key + LARGEST] = weight.abs().amax(shared, keepdim=True).reshape(scale.shape)
    return {key: value if key.endswith((SCALE, LARGEST)) else halved(value) for key, value in state.items()}


def halved(tensor: Tensor) -> Tensor:
    """Return a float32 tensor as float16 if every value is the same there, else as it is."""
    half = tensor.half() if tensor.dtype == torch.float32 else tensor
    return half if torch.equal(half.float(), tensor.float()) else tensor


def unpack(state: dict[str, Tensor], facts: dict, path: str | Path) -> dict[str, Tensor]:
    """Return a file's tensors with float weights. The state of a file that is not packed stays as it is.

    Args:
        state: tensors by key, see `read_state`.
        facts: the file's description.
        path: the file, for messages.

    Raises:
        CheckpointError: the packed form is of another version, or codes and scales do not go together.
    """
    if PACKED not in facts:
        return state
    if facts[PACKED] != VERSION:
        raise CheckpointError(
            f"{path}: packed in version {facts[PACKED]!r}, expected {VERSION}; "
            "read it with the library that wrote it"
        )
    state = dict(state)
    for key in [key for key, value in state.items() if value.dtype == torch.int8]:
        scale = state.pop(key + SCALE, None)
        state[key] = weight_of(state[key], scale, state.pop(key + LARGEST, None), f"{path}: {key}")
    return state


def weight_of(codes: Tensor, scale: Tensor | None, largest: Tensor | None, place: str) -> Tensor:
    """Return the float32 weight of int8 codes; see the module's docstring. `place` begins the messages."""
    if scale is None:
        raise CheckpointError(f"{place}: codes without a scale; is the file damaged?")
    for tensor in (scale,) if largest is None else (scale, largest):
        one_a_channel = tensor.ndim == codes.ndim and all(
            size in (1, most) for size, most in zip(tensor.shape, codes.shape)
        )
        if tensor.ndim and not one_a_channel or not tensor.isfinite().all():
            raise CheckpointError(
                f"{place}: scale of shape {tuple(tensor.shape)} for codes {tuple(codes.shape)}; "
                "expected one finite value, or one a channel; is the file damaged?"
            )
    values = codes.float()
    weight = values * scale
    if largest is None:
        return weight
    # the scale is made from the largest weight again, so that weight has to come back to the last bit
    return torch.where(values.abs() == (largest / scale).round(), values.sign() * largest, weight)
