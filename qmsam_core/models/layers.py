"""Small layers shared by the encoders and the mask decoder."""

import torch
from torch import Tensor, nn


class MatMul(nn.Module):
    """Matrix product of two activations, `a @ b`.

    It is a module so that a quantiser can sit on each input (paper Fig. 1c). It has no parameters, so it does
    not change the checkpoint's keys.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a @ b


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of an image (B, C, H, W), with SAM's epsilon."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + self.eps)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class Neck(nn.Sequential):
    """SAM's neck: 1x1 and 3x3 convolutions, a layer norm after each. (B, C_in, g, g) -> (B, C_out, g, g)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            LayerNorm2d(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            LayerNorm2d(out_channels),
        )


def window_partition(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut (B, H, W, C) into windows (B * n, window, window, C), with zero padding at the bottom and right.

    Returns:
        The windows, and the padded height and width.
    """
    batch, height, width, channels = x.shape
    pad_bottom, pad_right = -height % window, -width % window
    if pad_bottom or pad_right:
        x = nn.functional.pad(x, (0, 0, 0, pad_right, 0, pad_bottom))
    rows, columns = (height + pad_bottom) // window, (width + pad_right) // window
    x = x.view(batch, rows, window, columns, window, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, window, window, channels), (height + pad_bottom, width + pad_right)


def window_merge(windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Undo `window_partition`: (B * n, window, window, C) -> (B, H, W, C) without the padding."""
    rows, columns = padded[0] // window, padded[1] // window
    channels = windows.shape[-1]
    x = windows.view(-1, rows, columns, window, window, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, *padded, channels)[:, : size[0], : size[1]]
