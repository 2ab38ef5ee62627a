"""EfficientViT, the image encoder of EfficientViT-SAM: convolutions, then linear attention, then a neck.

Key names are those of the public checkpoints `efficientvit_sam_l0.pt` and `efficientvit_sam_l1.pt`. The neck
brings three stages to one grid, whatever the input size, so the same weights work at any size.

Source: Zhang et al., EfficientViT-SAM (2024), paper reference [17]; Cai et al., EfficientViT (2023).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import GridResize, LayerNorm2d, MatMul

EPS = 1e-6
"""Epsilon of every norm of EfficientViT-SAM, in the mask decoder too."""


@dataclass(frozen=True)
class EfficientViTConfig:
    """Shape of an EfficientViT and of its neck.

    Attributes:
        widths: channels of each stage.
        depths: blocks of each stage behind the first, which halves the resolution.
        first_expansions: factor by which the first block of each stage widens its input; 1 is a convolution.
        expansions: factor by which the other blocks widen their input.
        separable_from: stage from which blocks are depthwise separable. The last stage has attention.
        head_dim: channels of an attention head.
        kernel: side of the convolution that gives attention a second, coarser scale.
        neck_inputs: stages that the neck takes, from the last.
        neck_depth: blocks of the neck.
        grid: side of the embedding in cells.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    depths: tuple[int, ...] = (1, 1, 1, 4, 4)
    first_expansions: tuple[int, ...] = (1, 16, 16, 16, 24)
    expansions: tuple[int, ...] = (1, 4, 4, 4, 6)
    separable_from: int = 3
    head_dim: int = 32
    kernel: int = 5
    neck_inputs: int = 3
    neck_depth: int = 4
    grid: int = 64

    def embedding_grid(self, size: int) -> int:
        """Side of the embedding in cells for an input of `size` px."""
        return self.grid


class ConvUnit(nn.Sequential):
    """Convolution, then a batch norm if it has no bias, then GELU if asked (keys `conv` and `norm`).

    GELU is the tanh approximation, as in the original.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        normed: bool = True,
        bias: bool = False,
        act: bool = True,
    ) -> None:
        super().__init__()
        convolution = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.add_module("conv", convolution)
        if normed:
            self.add_module("norm", nn.BatchNorm2d(cout, eps=EPS))
        if act:
            self.add_module("act", nn.GELU("tanh"))


class ResidualConvs(nn.Module):
    """Two 3x3 convolutions. (B, C, H, W) -> same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvUnit(channels, channels, 3)
        self.conv2 = ConvUnit(channels, channels, 3, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class FusedMBConv(nn.Module):
    """Widen by a 3x3 convolution, narrow by a 1x1. (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, cin: int, cout: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        self.spatial_conv = ConvUnit(cin, cin * expansion, 3, stride)
        self.point_conv = ConvUnit(cin * expansion, cout, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.spatial_conv(x))


class MBConv(nn.Module):
    """Widen 1x1, depthwise 3x3, narrow 1x1. (B, C, H, W) -> (B, C', H / stride, W / stride).

    The first two convolutions have biases and no norms.
    """

    def __init__(self, cin: int, cout: int, expansion: int, stride: int = 1) -> None:
        super().__init__()
        hidden = cin * expansion
        self.inverted_conv = ConvUnit(cin, hidden, normed=False, bias=True)
        self.depth_conv = ConvUnit(hidden, hidden, 3, stride, hidden, normed=False, bias=True)
        self.point_conv = ConvUnit(hidden, cout, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_conv(self.depth_conv(self.inverted_conv(x)))


class LinearAttention(nn.Module):
    """Multi-scale attention without a softmax, linear in the number of cells (LiteMLA).

    (B, C, H, W) -> same shape. Weights are relu(q) . relu(k) over their sum. Half of the heads see the cells,
    the other half what a depthwise convolution makes of their surroundings.
    """

    def __init__(self, channels: int, head_dim: int, kernel: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        wide = 3 * channels
        self.qkv = ConvUnit(channels, wide, normed=False, act=False)
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(wide, wide, kernel, padding=kernel // 2, groups=wide, bias=False),
                    nn.Conv2d(wide, wide, 1, groups=wide // head_dim, bias=False),
                )
            ]
        )
        self.proj = ConvUnit(2 * channels, channels, act=False)
        self.kv_product, self.q_product = MatMul(), MatMul()

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.aggreg[0](qkv)], 1)
        # (B, heads, 3 * head_dim, cells)
        q, k, v = qkv.flatten(2).unflatten(1, (-1, 3 * self.head_dim)).split(self.head_dim, 2)
        return self.proj(self.attend(q.relu(), k.relu(), v).flatten(1, 2).unflatten(2, size))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Sum v over cells by the weights of q and k, each (B, heads, d, cells); q and k are not negative.

        The sum of the weights is taken in float32. It can be small, and a position whose q is 0 has none: the
        epsilon then gives 0, but in float16 the epsilon itself would be 0.
        """
        summed = self.q_product(self.kv_product(v, k.transpose(2, 3)), q)
        with torch.autocast(q.device.type, enabled=False):
            weights = k.float().sum(3, keepdim=True).transpose(2, 3) @ q.float()
            return summed.float() / (weights + 1e-15)


class Residual(nn.Module):
    """`main`, and its input added if asked."""

    def __init__(self, main: nn.Module, added: bool = True) -> None:
        super().__init__()
        self.main = main
        self.added = added

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x) if self.added else self.main(x)


class AttentionBlock(nn.Module):
    """Linear attention between cells, then an `MBConv` within their surroundings, each with a residual."""

    def __init__(self, channels: int, expansion: int, config: EfficientViTConfig) -> None:
        super().__init__()
        self.context_module = Residual(LinearAttention(channels, config.head_dim, config.kernel))
        self.local_module = Residual(MBConv(channels, channels, expansion))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))


class OpList(nn.Module):
    """Modules in a row, under the key `op_list`."""

    def __init__(self, modules: Iterator[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.op_list:
            x = module(x)
        return x


def stage(config: EfficientViTConfig, number: int) -> Iterator[nn.Module]:
    """Yield the blocks of one stage. The first halves the resolution and has no residual."""
    width, expansion = config.widths[number], config.expansions[number]
    before, first = config.widths[max(number - 1, 0)], config.first_expansions[number]
    last = number == len(config.widths) - 1
    block = MBConv if number >= config.separable_from else FusedMBConv
    yield ConvUnit(3, width, 3, 2) if number == 0 else Residual(block(before, width, first, 2), added=False)
    for _ in range(config.depths[number]):
        if number == 0:
            yield Residual(ResidualConvs(width))
        elif last:
            yield AttentionBlock(width, expansion, config)
        else:
            yield Residual(block(width, width, expansion))


class Backbone(nn.Module):
    """Images (B, 3, S, S) -> outputs of all stages, each of half the resolution of the one before."""

    def __init__(self, config: EfficientViTConfig) -> None:
        super().__init__()
        self.stages = nn.ModuleList(OpList(stage(config, i)) for i in range(len(config.widths)))

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = []
        for module in self.stages:
            x = module(x)
            outputs.append(x)
        return outputs


class SamNeck(nn.Module):
    """Bring the last stages to one grid, add them, and mix. Stages, last first -> (B, out, grid, grid)."""

    def __init__(self, config: EfficientViTConfig, out: int) -> None:
        super().__init__()
        widths = config.widths[::-1][: config.neck_inputs]
        self.input_ops = nn.ModuleList(OpList([ConvUnit(width, out, act=False)]) for width in widths)
        self.resize = GridResize(config.grid)
        self.middle = OpList(Residual(FusedMBConv(out, out, 1)) for _ in range(config.neck_depth))
        self.output_ops = nn.ModuleList([OpList([ConvUnit(out, out, normed=False, bias=True, act=False)])])

    def forward(self, stages: list[Tensor]) -> Tensor:
        x = sum(self.resize(op(stage)) for op, stage in zip(self.input_ops, stages))
        return self.output_ops[0](self.middle(x))


class EfficientViT(nn.Module):
    """Image encoder: (B, 3, S, S) float32 -> embedding (B, out_channels, grid, grid)."""

    def __init__(self, config: EfficientViTConfig, out_channels: int) -> None:
        super().__init__()
        self.backbone = Backbone(config)
        self.neck = SamNeck(config, out_channels)
        self.norm = LayerNorm2d(out_channels, EPS)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.neck(self.backbone(images)[::-1]))
