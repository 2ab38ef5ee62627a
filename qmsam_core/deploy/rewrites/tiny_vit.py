"""TinyViT rewritten for an engine: the function of `models.tiny_vit`, on token rows (B, H * W, C).

OpenVINO takes a four-dimensional token tensor (B, H, W, C) for an image of H channels. It carries such a
tensor through layouts that fit neither the linear layers nor the convolutions. Those reorders and transposes
take more time than the linear layers themselves. What stays between two layers is quantised before its layout
changes, so that int8 is moved, not float.
"""

import torch
from torch import Tensor, nn

from ...models.tiny_vit import MBConv, PatchMerging, TinyViT, TinyViTBlock, WindowAttention
from .constant_layers import FixedConvolution, FixedProduct, FixedToken, PointwiseLinear
from .constant_values import FixedQuantiser
from .token_layers import TokenLayers, linear_form
from .windows import Windows, heads_first, image, own_rows, tokens

gelu = nn.functional.gelu


def folded(block: nn.Module) -> FixedConvolution:
    """Fold a `ConvNorm` into one convolution."""
    return FixedConvolution(block.c, getattr(block, "bn", None))


class InvertedResidual(nn.Module):
    """`MBConv` with folded norms. (B, C, H, W) -> same shape.

    `source` is widened in the place of the input, if it is given.
    """

    def __init__(self, block: MBConv) -> None:
        super().__init__()
        self.widen, self.depthwise, self.narrow = map(folded, (block.conv1, block.conv2, block.conv3))

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        wide = self.widen(x if source is None else source)
        return gelu(x + self.narrow(gelu(self.depthwise(gelu(wide)))))


class Stem(nn.Module):
    """`PatchEmbed` and the first `MBConv`. (B, 3, S, S) -> (B, C, S / stride^2, S / stride^2).

    Nothing stands between the last convolution of the one and the first of the other. If both are 1x1 and in
    float they become one, from half as many channels as the second alone has.
    """

    def __init__(self, embed: nn.Sequential, block: MBConv) -> None:
        super().__init__()
        self.first, self.second = folded(embed[0]), folded(embed[2])
        self.block = InvertedResidual(block)
        quantised = self.second.weight.quantised or self.block.widen.weight.quantised
        self.merged = not quantised and embed[2].c.kernel_size == (1, 1)
        if self.merged:
            self.block.widen = self.block.widen.after(self.second)

    def forward(self, images: Tensor) -> Tensor:
        half = gelu(self.first(images))
        x = self.second(half)
        return self.block(x, half if self.merged else x)


class Merging(nn.Module):
    """`PatchMerging` with folded norms. (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, block: PatchMerging) -> None:
        super().__init__()
        self.first, self.depthwise, self.last = map(folded, (block.conv1, block.conv2, block.conv3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(gelu(self.depthwise(gelu(self.first(x)))))


class WindowedAttention(nn.Module):
    """`WindowAttention` with its windows cut and merged: (B, side^2, C) -> same shape, without the residual.

    Queries, keys and values are three linear layers, so nothing is split. The factor before the softmax is in
    the queries' scale. Windows are cut and merged as int8. The last projection works on tokens without the
    padding.
    """

    def __init__(self, attention: WindowAttention, window: int, side: int) -> None:
        super().__init__()
        self.channels, self.heads = attention.proj.in_features, attention.heads
        self.windows = Windows(window, side, self.channels)
        self.qk, self.av = (
            FixedProduct(attention.qk_product, attention.scale),
            FixedProduct(attention.av_product),
        )
        q, k, v = own_rows(self.channels, self.heads, heads_outermost=True)
        linear, proj = linear_form(attention.qkv), linear_form(attention.proj)
        layers = linear(attention.qkv, q, attention.scale), linear(attention.qkv, k), linear(attention.qkv, v)
        self.input = FixedQuantiser.of(attention.qkv).without_zero_point(*layers)
        self.norm = self.input.behind(attention.norm)
        with torch.no_grad():
            token = self.norm(torch.zeros(1, 1, self.channels))
        as_image = linear is PointwiseLinear
        self.padding = FixedToken(token, self.input if as_image else FixedQuantiser(None))
        self.q, self.k, self.v = (
            TokenLayers(window**2, layer, quantiser)
            for layer, quantiser in zip(layers, (self.qk.a, self.qk.b, self.av.b))
        )
        projection = proj(attention.proj)
        self.output = FixedQuantiser.of(attention.proj).without_zero_point(projection)
        self.proj = TokenLayers(side, projection)
        self.register_buffer(
            "bias", attention.attention_biases.detach()[:, attention.bias_index][None].clone()
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.q.as_image:
            windows = self.windows.cut(self.windows.pad(self.input(x), self.padding()))
        else:  # an engine sees an int8 product only if its input is quantised just before it
            windows = self.input(self.windows.cut(self.windows.pad(x, self.padding())))
        return self.proj(self.windows.merge(self.output(self.attend(windows))))

    def attend(self, x: Tensor) -> Tensor:
        """Attend within windows. (n, T, C) -> same shape."""
        count = self.windows.window**2
        q, k, v = (
            heads_first(project(x), count, self.heads, self.channels) for project in (self.q, self.k, self.v)
        )
        weights = self.av.a((q @ k.transpose(2, 3) + self.bias).softmax(-1))
        return (weights @ v).transpose(1, 2).reshape(-1, count, self.channels)


class TokenBlock(nn.Module):
    """`TinyViTBlock` on tokens. (B, side^2, C) -> same shape."""

    def __init__(self, block: TinyViTBlock, side: int) -> None:
        super().__init__()
        self.side, self.channels = side, block.attn.proj.in_features
        self.attention = WindowedAttention(block.attn, block.window, side)
        self.local = folded(block.local_conv)
        self.quantise_local = self.local.take_quantiser()
        linear = linear_form(block.mlp.fc1, block.mlp.fc2)
        fc1, fc2 = linear(block.mlp.fc1), linear(block.mlp.fc2)
        self.input = FixedQuantiser.of(block.mlp.fc1).without_zero_point(fc1)
        self.norm = self.input.behind(block.mlp.norm)
        middle = FixedQuantiser.of(block.mlp.fc2, images=linear is PointwiseLinear).without_zero_point(fc2)
        self.mlp = TokenLayers(side, fc1, nn.GELU(), middle, fc2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.quantise_local(x + self.attention(x))
        x = tokens(self.local(image(x, self.side, self.channels)), self.side, self.channels)
        return x + self.mlp(self.input(self.norm(x)))


class TokenStage(nn.Module):
    """The blocks of one resolution, from image to image. (B, C, side, side) -> same shape."""

    def __init__(self, blocks: nn.ModuleList, side: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(TokenBlock(block, side) for block in blocks))
        self.side, self.channels = side, self.blocks[0].channels

    def forward(self, x: Tensor) -> Tensor:
        return image(self.blocks(tokens(x, self.side, self.channels)), self.side, self.channels)


class TinyViTGraph(nn.Module):
    """`TinyViT` for inputs of `size` px: images (B, 3, S, S) -> embeddings (B, C, g, g)."""

    def __init__(self, model: TinyViT, size: int) -> None:
        super().__init__()
        first, *rest = model.layers
        embed, neck = model.patch_embed.seq, model.neck
        parts = [Stem(embed, first.blocks[0]), *map(InvertedResidual, first.blocks[1:])]
        side, merge = size // (embed[0].c.stride[0] * embed[2].c.stride[0]), first.downsample
        for stage in rest:
            parts.append(Merging(merge))
            side = -(-side // merge.conv2.c.stride[0])
            parts.append(TokenStage(stage.blocks, side))
            merge = stage.downsample
        self.parts = nn.Sequential(*parts)
        self.neck = nn.Sequential(FixedConvolution(neck[0]), neck[1], FixedConvolution(neck[2]), neck[3])

    def forward(self, images: Tensor) -> Tensor:
        return self.neck(self.parts(images))
