"""Fake quantisation in one pass forward and one pass back: the values and gradients of Brevitas' integer quantiser at a fraction of its time.

Brevitas composes x / s, round, clamp and * s from a dozen tensor operations, each a pass over memory, and autograd keeps most of what lies
between. A quantised LiteMedSAM has half a milliard activations a step, so those passes cost more than the matrix products. Here all of them are
done block by block while a block lies in the cache, and only the input is kept for the way back.
"""

import torch
from brevitas.core.quant import IntQuant
from torch import Tensor
from torch.autograd.function import FunctionCtx

CACHE_BLOCK = 1 << 16  # values a thread and block: three float32 buffers of it fit in 1 MB of cache


class FakeQuantize(torch.autograd.Function):
    """x -> clamp(round(x / scale), low, high) * scale, straight through in the range (paper section 2.2), with the scale's own gradient.

    The gradient of x is that of the output where the rounded code lies in low..high, else 0. That of the scale is the sum of output gradient times
    code - x / scale in the range and times the code outside (learned step size). All arithmetic is float32, whatever x and the output are.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, scale: Tensor, low: float, high: float, dtype: torch.dtype
    ) -> Tensor:
        """x (any shape, float32 or bf16), scale (0-D, or broadcastable to x), integer range low..high -> like x, of `dtype`."""
        x = dense(x)
        ctx.save_for_backward(x, scale)
        ctx.low, ctx.high = low, high
        y = torch.empty_like(x, dtype=dtype)
        for block, out in blocks(scale, x, y):
            codes = out if dtype == torch.float32 else torch.empty_like(block, dtype=torch.float32)
            divide(block, scale, codes)
            codes.round_().clamp_(low, high).mul_(scale)
            if codes is not out:
                out.copy_(codes)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the output -> gradients of x and of the scale, where they are asked for."""
        x, scale = ctx.saved_tensors
        wants_x, wants_scale = ctx.needs_input_grad[:2]
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x, dtype=gradient.dtype).copy_(gradient)
        of_x = torch.empty_like(x) if wants_x else gradient
        of_scale = torch.zeros_like(scale)
        for block, incoming, outgoing in blocks(scale, x, gradient, of_x):
            codes = divide(block, scale, torch.empty_like(block, dtype=torch.float32))
            rounded = codes.round()
            clamped = rounded.clamp(ctx.low, ctx.high)
            inside = rounded.eq_(clamped)
            incoming = incoming.float()
            if wants_scale:
                of_scale += reduced(clamped.sub_(codes.mul_(inside)), incoming, scale)
            if wants_x:
                torch.mul(
                    incoming, inside, out=outgoing
                ) if outgoing.dtype == torch.float32 else outgoing.copy_(inside.mul_(incoming))
        return of_x if wants_x else None, of_scale if wants_scale else None, None, None, None


def dense(x: Tensor) -> Tensor:
    """x, or where its values do not lie side by side in memory (a slice, an expanded tensor) a copy of it in the same order of axes."""
    like = torch.empty_like(x, device="meta")
    return x if like.stride() == x.stride() else torch.empty_like(x).copy_(x)


def blocks(scale: Tensor, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Equal pieces of dense tensors of one memory layout, in memory order and small enough for the cache; the whole tensors where there is a scale a channel, or on a GPU."""
    if scale.numel() > 1 or tensors[0].device.type != "cpu":
        return [tensors]
    size = CACHE_BLOCK * torch.get_num_threads()
    return list(zip(*(t.as_strided((t.numel(),), (1,)).split(size) for t in tensors)))


def divide(x: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """x / scale in float32; a bf16 x is widened first, since the quotient of two bf16 is too coarse to round."""
    return torch.div(x, scale, out=out) if x.dtype == torch.float32 else out.copy_(x).div_(scale)


def reduced(factor: Tensor, gradient: Tensor, scale: Tensor) -> Tensor:
    """Sum of factor * gradient over all that shares a scale."""
    if scale.numel() == 1:
        return torch.dot(factor.reshape(-1), gradient.reshape(-1)).view_as(scale)
    return (factor * gradient).sum_to_size(scale.shape)


def fake_quantize(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """`FakeQuantize` in the format that the matrix product behind it wants: that of autocast where it is on, else that of x.

    In bf16 a code of 8 bits times a scale is still the same code: the rounding moves it by at most a quarter of a step (half a step, unsigned).
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return FakeQuantize.apply(x, scale.float(), low, high, dtype)


class FusedIntQuant(IntQuant):
    """Brevitas' integer quantiser with `FakeQuantize` as its arithmetic; keys, conversion to integers and export are Brevitas' own."""

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """As Brevitas: scale, zero point (always 0 here: symmetric), bit width, x -> dequantised x."""
        return fake_quantize(x, scale, float(self.min_int(bit_width)), float(self.max_int(bit_width)))
