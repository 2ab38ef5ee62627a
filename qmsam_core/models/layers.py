"""Small layers shared by the encoders and the mask decoder."""

from functools import cache

import numpy as np
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


class GridResize(nn.Module):
    """Bicubic resize of an image to a square grid: (B, C, h, w) -> (B, C, grid, grid).

    For a given size this is a fixed linear map, rows and columns apart. Written as two products with constant
    matrices it needs no cubic resize of the engine, which some lack and others run slowly. An image of the
    grid's own size stays as it is.
    """

    def __init__(self, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        height, width = int(x.shape[2]), int(x.shape[3])
        rows, columns = (torch.from_numpy(bicubic_matrix(side, self.grid)).to(x) for side in (height, width))
        if width != self.grid:
            x = x @ columns.T
        return rows @ x if height != self.grid else x


@cache
def bicubic_matrix(side: int, out: int) -> np.ndarray:
    """Weights (out, side) by which bicubic interpolation makes `out` samples of `side` samples, float32.

    Centres of pixels, a = -0.75, borders repeated and no antialiasing, as PyTorch interpolates.
    """
    place = (np.arange(out) + 0.5) * side / out - 0.5
    matrix = np.zeros((out, side))
    for tap in range(-1, 3):
        pixel = np.floor(place) + tap
        distance = np.abs(place - pixel)
        near = (1.25 * distance - 2.25) * distance**2 + 1
        far = -0.75 * (((distance - 5) * distance + 8) * distance - 4)
        index = np.clip(pixel, 0, side - 1).astype(int)
        np.add.at(matrix, (np.arange(out), index), np.where(distance <= 1, near, far))
    return matrix.astype(np.float32)


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
