"""SAM's prompt encoder, for box prompts only.

The study uses no point or mask prompts. Their weights are kept so that checkpoints load completely.
"""

import math

import torch
from torch import Tensor, nn

from .layers import LayerNorm2d


class RandomPositions(nn.Module):
    """Random Fourier features of positions in the unit square. The projection is a saved buffer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encode x, y in 0..1: (..., 2) -> (..., 2 * features)."""
        # bf16 cannot tell neighbouring pixels apart
        with torch.autocast(coordinates.device.type, enabled=False):
            angles = 2 * math.pi * ((2 * coordinates - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], -1)


class PromptEncoder(nn.Module):
    """Boxes (N, 4) x_min, y_min, x_max, y_max in px of the frame -> sparse tokens (N, 2, C), one per corner.

    Args:
        dim: channels C of the embedding.
        mask_channels: width of the layers for mask prompts, which are not used.

    Attributes:
        frame: side of the square in which boxes are given, by which they are divided. The model sets it.
        grid: side of the image embedding in cells. The model sets it.
    """

    frame: int
    grid: int

    def __init__(self, dim: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.pe_layer = RandomPositions(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def forward(self, boxes: Tensor) -> Tensor:
        # half a pixel is added to reach the centre of the corner's pixel
        corners = (boxes.reshape(-1, 2, 2) + 0.5) / self.frame
        kinds = torch.cat([self.point_embeddings[2].weight, self.point_embeddings[3].weight])
        return self.pe_layer(corners) + kinds

    def dense(self) -> Tensor:
        """Return what is added to every cell of the embedding without a mask prompt: (1, C, 1, 1)."""
        return self.no_mask_embed.weight[:, :, None, None]

    def image_positions(self) -> Tensor:
        """Return the positional encoding of the embedding grid: (1, C, grid, grid)."""
        centres = (torch.arange(self.grid, device=self.no_mask_embed.weight.device) + 0.5) / self.grid
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        return self.pe_layer(torch.stack([x, y], -1)).permute(2, 0, 1)[None]
