"""The mask decoder rewritten for an engine.

What depends on the image alone is separate from what depends on the boxes. Image tokens are never transposed.
Seven prompt tokens meet 4,096 image cells, so the small side is spread over the heads: each token appears
once per head, with zeros in the other heads' channels. One product then serves all heads, and the zeros add
nothing. The image's keys, values and queries stay as the linear layers leave them. A transposed convolution
whose stride is its kernel is a linear layer. Its pixels are put in place once, on the final logits.
"""

import torch
from torch import Tensor, nn

from ...models import Sam
from ...models.mask_decoder import CrossAttention, MaskDecoder, Mlp, TwoWayBlock
from .constant_layers import FixedProduct
from .constant_values import FixedQuantiser
from .token_layers import QuantisedLinear, TokenLayers, linear_form


class SpreadAttention(nn.Module):
    """`CrossAttention` of few tokens and many cells, with projections. The attention scale is in q.

    Args:
        attention: the attention to rewrite.
        on_cells: names of its projections that work on cells.
        row: cells in a row of the image.
    """

    def __init__(self, attention: CrossAttention, on_cells: tuple[str, ...] = (), row: int = 0) -> None:
        super().__init__()
        self.heads, inner = attention.heads, attention.q_proj.out_features
        self.q, self.k, self.v, self.out = (
            QuantisedLinear(
                getattr(attention, name),
                attention.scale if name == "q_proj" else 1.0,
                row if name in on_cells else None,
            )
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        self.qk, self.av = (
            FixedProduct(attention.qk_product, attention.scale),
            FixedProduct(attention.av_product),
        )
        head = torch.arange(inner) // (inner // self.heads)
        # (heads, 1, inner), 1 in a head's own channels
        self.register_buffer("own", (head == torch.arange(self.heads)[:, None]).float()[:, None])

    def spread(self, x: Tensor) -> Tensor:
        """Spread tokens over the heads: (N, T, inner) -> (N, heads * T, inner), one head's channels each."""
        return (x.unsqueeze(1) * self.own).flatten(1, 2)

    def tokens_to_cells(self, tokens: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries of tokens (N, T, C) on projected keys, values of cells (N or 1, L, inner) -> (N, T, C)."""
        count, inner = tokens.shape[1], k.shape[2]
        q = self.spread(self.q(tokens))
        if k.shape[0] == 1:  # one image for all boxes: one product
            q = q.reshape(1, -1, inner)
        weights = self.qk(q, k.transpose(1, 2)).softmax(-1)
        attended = self.av(weights, v).reshape(-1, self.heads, count, inner)
        return self.out((attended * self.own).sum(1))

    def cells_to_tokens(self, q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Projected queries of cells (N or 1, L, inner) on tokens (N, T, C) -> (N, L, C)."""
        cells, count = q.shape[1], keys.shape[1]
        # the softmax below is fast along any axis but a short last one
        scores = self.qk.b(self.spread(self.k(keys))) @ self.qk.a(q).transpose(1, 2)
        weights = (
            scores.reshape(-1, self.heads, count, cells).softmax(2).reshape(-1, self.heads * count, cells)
        )
        return self.out(self.av(weights.transpose(1, 2), self.spread(self.v(values))))


class Mlp3(nn.Module):
    """The hypernetworks' `Mlp` with input quantisers."""

    def __init__(self, mlp: Mlp) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(QuantisedLinear, mlp.layers))

    def forward(self, x: Tensor) -> Tensor:
        first, second, last = self.layers
        return last(second(first(x).relu()).relu())


class Upscale(nn.Module):
    """A transposed convolution of kernel and stride 2 as a linear layer: (N, L, C) -> (N, 4 L, C').

    The four pixels of a cell lie next to each other.
    """

    def __init__(self, layer: nn.ConvTranspose2d, row: int) -> None:
        super().__init__()
        self.channels = layer.out_channels
        linear = linear_form(layer)(layer)
        self.input = FixedQuantiser.of(layer).without_zero_point(linear)
        self.linear = TokenLayers(row, linear)

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.linear(self.input(x))
        return pixels.reshape(-1, 4 * x.shape[1], self.channels)


class TwoWay(nn.Module):
    """`TwoWayBlock` on tokens. The cells' projected keys, values and queries are given."""

    def __init__(self, block: TwoWayBlock, row: int) -> None:
        super().__init__()
        self.first = block.first
        self.own = SpreadAttention(block.self_attn)
        self.to_image = SpreadAttention(block.cross_attn_token_to_image, ("k_proj", "v_proj"), row)
        self.to_tokens = SpreadAttention(block.cross_attn_image_to_token, ("q_proj", "out_proj"), row)
        self.norm1, self.norm2, self.norm3, self.norm4 = block.norm1, block.norm2, block.norm3, block.norm4
        self.lin1, self.lin2 = map(QuantisedLinear, (block.mlp.lin1, block.mlp.lin2))

    def project(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project cells (N, L, C): keys, values for the tokens, queries to the tokens, each (N, L, inner)."""
        placed = image + positions
        return self.to_image.k(placed), self.to_image.v(image), self.to_tokens.q(placed)

    def forward(
        self, tokens: Tensor, prompts: Tensor, image: Tensor, projected: tuple
    ) -> tuple[Tensor, Tensor]:
        k, v, q = projected
        placed = tokens if self.first else tokens + prompts
        attended = self.own.cells_to_tokens(self.own.q(placed), placed, tokens)
        tokens = self.norm1(attended if self.first else tokens + attended)
        tokens = self.norm2(tokens + self.to_image.tokens_to_cells(tokens + prompts, k, v))
        tokens = self.norm3(tokens + self.lin2(self.lin1(tokens).relu()))
        return tokens, self.norm4(image + self.to_tokens.cells_to_tokens(q, tokens + prompts, tokens))


class PrepareGraph(nn.Module):
    """Compute the part of the decoder that depends on the image alone.

    Embedding (1, C, g, g) -> cells (1, L, C), then the result of `TwoWay.project` of the first block.
    """

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.block = TwoWay(model.mask_decoder.transformer.layers[0], model.embedding_size)
        self.register_buffer("dense", model.prompt_encoder.dense().detach().flatten()[None, None])
        self.register_buffer("positions", cells(model.prompt_encoder.image_positions().detach()))

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        image = cells(embedding) + self.dense
        return image, *self.block.project(image, self.positions)


class BoxesGraph(nn.Module):
    """Output of `PrepareGraph` and boxes (N, 4) in model px -> low-res mask logits (N, M, M)."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        decoder: MaskDecoder = model.mask_decoder
        transformer = decoder.transformer
        self.prompt_encoder, self.grid = model.prompt_encoder, model.embedding_size
        self.blocks = nn.ModuleList(TwoWay(block, self.grid) for block in transformer.layers)
        self.final, self.norm = (
            SpreadAttention(transformer.final_attn_token_to_image, ("k_proj", "v_proj"), self.grid),
            transformer.norm_final_attn,
        )
        self.register_buffer(
            "fixed", torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()[None]
        )
        self.register_buffer("positions", cells(model.prompt_encoder.image_positions().detach()))
        up = decoder.output_upscaling
        self.up1, self.up2 = Upscale(up[0], self.grid), Upscale(up[3], 2 * self.grid)
        self.up_norm = nn.LayerNorm(up[1].weight.numel(), up[1].eps)
        self.up_norm.weight, self.up_norm.bias = up[1].weight, up[1].bias
        self.hypernetwork = Mlp3(decoder.output_hypernetworks_mlps[0])
        self.product = FixedProduct(decoder.mask_product)

    def forward(self, image: Tensor, k: Tensor, v: Tensor, q: Tensor, boxes: Tensor) -> Tensor:
        sparse = self.prompt_encoder(boxes)
        prompts = tokens = torch.cat([self.fixed.expand(sparse.shape[0], -1, -1), sparse], 1)
        for i, block in enumerate(self.blocks):
            projected = block.project(image, self.positions) if i else (k, v, q)
            tokens, image = block(tokens, prompts, image, projected)
        keys, values = self.final.k(image + self.positions), self.final.v(image)
        tokens = self.norm(tokens + self.final.tokens_to_cells(tokens + prompts, keys, values))
        gelu = nn.functional.gelu
        upscaled = gelu(self.up2(gelu(self.up_norm(self.up1(image)))))
        weights = self.hypernetwork(tokens[:, 1:2])
        return self.place(self.product.b(upscaled) @ self.product.a(weights).transpose(1, 2))

    def place(self, logits: Tensor) -> Tensor:
        """Reorder logits (N, 16 L, 1) from the order of the two upscalings to an image (N, 4 g, 4 g)."""
        grid = self.grid
        return (
            logits.reshape(-1, grid, grid, 2, 2, 2, 2)
            .permute(0, 1, 3, 5, 2, 4, 6)
            .reshape(-1, 4 * grid, 4 * grid)
        )


def cells(image: Tensor) -> Tensor:
    """(B, C, g, g) -> (B, g^2, C)."""
    return image.flatten(2).transpose(1, 2)
