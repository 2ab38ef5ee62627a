"""Cut a square of tokens into windows and merge them again, for both encoders.

All transposes have four dimensions, and the last one is a whole window row.
"""

import torch
from torch import Tensor, nn


class Windows(nn.Module):
    """Tokens (B, side^2, C) <-> windows (B * n, window^2, C), padded as in `models.layers`."""

    def __init__(self, window: int, side: int, channels: int) -> None:
        super().__init__()
        self.window, self.side, self.channels = window, side, channels
        self.padded = side + -side % window
        self.count = self.padded // window

    def pad(self, x: Tensor, token: Tensor) -> Tensor:
        """Tokens (B, side^2, C) -> (B, padded^2, C), with copies of a token (1, 1, C) on the right and below.

        Tokens may be quantised before. They then are padded as int8.
        """
        side, extra, channels = self.side, self.padded - self.side, self.channels
        if not extra:
            return x
        count = x.shape[0]  # of four axes, since OpenVINO keeps int8 in such a concatenation alone
        right, below = (
            token.unsqueeze(1).expand(count, *shape, channels)
            for shape in ((side, extra), (extra, self.padded))
        )
        rows = torch.cat([x.reshape(-1, side, side, channels), right], 2)
        return torch.cat([rows, below], 1).reshape(-1, self.padded**2, channels)

    def cut(self, x: Tensor) -> Tensor:
        """Padded tokens (B, padded^2, C) -> windows."""
        rows = x.reshape(-1, self.window, self.count, self.window * self.channels).transpose(1, 2)
        return rows.reshape(-1, self.window**2, self.channels)

    def merge(self, x: Tensor) -> Tensor:
        """Windows -> tokens (B, side^2, C), without the padding."""
        rows = x.reshape(-1, self.count, self.window, self.window * self.channels).transpose(1, 2)
        if self.padded != self.side:
            rows = rows.reshape(-1, self.padded, self.padded * self.channels)[
                :, : self.side, : self.side * self.channels
            ]
        return rows.reshape(-1, self.side**2, self.channels)


def image(x: Tensor, side: int, channels: int) -> Tensor:
    """Turn tokens (B, side^2, C) into an image (B, C, side, side)."""
    return x.reshape(-1, side, side, channels).permute(0, 3, 1, 2)


def tokens(x: Tensor, side: int, channels: int) -> Tensor:
    """Turn an image (B, C, side, side) into tokens (B, side^2, C)."""
    return x.permute(0, 2, 3, 1).reshape(-1, side * side, channels)


def heads_first(x: Tensor, count: int, heads: int, channels: int) -> Tensor:
    """Split tokens into heads: (n, count, C) -> (n, heads, count, C / heads)."""
    return x.reshape(-1, count, heads, channels // heads).transpose(1, 2)


def own_rows(channels: int, heads: int, heads_outermost: bool) -> torch.Tensor:
    """Return the rows of a joint q/k/v layer that make queries, keys and values: (3, C).

    Heads are outermost in TinyViT's layer, q/k/v in ViT's.
    """
    rows = torch.arange(3 * channels)
    return rows.view(heads, 3, -1).transpose(0, 1).flatten(1) if heads_outermost else rows.view(3, -1)
