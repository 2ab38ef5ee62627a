"""The plain vision transformer of SAM and MedSAM.

Most blocks attend in windows, four attend globally. Relative positions are decomposed into rows and columns.
Key names are those of the public checkpoint `medsam_vit_b.pth`. Unlike TinyViT's, the positional tables fit
only one input size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import MatMul, Neck, window_merge, window_partition


@dataclass(frozen=True)
class ViTConfig:
    """Shape of SAM's ViT.

    Attributes:
        dim: channels.
        depth: number of blocks.
        heads: attention heads.
        patch: side of a patch in px.
        window: side of the attention window in patches.
        global_blocks: indices of the blocks that attend globally.
        expansion: factor by which the MLPs widen the channels.
    """

    dim: int = 768
    depth: int = 12
    heads: int = 12
    patch: int = 16
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    expansion: int = 4

    def embedding_grid(self, size: int) -> int:
        """Side of the embedding in cells for an input of `size` px."""
        return size // self.patch


class PatchEmbed(nn.Module):
    """Turn each patch into one token: (B, 3, S, S) -> (B, S / patch, S / patch, C)."""

    def __init__(self, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Attention with relative positions split into rows and columns. (B, side, side, C) -> same shape."""

    def __init__(self, dim: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.qk_product, self.av_product = MatMul(), MatMul()
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        cells = torch.arange(side)
        self.register_buffer("offset_index", cells[:, None] - cells[None, :] + side - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, side, _, channels = x.shape
        qkv = self.qkv(x).view(batch, side * side, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attention = self.qk_product(q * self.scale, k.transpose(-2, -1))
        attention = (
            attention.view(batch, self.heads, side, side, side, side) + self.relative_bias(q)
        ).view_as(attention)
        x = self.av_product(attention.softmax(-1), v)
        return self.proj(x.transpose(1, 2).reshape(batch, side, side, channels))

    def relative_bias(self, q: Tensor) -> Tensor:
        """Bias that depends on the query: (B, heads, side^2, d) -> (B, heads, side, side, side, side)."""
        q = q.unflatten(2, (self.side, self.side))
        rows = torch.einsum("bnhwc,hkc->bnhwk", q, self.rel_pos_h[self.offset_index])
        columns = torch.einsum("bnhwc,wkc->bnhwk", q, self.rel_pos_w[self.offset_index])
        return rows[..., :, None] + columns[..., None, :]


class Mlp(nn.Module):
    """Widen, GELU, narrow. (..., C) -> same shape."""

    def __init__(self, dim: int, expansion: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, dim * expansion)
        self.act = nn.GELU()
        self.lin2 = nn.Linear(dim * expansion, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.act(self.lin1(x)))


class Block(nn.Module):
    """Pre-norm transformer block. `window` 0 attends to the whole grid. (B, g, g, C) -> same shape."""

    def __init__(self, config: ViTConfig, grid: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(config.dim, eps=1e-6)
        self.attn = Attention(config.dim, config.heads, window or grid)
        self.norm2 = nn.LayerNorm(config.dim, eps=1e-6)
        self.mlp = Mlp(config.dim, config.expansion)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.window:
            windows, padded = window_partition(y, self.window)
            y = window_merge(self.attn(windows), self.window, padded, x.shape[1:3])
        else:
            y = self.attn(y)
        x = x + y
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Image encoder: (B, 3, S, S) float32 in 0..1 -> embedding (B, out_channels, S / patch, S / patch).

    S must be the configured size.
    """

    def __init__(self, config: ViTConfig, out_channels: int, image_size: int) -> None:
        super().__init__()
        grid = image_size // config.patch
        self.patch_embed = PatchEmbed(config.dim, config.patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, grid, grid, config.dim))
        self.blocks = nn.ModuleList(
            Block(config, grid, 0 if i in config.global_blocks else config.window)
            for i in range(config.depth)
        )
        self.neck = Neck(config.dim, out_channels)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.neck(x.permute(0, 3, 1, 2))
