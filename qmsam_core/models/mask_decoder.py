"""SAM's mask decoder: a two-way transformer between prompt tokens and image cells, then a mask by the product of a token and upscaled cells."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d, MatMul


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the mask decoder: two-way layers, heads, width of their MLPs, and mask tokens (the first is the single-mask one)."""

    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    mask_tokens: int = 4


class CrossAttention(nn.Module):
    """Multi-head attention with separate projections, optionally in fewer channels. q (B, Nq, C), k and v (B, Nk, C) -> (B, Nq, C)."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.scale = (inner // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, inner) for _ in range(3))
        self.out_proj = nn.Linear(inner, dim)
        self.qk_product, self.av_product = MatMul(), MatMul()

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        logits = self.qk_product(q, k.transpose(-2, -1)) * self.scale
        return self.out_proj(self.av_product(logits.softmax(-1), v).transpose(1, 2).flatten(2))


class MlpBlock(nn.Module):
    """Widen, ReLU, narrow. (..., C) -> same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x).relu())


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the image; the image attends to the tokens. The first block has no positions to add in self-attention."""

    def __init__(self, dim: int, config: DecoderConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(dim, config.heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = CrossAttention(dim, config.heads, 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MlpBlock(dim, config.mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = CrossAttention(dim, config.heads, 2)

    def forward(
        self, tokens: Tensor, image: Tensor, token_positions: Tensor, image_positions: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_positions
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        k = image + image_positions
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_positions, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(k, tokens + token_positions, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """Image cells (B, cells, C) and prompt tokens (B, T, C) -> both, after `depth` two-way blocks and a last attention to the image."""

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, config, first=i == 0) for i in range(config.depth))
        self.final_attn_token_to_image = CrossAttention(dim, config.heads, 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image: Tensor, image_positions: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        tokens = prompts
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompts, image_positions)
        attended = self.final_attn_token_to_image(tokens + prompts, image + image_positions, image)
        return self.norm_final_attn(tokens + attended), image


class Mlp(nn.Module):
    """Three linear layers with ReLU between: a hypernetwork, or the IoU head. (..., C) -> (..., out)."""

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, out)])

    def forward(self, x: Tensor) -> Tensor:
        return self.layers[2](self.layers[1](self.layers[0](x).relu()).relu())


class MaskDecoder(nn.Module):
    """Image embedding and prompt tokens to one low-res mask a prompt (`multimask_output=False`), at four times the embedding's grid.

    The other mask tokens take part in attention, as in the checkpoint, but their hypernetworks are not computed.
    """

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(config.mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2), LayerNorm2d(dim // 4), nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2), nn.GELU(),
        )  # fmt: skip
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(dim, dim // 8) for _ in range(config.mask_tokens))
        self.iou_prediction_head = Mlp(dim, config.mask_tokens)
        self.mask_product = MatMul()

    def tokens(self, sparse: Tensor) -> Tensor:
        """Prompts (N, 2, C) behind the decoder's own tokens, of the IoU and of the masks: (N, T, C)."""
        fixed = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        return torch.cat([fixed.expand(sparse.shape[0], -1, -1), sparse], 1)

    def transform(self, image: Tensor, positions: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Image (N, C, g, g) with the dense prompt added, positions (1, C, g, g), sparse (N, 2, C) -> output tokens (N, T, C), image (N, C, g, g)."""
        cells = image.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(cells, positions.flatten(2).transpose(1, 2), self.tokens(sparse))
        return tokens, cells.transpose(1, 2).unflatten(2, image.shape[2:])

    def mask(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Output tokens (N, T, C) and image (N, C, g, g) -> low-res mask logits (N, 1, 4g, 4g)."""
        upscaled = self.output_upscaling(image)
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1:2])
        return self.mask_product(weights, upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])

    def forward(self, image: Tensor, positions: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """As `transform`; returns low-res mask logits (N, 1, 4g, 4g) and the predicted IoU of the mask (N, 1)."""
        tokens, image = self.transform(image, positions, sparse)
        return self.mask(tokens, image), self.iou_prediction_head(tokens[:, 0])[:, :1]
