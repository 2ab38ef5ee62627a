"""Layers with the constant weights and quantisers of `constant_values`."""

import copy

import torch
from torch import Tensor, nn

from .constant_values import Dequantise, FixedQuantiser, FixedWeight, has_int8_products


class FixedToken(nn.Module):
    """A constant token (1, 1, C) as it leaves a quantiser, with its codes in the graph if it is quantised."""

    def __init__(self, token: Tensor, quantiser: FixedQuantiser) -> None:
        super().__init__()
        with torch.no_grad():
            values = quantiser(token)
        self.quantised = quantiser.quantised
        if self.quantised:
            codes = torch.round(values / quantiser.scale)
            kind = torch.uint8 if quantiser.low == 0 else torch.int8
            self.register_buffer("codes", codes.to(kind))
            self.register_buffer("scale", quantiser.scale.clone())
        else:
            self.register_buffer("values", values.clone())

    def forward(self) -> Tensor:
        return Dequantise.apply(self.codes, self.scale, 0) if self.quantised else self.values


class FixedLinear(nn.Module):
    """A linear layer without its input quantiser, so that several can share one. (..., C) -> (..., C').

    Args:
        layer: a float layer, or one of Brevitas'. A transposed convolution of kernel and stride 2 is taken as
            the linear layer from a cell to its four pixels, see `FixedWeight.as_linear`.
        rows: output channels to keep, in this order; None keeps all.
        factor: the output is multiplied by it.
    """

    def __init__(self, layer: nn.Module, rows: Tensor | None = None, factor: float = 1.0) -> None:
        super().__init__()
        bias = None if layer.bias is None else layer.bias.detach().clone()
        if isinstance(layer, nn.ConvTranspose2d):
            self.weight, bias = FixedWeight(layer, axis=1).as_linear(), bias.repeat(4)
        else:
            self.weight = FixedWeight(layer)
        if rows is not None:
            self.weight.rows(rows)
            bias = None if bias is None else bias[rows]
        self.weight.times(torch.tensor(factor))
        self.register_buffer("bias", None if bias is None else bias * factor)

    def forward(self, x: Tensor) -> Tensor:
        if not self.weight.quantised:
            return nn.functional.linear(x, self.weight(), self.bias)
        # engines see an int8 product if nothing, not even a transpose, stands between the weight and it
        weight = Dequantise.apply(self.weight.integers.T.contiguous(), self.weight.scale, 1)
        product = x @ weight
        return product if self.bias is None else product + self.bias


class PointwiseLinear(FixedLinear):
    """A `FixedLinear` as a convolution of kernel 1. (B, C, H, W) -> (B, C', H, W).

    OpenVINO's int8 convolutions are faster than its int8 products, on AVX2 without VNNI more than twice.
    """

    def __init__(self, layer: nn.Module, rows: Tensor | None = None, factor: float = 1.0) -> None:
        super().__init__(layer, rows, factor)
        self.weight.as_kernel()

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight(), self.bias)


class FixedConvolution(nn.Module):
    """A convolution with its input quantiser and the batch norm behind it.

    The norm's factor is folded into the scale of each channel, its shift into the bias.

    Args:
        layer: float or Brevitas' `Conv2d`.
        norm: the batch norm that follows, in evaluation mode; None if there is none.
    """

    def __init__(self, layer: nn.Module, norm: nn.BatchNorm2d | None = None) -> None:
        super().__init__()
        self.input = FixedQuantiser.of(layer, images=True)
        self.weight = FixedWeight(layer)
        if has_int8_products():
            self.weight.dequantise(self.input.channels, layer.groups)
            self.input = FixedQuantiser(None)
        bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias.detach()
        if norm is not None:
            factor = (norm.weight / torch.sqrt(norm.running_var + norm.eps)).detach()
            self.weight.times(factor)
            bias = (bias - norm.running_mean) * factor + norm.bias.detach()
        self.register_buffer("bias", bias.clone() if norm is not None or layer.bias is not None else None)
        self.geometry = dict(stride=layer.stride, padding=layer.padding, groups=layer.groups)
        if (
            layer.kernel_size == (1, 1) and layer.groups == 1
        ):  # larger ones pad with zeros, not with the shift
            self.input.without_zero_point(self)

    def take_quantiser(self) -> FixedQuantiser:
        """Take the input's quantiser out and return it, for tokens (..., C) before they become an image."""
        taken, self.input = self.input, FixedQuantiser(None)
        for name in ("channels", "noise"):
            values = getattr(taken, name)
            if values is not None and values.ndim:
                setattr(taken, name, values.flatten())
        return taken

    def after(self, first: "FixedConvolution") -> "FixedConvolution":
        """Return one convolution for `first` and this one, both 1x1 and in float.

        Raises:
            ValueError: one of them is quantised or has a larger kernel.
        """
        weights = first.weight, self.weight
        if any(w.quantised or tuple(w.values.shape[2:]) != (1, 1) for w in weights):
            raise ValueError("expected two 1x1 convolutions in float")
        before, own = (w.values[:, :, 0, 0].double() for w in weights)
        bias = own @ first.bias.double() + self.bias.double()
        merged = copy.deepcopy(self)
        merged.weight.values = (own @ before).float()[:, :, None, None]
        merged.bias = bias.float()
        return merged

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.input(x), self.weight(), self.bias, **self.geometry)


class FixedProduct(nn.Module):
    """Product of two quantised activations. The first input is multiplied by `factor` elsewhere."""

    def __init__(self, product: nn.Module, factor: float = 1.0) -> None:
        super().__init__()
        proxies = (
            getattr(getattr(product, name, None), "act_quant", None) for name in ("a_quant", "b_quant")
        )
        first, second = (None if has_int8_products() else proxy for proxy in proxies)
        self.a, self.b = FixedQuantiser(first, factor), FixedQuantiser(second)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.a(a) @ self.b(b)
