"""SAM's plain vision transformer rewritten for an engine: `models.vit` on token rows (B, side^2, C)."""

import torch
from torch import Tensor, nn

from ...models.vit import Attention, Block, ViT
from .constant_layers import FixedConvolution, FixedProduct, FixedToken, PointwiseLinear
from .constant_values import FixedQuantiser
from .token_layers import TokenLayers, linear_form
from .windows import Windows, heads_first, image, own_rows, tokens


class GridAttention(nn.Module):
    """`Attention` over squares of tokens, without the last projection. (n, side^2, C) -> same shape.

    The input is quantised by `quantiser` for the joint q/k/v projection. The factor before the softmax is in
    the queries' scale. The tables of relative positions are divided by it.
    """

    def __init__(self, attention: Attention, quantiser: FixedQuantiser) -> None:
        super().__init__()
        self.channels, self.heads, self.side = attention.proj.in_features, attention.heads, attention.side
        q, k, v = own_rows(self.channels, self.heads, heads_outermost=False)
        linear = linear_form(attention.qkv)
        layers = linear(attention.qkv, q, attention.scale), linear(attention.qkv, k), linear(attention.qkv, v)
        quantiser.without_zero_point(*layers)
        self.q, self.k, self.v = (TokenLayers(self.side, layer) for layer in layers)
        self.qk, self.av = FixedProduct(attention.qk_product), FixedProduct(attention.av_product)
        tables = (attention.rel_pos_h, attention.rel_pos_w)
        rows, columns = (
            table.detach()[attention.offset_index].transpose(1, 2) / attention.scale for table in tables
        )
        # (side, C / heads, side): for each row of queries, the rows of keys
        self.register_buffer("rows", rows.clone())
        self.register_buffer("columns", columns.clone())

    def forward(self, x: Tensor) -> Tensor:
        side, count = self.side, self.side**2
        q, k, v = (
            heads_first(project(x), count, self.heads, self.channels) for project in (self.q, self.k, self.v)
        )
        grid = q.reshape(-1, self.heads, side, side, self.channels // self.heads)
        rows = (grid @ self.rows).reshape(-1, self.heads, count, side, 1)
        columns = (
            (grid.transpose(2, 3) @ self.columns).transpose(2, 3).reshape(-1, self.heads, count, 1, side)
        )
        scores = self.qk(q, k.transpose(2, 3)).reshape(-1, self.heads, count, side, side) + rows + columns
        weights = scores.reshape(-1, self.heads, count, count).softmax(-1)
        return self.av(weights, v).transpose(1, 2).reshape(-1, count, self.channels)


class TokenBlock(nn.Module):
    """`Block` on tokens. (B, grid^2, C) -> same shape."""

    def __init__(self, block: Block, grid: int) -> None:
        super().__init__()
        attention, mlp = block.attn, block.mlp
        self.windows = Windows(block.window, grid, attention.proj.in_features) if block.window else None
        self.norm1, self.norm2 = block.norm1, block.norm2
        self.before, self.after = FixedQuantiser.of(attention.qkv), FixedQuantiser.of(attention.proj)
        self.attention = GridAttention(attention, self.before)
        self.padding = FixedToken(torch.zeros(1, 1, attention.proj.in_features), self.before)
        proj, linear = linear_form(attention.proj)(attention.proj), linear_form(mlp.lin1, mlp.lin2)
        self.after.without_zero_point(proj)
        self.proj = TokenLayers(grid, proj)
        lin1, lin2 = linear(mlp.lin1), linear(mlp.lin2)
        self.wide = FixedQuantiser.of(mlp.lin1).without_zero_point(lin1)
        middle = FixedQuantiser.of(mlp.lin2, images=linear is PointwiseLinear).without_zero_point(lin2)
        self.mlp = TokenLayers(grid, lin1, nn.GELU(), middle, lin2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self.attend(self.norm1(x)))
        return x + self.mlp(self.wide(self.norm2(x)))

    def attend(self, x: Tensor) -> Tensor:
        """Attend between the two quantisers, in windows where the block has them.

        The padding is zeros behind the norm, as in the model.
        """
        if self.windows is None:
            return self.after(self.attention(self.before(x)))
        padded = self.windows.pad(self.before(x), self.padding())
        return self.windows.merge(self.after(self.attention(self.windows.cut(padded))))


class ViTGraph(nn.Module):
    """`ViT`: images (B, 3, S, S) -> embeddings (B, C, g, g). It knows its size."""

    def __init__(self, model: ViT, size: int) -> None:
        super().__init__()
        self.grid, self.channels = model.pos_embed.shape[1], model.pos_embed.shape[3]
        self.patch_embed = FixedConvolution(model.patch_embed.proj)
        self.register_buffer("positions", model.pos_embed.detach().reshape(1, -1, self.channels).clone())
        self.blocks = nn.Sequential(*(TokenBlock(block, self.grid) for block in model.blocks))
        neck = model.neck
        self.neck = nn.Sequential(FixedConvolution(neck[0]), neck[1], FixedConvolution(neck[2]), neck[3])

    def forward(self, images: Tensor) -> Tensor:
        x = tokens(self.patch_embed(images), self.grid, self.channels) + self.positions
        return self.neck(image(self.blocks(x), self.grid, self.channels))
