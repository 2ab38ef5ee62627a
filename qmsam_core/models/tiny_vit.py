"""TinyViT, the image encoder of LiteMedSAM and MobileSAM: convolutions, window attention, SAM's neck.

Key names are those of the public checkpoints `lite_medsam.pth` and `mobile_sam.pt`. The original code
hard-codes the 64x64 output grid and chooses a stride by a channel count. Here strides come from the
configuration and grids from the input. So the same weights work at any input size.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from .layers import MatMul, Neck, window_merge, window_partition


@dataclass(frozen=True)
class TinyViTConfig:
    """Shape of a TinyViT.

    Attributes:
        dims: channels of each stage.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        windows: side of the attention window in each stage, in cells.
        merge_strides: stride of each merge between stages.
        expansion: factor by which MBConv blocks and MLPs widen the channels.
        patch_stride: stride of the patch embedding's two convolutions. 1 makes every pixel a patch by 1x1
            kernels, as in LiteMedSAM; 2 a patch of 4x4 px by 3x3 kernels, as in MobileSAM.
        classes: outputs of a classifier whose weights the checkpoint holds. Nothing uses it.
    """

    dims: tuple[int, ...] = (64, 128, 160, 320)
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (2, 4, 5, 10)
    windows: tuple[int, ...] = (7, 7, 14, 7)
    merge_strides: tuple[int, ...] = (2, 2, 1)
    expansion: int = 4
    patch_stride: int = 1
    classes: int = 0

    def embedding_grid(self, size: int) -> int:
        """Side of the embedding in cells for an input of `size` px."""
        return size // (self.patch_stride**2 * math.prod(self.merge_strides))


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm (keys `c` and `bn`)."""

    def __init__(self, cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(cout))


class PatchEmbed(nn.Module):
    """Two convolutions that make a patch a cell. (B, 3, S, S) -> (B, C, S / stride^2, S / stride^2)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        half, kernel = channels // 2, 2 * stride - 1
        self.seq = nn.Sequential(
            ConvNorm(3, half, kernel, stride), nn.GELU(), ConvNorm(half, channels, kernel, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted residual: expand 1x1, depthwise 3x3, project 1x1, add, GELU. (B, C, H, W) -> same shape."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.conv1 = ConvNorm(channels, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv2(self.act(self.conv1(x))))
        return self.act(x + self.conv3(y))


class PatchMerging(nn.Module):
    """Change resolution and width between stages: (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(cin, cout)
        self.conv2 = ConvNorm(cout, cout, 3, stride, groups=cout)
        self.conv3 = ConvNorm(cout, cout)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.act(self.conv2(self.act(self.conv1(x)))))


def relative_offsets(window: int) -> tuple[Tensor, int]:
    """Index the learned attention biases of a window. There is one bias per absolute offset.

    Returns:
        The index of the bias for each pair of window cells, (window^2, window^2), and the number of biases.
    """
    cells = list(product(range(window), range(window)))
    known: dict[tuple[int, int], int] = {}
    index = [
        [known.setdefault((abs(a[0] - b[0]), abs(a[1] - b[1])), len(known)) for b in cells] for a in cells
    ]
    return torch.tensor(index), len(known)


class WindowAttention(nn.Module):
    """Attention in one window with a learned bias per relative offset. (B, window^2, C) -> same shape."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (channels // heads) ** -0.5
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.qk_product, self.av_product = MatMul(), MatMul()
        index, count = relative_offsets(window)
        self.attention_biases = nn.Parameter(torch.zeros(heads, count))
        self.register_buffer("bias_index", index, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, tokens, self.heads, 3, -1)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        attention = (
            self.qk_product(q, k.transpose(-2, -1)) * self.scale + self.attention_biases[:, self.bias_index]
        )
        x = self.av_product(attention.softmax(-1), v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, channels))


class Mlp(nn.Module):
    """Norm, widen, GELU, narrow. (..., C) -> same shape."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, channels * expansion)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(channels * expansion, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    """Window attention, depthwise 3x3 convolution across window borders, MLP. (B, C, H, W) -> same shape."""

    def __init__(self, channels: int, heads: int, window: int, expansion: int) -> None:
        super().__init__()
        self.window = window
        self.attn = WindowAttention(channels, heads, window)
        self.local_conv = ConvNorm(channels, channels, 3, groups=channels)
        self.mlp = Mlp(channels, expansion)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.permute(0, 2, 3, 1)
        size = tokens.shape[1:3]
        windows, padded = window_partition(tokens, self.window)
        attended = self.attn(windows.flatten(1, 2)).view_as(windows)
        tokens = tokens + window_merge(attended, self.window, padded, size)
        x = self.local_conv(tokens.permute(0, 3, 1, 2))
        tokens = x.permute(0, 2, 3, 1)
        return (tokens + self.mlp(tokens)).permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, and the merge to the next if there is one."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class TinyViT(nn.Module):
    """Image encoder: (B, 3, S, S) float32 -> embedding (B, out_channels, g, g), g the embedding grid."""

    def __init__(self, config: TinyViTConfig, out_channels: int) -> None:
        super().__init__()
        dims = config.dims
        self.patch_embed = PatchEmbed(dims[0], config.patch_stride)
        stages = []
        for i, (dim, depth) in enumerate(zip(dims, config.depths)):
            if i == 0:
                blocks: list[nn.Module] = [MBConv(dim, config.expansion) for _ in range(depth)]
            else:
                blocks = [
                    TinyViTBlock(dim, config.heads[i], config.windows[i], config.expansion)
                    for _ in range(depth)
                ]
            last = i == len(dims) - 1
            stages.append(
                Stage(blocks, None if last else PatchMerging(dim, dims[i + 1], config.merge_strides[i]))
            )
        self.layers = nn.ModuleList(stages)
        self.neck = Neck(dims[-1], out_channels)
        if config.classes:
            self.norm_head, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], config.classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        for stage in self.layers:
            x = stage(x)
        return self.neck(x)
