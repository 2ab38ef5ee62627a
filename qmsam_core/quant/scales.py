"""Scales and zero points of a quantised model: which are not yet set, and how they are set and read."""

import re
from collections.abc import Iterable
from contextlib import contextmanager

import torch
from brevitas.core.scaling import ParameterFromRuntimeStatsScaling
from brevitas.proxy.quant_proxy import QuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjectorBase
from torch import Tensor, nn

from .ranges import Range

ACTIVATIONS = ActQuantProxyFromInjectorBase
"""Brevitas' class of quantisers of activations."""


def unset_scales(model: nn.Module) -> list[ParameterFromRuntimeStatsScaling]:
    """List the scales that are not yet set from statistics."""
    scalings = (m for m in model.modules() if isinstance(m, ParameterFromRuntimeStatsScaling))
    return [m for m in scalings if m.counter <= m.collect_stats_steps]


def finish_statistics(model: nn.Module) -> None:
    """Turn the statistics collected so far into learned scales, whatever the number of batches."""
    for scaling in unset_scales(model):
        scaling.init_scale()
        scaling.eval()


def scale_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the learned activation scales by name, each (0-D) as the largest representable magnitude."""
    ending = "fused_activation_quant_proxy.tensor_quant.scaling_impl.value"
    return {name: p for name, p in model.named_parameters() if name.endswith(ending)}


def quantiser_name(name: str) -> str:
    """Shorten the name of a quantiser of activations, or of its parameter, to that of what it quantises.

    That is a layer with weights, or `<product>.a_quant` or `<product>.b_quant`.
    """
    return re.sub(r"\.(input_quant|act_quant)(\..*)?$", "", name)


def activation_quantisers(model: nn.Module) -> dict[str, ACTIVATIONS]:
    """Return the quantisers of activations by `quantiser_name`, in the order of the model."""
    return {
        quantiser_name(name): proxy
        for name, proxy in model.named_modules()
        if isinstance(proxy, ACTIVATIONS) and arithmetic_of(proxy) is not None
    }


def range_of(proxy: ACTIVATIONS) -> Range:
    """Return the range that a quantiser of activations covers. Its scale must be set."""
    bits, zero = int(proxy.bit_width()), int(proxy.zero_point())
    low = (-(2 ** (bits - 1)) if proxy.is_signed else 0) - zero
    return Range(float(proxy.scale().detach()), low, low + 2**bits - 1)


def weight_scale_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the scales of weights that a recipe sets by error. Scales that follow the weights are none."""
    ending = "weight_quant.tensor_quant.scaling_impl.value"
    return [p for name, p in model.named_parameters() if name.endswith(ending)]


def arithmetic_of(proxy: QuantProxyFromInjector) -> nn.Module | None:
    """Return Brevitas' module that computes a quantiser, or None if the recipe puts none there."""
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    return getattr(proxy if fused is None else fused, "tensor_quant", None)


def set_scale(proxy: QuantProxyFromInjector, scale: float | Tensor, zero_point: int = 0) -> None:
    """Set the scale of one quantiser and its zero point.

    The scale is a number, or has one value a channel. A quantiser of whole tensors takes the largest.

    Raises:
        ValueError: the quantiser is symmetric and the zero point is not 0.
    """
    quantiser = arithmetic_of(proxy)
    with torch.no_grad():
        threshold = float(quantiser.int_scaling_impl(quantiser.msb_clamp_bit_width_impl()))
        value, scale = quantiser.scaling_impl.value, torch.as_tensor(scale) * threshold
        value.copy_(scale.reshape(value.shape) if scale.numel() == value.numel() else scale.max())
        stored = getattr(quantiser.zero_point_impl, "value", None)
        if isinstance(stored, Tensor):
            stored.fill_(zero_point)
        elif zero_point:
            raise ValueError(f"zero point {zero_point} for a symmetric quantiser; expected 0")


@contextmanager
def switched_off(layers: Iterable[nn.Module], kind: type = QuantProxyFromInjector):
    """Let the quantisers of these layers pass values unchanged within the block.

    `kind` narrows them, for example to `ACTIVATIONS`. Weights that were rounded before stay rounded.
    """
    proxies = [m for layer in layers for m in layer.modules() if isinstance(m, kind)]
    for proxy in proxies:
        proxy.disable_quant = True
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.disable_quant = False


def inactive_quantisers(model: nn.Module) -> list[str]:
    """List the quantisers of a model that are switched off or whose scale is not set, by name."""
    unset = {id(scaling) for scaling in unset_scales(model)}
    return [
        name
        for name, proxy in model.named_modules()
        if isinstance(proxy, QuantProxyFromInjector)
        and arithmetic_of(proxy) is not None
        and (not proxy.is_quant_enabled or any(id(m) in unset for m in proxy.modules()))
    ]
