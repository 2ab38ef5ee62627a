"""Constant integer weights, scales and ranges of quantisers, ready to be written as plain ONNX.

A trained quantiser is itself a network of statistics, parameters and straight-through estimators. An engine
needs only its scale and range. Once these are extracted, a rewrite can cut a weight in three or move a factor
into a scale without changing a value.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from ...quant.scales import range_of

_FOR_PRODUCTS = ContextVar("for_products", default=False)


@contextmanager
def int8_products() -> Iterator[None]:
    """Within this block graphs are written for an engine that is quick at int8 in linear layers alone.

    ONNX Runtime has fast int8 products of activations and weights that put out float. It has no such
    convolution: its own quantises the output in the same step, and here a GELU stands between the two. So
    convolutions are float. Products of two activations are, too: quantising them takes longer than it saves.
    """
    token = _FOR_PRODUCTS.set(True)
    try:
        yield
    finally:
        _FOR_PRODUCTS.reset(token)


def has_int8_products() -> bool:
    """Tell whether this is within `int8_products`."""
    return _FOR_PRODUCTS.get()


class QuantiseDequantise(torch.autograd.Function):
    """Round `x / scale` to [low, high], times `scale`. In ONNX: a QuantizeLinear and a DequantizeLinear."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
        return torch.round(x / scale).clamp(low, high) * scale

    @staticmethod
    def symbolic(g, x, scale, low: int, high: int):
        """Write the ONNX nodes, with int8 integers where the range is that of signed codes, else uint8.

        The least code of uint8 is 0, so that a range with a negative end has a zero point. A range narrower
        than the type's needs a Clip between the two nodes, as in Brevitas' QCDQ.
        """
        signed = low == -high - 1
        kind, shift = (torch.int8, 0) if signed else (torch.uint8, -low)
        zero = g.op("Constant", value_t=torch.tensor(shift, dtype=kind))
        integers = g.op("QuantizeLinear", x, scale, zero)
        low, high = low + shift, high + shift
        if (low, high) != (torch.iinfo(kind).min, torch.iinfo(kind).max):
            bounds = (g.op("Constant", value_t=torch.tensor(v, dtype=kind)) for v in (low, high))
            integers = g.op("Clip", integers, *bounds)
        return g.op("DequantizeLinear", integers, scale, zero).setType(x.type())


class Dequantise(torch.autograd.Function):
    """Integers times a scale, one for all or one per index of `axis`. In ONNX: a DequantizeLinear of int8."""

    @staticmethod
    def forward(ctx, integers: Tensor, scale: Tensor, axis: int) -> Tensor:
        shape = [1] * integers.ndim
        if scale.ndim:
            shape[axis] = -1
        return integers.float() * scale.view(shape)

    @staticmethod
    def symbolic(g, integers, scale, axis: int):
        return g.op("DequantizeLinear", integers, scale, axis_i=axis).setType(
            integers.type().with_dtype(torch.float32)
        )


class FixedQuantiser(nn.Module):
    """A trained activation quantiser as a constant scale and range; the identity if the layer was float.

    Args:
        proxy: Brevitas' quantiser (`layer.input_quant`, `QuantIdentity.act_quant`) or None.
        factor: the quantiser's input is multiplied by it elsewhere. The scale is multiplied too, so that the
            integers stay the same.
        channels: the input is multiplied by it before it is quantised, broadcastable to the input.
        noise: is added to the input then, likewise.
    """

    def __init__(
        self,
        proxy: nn.Module | None,
        factor: float = 1.0,
        channels: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("channels", channels)
        self.register_buffer("noise", noise)
        self.quantised = proxy is not None and proxy.is_quant_enabled
        if self.quantised:
            covered = range_of(proxy)
            self.low, self.high = covered.low, covered.high
            self.register_buffer("scale", proxy.scale().detach().reshape(()) * factor)

    @classmethod
    def of(cls, layer: nn.Module, images: bool = False) -> "FixedQuantiser":
        """Take the quantiser on the input of a layer with weights, with factors and noise of its channels.

        The input is (..., C), or (B, C, H, W) with `images`.
        """
        given = {
            "channels": getattr(layer, "input_factor", None),
            "noise": getattr(layer, "input_noise", None),
        }
        for name, values in given.items():
            if values is not None:
                values = values.detach().clone()
                given[name] = values[:, None, None] if images else values
        return cls(getattr(layer, "input_quant", None), **given)

    def behind(self, norm: nn.LayerNorm) -> nn.LayerNorm:
        """Move factors and noise of the channels into a copy of the norm before this quantiser. Return it."""
        moved = copy.deepcopy(norm)
        if self.channels is not None:
            with torch.no_grad():
                moved.weight.mul_(self.channels)
                moved.bias.mul_(self.channels)
            self.channels = None
        if self.noise is not None:
            with torch.no_grad():
                moved.bias.add_(self.noise)
            self.noise = None
        return moved

    def without_zero_point(self, *layers: nn.Module) -> "FixedQuantiser":
        """Shift the input so that the least code is 0, correct the biases of the layers behind, return self.

        With a zero point, or with signed codes, engines take slower kernels for some layers. What the layers
        put out stays the same.
        """
        if self.quantised and self.low < 0:
            shift = -self.low * self.scale
            for layer in layers:
                layer.bias = layer.weight.bias_without(shift, layer.bias)
            self.noise = shift if self.noise is None else self.noise + shift
            self.low, self.high = 0, self.high - self.low
        return self

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.channels is None else x * self.channels
        x = x if self.noise is None else x + self.noise
        return QuantiseDequantise.apply(x, self.scale, self.low, self.high) if self.quantised else x


class FixedWeight(nn.Module):
    """Constant weight of a linear or convolutional layer: int8 and its scale if quantised, else float.

    Args:
        layer: a float layer, or one of Brevitas' layers.
        axis: axis of the output channels; 1 for transposed convolutions.
    """

    def __init__(self, layer: nn.Module, axis: int = 0) -> None:
        super().__init__()
        self.axis = axis
        self.quantised = hasattr(layer, "weight_quant")
        with torch.no_grad():
            if self.quantised:
                made = layer.quant_weight()
                scale = made.scale.reshape(-1) if made.scale.numel() > 1 else made.scale.reshape(())
                integers = torch.round(made.value / made.scale)
                self.register_buffer("integers", integers.to(torch.int8))
                self.register_buffer("scale", scale.clone())
            else:
                self.register_buffer("values", layer.weight.detach().clone())

    def rows(self, index: Tensor) -> "FixedWeight":
        """Keep only these output channels, in this order."""
        if not self.quantised:
            self.values = self.values.index_select(self.axis, index)
            return self
        self.integers = self.integers.index_select(self.axis, index)
        if self.scale.ndim:
            self.scale = self.scale[index]
        return self

    def shaped(self, values: Tensor) -> Tensor:
        """Give values () or (channels,) of the output channels the number of axes of the weight."""
        shape = [1] * (self.integers if self.quantised else self.values).ndim
        if values.ndim:
            shape[self.axis] = -1
        return values.view(shape)

    def times(self, factor: Tensor) -> "FixedWeight":
        """Multiply output channels by a factor () or (channels,).

        Its magnitude goes into the scale and its sign into the integers, so no integer is rounded again.
        """
        if not self.quantised:
            self.values = self.values * self.shaped(factor)
            return self
        self.integers = self.integers * self.shaped(factor.sign().to(torch.int8))
        gone = factor == 0  # zero integers then, and any scale that engines accept
        self.scale = self.scale * torch.where(gone, 1.0, factor.abs())
        return self

    def dequantise(self, factors: Tensor | None, groups: int) -> None:
        """Turn a convolution's integers into float values, times factors (C, 1, 1) of its input channels."""
        if self.quantised:
            self.values = self.integers * self.shaped(self.scale)
            self.quantised = False
        if factors is not None:
            of_group = factors.reshape(groups, 1, -1, 1, 1)
            values = self.values.unflatten(0, (groups, -1))
            self.values = (values * of_group).flatten(0, 1)

    def as_kernel(self) -> "FixedWeight":
        """Turn a linear layer's weight (C', C) into that of a convolution, (C', C, 1, 1)."""
        name = "integers" if self.quantised else "values"
        setattr(self, name, getattr(self, name)[:, :, None, None])
        return self

    def bias_without(self, shift: Tensor, bias: Tensor | None) -> Tensor:
        """Return the bias that takes off what a constant `shift` () of the whole input adds to the output."""
        weight = self.integers * self.shaped(self.scale) if self.quantised else self.values
        added = shift.double() * weight.double().transpose(0, self.axis).flatten(1).sum(1)
        return ((0.0 if bias is None else bias.double()) - added).float()

    def as_linear(self) -> "FixedWeight":
        """Turn a transposed convolution's weight (C, C', 2, 2) into that of a linear layer (4 C', C).

        The order of the outputs is the pixels of a cell in reading order, then channels.
        """
        name = "integers" if self.quantised else "values"
        weight = getattr(self, name)
        setattr(self, name, weight.permute(2, 3, 1, 0).reshape(-1, weight.shape[0]).contiguous())
        if self.quantised and self.scale.ndim:
            self.scale = self.scale.repeat(weight.shape[2] * weight.shape[3])
        self.axis = 0
        return self

    def forward(self) -> Tensor:
        return Dequantise.apply(self.integers, self.scale, self.axis) if self.quantised else self.values
