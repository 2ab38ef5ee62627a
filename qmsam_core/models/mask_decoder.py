"""SAM's mask decoder.

A two-way transformer lets prompt tokens and image cells attend to each other. A mask is the product of a mask
token, passed through a hypernetwork, and the upscaled image cells.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d, MatMul


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of the mask decoder.

    Attributes:
        depth: number of two-way layers.
        heads: attention heads.
        mlp_dim: width of the MLPs.
        mask_tokens: number of mask tokens. The first one is for a single mask.
        norm_eps: epsilon of the transformer's layer norms; 1e-5 in SAM, 1e-6 in EfficientViT-SAM.
    """

    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    mask_tokens: int = 4
    norm_eps: float = 1e-5


class CrossAttention(nn.Module):
    """Multi-head attention in C / `downsample` channels. q (B, Nq, C), k and v (B, Nk, C) -> (B, Nq, C)."""

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
    """Widen, ReLU, narrow. (..., C) -> same shape."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.lin1(x).relu())


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the image. Then the image attends to the tokens.

    The first block has no positions to add in self-attention.
    """

    def __init__(self, dim: int, config: DecoderConfig, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = CrossAttention(dim, config.heads)
        self.norm1 = nn.LayerNorm(dim, config.norm_eps)
        self.cross_attn_token_to_image = CrossAttention(dim, config.heads, 2)
        self.norm2 = nn.LayerNorm(dim, config.norm_eps)
        self.mlp = MlpBlock(dim, config.mlp_dim)
        self.norm3 = nn.LayerNorm(dim, config.norm_eps)
        self.norm4 = nn.LayerNorm(dim, config.norm_eps)
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
    """Image cells (B, cells, C) and prompt tokens (B, T, C) -> tokens and cells of the same shapes.

    After `depth` two-way blocks, the tokens attend to the image once more.
    """

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, config, first=i == 0) for i in range(config.depth))
        self.final_attn_token_to_image = CrossAttention(dim, config.heads, 2)
        self.norm_final_attn = nn.LayerNorm(dim, config.norm_eps)

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
    """Decode an image embedding and prompt tokens into one low-res mask per prompt.

    This is SAM with `multimask_output=False`. The mask has four times the side of the embedding grid. The
    other mask tokens take part in attention, as in the checkpoint, but their hypernetworks are not computed.
    """

    def __init__(self, dim: int, config: DecoderConfig) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, config)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(config.mask_tokens, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Mlp(dim, dim // 8) for _ in range(config.mask_tokens))
        self.iou_prediction_head = Mlp(dim, config.mask_tokens)
        self.mask_product = MatMul()

    def tokens(self, sparse: Tensor) -> Tensor:
        """Put the decoder's own tokens (IoU, masks) before the prompts: (N, 2, C) -> (N, T, C)."""
        fixed = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        return torch.cat([fixed.expand(sparse.shape[0], -1, -1), sparse], 1)

    def transform(self, image: Tensor, positions: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Run the transformer on an image and its prompts.

        Args:
            image: (N, C, g, g), with the dense prompt added.
            positions: (1, C, g, g), positional encoding of the grid.
            sparse: (N, 2, C), prompt tokens.

        Returns:
            Output tokens (N, T, C) and the image (N, C, g, g).
        """
        cells = image.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(cells, positions.flatten(2).transpose(1, 2), self.tokens(sparse))
        return tokens, cells.transpose(1, 2).unflatten(2, image.shape[2:])

    def mask(self, tokens: Tensor, image: Tensor) -> Tensor:
        """Output tokens (N, T, C) and image (N, C, g, g) -> low-res mask logits (N, 1, 4g, 4g)."""
        upscaled = self.output_upscaling(image)
        weights = self.output_hypernetworks_mlps[0](tokens[:, 1:2])
        return self.mask_product(weights, upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])

    def forward(self, image: Tensor, positions: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs of `transform` -> low-res mask logits (N, 1, 4g, 4g) and the mask's predicted IoU (N, 1)."""
        tokens, image = self.transform(image, positions, sparse)
        return self.mask(tokens, image), self.iou_prediction_head(tokens[:, 0])[:, :1]
