"""SAM's prompt encoder, box prompts only: the study never clicks points nor feeds masks back, but keeps their weights so that checkpoints load whole."""

import math

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d


class RandomPositions(nn.Module):
    """Random Fourier features of a position in the unit square. The projection is a saved buffer of the checkpoint."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, coordinates: Tensor) -> Tensor:
        """(..., 2) x, y in 0..1 -> (..., 2 * features)."""
        with torch.autocast(
            coordinates.device.type, enabled=False
        ):  # bf16 cannot tell neighbouring pixels apart
            angles = 2 * math.pi * ((2 * coordinates - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Boxes to tokens: (N, 4) x_min, y_min, x_max, y_max in model pixels -> sparse (N, 2, C), one token a corner.

    Args:
        dim: channels C of the embedding.

    Attributes:
        image_size: side in px of the model's input, by which coordinates are scaled; set by the model.
        grid: side of the image embedding in cells; set by the model.
    """

    image_size: int
    grid: int

    def __init__(self, dim: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = RandomPositions(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2), LayerNorm2d(mask_channels // 4), nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2), LayerNorm2d(mask_channels), nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )  # fmt: skip
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(self, boxes: Tensor) -> Tensor:
        corners = (
            boxes.reshape(-1, 2, 2) + 0.5
        ) / self.image_size  # half a pixel: to the centre of the corner's pixel
        kinds = torch.cat([self.point_embeddings[2].weight, self.point_embeddings[3].weight])
        return self.pe_layer(corners) + kinds

    def dense(self) -> Tensor:
        """What is added to every cell of the image embedding when no mask is prompted: (1, C, 1, 1)."""
        return self.no_mask_embed.weight[:, :, None, None]

    def image_positions(self) -> Tensor:
        """Positional encoding of the embedding grid: (1, C, grid, grid)."""
        centres = (torch.arange(self.grid, device=self.no_mask_embed.weight.device) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], -1)).permute(2, 0, 1)[None]
