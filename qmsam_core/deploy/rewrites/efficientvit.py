"""EfficientViT rewritten for an engine: folded norms, and attention in products that suit it."""

import torch
from torch import Tensor, nn

from ...models.efficientvit import (
    AttentionBlock,
    ConvUnit,
    EfficientViT,
    FusedMBConv,
    LinearAttention,
    MBConv,
    OpList,
    Residual,
    ResidualConvs,
)
from ...models.layers import GridResize
from .constant_layers import FixedConvolution, FixedProduct


class Unit(nn.Module):
    """`ConvUnit` as one convolution, with its activation if it has one."""

    def __init__(self, unit: ConvUnit) -> None:
        super().__init__()
        self.convolution = FixedConvolution(unit.conv, getattr(unit, "norm", None))
        self.act = getattr(unit, "act", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.convolution(x))


class Attention(nn.Module):
    """`LinearAttention`, without its residual. (B, C, H, W) -> same shape."""

    def __init__(self, attention: LinearAttention) -> None:
        super().__init__()
        self.head_dim = attention.head_dim
        self.qkv, self.proj = Unit(attention.qkv), Unit(attention.proj)
        self.near, self.mix = map(FixedConvolution, attention.aggreg[0])
        self.kv, self.sum = FixedProduct(attention.kv_product), FixedProduct(attention.q_product)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.mix(self.near(qkv))], 1)
        heads, (height, width) = qkv.shape[1] // (3 * self.head_dim), x.shape[2:]
        q, k, v = qkv.reshape(-1, heads, 3 * self.head_dim, height * width).split(self.head_dim, 2)
        q, k = q.relu(), k.relu()
        summed = self.sum(self.kv(v, k.transpose(2, 3)), q)
        weights = k.sum(3, keepdim=True).transpose(2, 3) @ q
        attended = summed / (weights + 1e-15)
        return self.proj(attended.reshape(-1, heads * self.head_dim, height, width))


def rewritten(module: nn.Module) -> nn.Module:
    """Return the engine's form of a block of `models.efficientvit`."""
    if isinstance(module, ConvUnit):
        return Unit(module)
    if isinstance(module, LinearAttention):
        return Attention(module)
    if isinstance(module, Residual):
        return Residual(rewritten(module.main), module.added)
    if isinstance(module, OpList):
        return nn.Sequential(*map(rewritten, module.op_list))
    # all others are children in a row
    assert isinstance(module, (AttentionBlock, FusedMBConv, MBConv, ResidualConvs)), type(module)
    return nn.Sequential(*map(rewritten, module.children()))


class EfficientViTGraph(nn.Module):
    """`EfficientViT` for inputs of `size` px: images (B, 3, S, S) -> embeddings (B, C, grid, grid)."""

    def __init__(self, model: EfficientViT, size: int) -> None:
        super().__init__()
        neck = model.neck
        self.stages = nn.ModuleList(map(rewritten, model.backbone.stages))
        self.inputs = nn.ModuleList(map(rewritten, neck.input_ops))
        self.resize: GridResize = neck.resize
        self.middle, self.output = rewritten(neck.middle), rewritten(neck.output_ops[0])
        self.norm = model.norm

    def forward(self, images: Tensor) -> Tensor:
        outputs, x = [], images
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        merged = sum(self.resize(op(stage)) for op, stage in zip(self.inputs, outputs[::-1]))
        return self.norm(self.output(self.middle(merged)))
