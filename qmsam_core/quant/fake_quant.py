"""Fake quantisation in one pass over memory, forward and backward.

The values and gradients are those of Brevitas' integer quantiser, at a fraction of its time. Brevitas
composes x / s, round, clamp and * s from a dozen tensor operations. Each is a pass over memory, and autograd
keeps most of the intermediate tensors. A quantised LiteMedSAM has about 5e8 activations per step, so these
passes cost more than the matrix products. Here all operations are applied to one block while it lies in the
CPU cache. Only the input and the scale are kept for the backward pass.
"""

import torch
from brevitas.core.quant import IntQuant
from torch import Tensor
from torch.autograd.function import FunctionCtx

CACHE_BLOCK = 1 << 16  # values of a block per thread: three float32 buffers of that size fit in 1 MB of cache


class FakeQuantize(torch.autograd.Function):
    """clamp(round(x / scale), low, high) * scale, with a straight-through estimator (paper section 2.2).

    The gradient of x is the output's gradient where the rounded code lies in low..high, and 0 elsewhere.
    The gradient of the scale (learned step size) is the sum of the output's gradient times a factor.
    The factor is code - x / scale inside the range, and the clamped code outside.
    All arithmetic is float32, whatever the dtypes of x and the output.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, scale: Tensor, low: float, high: float, dtype: torch.dtype
    ) -> Tensor:
        """Quantise and dequantise x.

        Args:
            x: any shape, float32 or bf16.
            scale: 0-D, or broadcastable to x.
            low: smallest integer code.
            high: largest integer code.
            dtype: dtype of the result, which has the shape of x.
        """
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
        """Turn the output's gradient into those of x and of the scale, where autograd needs them."""
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
    """Return x, or a dense copy with the same order of axes if x is, say, a slice or an expanded tensor."""
    like = torch.empty_like(x, device="meta")
    return x if like.stride() == x.stride() else torch.empty_like(x).copy_(x)


def blocks(scale: Tensor, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Split dense tensors of one shape and memory layout into equal blocks that fit in the CPU cache.

    The blocks follow the order in memory. With one scale per channel, or on a GPU, nothing is split.
    """
    if scale.numel() > 1 or tensors[0].device.type != "cpu":
        return [tensors]
    size = CACHE_BLOCK * torch.get_num_threads()
    return list(zip(*(t.as_strided((t.numel(),), (1,)).split(size) for t in tensors)))


def divide(x: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    """Compute x / scale in float32. A bf16 x is widened first: a bf16 quotient is too coarse to round."""
    return torch.div(x, scale, out=out) if x.dtype == torch.float32 else out.copy_(x).div_(scale)


def reduced(factor: Tensor, gradient: Tensor, scale: Tensor) -> Tensor:
    """Sum factor * gradient over the elements that share a scale."""
    if scale.numel() == 1:
        return torch.dot(factor.reshape(-1), gradient.reshape(-1)).view_as(scale)
    return (factor * gradient).sum_to_size(scale.shape)


def fake_quantize(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """Apply `FakeQuantize`, with the output in the dtype of the matrix product that follows.

    That is autocast's dtype where autocast is on, and the dtype of x elsewhere. Rounding an 8-bit code times
    its scale to bf16 does not change the code: it moves by at most a quarter of a step (half a step if
    unsigned). The arguments are those of `FakeQuantize.forward`.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return FakeQuantize.apply(x, scale.float(), low, high, dtype)


class FusedIntQuant(IntQuant):
    """Brevitas' integer quantiser with the arithmetic of `FakeQuantize`.

    State-dict keys, conversion to integers and export are unchanged.
    """

    def forward(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """Return the dequantised x. A zero point moves the range of the codes, so that x = 0 stays 0."""
        zero = float(zero_point)
        return fake_quantize(
            x, scale, float(self.min_int(bit_width)) - zero, float(self.max_int(bit_width)) - zero
        )
